//! What a container may write to its own root file system: `storage`, by ext4's project quotas.

use anyhow::{Context, Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;
use crate::runner::Case;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "quota/of-a-container", memory: 256, run: limited },
    Case { name: "quota/without-one-in-the-file-system", memory: 256, run: without },
];

fn files(bench: &Bench) -> Result<Files> {
    let archive = bench.shell_image("localhost/a:1", "exec sleep 100000")?.docker_archive();
    let configuration = "[containers.small]\nimage = \"localhost/a:1\"\nstorage = \"4M\"\nvolumes = [\"data:/data\"]\n\
                         [containers.large]\nimage = \"localhost/a:1\"\nstorage = \"32M\"\n\
                         [containers.free]\nimage = \"localhost/a:1\"\n";
    Ok(Files::new().with("berth.toml", configuration).with("images/a.tar", archive))
}

/// Writes a file of so many MiB in a container; what dd said if that did not work.
fn fill(machine: &mut Machine, container: &str, path: &str, mebibytes: u32) -> Result<Option<String>> {
    let script = format!("dd if=/dev/zero of={path} bs=1M count={mebibytes} && sync");
    let output = machine.guest.run(&["/usr/bin/berth", "exec", container, "sh", "-c", &script])?;
    Ok((output.code != 0).then_some(output.stderr))
}

fn limited(bench: &Bench) -> Result<()> {
    let mut machine = bench.machine().user_data(&files(bench)?)?.start()?;
    machine.wait_until_ready()?;
    for name in ["small", "large", "free"] {
        machine.guest.wait_for_state(name, "running")?;
    }
    let refused = fill(&mut machine, "small", "/filled", 8)?.unwrap_or_default();
    ensure!(refused.contains("Quota exceeded") || refused.contains("No space"), "small wrote 8 MiB: {refused}");
    // Its volume is no part of it, and the others have their own limits or none.
    for (name, path) in [("small", "/data/filled"), ("large", "/filled"), ("free", "/filled")] {
        let refused = fill(&mut machine, name, path, 8)?;
        ensure!(refused.is_none(), "{name} {path}: {refused:?}");
    }
    // What each has written is known at once: its own 8 MiB and next to nothing else.
    machine.guest.shell("sync")?;
    let sizes = machine.guest.berth(&["ps", "--size"])?;
    for (name, least) in [("large", 8 << 20), ("free", 8 << 20), ("small", 0)] {
        let container = sizes.as_array().into_iter().flatten().find(|container| container["name"] == name);
        let container = container.with_context(|| format!("no {name}: {sizes}"))?;
        let written = container["written_bytes"].as_u64().unwrap_or_default();
        ensure!((least..least + (5 << 20)).contains(&written) && written > 0, "{container}");
        ensure!(container["image_bytes"].as_u64() > Some(0), "{container}");
    }
    ensure!(machine.guest.shell("berth ps -s")?.contains("(virtual "), "not docker's form");
    let refused = fill(&mut machine, "large", "/more", 40)?;
    ensure!(refused.is_some(), "large wrote 48 MiB");
    // What it removes is room again, also in a later boot, which keeps the limit.
    machine.reboot()?;
    machine.guest.wait_for_state("small", "running")?;
    ensure!(fill(&mut machine, "small", "/more", 2)?.is_some(), "small wrote more after a reboot");
    machine.guest.shell("berth exec small rm /filled /more")?;
    ensure!(fill(&mut machine, "small", "/more", 2)?.is_none(), "small cannot write after it has removed");
    ensure!(fill(&mut machine, "small", "/filled", 8)?.is_some(), "small has no limit any more");
    Ok(())
}

/// A state without project quotas: here, one in memory.
fn without(bench: &Bench) -> Result<()> {
    let machine = bench.machine().kernel_arguments("berth.state=memory").user_data(&files(bench)?)?;
    let mut machine = machine.start()?;
    machine.wait_until_settled()?;
    machine.guest.wait_for_state("small", "running")?;
    ensure!(fill(&mut machine, "small", "/filled", 8)?.is_none(), "there is a limit after all");
    let console = machine.console.text();
    ensure!(console.contains("container small: its `storage` has no effect"), "nobody says so");
    let sizes = machine.guest.berth(&["ps", "--size"])?;
    ensure!(sizes[0]["written_bytes"].is_null() && sizes[0]["image_bytes"].is_u64(), "{sizes}");
    Ok(())
}
