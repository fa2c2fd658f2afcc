//! Containers that print numbered lines without end, so that a line that is lost, doubled or out of order is seen.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::{Builder, Machine};
use crate::wait;

/// Fewer lines of a container than this prove nothing.
const LEAST_LINES: usize = 20;

/// How long reading all the lines may take.
const LONGEST_CHECK: Duration = Duration::from_secs(600);

/// Starts a machine with so many of them, called a0, a1 and so on; returns when they run.
///
/// # Errors
/// If one of them does not.
pub fn start(machine: Builder, bench: &Bench, count: usize) -> Result<Machine> {
    // Some 200 lines a second together, and few processes for it: an emulated processor has other things to do, too.
    let pause = count as f64 / 5.0;
    let script = format!("i=0; while true; do echo line $i; i=$((i+1)); [ $((i % 40)) = 0 ] && sleep {pause}; done");
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

/// Looks whether each container that runs has its cable, and none is left of one that does not.
///
/// # Errors
/// If it is otherwise and stays so.
pub fn check_cables(machine: &mut Machine, running: usize) -> Result<()> {
    let all = machine.guest.berth(&["ps", "--all"])?;
    let runs = |container: &&serde_json::Value| {
        let is_ours = container["name"].as_str().is_some_and(|name| name.starts_with('a'));
        is_ours && container["state"] == "running"
    };
    let found = all.as_array().context("a list")?.iter().filter(runs).count();
    ensure!(found == running, "{found} containers run instead of {running}");
    let deadline = Instant::now() + wait::ANSWER;
    loop {
        let links = machine.guest.shell("ls /sys/class/net")?;
        // The bridge is called berth0.
        let cables = links.split_whitespace().filter(|link| link.starts_with("berth0-")).count();
        if cables == running {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{running} containers have {cables} cables: {links}");
    }
}

/// Stops the containers and looks whether a line is missing, doubled or out of order.
///
/// # Errors
/// If one is, with its place.
pub fn check_lines(machine: &mut Machine, count: usize) -> Result<()> {
    let names: Vec<String> = (0..count).map(|number| format!("a{number}")).collect();
    let names = names.join(" ");
    // Who began last may have said little until now.
    let enough = LEAST_LINES + 1;
    // One request for all of them: on emulated processors each takes its time. A line is `a7 | line 12`.
    let script = format!(
        r#"berth logs --follow {names} | awk '++lines[$1] == {enough} && ++all == {count} {{ exit }}'
        set -o pipefail
        berth stop {names} > /dev/null || exit
        berth logs {names} | awk '
            $3 != "line" || $4 != lines[$1]++ {{ wrong = 1; print "line " lines[$1] " of " $1 " is: " $0; exit }}
            END {{
                if (wrong) exit 1
                for (name in lines) if (lines[name] > {LEAST_LINES}) all++; else print name ": " lines[name] " lines"
                exit all != {count}
            }}'"#
    );
    let checked = machine.guest.run_within(&["/bin/sh", "-c", &script], LONGEST_CHECK)?;
    ensure!(checked.code == 0, "{}{}", checked.stdout, checked.stderr);
    Ok(())
}
