//! PID 1 becomes its next program: because somebody wants it, and after defects.

use anyhow::{Context, Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::{Machine, Mark};
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "handover/reexec", memory: 256, run: reexec },
    Case { name: "handover/defects", memory: 256, run: defects },
    Case { name: "handover/crash-loop", memory: 256, run: crash_loop },
    Case { name: "handover/crash-loop-without-a-shell", memory: 256, run: no_shell },
];

/// How many containers print numbered lines.
const CHATTY: usize = 5;

/// A machine whose containers print numbered lines without end.
fn chatty(bench: &Bench, kernel_arguments: &str) -> Result<Machine> {
    let script = "i=0; while true; do echo line $i; i=$((i+1)); [ $((i % 10)) = 0 ] && sleep 0.1; done";
    let archive = bench.shell_image("localhost/a:1", script)?.docker_archive();
    let container = |number| format!("[containers.a{number}]\nimage = \"localhost/a:1\"\nstop_grace_period = \"1s\"\n");
    let configuration: String = (0..CHATTY).map(container).collect();
    let files = Files::new().with("berth.toml", configuration.as_str()).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.kernel_arguments(kernel_arguments).start()?;
    machine.wait_until_ready()?;
    machine.guest.wait()?;
    Ok(machine)
}

/// Name, process, start and restarts of every container: what must stay.
fn processes(machine: &mut Machine) -> Result<String> {
    let list = machine.guest.berth(&["ps", "--all"])?;
    let line = |container: &serde_json::Value| {
        let fields = ["name", "state", "pid", "started_us", "restarts"].map(|field| container[field].to_string());
        fields.join(" ")
    };
    Ok(list.as_array().context("a list")?.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Stops the containers and looks whether a line is missing, doubled or out of order.
fn check_lines(machine: &mut Machine) -> Result<()> {
    for number in 0..CHATTY {
        let name = format!("a{number}");
        machine.guest.shell(&format!("berth stop {name}"))?;
        machine.guest.wait_for_state(&name, "stopped")?;
        let check = "awk '$1 != \"line\" || $2 != NR - 1 { print \"line \" NR \": \" $0; exit 1 } END { print NR }'";
        let lines = machine.guest.shell(&format!("berth logs {name} | {check}"))?;
        ensure!(lines.trim().parse::<u32>()? > 100, "{name} has printed {lines} lines");
    }
    Ok(())
}

fn steps(machine: &mut Machine) -> Result<Vec<String>> {
    let steps = machine.guest.berth(&["boot"])?;
    let anew = |step: &&serde_json::Value| step["name"] == "execute PID 1 anew";
    Ok(steps.as_array().context("steps")?.iter().filter(anew).map(|step| step["outcome"].to_string()).collect())
}

fn reexec(bench: &Bench) -> Result<()> {
    let mut machine = chatty(bench, "")?;
    let before = processes(&mut machine)?;
    let descriptors = "ls -l /proc/1/fd";
    machine.guest.shell("berth reexec")?;
    let count = machine.guest.shell(descriptors)?;
    // One begins under one program and ends under another.
    let execution = "berth exec a0 sh -c 'touch /tmp/begun; until [ -e /tmp/go ]; do sleep 0.01; done; exit 7' & \
        until berth exec a0 sh -c '[ -e /tmp/begun ]'; do :; done; \
        for i in 1 2 3 4 5 6 7 8 9; do berth reexec; done; berth exec a0 touch /tmp/go; wait $!; echo $?";
    let code = machine.guest.shell(execution)?;
    ensure!(code.trim_end().ends_with('7'), "the execution ended with {code}");
    ensure!(steps(&mut machine)?.len() == 10, "{:?}", steps(&mut machine)?);
    let after = processes(&mut machine)?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    let now = machine.guest.shell(descriptors)?;
    ensure!(now.lines().count() == count.lines().count(), "descriptors are left behind: before\n{count}\nnow\n{now}");
    // What runs is still PID 1's: its end is seen, and it is started again.
    machine.guest.shell("berth kill a1")?;
    machine.guest.shell("until berth inspect a1 | grep -q '\"restarts\": 1'; do :; done")?;
    machine.guest.shell("berth restart a1; berth exec a0 true")?;
    machine.guest.wait_for_state("a1", "running")?;
    machine.guest.shell("berth kill logs; until berth inspect logs | grep -q '\"restarts\": 1'; do :; done")?;
    machine.guest.wait_for_state("logs", "running")?;
    machine.guest.shell("berth restart a0; berth stop a1")?;
    machine.guest.shutdown("powerdown")?;
    machine.wait_until_off(wait::ANSWER).map(drop)
}

fn defects(bench: &Bench) -> Result<()> {
    let mut machine = chatty(bench, "berth.faults=on")?;
    let before = processes(&mut machine)?;
    for (signal, reason) in [("SEGV", "SIGSEGV"), ("ABRT", "SIGABRT"), ("HUP", "SIGHUP came")] {
        let mark = machine.console.mark();
        machine.guest.shell(&format!("kill -{signal} 1"))?;
        let is_step = |line: &str| line.contains("execute PID 1 anew: after a defect") && line.contains(reason);
        machine.console.wait_for_line(mark, wait::ANSWER, is_step)?;
        let after = processes(&mut machine)?;
        ensure!(before == after, "{signal}: before:\n{before}\nafter:\n{after}");
    }
    ensure!(steps(&mut machine)?.len() == 3, "{:?}", steps(&mut machine)?);
    check_lines(&mut machine)
}

/// Lets PID 1 crash until it stays in its minimal mode; the console from then on.
fn crash_until_it_stays(machine: &mut Machine) -> Result<Mark> {
    for _ in 0..3 {
        let mark = machine.console.mark();
        machine.guest.shell("kill -SEGV 1")?;
        machine.console.wait_for_line(mark, wait::ANSWER, |line| line.contains("execute PID 1 anew"))?;
    }
    let mark = machine.console.mark();
    machine.guest.shell("kill -SEGV 1")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.contains("it stays in its minimal mode"))?;
    Ok(mark)
}

fn crash_loop(bench: &Bench) -> Result<()> {
    let mut machine = chatty(bench, "")?;
    let before = processes(&mut machine)?;
    let mark = crash_until_it_stays(&mut machine)?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.contains("kernel's start: SIGSEGV"))?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.contains("@berth:/# "))?;
    let mark = machine.console.mark();
    // In two parts, so that the echo of what is typed is not taken for the answer.
    machine.console.type_text("echo by-$((40+2))-hand\r")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.contains("by-42-hand"))?;
    ensure!(machine.guest.count_processes("-sh")? == 1, "not one shell");
    // The console's container had to give way.
    let mark = machine.console.mark();
    machine.console.type_text("kill -HUP 1\r")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.contains("execute PID 1 anew: as was wanted"))?;
    machine.guest.wait_for_state("console", "running")?;
    let rest = |text: &str| text.lines().filter(|line| !line.contains("\"console\"")).collect::<Vec<_>>().join("\n");
    let after = processes(&mut machine)?;
    ensure!(rest(&before) == rest(&after), "before:\n{before}\nafter:\n{after}");
    check_lines(&mut machine)
}

fn no_shell(bench: &Bench) -> Result<()> {
    let files = Files::new().with("berth.toml", "[console]\nshell = false\n");
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.wait()?;
    crash_until_it_stays(&mut machine)?;
    ensure!(machine.guest.count_processes("-sh")? == 0, "there is a shell");
    machine.qmp.press_power_button()?;
    machine.wait_until_off(wait::ANSWER).map(drop)
}
