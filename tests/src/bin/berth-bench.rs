//! `berth-bench`: measures the image and prints a table; `make bench` runs it.

use std::process::ExitCode;

use anyhow::{Context, Result};
use berth_image_build::demo;
use berth_image_build::workspace::Workspace;
use berth_tests::artifacts::{self, Artifacts, repository};
use berth_tests::bench::Bench;
use berth_tests::figures::{Figure, boot, host, many, memory, sizes};
use berth_tests::host::obstacle;
use clap::Parser;

/// Measures the image: sizes, boot, memory, many containers
#[derive(Debug, Parser)]
struct CommandLine {
    /// Only these: sizes, boot, idle, least, many, host
    parts: Vec<String>,
    /// How many boots of each kind are compared
    #[arg(long, default_value_t = 7)]
    runs: usize,
}

fn main() -> ExitCode {
    match run(&CommandLine::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command_line: &CommandLine) -> Result<()> {
    std::env::set_current_dir(repository()).context("go to the repository")?;
    let workspace = Workspace::find()?;
    let is_wanted = |part: &str| command_line.parts.is_empty() || command_line.parts.iter().any(|name| name == part);
    if command_line.parts == ["host"] {
        return measure_host(&workspace, command_line.runs); // it needs no disk image
    }
    let artifacts = Artifacts::find(&workspace)?;
    let accelerator = artifacts::accelerator(&workspace)?;
    let demo = demo::build(&workspace)?;
    println!("measured with {accelerator}");
    let measure = |part: &str, measure: &dyn Fn(&Bench) -> Result<Vec<Figure>>| -> Result<()> {
        if is_wanted(part) {
            let folder = tempfile::Builder::new().prefix("berth-bench.").tempdir()?;
            let bench = Bench::new(&artifacts, accelerator, folder.path());
            let figures = measure(&bench).with_context(|| format!("{part}\n{}", bench.console_tail()))?;
            figures.iter().for_each(|figure| println!("{figure}"));
        }
        Ok(())
    };
    measure("sizes", &|bench| sizes::measure(bench.artifacts()))?;
    measure("boot", &|bench| boot::measure(bench, &demo, command_line.runs))?;
    measure("idle", &|bench| memory::measure_idle(bench, &demo))?;
    measure("least", &|bench| memory::measure_least(bench, &demo))?;
    measure("many", &many::measure)?;
    if is_wanted("host") {
        measure_host(&workspace, command_line.runs)?;
    }
    Ok(())
}

fn measure_host(workspace: &Workspace, runs: usize) -> Result<()> {
    match obstacle() {
        Some(obstacle) => println!("host: skipped, {obstacle}"),
        None => {
            host::measure(workspace, runs, |figures| figures.iter().for_each(|figure| println!("{figure}")))?;
        }
    }
    Ok(())
}
