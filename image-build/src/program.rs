//! The Rust programs of the image, built by cargo for musl.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::step;
use crate::workspace::Workspace;

/// What the image's programs are linked for.
const TARGET: &str = "x86_64-unknown-linux-musl";

/// A program that is built.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// The package it belongs to.
    pub package: &'static str,
    /// Its name.
    pub binary: &'static str,
    /// Features it needs beside the default ones, by commas.
    pub features: &'static str,
}

/// The one binary of the image.
pub const BERTH: Program = Program { package: "berth", binary: "berth", features: "" };

/// The runtime as a command line of its own, for ordinary hosts.
pub const BERTH_OCI: Program = Program { package: "berth-runtime", binary: "berth-oci", features: "cli" };

/// Builds a program and returns where it lies.
///
/// # Errors
/// If cargo fails.
pub fn build(workspace: &Workspace, program: Program) -> Result<PathBuf> {
    let Program { package, binary, features } = program;
    step(&format!("building {binary} for {TARGET}"));
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(&workspace.root).args(["build", "--release", "--target", TARGET]);
    command.args(["--package", package, "--bin", binary, "--features", features]);
    command.env("CARGO_TARGET_DIR", &workspace.target);
    command.arg("--config").arg(flags(workspace)?);
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

/// Flags of the linker for what ships, beside those of .cargo/config.toml: tests, which unwind, must not have them.
const LINKED_AS_SHIPPED: [&str; 2] = ["link-arg=-Wl,-T,image-build/layout.ld", "link-arg=-Wl,--no-eh-frame-hdr"];

/// Compiler flags on top of .cargo/config.toml: the paths of this machine that would be written into panic messages are
/// replaced by fixed ones, and tables for unwinding are left out.
fn flags(workspace: &Workspace) -> Result<String> {
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(&env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    let remap = |from: &Path, to: &str| format!("\"--remap-path-prefix={}={to}\"", from.display());
    let mut flags = vec![remap(&workspace.root, "berth"), remap(&cargo_home, "cargo")];
    flags.extend(LINKED_AS_SHIPPED.iter().map(|flag| format!("\"-C{flag}\"")));
    Ok(format!("target.{TARGET}.rustflags=[{}]", flags.join(",")))
}
