//! Configurations that are missing, unreadable or wrong: the machine comes up all the same, and says what is wrong.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::bench::Bench;
use crate::disks::{self, Files, Format};
use crate::machine::Machine;
use crate::runner::Case;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "configuration/no-user-data", memory: 256, run: no_user_data },
    Case { name: "configuration/unreadable-disk", memory: 256, run: unreadable_disk },
    Case { name: "configuration/unreadable-file", memory: 256, run: unreadable_file },
    Case { name: "configuration/mistake-names-its-line", memory: 256, run: mistake },
    Case { name: "configuration/mistake-keeps-the-last-good-one", memory: 256, run: last_good },
    Case { name: "configuration/user-data-that-comes-later", memory: 256, run: late_user_data },
];

/// The problems that `berth status` lists, in one text.
fn problems(machine: &mut Machine) -> Result<String> {
    let status = machine.guest.berth(&["status"])?;
    let problems = status["problems"].as_array().cloned().unwrap_or_default();
    Ok(problems.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n"))
}

fn no_user_data(bench: &Bench) -> Result<()> {
    let mut machine = bench.machine().start()?;
    machine.wait_until_settled()?;
    let status = machine.guest.berth(&["status"])?;
    ensure!(status["configuration_sources"].as_array().is_some_and(Vec::is_empty), "{status}");
    // The network comes up without being configured.
    machine.guest.wait_for_leases(1)
}

fn unreadable_disk(bench: &Bench) -> Result<()> {
    let disk = bench.path("broken.img");
    disks::build(&Files::new().with("berth.toml", "hostname = \"dock1\"\n"), Format::Ext4, disks::LABEL, &disk)?;
    // Superblock and label stay (1024..2048); the group descriptors behind them are what a mount reads next.
    let mut bytes = std::fs::read(&disk)?;
    bytes.iter_mut().skip(2048).take(1 << 20).for_each(|byte| *byte = 0xa5);
    std::fs::write(&disk, bytes)?;
    let mut machine = bench.machine().disk(&disk).start()?;
    let line = machine.wait_until_settled()?;
    ensure!(line.contains("degraded"), "the machine finds nothing wrong");
    let problems = problems(&mut machine)?;
    ensure!(problems.contains("vdb"), "the disk is not named: {problems:?}");
    Ok(())
}

fn unreadable_file(bench: &Bench) -> Result<()> {
    let files = Files::new().with("berth.toml", b"hostname = \"\xff\xfe\"\n".to_vec());
    let mut machine = bench.machine().user_data(&files)?.start()?;
    let line = machine.wait_until_settled()?;
    ensure!(line.contains("degraded"), "the machine finds nothing wrong");
    let problems = problems(&mut machine)?;
    ensure!(problems.contains("berth.toml"), "the file is not named: {problems:?}");
    Ok(())
}

fn mistake(bench: &Bench) -> Result<()> {
    let configuration = "hostname = \"dock1\"\n\n[containers.web]\nimage = \"localhost/web:1\"\nmemmory = \"64M\"\n";
    let mut machine = bench.machine().user_data(&Files::new().with("berth.toml", configuration))?.start()?;
    let line = machine.wait_until_settled()?;
    ensure!(line.contains("degraded"), "the machine finds nothing wrong");
    let console = machine.console.text();
    ensure!(console.contains("berth.toml:5"), "the console does not name line 5");
    ensure!(console.contains("memmory") && console.contains("memory"), "the console does not show and suggest");
    let problems = problems(&mut machine)?;
    ensure!(problems.contains("berth.toml:5"), "the line is not named: {problems:?}");
    // Nothing of a broken file is applied.
    ensure!(machine.guest.shell("hostname")?.trim() != "dock1", "half of the file was applied");
    Ok(())
}

fn last_good(bench: &Bench) -> Result<()> {
    let disk = {
        let good = Files::new().with("berth.toml", "hostname = \"first\"\n");
        let mut machine = bench.machine().user_data(&good)?.start()?;
        machine.wait_until_ready()?;
        ensure!(machine.guest.shell("hostname")?.trim() == "first", "the first configuration is not in force");
        machine.guest.shutdown("powerdown")?;
        machine.wait_until_off(crate::wait::ANSWER)?;
        machine.disk().to_owned()
    };
    let bad = Files::new().with("berth.toml", "hostname = \"second\"\nhostnames = 1\n");
    let mut machine = bench.machine().system_disk(&disk).user_data(&bad)?.start()?;
    let line = machine.wait_until_settled()?;
    ensure!(line.contains("degraded"), "the machine finds nothing wrong");
    ensure!(machine.guest.shell("hostname")?.trim() == "first", "the last good configuration is not in force");
    Ok(())
}

fn late_user_data(bench: &Bench) -> Result<()> {
    let disk = bench.path("late.img");
    disks::build(&Files::new().with("berth.toml", "hostname = \"late\"\n"), Format::Fat, disks::LABEL, &disk)?;
    let mut machine = bench.machine().with_free_slot().start()?;
    machine.wait_until_settled()?;
    machine.attach_disk(&disk)?;
    machine.guest.shell("until [ $(hostname) = late ]; do usleep 100000; done")?;
    Ok(())
}
