//! Tests that cannot run here. Cargo knows none that find it out by themselves, and counts them as passed; a whole run counts
//! them as skipped.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::process::Command;

use anyhow::{Context, Result};

/// The file that the tests of a whole run write their names into.
const VARIABLE: &str = "BERTH_SKIPPED";

/// Says that the test at hand has not run, or not to its end, and why.
pub fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let line = format!("{} {name}: {reason}", std::env::var("CARGO_PKG_NAME").unwrap_or_default());
    // Not by `eprintln`, which is captured. Who reads neither is not helped by an error.
    let _ = writeln!(std::io::stderr(), "SKIPPED {line}");
    if let Some(mut file) = std::env::var_os(VARIABLE).and_then(|path| File::options().append(true).open(path).ok()) {
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}

/// What a whole run gathers them in.
pub struct Skips(tempfile::NamedTempFile);

impl Skips {
    /// Has the tests that this command runs tell of themselves.
    ///
    /// # Errors
    /// If there is no temporary file to be had.
    pub fn of(command: &mut Command) -> Result<Self> {
        let file = tempfile::NamedTempFile::new().context("make a file for the names of skipped tests")?;
        command.env(VARIABLE, file.path());
        Ok(Self(file))
    }

    /// Each test that was skipped, with the first of its reasons.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(mut self) -> Result<Vec<String>> {
        let mut text = String::new();
        let file = self.0.as_file_mut();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).context("read the names of skipped tests")?;
        let mut known = BTreeSet::new();
        let lines = text.lines().filter(|line| known.insert(line.split(": ").next().unwrap_or_default()));
        Ok(lines.map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_counts_once() {
        let mut command = Command::new("true");
        let skips = Skips::of(&mut command).unwrap();
        let (_, path) = command.get_envs().find(|(name, _)| *name == VARIABLE).unwrap();
        let mut file = File::options().append(true).open(path.unwrap()).unwrap();
        file.write_all(b"x one: no root\nx two: no root\nx one: no tool: y\n").unwrap();
        assert_eq!(skips.read().unwrap(), ["x one: no root", "x two: no root"]);
    }
}
