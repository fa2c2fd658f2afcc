//! How fast containers come and go, beside crun and runc: `make bench` runs it.
//!
//! Everything is measured in turns on one stage ([`stage`]): the same machine, mounts, bundle and minute for all. Root
//! only; what cannot be measured here is said to be skipped.

mod bundle;
mod calls;
mod library;
mod limit;
mod many;
mod measure;
mod run;
mod stage;
mod sys;

use std::io::{Error, Result};
use std::path::Path;
use std::process::Command;

use measure::{Runtime, skipped};

/// What is measured, by name, in the order of the table.
const PARTS: &[(&str, Part)] = &[
    ("run", run::measure),
    ("library", library::measure),
    ("starts", library::measure_starts),
    ("memory", run::measure_memory),
    ("many", many::measure),
    ("limit", limit::measure),
];

type Part = fn(&[Runtime], usize) -> Result<()>;

/// How many runs of each kind a median is of.
const RUNS: usize = 200;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        // This program again, as the start of a command.
        ["on-stage", folder, command @ ..] => {
            stage::enter(Path::new(folder))?;
            Err(sys::execute(command))
        }
        ["limited", cgroup, command @ ..] => {
            std::fs::write(cgroup, "0")?;
            Err(sys::execute(command))
        }
        // For a machine that cannot make it by itself.
        ["build", folder] => stage::build(Path::new(folder), &[]),
        // And once more for all that is measured on the stage: who enters it cannot tidy it away.
        ["measure", folder, chosen @ ..] => all(Path::new(folder), chosen),
        chosen => with_stage(chosen),
    }
}

fn with_stage(chosen: &[&str]) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        skipped("containers", "needs root");
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("berth-containers.").tempdir()?;
    stage::build(folder.path(), chosen)?;
    let status = Command::new(std::env::current_exe()?).arg("measure").arg(folder.path()).args(chosen).status()?;
    if status.success() { Ok(()) } else { Err(Error::other("not everything could be measured")) }
}

fn all(folder: &Path, chosen: &[&str]) -> Result<()> {
    let runs = chosen.iter().find_map(|argument| argument.strip_prefix("--runs=")?.parse().ok()).unwrap_or(RUNS);
    let parts: Vec<&str> = chosen.iter().copied().filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted = |part: &str| parts.is_empty() || parts.contains(&part);
    let runtimes = stage::runtimes(folder, chosen);
    if runtimes.iter().all(|runtime| runtime.name != "crun") {
        skipped("crun and runc", "they could not be fetched");
    }
    if is_wanted("calls") {
        calls::measure(folder, &runtimes)?;
    }
    stage::enter(folder)?;
    for (part, measure) in PARTS {
        if is_wanted(part) {
            measure(&runtimes, runs)?;
        }
    }
    Ok(())
}
