//! Services that are killed and stopped again and again, under the load of many containers: none of them notices, and no
//! line is lost.

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::chatty;
use crate::machine::Machine;
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "storm/killed-services", memory: 512, run: killed },
    Case { name: "storm/frozen-services", memory: 512, run: frozen },
    Case { name: "storm/stopped-services", memory: 512, run: stopped },
];

/// How many containers print numbered lines.
const COUNT: usize = 50;

const SERVICES: [&str; 5] = ["logs", "engine", "network", "control", "console"];

/// The one that this harness speaks through.
const AGENT: &str = "guest-agent";

fn user_containers(machine: &mut Machine) -> Result<String> {
    let all = chatty::processes(machine)?;
    let of_users = all.lines().filter(|line| line.starts_with("\"a"));
    Ok(of_users.collect::<Vec<_>>().join("\n"))
}

/// Kills these and the agent, with all that it has started. Nobody but PID 1 is left to say so, on a console that is hung up
/// with the shell on it.
fn kill_with_agent(machine: &mut Machine, services: &[&str]) -> Result<()> {
    let mark = machine.console.mark();
    let names = services.join(" ");
    let kill = format!("for i in {names} {AGENT}; do echo 1 > /sys/fs/cgroup/system/$i/cgroup.kill; done");
    machine.guest.start_the_last(&["/bin/sh", "-c", &kill])?;
    machine.console.wait_for(mark, wait::ANSWER, &format!("container {AGENT} was killed"))?;
    machine.guest.wait()
}

fn killed(bench: &Bench) -> Result<()> {
    let mut machine = chatty::start(bench.machine(), bench, COUNT)?;
    let before = user_containers(&mut machine)?;
    for restarts in 1..4 {
        for name in SERVICES {
            let pid = machine.guest.container(name)?["pid"].clone();
            let back =
                format!("until berth inspect {name} 2>/dev/null | grep -q '\"restarts\": {restarts}'; do :; done");
            let mark = machine.console.mark();
            machine.guest.shell(&format!("kill -KILL {pid}; {back}"))?;
            machine.console.wait_for(mark, wait::ANSWER, &format!("container {name} was killed by SIGKILL"))?;
            machine.guest.wait_for_state(name, "running")?;
        }
    }
    kill_with_agent(&mut machine, &[])?;
    // All of them in one moment.
    kill_with_agent(&mut machine, &SERVICES)?;
    for name in SERVICES {
        machine
            .guest
            .shell(&format!("until berth inspect {name} 2>/dev/null | grep -q '\"restarts\": 4'; do :; done"))?;
        machine.guest.wait_for_state(name, "running")?;
    }
    let agent = machine.guest.wait_for_state(AGENT, "running")?;
    ensure!(agent["restarts"] == 2, "{agent}");
    let after = user_containers(&mut machine)?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    chatty::check_cables(&mut machine, COUNT)?;
    chatty::check_lines(&mut machine, COUNT)?;
    chatty::check_cables(&mut machine, 0)
}

fn frozen(bench: &Bench) -> Result<()> {
    let mut machine = chatty::start(bench.machine(), bench, COUNT)?;
    let before = chatty::processes(&mut machine)?;
    for name in SERVICES {
        let file = format!("/sys/fs/cgroup/system/{name}/cgroup.freeze");
        machine.guest.shell(&format!("echo 1 > {file}"))?;
        if name != "control" {
            // Long enough for the pipes of the containers to be full if nobody reads them.
            machine.guest.shell("for i in 1 2 3 4 5; do berth ps --all >/dev/null || exit 1; sleep 1; done")?;
        }
        machine.guest.shell(&format!("echo 0 > {file}"))?;
    }
    let after = chatty::processes(&mut machine)?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    chatty::check_lines(&mut machine, COUNT)
}

/// SIGSTOP, which PID 1 takes back, again and again.
fn stopped(bench: &Bench) -> Result<()> {
    let mut machine = chatty::start(bench.machine(), bench, COUNT)?;
    let before = chatty::processes(&mut machine)?;
    for _ in 0..5 {
        for name in SERVICES {
            let pid = machine.guest.container(name)?["pid"].clone();
            let mark = machine.console.mark();
            machine.guest.shell(&format!("kill -STOP {pid}"))?;
            let told = format!("container {name} was stopped by SIGSTOP: it goes on");
            machine.console.wait_for_line(mark, wait::ANSWER, |line| line.contains(&told))?;
        }
    }
    let after = chatty::processes(&mut machine)?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    chatty::check_lines(&mut machine, COUNT)
}
