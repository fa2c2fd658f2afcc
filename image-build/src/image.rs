//! The whole image: every part in order, and the results in `out/`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::command::step;
use crate::workspace::{Workspace, shown};
use crate::{digest, disk, kernel, program, root, userland};

/// Builds everything and leaves `berth.img`, the kernel, `rootfs.erofs` and `manifest.txt` in `out`.
///
/// # Errors
/// If a part fails.
pub fn build(workspace: &Workspace, out: &Path) -> Result<PathBuf> {
    let kernel = kernel::build(workspace)?;
    let userland = userland::build(workspace)?;
    let berth = program::build(workspace, program::BERTH)?;
    let root = root::build(workspace, &userland, &berth, out)?;

    step("assembling the disk");
    // A QEMU that still runs keeps the file it has open: the new one takes its name.
    let fresh = out.join("berth.img.new");
    let image = out.join("berth.img");
    disk::build(workspace, &kernel.image, &root, &fresh)?;
    fs::rename(&fresh, &image).with_context(|| format!("replace {}", image.display()))?;
    kernel.copy_to(out)?;
    let oci = program::build(workspace, program::BERTH_OCI)?;
    fs::copy(&oci, out.join("berth-oci")).with_context(|| format!("copy {}", oci.display()))?;
    step(&format!(
        "{}: kernel {}, root {}",
        shown(workspace, &image),
        mebibytes(&kernel.image)?,
        mebibytes(&root.image)?
    ));
    Ok(image)
}

/// Builds the image twice and compares. The second build has an empty cache and an empty target folder, elsewhere: it
/// fetches and compiles everything again, the kernel only if `with_kernel` (half an hour).
///
/// # Errors
/// If a build fails or a byte differs.
pub fn check_reproducible(workspace: &Workspace, with_kernel: bool) -> Result<()> {
    let folder = workspace.out()?.join("reproducible");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    let (first, second, cache) = (folder.join("first"), folder.join("second"), folder.join("cache"));
    for folder in [&first, &second, &cache] {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let image = build(workspace, &first)?;
    if !with_kernel {
        symlink(workspace.cache.folder("kernel")?, cache.join("kernel")).context("share the kernel")?;
    }
    let anew = Workspace { cache: Cache::in_folder(cache), target: folder.join("target"), ..workspace.clone() };
    let again = build(&anew, &second)?;
    let digests = [digest::of_file(&image)?, digest::of_file(&again)?];
    if digests[0] != digests[1] {
        bail!("two builds differ; compare {} and {}", first.display(), second.display());
    }
    step(&format!("two builds, the same bytes: sha256 {}", digests[0]));
    fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))
}

fn mebibytes(path: &Path) -> Result<String> {
    let size = fs::metadata(path).with_context(|| format!("stat {}", path.display()))?.len();
    Ok(format!("{}.{:02} MiB", size >> 20, ((size & 0xf_ffff) * 100) >> 20))
}
