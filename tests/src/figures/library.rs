//! The runtime's bench of bare starts, which the supervisor's rate is held against: on this host, and in the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use berth_image_build::workspace::Workspace;

use crate::artifacts::repository;
use crate::bench::Bench;
use crate::disks::{self, Format};
use crate::host::succeeded;
use crate::machine::Machine;

/// Where the stage is in the machine.
const PLACE: &str = "/run/stage";

/// The program on the stage.
const PROGRAM: &str = "bench";

/// How long the machine may take for them.
const LIMIT: Duration = Duration::from_secs(900);

/// Starts a second on this host, with the namespaces and the filter of a user container.
///
/// # Errors
/// If the bench does not run.
pub fn rate(workspace: &Workspace) -> Result<f64> {
    let mut command = cargo(&workspace.root);
    command.args(["--quiet", "--", "starts"]);
    rate_in(&succeeded(&command.output()?)?)
}

/// Starts a second in a machine that has the disk of [`stage`] as its first one beside the system's.
///
/// # Errors
/// If the bench does not run there.
pub fn rate_in_machine(machine: &mut Machine, starts: u32) -> Result<f64> {
    let script = format!(
        "mkdir {PLACE} && mount -t ext4 /dev/vdb {PLACE} && \
         exec {PLACE}/{PROGRAM} measure {PLACE} starts --runs={starts}"
    );
    let output = machine.guest.run_within(&["/bin/sh", "-c", &script], LIMIT)?;
    rate_in(&output.stdout).with_context(|| format!("{output:?}"))
}

/// A disk with the bench and all that it needs. Root only: its container's files belong to another.
///
/// # Errors
/// If it cannot be made.
pub fn stage(bench: &Bench) -> Result<PathBuf> {
    let (root, disk) = (bench.path("stage"), bench.path("stage.img"));
    let program = program()?;
    fs::create_dir(&root)?;
    succeeded(&Command::new(&program).arg("build").arg(&root).output()?)?;
    // What crun and runc come from on this host; the machine has none of them.
    fs::remove_file(root.join("peers"))?;
    std::os::unix::fs::symlink("/", root.join("peers"))?;
    fs::copy(&program, root.join(PROGRAM))?;
    disks::build_from(&root, Format::Ext4, "stage", &disk)?;
    Ok(disk)
}

/// The bench, which is linked as the image's programs are.
fn program() -> Result<PathBuf> {
    let mut command = cargo(repository());
    command.args(["--no-run", "--message-format", "json-render-diagnostics"]);
    let messages = succeeded(&command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?)?;
    let built = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut found = built.filter(|message| message["target"]["name"] == "containers");
    let program = found.find_map(|message| Some(Path::new(message["executable"].as_str()?).to_owned()));
    program.context("cargo says nothing of the bench")
}

fn cargo(folder: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(folder).args(["bench", "--package", "berth-runtime", "--features", "cli"]);
    command.args(["--target", "x86_64-unknown-linux-musl", "--bench", "containers"]);
    command
}

fn rate_in(text: &str) -> Result<f64> {
    let line = text.lines().find(|line| line.contains("starts a second")).context("no rate")?;
    line.split_whitespace().last().and_then(|word| word.parse().ok()).with_context(|| format!("no rate in {line}"))
}
