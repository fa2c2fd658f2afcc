//! The Rust programs of the image, built by cargo for musl.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::step;
use crate::workspace::Workspace;

/// What the image's programs are linked for.
const TARGET: &str = "x86_64-unknown-linux-musl";

/// Builds the binary of a package and returns where it lies.
///
/// # Errors
/// If cargo fails.
pub fn build(workspace: &Workspace, package: &str, binary: &str) -> Result<PathBuf> {
    step(&format!("building {binary} for {TARGET}"));
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(&workspace.root).args([
        "build",
        "--release",
        "--target",
        TARGET,
        "-p",
        package,
        "--bin",
        binary,
    ]);
    command.env("CARGO_TARGET_DIR", &workspace.target);
    for flags in remapped_paths(workspace)? {
        command.arg("--config").arg(flags);
    }
    // `cargo run` tells its program about itself; none of it may reach the build below.
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") || name_text == "RUSTFLAGS" {
            command.env_remove(&name);
        }
    }
    let status = command.status().context("start cargo")?;
    if !status.success() {
        bail!("cargo: {status}");
    }
    Ok(workspace.target.join(TARGET).join("release").join(binary))
}

/// The paths of this machine that the compiler would write into panic messages, replaced by fixed ones.
fn remapped_paths(workspace: &Workspace) -> Result<Vec<String>> {
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(&env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    let remap =
        |from: &Path, to: &str| format!("target.{TARGET}.rustflags=[\"--remap-path-prefix={}={to}\"]", from.display());
    Ok(vec![remap(&workspace.root, "berth"), remap(&cargo_home, "cargo")])
}
