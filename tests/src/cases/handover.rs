//! PID 1 becomes its next program: because somebody wants it, and after defects.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::bench::Bench;
use crate::chatty;
use crate::disks::Files;
use crate::machine::{Machine, Mark};
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "handover/reexec", memory: 512, run: reexec },
    Case { name: "handover/defects", memory: 512, run: defects },
    Case { name: "handover/another-program", memory: 512, run: another_program },
    Case { name: "handover/crash-loop", memory: 512, run: crash_loop },
    Case { name: "handover/crash-loop-without-a-shell", memory: 256, run: no_shell },
];

/// How many containers print numbered lines.
const COUNT: usize = 50;

fn steps(machine: &mut Machine) -> Result<Vec<String>> {
    let steps = machine.guest.berth(&["boot"])?;
    let anew = |step: &&serde_json::Value| step["name"] == "execute PID 1 anew";
    Ok(steps.as_array().context("steps")?.iter().filter(anew).map(|step| step["outcome"].to_string()).collect())
}

/// How many descriptors PID 1 has, twice in a row: a client's come and go.
fn descriptors(machine: &mut Machine) -> Result<u32> {
    let count = "while now=$(ls /proc/1/fd | wc -l); [ \"$now\" != \"$before\" ]; do before=$now; usleep 200000; done; echo $now";
    machine.guest.shell(count)?.trim().parse().context("a number")
}

fn reexec(bench: &Bench) -> Result<()> {
    let mut machine = chatty::start(bench.machine(), bench, COUNT)?;
    let before = chatty::processes(&mut machine)?;
    machine.guest.shell("berth reexec")?;
    let count = descriptors(&mut machine)?;
    // One begins under one program and ends under another.
    let execution = "berth exec a0 sh -c 'touch /tmp/begun; until [ -e /tmp/go ]; do sleep 0.1; done; exit 7'";
    machine.guest.shell(&format!("({execution}; echo $? > /tmp/code) >/dev/null 2>&1 &"))?;
    machine.guest.shell("until berth exec a0 sh -c '[ -e /tmp/begun ]'; do :; done")?;
    for _ in 1..10 {
        machine.guest.shell("berth reexec")?;
    }
    let code = machine.guest.shell("berth exec a0 touch /tmp/go; until [ -s /tmp/code ]; do :; done; cat /tmp/code")?;
    ensure!(code.trim_end() == "7", "the execution ended with {code}");
    ensure!(steps(&mut machine)?.len() == 10, "{:?}", steps(&mut machine)?);
    let after = chatty::processes(&mut machine)?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    // Those of a client or a report go away again, what is left behind does not.
    let deadline = Instant::now() + wait::ANSWER;
    while descriptors(&mut machine)? > count {
        ensure!(Instant::now() < deadline, "descriptors are left behind: more than {count}");
    }
    chatty::check_cables(&mut machine, COUNT)?;
    chatty::check_lines(&mut machine, COUNT)?;
    chatty::check_cables(&mut machine, 0)?;
    machine.guest.shell("berth start a0 a1")?;
    machine.guest.wait_for_state("a1", "running")?;
    // What runs is still PID 1's: its end is seen, and it is started again.
    machine.guest.shell("kill -9 $(berth inspect a1 | grep '\"pid\"' | tr -dc 0-9)")?;
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
    let mut machine = chatty::start(bench.machine().kernel_arguments("berth.faults=on"), bench, COUNT)?;
    let before = chatty::processes(&mut machine)?;
    // The processor's own faults, one of them without a stack to handle it on, and a panic. Raised signals are those of the
    // crash loop.
    let defects = [
        ("QUIT", "reading through a null pointer", "SIGSEGV"),
        ("XCPU", "calling a function without end", "SIGSEGV"),
        ("HUP", "a defect", "SIGHUP came"),
    ];
    for (signal, defect, reason) in defects {
        let mark = machine.console.mark();
        machine.guest.shell(&format!("kill -{signal} 1"))?;
        machine.console.wait_for(mark, wait::ANSWER, defect)?;
        let is_step = |line: &str| line.contains("execute PID 1 anew: after a defect") && line.contains(reason);
        machine.console.wait_for_line(mark, wait::ANSWER, is_step)?;
        let after = chatty::processes(&mut machine)?;
        ensure!(before == after, "{signal}: before:\n{before}\nafter:\n{after}");
    }
    ensure!(steps(&mut machine)?.len() == 3, "{:?}", steps(&mut machine)?);
    chatty::check_lines(&mut machine, COUNT)
}

/// A copy of PID 1's program somewhere else takes its place, as a newer one would.
fn another_program(bench: &Bench) -> Result<()> {
    let mut machine = chatty::start(bench.machine(), bench, COUNT)?;
    let before = chatty::processes(&mut machine)?;
    machine.guest.shell("cp /usr/bin/berth /run/another; berth reexec --program /run/another; rm /run/another")?;
    let program = machine.guest.shell("readlink /proc/1/exe")?;
    ensure!(program.starts_with("/memfd:berth"), "PID 1 is {program}");
    // What does not take over leaves everything as it is.
    let refused = machine.guest.run(&["berth", "reexec", "--program", "/bin/busybox"])?;
    ensure!(refused.code == 1 && refused.stderr.contains("no PID 1 of Berth's"), "{refused:?}");
    let refused = machine.guest.run(&["berth", "reexec", "--program", "/etc/passwd"])?;
    ensure!(refused.code == 1 && refused.stderr.contains("cannot be executed"), "{refused:?}");
    // A defect of the new program leads to itself.
    let mark = machine.console.mark();
    machine.guest.shell("kill -SEGV 1")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.contains("execute PID 1 anew: after a defect"))?;
    ensure!(machine.guest.shell("readlink /proc/1/exe")? == program, "PID 1 is another program");
    let after = chatty::processes(&mut machine)?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    chatty::check_lines(&mut machine, COUNT)?;
    machine.guest.shutdown("powerdown")?;
    machine.wait_until_off(wait::ANSWER).map(drop)
}

/// Lets PID 1 crash until it stays in its minimal mode; the console from then on.
fn crash_until_it_stays(machine: &mut Machine) -> Result<Mark> {
    for signal in ["SEGV", "ABRT", "BUS"] {
        let mark = machine.console.mark();
        machine.guest.shell(&format!("kill -{signal} 1"))?;
        machine.console.wait_for_line(mark, wait::ANSWER, |line| line.contains("execute PID 1 anew"))?;
    }
    let mark = machine.console.mark();
    machine.guest.shell("kill -SEGV 1")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.contains("it stays in its minimal mode"))?;
    Ok(mark)
}

fn crash_loop(bench: &Bench) -> Result<()> {
    let mut machine = chatty::start(bench.machine(), bench, COUNT)?;
    let before = chatty::processes(&mut machine)?;
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
    let after = chatty::processes(&mut machine)?;
    ensure!(rest(&before) == rest(&after), "before:\n{before}\nafter:\n{after}");
    chatty::check_lines(&mut machine, COUNT)
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
