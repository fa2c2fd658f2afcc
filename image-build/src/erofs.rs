//! Packing a tree into EROFS with zstd, which Debian 12's mkfs.erofs does not know: that of Debian 13 is fetched, and run by
//! its own loader with its own libraries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{output, step, tool};
use crate::digest::{self, Key};
use crate::manifest::Tree;
use crate::workspace::Workspace;

/// Where it comes from: the suite, the folder in the cache, the package.
const PROGRAM: [&str; 3] = ["trixie", "erofs-utils-trixie", "erofs-utils"];

/// Clusters are cut where they are 384 KiB unpacked, at the end of a page; packed, programs of that size are less than the
/// 256 KiB that a cluster may have. One that is filled to a size (128 KiB would hold as much) ends in the midst of a page,
/// and for the rest of it the kernel unpacks a block of the next a second time; filling also takes several attempts: 80 s
/// instead of 13.
const OPTIONS: [&str; 8] = [
    "-zzstd,level=22",
    "-C262144",
    "--max-extent-bytes=393216",
    "-Eztailpacking",
    "-T0",
    "-x-1",
    "--all-root",
    "--quiet",
];

/// A mkfs.erofs that knows zstd.
struct Packer {
    root: PathBuf,
}

/// Packs `tree`, or finds it packed in the cache; where the image lies. The same tree and UUID give the same bytes, with
/// the same version of Debian's package.
///
/// # Errors
/// If mkfs.erofs cannot be fetched, or fails.
pub fn pack(workspace: &Workspace, tree: &Tree, uuid: &str) -> Result<PathBuf> {
    let packer = Packer::fetch(workspace)?;
    let key = Key::new("root 1")
        .part("packer", digest::of_tree_state(&packer.root)?)
        .part("options", OPTIONS.join(" "))
        .part("uuid", uuid);
    let entry = workspace.cache.entry_or("root", &tree.add_to(key).finish(), |folder| {
        step("packing the root file system");
        let unpacked = folder.join("tree");
        fs::create_dir(&unpacked).with_context(|| format!("make {}", unpacked.display()))?;
        tree.write_below(&unpacked)?;
        let image = folder.join("rootfs.erofs");
        output(packer.command().args(OPTIONS).args(["-U", uuid]).arg(image).arg(&unpacked))?;
        fs::remove_dir_all(&unpacked).with_context(|| format!("remove {}", unpacked.display()))
    })?;
    Ok(entry.join("rootfs.erofs"))
}

impl Packer {
    fn fetch(workspace: &Workspace) -> Result<Self> {
        let script = workspace.root.join("image-build/fetch-debian.sh");
        let root = output(tool(&script.to_string_lossy()).args(PROGRAM)).context("fetch mkfs.erofs of Debian 13")?;
        Ok(Self { root: Path::new(root.trim()).to_owned() })
    }

    fn command(&self) -> Command {
        let mut command = tool(&self.root.join("usr/lib64/ld-linux-x86-64.so.2").to_string_lossy());
        command.arg("--library-path").arg(self.root.join("usr/lib/x86_64-linux-gnu"));
        command.arg(self.root.join("usr/bin/mkfs.erofs"));
        command
    }
}
