//! Layers on the disk: what has changed there does not run, and what nobody has any more is not mounted.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::archive::{Image, Layer};
use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "layers/changed-on-the-disk", memory: 256, run: changed },
    Case { name: "layers/replaced", memory: 256, run: replaced },
    Case { name: "layers/mounted-once", memory: 256, run: mounted_once },
];

/// What a disk has nowhere else: more than a block of it.
fn page() -> String {
    (0..400).map(|line| format!("this is line {line} of the page in the layer\n")).collect()
}

fn image(bench: &Bench, name: &str) -> Result<Image> {
    let page = Layer::new().folder("srv").file("srv/page", 0o644, page().as_bytes());
    Ok(bench.shell_image(name, "exec sleep 100000")?.layer(page))
}

fn files(bench: &Bench) -> Result<Files> {
    let configuration = "[containers.a]\nimage = \"localhost/a:1\"\n[containers.b]\nimage = \"localhost/a:1\"\n";
    Ok(Files::new()
        .with("berth.toml", configuration)
        .with("images/a.tar", image(bench, "localhost/a:1")?.docker_archive()))
}

/// Changes a byte of every place that has this text; how many there were.
fn change(disk: &Path, text: &[u8]) -> Result<usize> {
    const WINDOW: usize = 1 << 20;
    let file = File::options().read(true).write(true).open(disk)?;
    let length = file.metadata()?.len();
    let mut window = vec![0; WINDOW + text.len()];
    let mut changed = 0;
    let mut at = 0;
    while at < length {
        let read = file.read_at(&mut window, at)?;
        let there = window.get(..read).unwrap_or_default();
        for offset in there.windows(text.len()).enumerate().filter(|(_, found)| *found == text).map(|(at, _)| at) {
            // One that begins behind the window is found with the next one.
            if offset < WINDOW {
                file.write_all_at(b"T", at + offset as u64)?;
                changed += 1;
            }
        }
        at += WINDOW as u64;
    }
    Ok(changed)
}

fn changed(bench: &Bench) -> Result<()> {
    let mut machine = bench.machine().user_data(&files(bench)?)?.start()?;
    machine.wait_until_ready()?;
    ensure!(machine.guest.read_in("a", "/srv/page")? == page(), "the page is not as it was packed");
    let described = machine.guest.shell("berth image inspect localhost/a:1")?;
    let protected = described.matches("\"verity\"").count();
    ensure!(protected == 2 && !described.contains("\"verity\": null"), "{described}");
    machine.guest.shutdown("powerdown")?;
    machine.wait_until_off(wait::ANSWER)?;
    let disk = machine.disk().to_owned();
    drop(machine);
    ensure!(change(&disk, b"this is line 300 of the page")? > 0, "the page is nowhere on the disk");

    let mut machine = bench.machine().system_disk(&disk).user_data(&files(bench)?)?.start()?;
    machine.wait_until_settled()?;
    machine.guest.wait_for_state("a", "running")?;
    let output = machine.guest.run(&["/usr/bin/berth", "exec", "a", "cat", "/srv/page"])?;
    ensure!(output.code != 0, "a changed page is read");
    ensure!(!output.stdout.contains("his is line 300 of the page"), "a changed page is read: {}", output.stdout);
    Ok(())
}

fn replaced(bench: &Bench) -> Result<()> {
    let mut machine = bench.machine().user_data(&files(bench)?)?.start()?;
    machine.wait_until_ready()?;
    let replace =
        "for file in /var/lib/berth/images/layers/sha256/*; do cp $file /var/copy && mv /var/copy $file; done";
    machine.guest.shell(replace)?;
    machine.guest.shell("berth restart a; true")?;
    machine.guest.shell("until berth ps --json | grep -q 'was changed on disk'; do usleep 100000; done")?;
    // The other one has what it had, and the archive has it all again.
    ensure!(machine.guest.read_in("b", "/srv/page")? == page(), "the other container has lost its layers");
    machine.guest.shell("berth import /run/berth/user-data/images/a.tar && berth restart a")?;
    machine.guest.wait_for_state("a", "running")?;
    ensure!(machine.guest.read_in("a", "/srv/page")? == page(), "the page is not as it was packed");
    Ok(())
}

/// The layers that PID 1 has mounted.
fn mounts(machine: &mut Machine) -> Result<usize> {
    Ok(machine.guest.shell("grep -c ' /run/layers/' /proc/1/mountinfo; true")?.trim().parse()?)
}

fn mounted_once(bench: &Bench) -> Result<()> {
    let files = files(bench)?.with("images/c.tar", other(bench)?.docker_archive());
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    ensure!(mounts(&mut machine)? == 2, "two containers of one image: {} mounts", mounts(&mut machine)?);
    machine.guest.shell("berth run -d --name c localhost/c:1")?;
    machine.guest.wait_for_state("c", "running")?;
    ensure!(mounts(&mut machine)? == 3, "one layer more: {} mounts", mounts(&mut machine)?);
    let seen = machine.guest.shell("berth exec c cat /proc/self/mountinfo; cat /proc/self/mountinfo")?;
    ensure!(!seen.contains("/run/layers/"), "others have clones of the mounts: {seen}");
    machine.guest.shell("berth rm -f c")?;
    ensure!(mounts(&mut machine)? == 2, "the layer of a container that is gone is mounted");
    Ok(())
}

/// It shares the layer of busybox.
fn other(bench: &Bench) -> Result<Image> {
    let own = Layer::new().file("own", 0o644, b"of another image");
    Ok(bench.shell_image("localhost/c:1", "exec sleep 100000")?.layer(own))
}
