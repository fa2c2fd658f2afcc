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

fn user_containers(machine: &mut Machine) -> Result<String> {
    let all = chatty::processes(machine)?;
    let of_users = all.lines().filter(|line| line.starts_with("\"a"));
    Ok(of_users.collect::<Vec<_>>().join("\n"))
}

fn killed(bench: &Bench) -> Result<()> {
    let mut machine = chatty::start(bench.machine(), bench, COUNT)?;
    let before = user_containers(&mut machine)?;
    for restarts in 1..4 {
        for name in SERVICES {
            let pid = machine.guest.container(name)?["pid"].clone();
            let back =
                format!("until berth inspect {name} 2>/dev/null | grep -q '\"restarts\": {restarts}'; do :; done");
            machine.guest.shell(&format!("kill -KILL {pid}; {back}"))?;
            machine.guest.wait_for_state(name, "running")?;
        }
    }
    // All of them in one moment.
    let kill = format!("for i in {}; do echo 1 > /sys/fs/cgroup/system/$i/cgroup.kill; done", SERVICES.join(" "));
    machine.guest.shell(&kill)?;
    for name in SERVICES {
        machine
            .guest
            .shell(&format!("until berth inspect {name} 2>/dev/null | grep -q '\"restarts\": 4'; do :; done"))?;
        machine.guest.wait_for_state(name, "running")?;
    }
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
