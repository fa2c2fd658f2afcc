//! The two C programs of the image, from Debian's sources, static against musl: busybox, and mke2fs and e2fsck as one.

mod busybox;
mod e2fsprogs;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{output, tool};
use crate::digest::Key;
use crate::source::{self, SourcePackage};
use crate::workspace::Workspace;

/// Small before fast; tables for unwinding C are dead weight.
const C_FLAGS: &str = "-Os -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables";

/// Kernel interfaces that musl does not ship, and where Debian's linux-libc-dev has them.
const KERNEL_HEADERS: [(&str, &str); 4] = [
    ("linux", "/usr/include/linux"),
    ("asm", "/usr/include/x86_64-linux-gnu/asm"),
    ("asm-generic", "/usr/include/asm-generic"),
    ("mtd", "/usr/include/mtd"),
];

/// The name that makes a file system of e2fsprogs' program.
pub const MKE2FS: &str = "mke2fs";

/// The name that checks one.
pub const E2FSCK: &str = "e2fsck";

/// The programs, and the versions their manifest entries name.
#[derive(Debug)]
pub struct Userland {
    /// The busybox binary.
    pub busybox: PathBuf,
    /// Every applet of it, in order.
    pub applets: Vec<String>,
    /// Debian's version of busybox.
    pub busybox_version: String,
    /// Makes the state file system if it is called by [`MKE2FS`], checks it if by [`E2FSCK`].
    pub e2fsprogs: PathBuf,
    /// Debian's version of e2fsprogs.
    pub e2fsprogs_version: String,
}

/// Builds both, or finds them in the cache.
///
/// # Errors
/// If a source cannot be fetched, an option of busybox's configuration does not exist, or a build fails.
pub fn build(workspace: &Workspace) -> Result<Userland> {
    let compiler = output(tool("musl-gcc").arg("--version"))?;
    let headers = output(tool("dpkg-query").args(["--show", "linux-libc-dev", "musl-dev"]))?;
    let key = |kind: &str, source: &SourcePackage| {
        let key = Key::new(kind).part("source", &source.identity).part("flags", C_FLAGS);
        key.part("compiler", compiler.lines().next().unwrap_or_default()).part("headers", &headers)
    };

    let source = source::fetch(workspace, "busybox")?;
    let path = workspace.root.join("image-build/userland/busybox.config");
    let options = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let busybox_key = key("busybox 1", &source).part("options", &options).finish();
    let busybox =
        workspace.cache.entry_or("userland", &busybox_key, |folder| busybox::build(&source, &options, folder))?;
    let applets = fs::read_to_string(busybox.join("applets")).context("read the list of applets")?;
    let busybox_version = source.version;

    let source = source::fetch(workspace, "e2fsprogs")?;
    let path = workspace.root.join("image-build/userland/e2fsprogs.c");
    let entry = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let options = e2fsprogs::OPTIONS.join(" ");
    let e2fsprogs_key = key("e2fsprogs 3", &source).part("options", options).part("entry", &entry).finish();
    let e2fsprogs =
        workspace.cache.entry_or("userland", &e2fsprogs_key, |folder| e2fsprogs::build(&source, &path, folder))?;
    Ok(Userland {
        busybox: busybox.join("busybox"),
        applets: applets.lines().map(str::to_owned).collect(),
        busybox_version,
        e2fsprogs: e2fsprogs.join("e2fsprogs"),
        e2fsprogs_version: source.version,
    })
}

/// A folder for the build itself, inside the cache entry that is being made and gone before it is complete.
struct Scratch {
    folder: PathBuf,
    headers: PathBuf,
}

impl Scratch {
    fn new(into: &Path) -> Result<Self> {
        let folder = into.join("scratch");
        let headers = folder.join("headers");
        fs::create_dir_all(&headers).with_context(|| format!("make {}", headers.display()))?;
        for (name, target) in KERNEL_HEADERS {
            symlink(target, headers.join(name)).with_context(|| format!("link {name}"))?;
        }
        Ok(Self { folder, headers })
    }

    fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.folder).with_context(|| format!("remove {}", self.folder.display()))
    }
}
