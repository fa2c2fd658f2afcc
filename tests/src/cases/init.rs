//! Containers whose first process is the small init, beside their program: `--init`.

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::{Machine, Mark};
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[Case { name: "init/with-a-terminal", memory: 256, run: terminal }];

/// What is typed is for the program and not for the init: it goes as it does for a program that is its container's first
/// process.
fn terminal(bench: &Bench) -> Result<()> {
    let archive = bench.image("localhost/a:1", &["/bin/sh"])?.docker_archive();
    let mut machine = bench.machine().user_data(&Files::new().with("images/a.tar", archive))?.start()?;
    machine.wait_until_ready()?;
    machine.guest.wait()?;
    let mut mark = Mark::default();
    for (flag, first) in [("--init", "first: init"), ("", "first: sh")] {
        mark = interrupted(&mut machine, mark, flag, first)?;
        mark = has_job_control(&mut machine, mark, flag)?;
        ensure!(machine.guest.berth(&["ps"])?.as_array().is_some_and(Vec::is_empty), "{flag}: one is left");
    }
    Ok(())
}

/// Types a line at the next prompt of the machine's shell.
fn at_prompt(machine: &mut Machine, mark: Mark, line: &str) -> Result<Mark> {
    // What is typed before the shell asks for it may be lost. The kernel may speak behind the prompt, nobody else has yet.
    let untouched = |rest: &str| rest.is_empty() || rest.starts_with('[');
    let is_prompt = |line: &str| {
        line.contains("@berth:") && line.contains("# ") && line.rsplit("[6n").next().is_some_and(untouched)
    };
    machine.console.wait_for_line(mark, wait::ANSWER, is_prompt)?;
    let mark = machine.console.mark();
    machine.console.type_text(&format!("{line}\r"))?;
    Ok(mark)
}

/// Ctrl-C reaches the program, whose code comes back.
fn interrupted(machine: &mut Machine, before: Mark, flag: &str, first: &str) -> Result<Mark> {
    let program = "echo first: $(cat /proc/1/comm); trap \"exit 5\" INT; echo waits; while :; do usleep 100000; done";
    let line = format!("berth run --rm -it {flag} localhost/a:1 sh -c '{program}'; echo code $?");
    let mark = at_prompt(machine, before, &line)?;
    // The kernel, which says that a container runs, may say it within a line of the container's.
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.starts_with(first))?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.starts_with("waits"))?;
    machine.console.type_text("\u{3}")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.ends_with("code 5"))?;
    Ok(mark)
}

/// A shell as the program has the terminal and gives it to its jobs: Ctrl-C and Ctrl-Z are for those.
fn has_job_control(machine: &mut Machine, before: Mark, flag: &str) -> Result<Mark> {
    let mut mark = at_prompt(machine, before, &format!("berth run --rm -it {flag} localhost/a:1 sh; echo code $?"))?;
    let is_inner_prompt = |line: &str| line.contains("~ # ");
    for (job, key) in [("interrupted", "\u{3}"), ("stopped", "\u{1a}")] {
        machine.console.wait_for_line(mark, wait::ANSWER, is_inner_prompt)?;
        mark = machine.console.mark();
        machine.console.type_text(&format!("sh -c 'echo {job} next; exec sleep 100000'\r"))?;
        machine.console.wait_for_line(mark, wait::ANSWER, |line| line.starts_with(&format!("{job} next")))?;
        mark = machine.console.mark();
        machine.console.type_text(key)?;
    }
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.contains("[1]+") && line.contains("Stopped"))?;
    machine.console.wait_for_line(mark, wait::ANSWER, is_inner_prompt)?;
    mark = machine.console.mark();
    machine.console.type_text("kill -9 %1; fg; exit 6\r")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.ends_with("code 6"))?;
    Ok(mark)
}
