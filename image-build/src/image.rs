//! The whole image: every part in order, and the results in `out/`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::step;
use crate::workspace::{Workspace, shown};
use crate::{digest, disk, kernel, program, root, userland};

/// Builds everything and leaves `berth.img`, `vmlinuz`, `rootfs.erofs` and `manifest.txt` in `out`.
///
/// # Errors
/// If a part fails.
pub fn build(workspace: &Workspace, out: &Path) -> Result<PathBuf> {
    let kernel = kernel::build(workspace)?;
    let userland = userland::build(workspace)?;
    let berth = program::build(workspace, "berth", "berth")?;
    let root = root::build(workspace, &userland, &berth, out)?;

    step("assembling the disk");
    // A QEMU that still runs keeps the file it has open: the new one takes its name.
    let fresh = out.join("berth.img.new");
    let image = out.join("berth.img");
    disk::build(workspace, &kernel.image, &root, &fresh)?;
    fs::rename(&fresh, &image).with_context(|| format!("replace {}", image.display()))?;
    fs::copy(&kernel.image, out.join("vmlinuz")).context("copy the kernel")?;
    step(&format!(
        "{}: kernel {}, root {}",
        shown(workspace, &image),
        mebibytes(&kernel.image)?,
        mebibytes(&root.image)?
    ));
    Ok(image)
}

/// Builds the image twice, the second time with the programs compiled anew in another folder, and compares.
///
/// # Errors
/// If a build fails or a byte differs.
pub fn check_reproducible(workspace: &Workspace) -> Result<()> {
    let out = workspace.out()?.join("reproducible");
    let mut digests = Vec::new();
    for name in ["first", "second"] {
        let folder = out.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let image = build(workspace, &folder)?;
        digests.push(digest::of_file(&image)?);
    }
    if digests[0] != digests[1] {
        bail!("two builds differ: {} and {}", digests[0], digests[1]);
    }
    step(&format!("two builds, the same bytes: sha256 {}", digests[0]));
    fs::remove_dir_all(&out).with_context(|| format!("remove {}", out.display()))
}

fn mebibytes(path: &Path) -> Result<String> {
    let size = fs::metadata(path).with_context(|| format!("stat {}", path.display()))?.len();
    Ok(format!("{}.{:02} MiB", size >> 20, ((size & 0xf_ffff) * 100) >> 20))
}
