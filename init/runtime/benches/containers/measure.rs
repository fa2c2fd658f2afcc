//! Running a command and saying what it took.

use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::sys::{self, Ended};

/// Where a command's errors go, to be shown if it fails.
const ERRORS: &str = "/tmp/errors";

/// A command line that runs containers.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub name: String,
    /// On the stage.
    pub path: PathBuf,
}

impl Runtime {
    /// `run` of a bundle under a name.
    pub fn run(&self, bundle: &Path, id: &str) -> Command {
        let mut command = Command::new(&self.path);
        command.args(["run", "--bundle"]).arg(bundle).arg(id);
        command
    }
}

/// Starts a command without input and output; its errors are appended to a file.
pub fn spawn(command: &mut Command) -> Result<i32> {
    let errors = std::fs::File::options().append(true).create(true).open(ERRORS)?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn()?;
    i32::try_from(child.id()).map_err(Error::other)
}

/// Runs a command from its start to its end.
pub fn run(command: &mut Command) -> Result<(Duration, Ended)> {
    let begin = Instant::now();
    let ended = sys::wait(spawn(command)?)?;
    Ok((begin.elapsed(), ended))
}

/// The same, where it must not fail.
pub fn succeed(command: &mut Command) -> Result<(Duration, Ended)> {
    let (time, ended) = run(command)?;
    if ended.success { Ok((time, ended)) } else { Err(Error::other(format!("{command:?} has failed: {}", errors()))) }
}

/// What the failed commands have said.
pub fn errors() -> String {
    std::fs::read_to_string(ERRORS).unwrap_or_default()
}

/// The middle of `values`, the lower one of two.
pub fn median<T: Copy + Ord + Default>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// One line of the table.
pub fn figure(name: &str, value: &str, bar: Option<&str>) {
    let line = format!("{name:<52} {value:>14}");
    match bar {
        Some(bar) => println!("{line}   bar: {bar}"),
        None => println!("{line}"),
    }
}

/// A time in the table.
pub fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1000.0)
}

/// A ratio with the bar it has to stay under.
pub fn ratio(name: &str, of: f64, to: f64, bar: f64) {
    figure(name, &format!("{:.2}", of / to), Some(&format!("{bar:.2}")));
}

/// What cannot be measured here.
pub fn skipped(name: &str, reason: &str) {
    figure(name, "skipped", None);
    println!("  {reason}");
}
