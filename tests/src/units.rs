//! The unit tests of the workspace beside the cases of a whole run, and their sum.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::artifacts::repository;
use crate::runner::Tally;
use crate::skips::Skips;

/// Runs `cargo test` over the workspace, hands `print` what each of its programs says when that has ended, and counts.
///
/// # Errors
/// If cargo cannot be started, or no temporary file be made.
pub fn run(print: &(dyn Fn(&str) + Sync)) -> Result<Tally> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // As the Makefile has them built. The feature builds the command line that tests of the runtime run.
    cargo.args(["test", "--workspace", "--no-fail-fast", "--features", "berth-runtime/cli"]).current_dir(repository());
    for (name, _) in std::env::vars_os() {
        // What `cargo run` says of this package would have build scripts of others run once more that look at their own.
        if OF_A_PACKAGE.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            cargo.env_remove(name);
        }
    }
    let skips = Skips::of(&mut cargo)?;
    // One pipe, so that the name of a program stays before what it says.
    let (output, both) = std::io::pipe().context("make a pipe")?;
    cargo.stdin(Stdio::null()).stdout(both.try_clone().context("share the pipe")?).stderr(both);
    let mut child = cargo.spawn().context("start cargo")?;
    // It has the pipe's other end as well.
    drop(cargo);
    let mut tally = Tally::default();
    let mut block = String::new();
    for line in BufReader::new(output).lines() {
        let line = line.context("read cargo's output")?;
        if NAMES.iter().any(|name| line.trim_start().starts_with(name)) {
            print(&std::mem::take(&mut block));
        }
        block += &line;
        block.push('\n');
        if let Some(counted) = counts(&line) {
            tally += counted;
            print(&std::mem::take(&mut block));
        }
    }
    print(&block);
    let status = child.wait().context("wait for cargo")?;
    if !status.success() && tally.failed == 0 {
        // What does not compile, or ends before it has counted, is a failure as well.
        tally.failed = 1;
    }
    for skipped in skips.read()? {
        print(&format!("skipped  {skipped}\n"));
        tally.passed = tally.passed.saturating_sub(1);
        tally.skipped += 1;
    }
    Ok(tally)
}

/// What names of variables begin with that tell a program of its package.
const OF_A_PACKAGE: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// What cargo's lines begin with that name a program.
const NAMES: [&str; 2] = ["Running ", "Doc-tests "];

/// What a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out` says.
fn counts(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |name: &str| {
        counts.split(';').find_map(|part| part.trim().strip_suffix(name)?.trim_end().parse().ok()).unwrap_or(0)
    };
    Some(Tally { passed: count("passed"), failed: count("failed"), skipped: count("ignored") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_s_results_are_counted() {
        let line = "test result: FAILED. 19 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.48s";
        assert_eq!(counts(line), Some(Tally { passed: 19, failed: 2, skipped: 1 }));
        assert_eq!(counts("test frames::tests::ok ... ok"), None);
    }
}
