//! `berth-bench`: measures the image and prints a table; `make bench` runs it.

use std::cell::Cell;
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
    /// Fail if a bar is missed
    #[arg(long)]
    strict: bool,
}

/// How many bars were missed so far.
#[derive(Default)]
struct Missed(Cell<usize>);

impl Missed {
    fn print(&self, figures: &[Figure]) {
        figures.iter().for_each(|figure| println!("{figure}"));
        self.0.set(self.0.get() + figures.iter().filter(|figure| figure.is_missed()).count());
    }
}

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    let missed = Missed::default();
    match run(&command_line, &missed) {
        Ok(()) if missed.0.get() > 0 => {
            eprintln!("berth-bench: {} bars missed", missed.0.get());
            if command_line.strict { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command_line: &CommandLine, missed: &Missed) -> Result<()> {
    std::env::set_current_dir(repository()).context("go to the repository")?;
    let workspace = Workspace::find()?;
    let is_wanted = |part: &str| command_line.parts.is_empty() || command_line.parts.iter().any(|name| name == part);
    if command_line.parts == ["host"] {
        return measure_host(&workspace, command_line.runs, missed); // it needs no disk image
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
            missed.print(&figures);
        }
        Ok(())
    };
    measure("sizes", &|bench| sizes::measure(bench.artifacts()))?;
    measure("boot", &|bench| boot::measure(bench, &demo, command_line.runs))?;
    measure("idle", &|bench| memory::measure_idle(bench, &demo))?;
    measure("idle", &memory::measure_rest)?;
    measure("least", &|bench| memory::measure_least(bench, &demo))?;
    measure("many", &many::measure)?;
    if is_wanted("host") {
        measure_host(&workspace, command_line.runs, missed)?;
    }
    Ok(())
}

fn measure_host(workspace: &Workspace, runs: usize, missed: &Missed) -> Result<()> {
    match obstacle() {
        Some(obstacle) => println!("host: skipped, {obstacle}"),
        None => {
            host::measure(workspace, runs, |figures| missed.print(&figures))?;
        }
    }
    Ok(())
}
