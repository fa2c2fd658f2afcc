//! Packing a tree into EROFS with zstd, which Debian 12's mkfs.erofs does not know: that of Debian 13 is fetched, and run by
//! its own loader with its own libraries.

use std::path::Path;

use anyhow::{Context, Result};

use crate::command::{output, tool};
use crate::workspace::Workspace;

/// Where it comes from: the suite, the folder in the cache, the package.
const PROGRAM: [&str; 3] = ["trixie", "erofs-utils-trixie", "erofs-utils"];

/// Clusters of 128 KiB: a page that is read costs no more than that much unpacking, and the kernel keeps as much for each
/// processor. 1 MiB would save another 0.3 MiB.
const COMPRESSION: [&str; 3] = ["-zzstd,level=22", "-C131072", "-Eztailpacking"];

/// Packs `folder` into `image`. The same tree and UUID give the same bytes, with the same version of Debian's package.
///
/// # Errors
/// If mkfs.erofs cannot be fetched, or fails.
pub fn pack(workspace: &Workspace, folder: &Path, uuid: &str, image: &Path) -> Result<()> {
    let script = workspace.root.join("image-build/fetch-debian.sh");
    let root = output(tool(&script.to_string_lossy()).args(PROGRAM)).context("fetch mkfs.erofs of Debian 13")?;
    let root = Path::new(root.trim());
    let mut pack = tool(&root.join("usr/lib64/ld-linux-x86-64.so.2").to_string_lossy());
    pack.arg("--library-path").arg(root.join("usr/lib/x86_64-linux-gnu")).arg(root.join("usr/bin/mkfs.erofs"));
    pack.args(COMPRESSION).args(["-T0", "-x-1", "--all-root", "--quiet", "-U", uuid]).arg(image).arg(folder);
    output(&mut pack).map(drop)
}
