//! Detached mount trees: cloning, changing and attaching them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::MountError;
use super::options::Options;
use crate::error::{Context, SystemError};
use crate::sys::mount::{MountAttributes, attribute, mount_setattr};

/// A detached clone of the mount at a path, with `recursive` of everything below as well.
pub(crate) fn clone_tree(directory: BorrowedFd<'_>, path: &Path, recursive: bool) -> Result<OwnedFd, SystemError> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(directory, path, flags).context("open_tree", || path.display().to_string())
}

/// A detached clone of what a descriptor refers to, which must be in the caller's mount namespace.
pub(crate) fn clone_of(descriptor: BorrowedFd<'_>, recursive: bool, name: &str) -> Result<OwnedFd, SystemError> {
    clone_tree(descriptor, Path::new(""), recursive).map_err(|error| SystemError { subject: name.to_owned(), ..error })
}

/// Attaches a detached tree on top of what `target` refers to.
pub(crate) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &str) -> Result<(), MountError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", target, "", flags).on("move_mount", name)?)
}

/// Maps the owners that files have on disk to those of a user namespace.
pub(crate) fn map_ids(
    tree: BorrowedFd<'_>,
    user_namespace: BorrowedFd<'_>,
    recursive: bool,
) -> Result<(), SystemError> {
    let user_namespace = u64::try_from(user_namespace.as_raw_fd()).unwrap_or_default();
    let attributes = MountAttributes { set: attribute::ID_MAP, user_namespace, ..MountAttributes::default() };
    mount_setattr(tree, c"", recursive, &attributes).on("mount_setattr", "idmap (the file system may not support it)")
}

/// Puts attributes and propagation of the options in force, on a bind mount or one's own.
pub(crate) fn change(tree: BorrowedFd<'_>, options: &Options, destination: &str) -> Result<(), SystemError> {
    for (attributes, recursive) in [(&options.attributes, false), (&options.recursive, true)] {
        if attributes.set | attributes.clear != 0 {
            mount_setattr(tree, c"", recursive, attributes).on("mount_setattr", destination)?;
        }
    }
    for (propagation, recursive) in &options.propagation {
        set_propagation(tree, *propagation, *recursive, destination)?;
    }
    Ok(())
}

/// `MS_SHARED` and its kin.
pub(crate) fn set_propagation(
    tree: BorrowedFd<'_>,
    propagation: u64,
    recursive: bool,
    name: &str,
) -> Result<(), SystemError> {
    let attributes = MountAttributes { propagation, ..MountAttributes::default() };
    mount_setattr(tree, c"", recursive, &attributes).on("mount_setattr (propagation)", name)
}

/// Makes a tree read-only.
pub(crate) fn make_read_only(tree: impl AsFd, recursive: bool, name: &str) -> Result<(), SystemError> {
    let attributes = MountAttributes { set: attribute::READ_ONLY, ..MountAttributes::default() };
    mount_setattr(tree.as_fd(), c"", recursive, &attributes).on("mount_setattr (read-only)", name)
}
