//! An overlay as a container's root.
//!
//! With a user namespace the layers, which are owned by 0 and up on disk, are id-mapped to the container's range one
//! by one. overlayfs (Linux 6.12) takes layers only by path, in the mount namespace of who mounts it; so the
//! id-mapped clones are attached, each over its own directory, in a mount namespace that this process has for itself.
//! The overlay keeps private copies of what it needs, and the namespace ends with the process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::MountError;
use super::attach;
use super::filesystem::Filesystem;
use super::layers::Layer;
use crate::error::Context;
use crate::sys::privileges;

/// The directories of an overlay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layers<'a> {
    /// The uppermost first; those that are images are mounted.
    pub lower: &'a [Layer],
    /// Writable; with `work` or not at all.
    pub upper: Option<&'a Path>,
    /// On the file system of `upper`.
    pub work: Option<&'a Path>,
}

/// The user namespace that layers are mapped to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping<'a> {
    /// The container's.
    pub user_namespace: BorrowedFd<'a>,
    /// Its root's ids on the host.
    pub root: (u32, u32),
}

/// The overlay as a detached mount. With a mapping the calling process must be in a mount namespace of its own.
pub(crate) fn make(layers: Layers<'_>, mapping: Option<Mapping<'_>>) -> Result<OwnedFd, MountError> {
    if layers.lower.is_empty() {
        return Err(MountError::Overlay { reason: "there must be at least one layer" });
    }
    if let Some(Mapping { user_namespace, .. }) = mapping {
        for layer in layers.lower {
            cover(layer.directory(), user_namespace)?;
        }
        if let (Some(upper), Some(work)) = (layers.upper, layers.work) {
            cover(common(upper, work)?, user_namespace)?;
        }
    }
    let filesystem = Filesystem::open("overlay")?;
    filesystem.set("source", "overlay")?;
    if layers.lower.iter().any(|layer| matches!(layer, Layer::Image { .. })) {
        // They are file systems of their own. Numbers of inodes that say which one stay as they are when a file is copied
        // up, and all files seem to be on one device.
        filesystem.set("xino", "on")?;
    }
    // Paths may be longer than a value of fsconfig(2) can be, and may contain colons: name them by descriptor.
    let mut held = Vec::new();
    for layer in layers.lower {
        filesystem.set("lowerdir+", &by_descriptor(layer.directory(), &mut held)?)?;
    }
    for (key, directory) in [("upperdir", layers.upper), ("workdir", layers.work)] {
        if let Some(directory) = directory {
            filesystem.set(key, &by_descriptor(directory, &mut held)?)?;
        }
    }
    let Some(Mapping { root: (uid, gid), .. }) = mapping else { return filesystem.mount(0) };
    // overlayfs makes files in the work directory as who mounts it, and that must be somebody whom the map knows:
    // else it quietly becomes read-only.
    privileges::set_file_ids(uid, gid).on("setfsuid", "root of the user namespace")?;
    let result = filesystem.mount(0);
    privileges::set_file_ids(0, 0).on("setfsuid", "0")?;
    result
}

fn by_descriptor(path: &Path, held: &mut Vec<OwnedFd>) -> Result<String, MountError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).context("open", || path.display().to_string())?;
    let name = format!("/proc/self/fd/{}", directory.as_raw_fd());
    held.push(directory);
    Ok(name)
}

/// Mounts an id-mapped clone of a directory over itself.
fn cover(directory: &Path, user_namespace: BorrowedFd<'_>) -> Result<(), MountError> {
    let clone = attach::clone_tree(CWD, directory, false)?;
    attach::map_ids(clone.as_fd(), user_namespace, false)?;
    let target = rustix::fs::open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .context("open", || directory.display().to_string())?;
    attach::attach(clone.as_fd(), target.as_fd(), &directory.display().to_string())
}

/// The directory that both are in. overlayfs wants them to be of one mount, so they are covered together.
fn common<'a>(upper: &'a Path, work: &Path) -> Result<&'a Path, MountError> {
    upper
        .ancestors()
        .skip(1)
        .find(|ancestor| work.starts_with(ancestor))
        .filter(|ancestor| ancestor.parent().is_some())
        .ok_or(MountError::Overlay { reason: "the upper and the work directory must be in one directory below /" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_and_work_meet_in_their_nearest_directory() {
        let common = |upper: &'static str, work| common(Path::new(upper), Path::new(work)).ok();
        assert_eq!(common("/state/web/upper", "/state/web/work"), Some(Path::new("/state/web")));
        assert_eq!(common("/state/upper/web", "/state/work/web"), Some(Path::new("/state")));
        assert_eq!(common("/upper", "/work"), None);
    }
}
