//! The runtime's differential cases (init/runtime/tests/differential) with this kernel, every controller of cgroup v2
//! and all capabilities. Without crun and runc: what the specification demands stands alone here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::artifacts::repository;
use crate::bench::Bench;
use crate::disks::{self, Format};
use crate::machine::Output;
use crate::programs;
use crate::runner::{Case, Tally};

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "runtime/cases-by-the-calls-of-pid-1", memory: 384, run: |bench| run(bench, "library") },
    Case { name: "runtime/cases-by-berth-oci", memory: 384, run: |bench| run(bench, "berth-oci") },
];

/// How long all of them may take on emulated processors that others use as well.
const LIMIT: Duration = Duration::from_secs(1500);

const TARGET: &str = "x86_64-unknown-linux-musl";

/// What the scripts of the cases run. One that is missing here fails its case in the machine by name.
#[rustfmt::skip]
const PROGRAMS: &[&str] = &[
    "cat", "chmod", "chown", "chrt", "cut", "dash", "df", "echo", "env", "false", "find", "grep", "head", "hostname",
    "id", "ionice", "ln", "ls", "mkdir", "mkfifo", "mknod", "mount", "nice", "perl", "printf", "readlink", "rm", "sed",
    "sh", "sleep", "sort", "stat", "stty", "tail", "timeout", "touch", "tr", "true", "tty", "uname", "wc",
];

/// Runs every case by one tool in a machine of its own.
fn run(bench: &Bench, by: &str) -> Result<()> {
    let disk = disk(bench)?;
    let mut machine = bench.machine().memory(384).processors(2).disk(&disk).start()?;
    machine.wait_until_ready()?;
    // The guest agent is in the machine's own namespaces but for its mounts, and has every capability. The emulator
    // translates code by its address: where programs lie at random it translates each of them again every time, and all
    // of this takes six times as long.
    let script = format!(
        "echo 0 >/proc/sys/kernel/randomize_va_space; \
         mkdir /run/differential && mount -t ext4 -o ro /dev/vdb /run/differential && \
         BERTH_SHOW_ERRORS=1 exec /run/differential/differential --brought /run/differential --by {by}"
    );
    let output = machine.guest.run_within(&["/bin/sh", "-c", &script], LIMIT)?;
    std::fs::write(bench.path("cases.log"), format!("{}{}", output.stdout, output.stderr))?;
    report(bench, &output)
}

/// The test program, berth-oci as it ships, and the host's programs.
fn disk(bench: &Bench) -> Result<PathBuf> {
    let (root, disk) = (bench.path("brought"), bench.path("brought.img"));
    programs::copy(PROGRAMS, &root)?;
    programs::put(&test_program()?, &root.join("differential"))?;
    programs::put(&bench.artifacts().out.join("berth-oci"), &root.join("usr/bin/berth-oci"))?;
    disks::build_from(&root, Format::Ext4, "differential", &disk)?;
    Ok(disk)
}

/// Built for the image, where there is no libc.
fn test_program() -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--profile", "fast", "--target", TARGET, "--package", "berth-runtime"]);
    cargo.args(["--features", "cli", "--test", "differential", "--message-format", "json-render-diagnostics"]);
    let output = cargo.current_dir(repository()).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.context("start cargo")?;
    ensure!(output.status.success(), "the test program does not compile: {}", output.status);
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let built = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut found = built.filter(|message| message["target"]["name"] == "differential");
    let program = found.find_map(|message| Some(Path::new(message["executable"].as_str()?).to_owned()));
    program.context("cargo says nothing of the test program")
}

/// What the test program said of one case.
#[derive(Debug, PartialEq, Eq)]
enum Outcome<'a> {
    Passed,
    Failed,
    Ignored(&'a str),
    NotApplicable(&'a str),
}

/// `test NAME ... OUTCOME`.
fn outcome(line: &str) -> Option<(&str, Outcome<'_>)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let outcome = match rest.split_once(", ").unwrap_or((rest, "")) {
        ("FAILED", _) => Outcome::Failed,
        ("ignored", reason) => Outcome::Ignored(reason),
        ("not applicable", reason) => Outcome::NotApplicable(reason),
        _ if rest.starts_with("ok") => Outcome::Passed,
        _ => return None,
    };
    Some((name, outcome))
}

fn report(bench: &Bench, output: &Output) -> Result<()> {
    let mut tally = Tally::default();
    let (mut failed, mut not_applicable) = (Vec::new(), Vec::new());
    for (name, outcome) in output.stdout.lines().filter_map(outcome) {
        match outcome {
            Outcome::Passed => tally.passed += 1,
            Outcome::Failed => failed.push(name),
            Outcome::Ignored(reason) => {
                tally.skipped += 1;
                bench.note(&format!("skipped {name}: {reason}"));
            }
            Outcome::NotApplicable(reason) => not_applicable.push((name, reason)),
        }
    }
    tally.failed = failed.len();
    bench.note(&format!("{tally}, {} not applicable", not_applicable.len()));
    if let Some((_, reason)) = not_applicable.first() {
        let names: Vec<&str> = not_applicable.iter().map(|(name, _)| *name).collect();
        bench.note(&format!("not applicable, {reason}: {}", names.join(" ")));
    }
    bench.count(tally);
    if !failed.is_empty() {
        bail!("failed: {} (test-logs/…/cases.log says how)", failed.join(" "));
    }
    ensure!(output.code == 0 && tally.passed > 0, "code {}: {}{}", output.code, output.stdout, output.stderr);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_came_of_a_case() {
        let said = |line| outcome(line).map(|(name, outcome)| (name.to_owned(), outcome));
        assert_eq!(said("test a ... ok"), Some(("a".to_owned(), Outcome::Passed)));
        assert_eq!(said("test a ... FAILED"), Some(("a".to_owned(), Outcome::Failed)));
        assert_eq!(said("test a ... ignored, needs runc"), Some(("a".to_owned(), Outcome::Ignored("needs runc"))));
        let alone = Outcome::NotApplicable("of the command line alone");
        assert_eq!(said("test a ... not applicable, of the command line alone"), Some(("a".to_owned(), alone)));
        assert_eq!(said("test result: ok. 1 passed; 0 failed"), None);
    }
}
