//! Containers that print numbered lines without end, so that a line that is lost, doubled or out of order is seen.

use anyhow::{Context, Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::{Builder, Machine};

/// Starts a machine with so many of them, called a0, a1 and so on; returns when they run.
///
/// # Errors
/// If one of them does not.
pub fn start(machine: Builder, bench: &Bench, count: usize) -> Result<Machine> {
    // Some 500 lines a second together.
    let pause = count as f64 / 50.0;
    let script = format!("i=0; while true; do echo line $i; i=$((i+1)); [ $((i % 10)) = 0 ] && sleep {pause}; done");
    let archive = bench.shell_image("localhost/a:1", &script)?.docker_archive();
    let container = |number| format!("[containers.a{number}]\nimage = \"localhost/a:1\"\nstop_signal = \"SIGKILL\"\n");
    let configuration: String = (0..count).map(container).collect();
    let files = Files::new().with("berth.toml", configuration.as_str()).with("images/a.tar", archive);
    let mut machine = machine.user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.wait()?;
    Ok(machine)
}

/// Name, state, process, start and restarts of every container: what must stay.
///
/// # Errors
/// If the machine does not say.
pub fn processes(machine: &mut Machine) -> Result<String> {
    let list = machine.guest.berth(&["ps", "--all"])?;
    let line = |container: &serde_json::Value| {
        let fields = ["name", "state", "pid", "started_us", "restarts"].map(|field| container[field].to_string());
        fields.join(" ")
    };
    Ok(list.as_array().context("a list")?.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Stops the containers and looks whether a line is missing, doubled or out of order.
///
/// # Errors
/// If one is, with its place.
pub fn check_lines(machine: &mut Machine, count: usize) -> Result<()> {
    for number in 0..count {
        let name = format!("a{number}");
        machine.guest.shell(&format!("berth stop {name}"))?;
        machine.guest.wait_for_state(&name, "stopped")?;
        let check = "awk '$1 != \"line\" || $2 != NR - 1 { print \"line \" NR \": \" $0; exit 1 } END { print NR }'";
        let lines = machine.guest.shell(&format!("set -o pipefail; berth logs {name} | {check}"))?;
        ensure!(lines.trim().parse::<u32>()? > 20, "{name} has printed {lines} lines");
    }
    Ok(())
}
