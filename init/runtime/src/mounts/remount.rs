//! The option `remount`: changes a mount that an earlier entry of the list has made, and makes none.
//!
//! What the options do not say stays as it is; mount(2) would take it away.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags, StatxAttributes, StatxFlags};

use super::options::Options;
use super::{MountError, attach, filesystem};
use crate::error::Context;
use crate::rootfs::{Root, RootError};
use crate::spec::Mount;

/// Changes what is mounted at the destination: with `bind` the mount alone, else its file system too. Gives the mount.
pub(crate) fn remount(root: &Root, mount: &Mount, options: &Options) -> Result<OwnedFd, MountError> {
    let refused = |reason| MountError::Option { option: "remount".to_owned(), reason };
    if options.id_map.is_some() || options.copy_up {
        return Err(refused("can neither map ids nor copy files up: the mount is there already"));
    }
    let destination = mount.destination.as_str();
    let kind = mount.kind.as_deref().unwrap_or("none");
    // As where they are made: /proc and /sys are behind no link.
    let target = match kind {
        "proc" | "sysfs" => root.open_plain(destination).map_err(RootError::into_mount_error)?,
        _ => root.open(destination, OFlags::PATH).on("open", destination)?,
    };
    let stat = rustix::fs::statx(&target, "", AtFlags::EMPTY_PATH, StatxFlags::empty()).on("statx", destination)?;
    if !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(refused("needs something that is mounted there"));
    }
    if options.bind.is_none() && !matches!(kind, "bind" | "rbind") {
        filesystem::reconfigure(target.as_fd(), kind, options)?;
    }
    let mut now = options.clone();
    if filesystem::is_late(kind) {
        now.attributes.set &= !crate::sys::mount::attribute::READ_ONLY;
    }
    attach::change(target.as_fd(), &now, destination)?;
    Ok(target)
}
