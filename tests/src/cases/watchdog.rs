//! Services that stand still, a machine that does, and what the list of boots says afterwards.

use anyhow::{Context, Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::{Machine, Mark};
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "watchdog/stopped-services-go-on", memory: 256, run: stopped_services },
    Case { name: "watchdog/silent-control", memory: 256, run: silent_control },
    Case { name: "watchdog/control-that-stays-silent", memory: 256, run: stays_silent },
    Case { name: "watchdog/boots-and-what-ended-them", memory: 256, run: boots },
];

/// A machine with the shortest of time-outs.
fn guarded(bench: &Bench) -> Result<Machine> {
    let files = Files::new().with("berth.toml", "[watchdog]\ntimeout = \"5s\"\n");
    let mut machine = bench.machine().watchdog().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.wait()?;
    Ok(machine)
}

fn stopped_services(bench: &Bench) -> Result<()> {
    let mut machine = bench.machine().start()?;
    machine.wait_until_ready()?;
    machine.guest.wait()?;
    for name in ["control", "engine", "logs", "network", "console"] {
        let pid = machine.guest.container(name)?["pid"].clone();
        let mark = machine.console.mark();
        machine.guest.shell(&format!("kill -STOP {pid}"))?;
        let told = format!("container {name} was stopped by SIGSTOP: it goes on");
        machine.console.wait_for_line(mark, wait::ANSWER, |line| line.contains(&told))?;
        let container = machine.guest.container(name)?;
        ensure!(container["pid"] == pid && container["restarts"] == 0, "{container}");
        ensure!(machine.guest.shell(&format!("grep State /proc/{pid}/status"))?.contains('S'), "{name} stands still");
    }
    Ok(())
}

/// Stops the processes of a cgroup as nothing else does: even PID 1 can be stopped so.
fn freeze(cgroup: &str) -> String {
    format!("echo 1 > /sys/fs/cgroup/{cgroup}/cgroup.freeze")
}

fn silent_control(bench: &Bench) -> Result<()> {
    let mut machine = guarded(bench)?;
    let status = machine.guest.shell("berth status")?;
    ensure!(status.contains("6300ESB timer, 5 s"), "{status}");
    let mark = machine.console.mark();
    machine.guest.shell(&freeze("system/control"))?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.contains("container control has not answered"))?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.contains("container control is ready"))?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.contains("the control API answers again"))?;
    let control = machine.guest.container("control")?;
    ensure!(control["restarts"] == 1, "{control}");
    Ok(())
}

/// A machine whose control API nothing brings back is given up.
fn stays_silent(bench: &Bench) -> Result<()> {
    let mut machine = guarded(bench)?;
    let mark = machine.console.mark();
    let again = format!("while true; do {}; usleep 20000; done 2> /dev/null", freeze("system/control"));
    machine.guest.start_the_last(&["/bin/sh", "-c", &again])?;
    let told = |line: &str| line.contains("the control API does not answer, however often it is started");
    machine.console.wait_for_line(mark, wait::ANSWER, told)?;
    let mark = machine.console.mark();
    let reason = last_end(&mut machine, mark)?;
    ensure!(reason.contains("the watchdog has reset it: the control API did not answer"), "{reason}");
    Ok(())
}

/// What the last boot is said to have ended by.
fn last_end(machine: &mut Machine, mark: Mark) -> Result<String> {
    machine.wait_until_settled_after(mark)?;
    machine.guest.wait()?;
    let boots = machine.guest.berth(&["boot", "--list"])?;
    let [.., last, this] = boots.as_array().context("a list")?.as_slice() else { anyhow::bail!("{boots}") };
    ensure!(this["reason"] == "" && this["ended"].is_null(), "{this}");
    Ok(last["reason"].as_str().unwrap_or_default().to_owned())
}

fn boots(bench: &Bench) -> Result<()> {
    let mut machine = guarded(bench)?;
    let mark = machine.console.mark();
    machine.guest.start_the_last(&["berth", "reboot"])?;
    let reason = last_end(&mut machine, mark)?;
    ensure!(reason == "reboot, by a client of the control API", "{reason}");
    let mark = machine.console.mark();
    machine.qmp.reset()?;
    let reason = last_end(&mut machine, mark)?;
    ensure!(reason.contains("cut off"), "{reason}");
    let mark = machine.console.mark();
    let hang = format!("cd /sys/fs/cgroup; mkdir hang; echo 1 > hang/cgroup.procs; {}", freeze("hang"));
    machine.guest.shell(&hang)?;
    let reason = last_end(&mut machine, mark)?;
    ensure!(reason.contains("the watchdog has reset it"), "{reason}");
    let list = machine.guest.shell("berth boot --list")?;
    ensure!(list.lines().count() == 5, "{list}");
    Ok(())
}
