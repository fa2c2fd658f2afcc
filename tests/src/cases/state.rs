//! What persists: the state partition, and what happens without one.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use gptman::GPT;

use crate::archive::Layer;
use crate::bench::Bench;
use crate::disks::{self, Files};
use crate::machine::Machine;
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "state/survives-a-reboot", memory: 256, run: survives_a_reboot },
    Case { name: "state/survives-a-reset", memory: 256, run: survives_a_reset },
    Case { name: "state/logs-of-before-a-reset", memory: 256, run: logs_of_before },
    Case { name: "state/stopped-by-hand", memory: 256, run: stopped_by_hand },
    Case { name: "state/grows-into-a-larger-disk", memory: 256, run: grows },
    Case { name: "state/no-partition", memory: 256, run: no_partition },
    Case { name: "state/foreign-partition-is-left-alone", memory: 256, run: foreign_partition },
    Case { name: "state/corrupted-file-system", memory: 256, run: corrupted },
    Case { name: "state/read-only-disk", memory: 256, run: read_only_disk },
    Case { name: "state/full", memory: 256, run: full },
    Case { name: "state/broken-while-it-runs", memory: 256, run: breaks },
    Case { name: "state/clock-in-1970", memory: 256, run: |bench| wrong_clock(bench, 1970) },
    Case { name: "state/clock-in-2100", memory: 256, run: |bench| wrong_clock(bench, 2100) },
    Case { name: "state/root-is-read-only", memory: 256, run: read_only_root },
];

/// Counts its starts in a volume.
fn counting(bench: &Bench) -> Result<Files> {
    let script = "echo started >> /data/starts; sync; echo done > /tmp/done; exec sleep 100000";
    let configuration = "[containers.a]\nimage = \"localhost/a:1\"\nvolumes = [\"data:/data\"]\n";
    let archive = bench.shell_image("localhost/a:1", script)?.docker_archive();
    Ok(Files::new().with("berth.toml", configuration).with("images/a.tar", archive))
}

const STARTS: &str = "/var/lib/berth/volumes/data/starts";

fn survives_a_reboot(bench: &Bench) -> Result<()> {
    let mut machine = bench.machine().user_data(&counting(bench)?)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.read_in("a", "/tmp/done")?;
    ensure!(machine.guest.read(STARTS)? == "started\n", "the first start");
    let unpacked = "find /var/lib/berth/images/layers -type f -exec stat -c '%n %i %Y' {} +";
    let before = machine.guest.shell(unpacked)?;
    ensure!(!before.is_empty(), "the layer is nowhere");

    let line = machine.reboot()?;
    ensure!(line.contains("ready"), "{line}");
    machine.guest.shell(&format!("until [ $(wc -l < {STARTS}) = 2 ]; do usleep 100000; done"))?;
    ensure!(machine.guest.shell(unpacked)? == before, "the layer was unpacked again");
    Ok(())
}

fn stopped_by_hand(bench: &Bench) -> Result<()> {
    let archive = bench.shell_image("localhost/a:1", "exec sleep 100000")?.docker_archive();
    let container =
        |name: &str, policy: &str| format!("[containers.{name}]\nimage = \"localhost/a:1\"\nrestart = \"{policy}\"\n");
    let configuration = container("kept", "unless-stopped") + &container("again", "always");
    let files = Files::new().with("berth.toml", configuration.as_str()).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.wait()?;
    machine.guest.shell("berth stop kept again")?;
    machine.reboot()?;
    machine.guest.wait_for_state("again", "running")?;
    let kept = machine.guest.container("kept")?;
    ensure!(kept["state"] == "stopped" && kept["reason"].to_string().contains("berth start kept"), "{kept}");
    machine.guest.shell("berth start kept")?;
    machine.guest.wait_for_state("kept", "running").map(drop)
}

fn survives_a_reset(bench: &Bench) -> Result<()> {
    let mut machine = bench.machine().user_data(&counting(bench)?)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.read_in("a", "/tmp/done")?;
    for boot in 2..4 {
        let mark = machine.console.mark();
        machine.qmp.reset()?;
        let line = machine.wait_until_settled_after(mark)?;
        ensure!(line.contains("ready"), "boot {boot}: {line}");
        machine.guest.wait()?;
        machine.guest.shell(&format!("until [ $(wc -l < {STARTS}) = {boot} ]; do usleep 100000; done; sync"))?;
    }
    Ok(())
}

/// What a container has said until a second before a reset is there after it, without a gap.
fn logs_of_before(bench: &Bench) -> Result<()> {
    let script = "i=0; while true; do echo line $i; i=$((i+1)); usleep 100000; done";
    let archive = bench.shell_image("localhost/a:1", script)?.docker_archive();
    let files =
        Files::new().with("berth.toml", "[containers.a]\nimage = \"localhost/a:1\"\n").with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.wait()?;
    let last = |machine: &mut Machine| -> Result<usize> {
        let line = machine.guest.shell("until berth logs --tail 1 a | grep line; do :; done")?;
        line.trim().trim_start_matches("line ").parse().with_context(|| format!("a number in {line:?}"))
    };
    let seen = last(&mut machine)?;
    // Lines of more than a second on.
    while last(&mut machine)? < seen + 15 {}
    let mark = machine.console.mark();
    machine.qmp.reset()?;
    machine.wait_until_settled_after(mark)?;
    machine.guest.wait()?;
    // Those of the next run begin with 0 again.
    let kept = machine.guest.shell("until [ $(berth logs a | grep -c '^line 0$') = 2 ]; do :; done; berth logs a")?;
    let kept: Vec<&str> = kept.lines().collect();
    let expected: Vec<String> = (0..=seen).map(|number| format!("line {number}")).collect();
    ensure!(
        kept.len() > seen && kept[..=seen] == expected,
        "line {seen} was seen before the reset, and these are left: {kept:?}"
    );
    Ok(())
}

fn grows(bench: &Bench) -> Result<()> {
    const GIB: u64 = 1 << 30;
    let mut machine = bench.machine().disk_size(2 * GIB).start()?;
    machine.wait_until_settled()?;
    let room = |machine: &mut Machine| -> Result<u64> {
        let table = machine.guest.shell("df -k /var")?;
        let size = table.lines().last().and_then(|line| line.split_whitespace().nth(1)).context("df's second line")?;
        Ok(size.parse::<u64>()? * 1024)
    };
    let first = room(&mut machine)?;
    ensure!(first > GIB * 3 / 2, "a state of {first} bytes on a disk of 2 GiB");
    machine.guest.shell("echo kept > /var/kept")?;
    machine.guest.shutdown("powerdown")?;
    machine.wait_until_off(wait::ANSWER)?;
    let disk = machine.disk().to_owned();
    drop(machine);

    // The same disk in a larger machine.
    File::options().write(true).open(&disk)?.set_len(4 * GIB)?;
    let mut machine = bench.machine().system_disk(&disk).start()?;
    machine.wait_until_settled()?;
    let second = room(&mut machine)?;
    ensure!(second > GIB * 7 / 2, "a state of {second} bytes on a disk of 4 GiB");
    ensure!(machine.guest.read("/var/kept")? == "kept\n", "what was there is gone");
    Ok(())
}

/// A copy of the image, changed.
fn changed_disk(bench: &Bench, change: impl FnOnce(&mut File, &mut GPT) -> Result<()>) -> Result<std::path::PathBuf> {
    let path = bench.path("changed.img");
    disks::copy_sparse(&bench.artifacts().disk, &path, None)?;
    let mut file = File::options().read(true).write(true).open(&path)?;
    let mut table = GPT::find_from(&mut file)?;
    change(&mut file, &mut table)?;
    Ok(path)
}

fn is_state(partition: &gptman::GPTPartitionEntry) -> bool {
    partition.partition_name.as_str() == "BERTH-STATE"
}

fn comes_up_in_memory(bench: &Bench, disk: &Path) -> Result<Machine> {
    let mut machine = bench.machine().system_disk(disk).user_data(&counting(bench)?)?.start()?;
    let line = machine.wait_until_settled()?;
    ensure!(line.contains("degraded"), "the machine finds nothing wrong");
    let status = machine.guest.berth(&["status"])?;
    ensure!(status["state_storage"] == "memory", "{status}");
    ensure!(status["problems"].to_string().contains("state"), "{status}");
    machine.guest.read_in("a", "/tmp/done")?;
    Ok(machine)
}

fn no_partition(bench: &Bench) -> Result<()> {
    let disk = changed_disk(bench, |file, table| {
        let number = table.iter().find(|(_, partition)| is_state(partition)).map(|(number, _)| number);
        table.remove(number.context("the image has no state partition")?)?;
        Ok(table.write_into(file).map(drop)?)
    })?;
    comes_up_in_memory(bench, &disk).map(drop)
}

fn foreign_partition(bench: &Bench) -> Result<()> {
    let foreign = vec![0xa5; 65_536];
    let mut start = 0;
    let disk = changed_disk(bench, |file, table| {
        let found = table.iter().find(|(_, partition)| is_state(partition));
        let (_, state) = found.context("the image has no state partition")?;
        start = state.starting_lba * table.sector_size;
        file.seek(SeekFrom::Start(start))?;
        Ok(file.write_all(&foreign)?)
    })?;
    let mut machine = comes_up_in_memory(bench, &disk)?;
    machine.guest.shutdown("powerdown")?;
    machine.wait_until_off(wait::ANSWER)?;
    let mut file = File::open(&disk)?;
    file.seek(SeekFrom::Start(start))?;
    let mut left = vec![0; foreign.len()];
    file.read_exact(&mut left)?;
    ensure!(left == foreign, "the partition was written to");
    Ok(())
}

fn corrupted(bench: &Bench) -> Result<()> {
    // A file system that was used, with its descriptors and inode tables overwritten and the superblock left.
    let disk = {
        let mut machine = bench.machine().start()?;
        machine.wait_until_ready()?;
        machine.guest.shutdown("powerdown")?;
        machine.wait_until_off(wait::ANSWER)?;
        machine.disk().to_owned()
    };
    let mut file = File::options().read(true).write(true).open(&disk)?;
    let table = GPT::find_from(&mut file)?;
    let (_, state) = table.iter().find(|(_, partition)| is_state(partition)).context("a state partition")?;
    file.seek(SeekFrom::Start(state.starting_lba * table.sector_size + 4096))?;
    file.write_all(&vec![0xa5; 4 << 20])?;
    drop(file);
    comes_up_in_memory(bench, &disk).map(drop)
}

fn read_only_disk(bench: &Bench) -> Result<()> {
    let mut machine = bench.machine().read_only().user_data(&counting(bench)?)?.start()?;
    let line = machine.wait_until_settled()?;
    ensure!(line.contains("degraded"), "the machine finds nothing wrong");
    let status = machine.guest.berth(&["status"])?;
    ensure!(status["state_storage"] == "memory", "{status}");
    ensure!(status["problems"].to_string().contains("state partition"), "{status}");
    machine.guest.read_in("a", "/tmp/done").map(drop)
}

fn full(bench: &Bench) -> Result<()> {
    let noise = (0..1_u32 << 18).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes());
    let layer = Layer::new().file("noise", 0o644, &noise.collect::<Vec<_>>());
    let other = bench.shell_image("localhost/b:1", "exec sleep 100000")?.layer(layer).docker_archive();
    let files = counting(bench)?.with("archives/b.tar", other);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.read_in("a", "/tmp/done")?;
    machine.guest.shell("dd if=/dev/zero of=/var/filled bs=1M 2> /dev/null; sync; true")?;
    let status = machine.guest.berth(&["status"])?;
    ensure!(status["problems"].to_string().contains("/var is full"), "before a reboot: {status}");
    // It may say so before its end, too.
    let line = machine.reboot()?;
    ensure!(line.contains("degraded"), "the machine finds nothing wrong");
    let status = machine.guest.berth(&["status"])?;
    ensure!(status["problems"].to_string().contains("/var is full"), "{status}");
    machine.guest.wait_for_state("a", "running")?;
    let import = ["/usr/bin/berth", "import", "/run/berth/user-data/archives/b.tar"];
    let refused = machine.guest.run(&import)?;
    ensure!(refused.code == 1 && refused.stderr.contains("has no room for it"), "{refused:?}");
    machine.guest.shell("rm /var/filled; berth ps")?;
    let taken = machine.guest.run(&import)?;
    ensure!(taken.code == 0, "there is room again: {taken:?}");
    let status = machine.guest.berth(&["status"])?;
    ensure!(!status["problems"].to_string().contains("/var is full"), "there is room again: {status}");
    Ok(())
}

/// The kernel finds an error in the file system and lets nobody write any more.
fn breaks(bench: &Bench) -> Result<()> {
    // Answers without a file that would have to be opened on the disk. Who opens the question again before the one who
    // asked has closed it reads its end, which is no question.
    let script = "mkfifo /dev/shm/question; echo done > /dev/shm/done; \
                  while true; do if read word < /dev/shm/question; then echo $word again > /dev/shm/answer; fi; done";
    let archive = bench.shell_image("localhost/a:1", script)?.docker_archive();
    let files =
        Files::new().with("berth.toml", "[containers.a]\nimage = \"localhost/a:1\"\n").with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.read_in("a", "/dev/shm/done")?;
    let before = machine.guest.container("a")?;
    let device = machine.guest.berth(&["status"])?["state_storage"].as_str().unwrap_or_default().to_owned();
    machine.guest.shell(&format!("sync; echo by a test > /sys/fs/ext4/{device}/trigger_fs_error"))?;
    ensure!(machine.guest.run(&["/bin/touch", "/var/written"])?.code != 0, "the file system is as it was");
    machine.guest.shell("until berth status --json | grep -q '\"degraded\"'; do usleep 100000; done")?;
    let status = machine.guest.berth(&["status"])?;
    let said = format!("/var takes nothing more, its file system on {device} has found an error in itself: reboot");
    ensure!(status["problems"].to_string().contains(&said), "{status}");
    // The container runs on.
    let container = machine.guest.container("a")?;
    ensure!(container["pid"] == before["pid"] && container["state"] == "running", "{container}");
    let folder = format!("/proc/{}/root/dev/shm", container["pid"]);
    machine
        .guest
        .shell(&format!("echo here > {folder}/question; until [ -s {folder}/answer ]; do usleep 100000; done"))?;
    ensure!(machine.guest.read(&format!("{folder}/answer"))? == "here again\n", "another answer");
    // And what is to be done about it helps.
    let line = machine.reboot()?;
    ensure!(line.contains("ready"), "{line}");
    let status = machine.guest.berth(&["status"])?;
    ensure!(status["state_storage"] == device.as_str(), "{status}");
    Ok(())
}

fn wrong_clock(bench: &Bench, year: u32) -> Result<()> {
    let builder = bench.machine().clock(&format!("{year}-01-02T00:00:00"));
    let mut machine = builder.user_data(&counting(bench)?)?.start()?;
    let line = machine.wait_until_settled()?;
    // QEMU's clock and the kernel do not agree on 2100: the machine takes it for 2063, which is as wrong.
    let seen = machine.guest.shell("date +%Y")?;
    ensure!(line.contains("degraded"), "the machine finds nothing wrong");
    let status = machine.guest.berth(&["status"])?;
    ensure!(status["problems"].to_string().contains(&format!("it says {}", seen.trim())), "{status}");
    machine.guest.read_in("a", "/tmp/done")?;
    // With the clock set, nothing is wrong any more, until it is set to what hardware may be unable to say.
    let until = |state: &str| {
        format!("until berth status --json | grep -q '\"{state}\"'; do usleep 100000; done; berth status")
    };
    machine.guest.shell(&format!("date -s 2026-06-01; berth restart a; {}", until("ready")))?;
    machine.guest.wait_for_state("a", "running")?;
    let status = machine.guest.shell(&format!("date -s '2100-01-02 00:00'; {}", until("degraded")))?;
    ensure!(status.contains("the clock is wrong, it says 2100"), "{status}");
    // Containers begin and log in that year as in any other.
    machine.guest.shell("berth restart a")?;
    machine.guest.wait_for_state("a", "running")?;
    machine.guest.shell(&format!("date -s 2026-06-01; {}", until("ready"))).map(drop)
}

fn read_only_root(bench: &Bench) -> Result<()> {
    let mut machine = bench.machine().start()?;
    machine.wait_until_settled()?;
    // The kernel takes this for done and does nothing: EROFS cannot be written.
    machine.guest.run(&["/bin/mount", "-o", "remount,rw", "/"])?;
    let attempts = ["touch /written", "mkdir /usr/written", "echo x >> /etc/passwd"];
    for attempt in attempts {
        let output = machine.guest.run(&["/bin/sh", "-c", attempt])?;
        ensure!(output.code != 0, "`{attempt}` works");
    }
    let mounts = machine.guest.read("/proc/1/mounts")?;
    let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).context("a root")?;
    ensure!(root.contains(" erofs ro"), "{root}");
    Ok(())
}
