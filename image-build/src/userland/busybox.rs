//! busybox with the applets of its configuration, and nothing else of it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{C_FLAGS, Scratch};
use crate::command::{jobs, logged, output, step, tool};
use crate::source::SourcePackage;

/// Builds it into the folder, with the list of its applets beside it.
///
/// # Errors
/// If an option does not exist, or the build fails.
pub fn build(source: &SourcePackage, options: &str, into: &Path) -> Result<()> {
    step(&format!("building busybox {}", source.version));
    let scratch = Scratch::new(into)?;
    let tree = scratch.folder.join("tree");
    output(tool("cp").args(["-a", "--"]).arg(&source.tree).arg(&tree))?;
    let log = scratch.folder.join("log");
    // busybox's old kconfig ignores KCONFIG_ALLCONFIG for booleans, so: take every symbol it knows, switch it off,
    // and append what is wanted; `oldconfig` then sorts out what depends on what.
    logged(tool("make").arg("-C").arg(&tree).arg("allyesconfig"), &log)?;
    let path = tree.join(".config");
    let known = fs::read_to_string(&path).context("read busybox's .config")?;
    fs::write(&path, only(&known, options)).context("write busybox's .config")?;
    logged(tool("sh").args(["-c", "yes '' | make oldconfig"]).current_dir(&tree), &log)?;
    let final_options = fs::read_to_string(&path).context("read busybox's .config")?;
    let missing: Vec<&str> = wanted(options).filter(|line| !final_options.lines().any(|is| is == *line)).collect();
    if !missing.is_empty() {
        bail!("busybox has no such options, or they lack something they need:\n  {}", missing.join("\n  "));
    }
    let flags = format!("{C_FLAGS} -idirafter {}", scratch.headers.display());
    let mut make = tool("make");
    make.arg("-C").arg(&tree).arg(format!("-j{}", jobs())).arg("CC=musl-gcc").arg(format!("EXTRA_CFLAGS={flags}"));
    // No name of the build machine, no time.
    make.arg("busybox").env("KCONFIG_NOTIMESTAMP", "1");
    logged(&mut make, &log)?;
    let busybox = tree.join("busybox");
    let applets = output(tool(&busybox.to_string_lossy()).arg("--list"))?;
    fs::write(into.join("applets"), applets).context("write the list of applets")?;
    fs::copy(&busybox, into.join("busybox")).context("copy busybox")?;
    scratch.remove()
}

fn wanted(options: &str) -> impl Iterator<Item = &str> {
    options.lines().filter(|line| line.starts_with("CONFIG_"))
}

/// `known` with every boolean off and then `options` on top.
fn only(known: &str, options: &str) -> String {
    let symbol = |line: &str| {
        let line = line.strip_prefix("# ").unwrap_or(line);
        line.split(['=', ' ']).next().unwrap_or_default().to_owned()
    };
    let chosen: Vec<String> = wanted(options).map(symbol).collect();
    let mut text = String::new();
    for line in known.lines().filter(|line| !chosen.contains(&symbol(line))) {
        match line.strip_suffix("=y") {
            Some(symbol) => text += &format!("# {symbol} is not set\n"),
            None => text += &format!("{line}\n"),
        }
    }
    wanted(options).for_each(|line| text += &format!("{line}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_off() {
        let known = "CONFIG_A=y\nCONFIG_B=y\nCONFIG_N=3\n# CONFIG_D is not set\n";
        let text = only(known, "# why\nCONFIG_B=y\nCONFIG_N=4\nCONFIG_D=y\n");
        assert_eq!(text, "# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_N=4\nCONFIG_D=y\n");
    }
}
