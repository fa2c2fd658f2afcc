//! `berth-tests`: the cases that boot the image; `make test` runs it with `--units`.

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, ensure};
use berth_image_build::workspace::Workspace;
use berth_tests::artifacts::{self, Artifacts, repository};
use berth_tests::cases;
use berth_tests::runner::{self, Capacity, Case, Tally};
use berth_tests::units;
use clap::Parser;

/// Boots the image in QEMU, case by case
#[derive(Debug, Parser)]
struct CommandLine {
    /// Only cases whose name contains one of these
    filters: Vec<String>,
    /// List the cases and run none
    #[arg(long)]
    list: bool,
    /// Run the workspace's unit tests beside them, and add them to the sum
    #[arg(long)]
    units: bool,
    /// How many cases run at once; one a processor if absent
    #[arg(long)]
    jobs: Option<usize>,
    /// Run the chosen cases this many times
    #[arg(long, default_value_t = 1)]
    repeat: usize,
}

fn main() -> ExitCode {
    match run(&CommandLine::parse()) {
        Ok(tally) if tally.failed == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("berth-tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command_line: &CommandLine) -> Result<Tally> {
    let chosen: Vec<Case> = cases::all().into_iter().filter(|case| is_chosen(case, &command_line.filters)).collect();
    if command_line.list {
        chosen.iter().for_each(|case| println!("{}", case.name));
        return Ok(Tally::default());
    }
    ensure!(!chosen.is_empty(), "no case has such a name: see --list");
    std::env::set_current_dir(repository()).context("go to the repository")?;
    let workspace = Workspace::find()?;
    let artifacts = Artifacts::find(&workspace)?;
    let accelerator = artifacts::accelerator(&workspace)?;
    let capacity = Capacity::of_this_host(command_line.jobs);
    println!("{} cases, {} at a time, {accelerator}", chosen.len(), capacity.jobs.min(chosen.len()));
    // Each text as a whole, whoever has others to show.
    let print = |text: &str| print!("{text}");
    let tally = std::thread::scope(|scope| {
        // They wait for the kernel and for peers for much of their time.
        let units = command_line.units.then(|| scope.spawn(|| units::run(&print)));
        let mut tally = Tally::default();
        for _ in 0..command_line.repeat {
            tally += runner::run(&chosen, &artifacts, accelerator, capacity, &print)?;
        }
        if let Some(units) = units {
            tally += units.join().map_err(|_| anyhow!("the thread of the unit tests ended"))??;
        }
        anyhow::Ok(tally)
    })?;
    println!("{tally}");
    Ok(tally)
}

fn is_chosen(case: &Case, filters: &[String]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| case.name.contains(filter))
}
