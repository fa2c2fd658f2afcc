//! How fast images come: pulls and imports beside podman, skopeo with umoci, and plain decompression.
//!
//! `cargo bench -p berth-engine` prints a table. Everything is measured in turns, in one folder, against one
//! docker-registry; a figure is the median of its runs, and one that misses its bar is named and fails the whole. The
//! engine is a process of its own each time: this binary, started as a job ([`job`]).

mod import;
mod job;
mod made;
mod measure;
mod pull;
mod start;

use std::process::ExitCode;

use anyhow::Result;

/// Measures in a folder of its own, and prints its part of the table.
type Part = fn(&std::path::Path) -> Result<()>;

/// What is measured, by name, in the order of the table.
const PARTS: &[(&str, Part)] = &[("pull", pull::measure), ("start", start::measure), ("import", import::measure)];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let result = match arguments.split_first() {
        Some((first, rest)) if first == "job" => job::run(rest),
        _ => measure(&arguments),
    };
    match result {
        Ok(()) if measure::has_missed() => ExitCode::FAILURE,
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The parts that `names` names, or all.
fn measure(names: &[String]) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("engine: skipped, unpacking needs root");
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("berth-bench.").tempdir()?;
    for (name, part) in PARTS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            let place = folder.path().join(name);
            std::fs::create_dir(&place)?;
            part(&place)?;
            std::fs::remove_dir_all(&place)?;
        }
    }
    Ok(())
}
