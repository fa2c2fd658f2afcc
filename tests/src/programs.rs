//! Programs of this host in a folder of their own, with the libraries that they need: for machines that have none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::archive::Layer;
use crate::disks::with_system_folders;

/// Links at a root's top, as Debian has them: a loader is asked for at /lib64.
const LINKS: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// Copies each of `names`, found as a shell finds it, and its libraries into `root`.
///
/// # Errors
/// If one is not there, or cannot be copied.
pub fn copy(names: &[&str], root: &Path) -> Result<()> {
    let mut files = BTreeSet::new();
    for name in names {
        let program = find(name).with_context(|| format!("this host has no program {name}"))?;
        files.extend(libraries(&program)?);
        put(&program, &root.join("usr/bin").join(name))?;
    }
    for file in files {
        let below = file.strip_prefix("/").unwrap_or(&file);
        let below = if below.starts_with("usr") { below.to_owned() } else { Path::new("usr").join(below) };
        put(&file, &root.join(below))?;
    }
    for link in LINKS {
        std::fs::create_dir_all(root.join("usr").join(link))?;
        std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link)).with_context(|| format!("link {link}"))?;
    }
    Ok(())
}

/// Programs of this host as a layer of an image, in /usr; what is copied goes through the folder `scratch`.
///
/// # Errors
/// As [`copy`], or if the copies cannot be read.
pub fn layer(names: &[&str], scratch: &Path) -> Result<Layer> {
    copy(names, scratch)?;
    Ok(add(Layer::new(), scratch, "usr")?.symbolic_link("lib64", "usr/lib64"))
}

/// All that is below a folder of `root`.
fn add(mut layer: Layer, root: &Path, folder: &str) -> Result<Layer> {
    layer = layer.folder(folder);
    for entry in std::fs::read_dir(root.join(folder)).with_context(|| format!("list {folder}"))? {
        let entry = entry?;
        let below = format!("{folder}/{}", entry.file_name().to_string_lossy());
        layer = if entry.file_type()?.is_dir() {
            add(layer, root, &below)?
        } else {
            layer.file(&below, 0o755, &std::fs::read(entry.path())?)
        };
    }
    Ok(layer)
}

/// Copies one file to its place.
///
/// # Errors
/// If that fails.
pub fn put(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display())).map(drop)
}

fn find(name: &str) -> Option<PathBuf> {
    let path = with_system_folders();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// What ldd(1) names: lines such as `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f…)` and
/// `/lib64/ld-linux-x86-64.so.2 (0x00007f…)`. A static program has none.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("start ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("not found") {
        bail!("{} lacks a library: {text}", program.display());
    }
    Ok(named(&text))
}

fn named(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    text.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_ldd_names() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(named(text), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from));
        assert!(named("\tnot a dynamic executable\n").is_empty());
    }
}
