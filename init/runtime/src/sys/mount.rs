//! mount_setattr(2).
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::check;

/// Changes of a mount's attributes: `struct mount_attr` of linux/mount.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct MountAttributes {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear, before setting.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` or 0.
    pub propagation: u64,
    /// For `MOUNT_ATTR_IDMAP`.
    pub user_namespace: u64,
}

/// `MOUNT_ATTR_*` of linux/mount.h.
pub(crate) mod attribute {
    pub(crate) const READ_ONLY: u64 = 0x1;
    pub(crate) const NO_SUID: u64 = 0x2;
    pub(crate) const NO_DEVICES: u64 = 0x4;
    pub(crate) const NO_EXEC: u64 = 0x8;
    /// A field of three bits: 0 is relatime.
    pub(crate) const ACCESS_TIME: u64 = 0x70;
    pub(crate) const NO_ACCESS_TIME: u64 = 0x10;
    pub(crate) const STRICT_ACCESS_TIME: u64 = 0x20;
    pub(crate) const NO_DIRECTORY_ACCESS_TIME: u64 = 0x80;
    pub(crate) const ID_MAP: u64 = 0x10_0000;
    pub(crate) const NO_SYMLINK_FOLLOW: u64 = 0x20_0000;
}

/// Changes the attributes of the mount that `mount` refers to, or with `recursive` of the whole tree.
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    attributes: &MountAttributes,
) -> Result<(), Errno> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let size = std::mem::size_of::<MountAttributes>();
    // SAFETY: mount_setattr(2) reads the NUL-terminated `path` and `size` bytes of `attributes`, whose layout is the
    // kernel's; both outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size,
        )
    })
    .map(drop)
}
