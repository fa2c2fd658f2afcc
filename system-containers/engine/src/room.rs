//! Room on the state partition: how much of it images leave free.
//!
//! A full disk stops images and not the machine: logs, leases and the configuration still fit. Beside this, ext4 keeps
//! a fiftieth for root, which overlayfs and containers with a user namespace cannot touch.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::layer::{EntryPath, LayerError, failed};
use crate::limits;

/// How much is left free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    reserve: Option<u64>,
}

/// What a file system has left.
#[derive(Clone, Copy, Debug)]
struct Left {
    bytes: u64,
    inodes: u64,
    /// What is to be left of both.
    reserve: u64,
    inode_reserve: u64,
}

impl Room {
    /// With so many bytes; none is [`limits::RESERVED_BYTES`].
    pub fn new(reserve: Option<u64>) -> Self {
        Self { reserve }
    }

    fn left(self, place: BorrowedFd<'_>) -> Result<Left, Errno> {
        let space = rustix::fs::fstatvfs(place)?;
        let total = space.f_blocks.saturating_mul(space.f_frsize);
        let reserve = match self.reserve {
            Some(bytes) => bytes,
            // A small state, as one in memory is, keeps a sixteenth.
            None => limits::RESERVED_BYTES.min(total / 16),
        };
        // File systems without a fixed number of inodes say 0.
        let (inodes, inode_reserve) =
            if space.f_files > 0 { (space.f_favail, limits::RESERVED_INODES) } else { (u64::MAX, 0) };
        Ok(Left { bytes: space.f_bavail.saturating_mul(space.f_frsize), inodes, reserve, inode_reserve })
    }

    /// Refuses to take so many bytes more if what is to be left would be touched.
    pub fn check(self, place: BorrowedFd<'_>, wanted: u64) -> Result<(), LayerError> {
        let left = self.left(place).map_err(failed("look for free space at", &EntryPath::ROOT))?;
        if left.bytes < left.reserve.saturating_add(wanted) || left.inodes < left.inode_reserve {
            return Err(LayerError::NoSpace { free: left.bytes, inodes: left.inodes });
        }
        Ok(())
    }

    /// Whether less is left than is to be. A file system that says nothing has enough.
    pub fn is_short(self, place: BorrowedFd<'_>) -> bool {
        self.left(place).is_ok_and(|left| left.bytes < left.reserve || left.inodes < left.inode_reserve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn what_is_to_be_left_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let opened = std::fs::File::open(directory.path()).unwrap();
        assert!(matches!(Room::default().check(opened.as_fd(), u64::MAX), Err(LayerError::NoSpace { .. })));
        assert!(matches!(Room::new(Some(u64::MAX)).check(opened.as_fd(), 0), Err(LayerError::NoSpace { .. })));
        assert!(Room::new(Some(u64::MAX)).is_short(opened.as_fd()) && !Room::new(Some(0)).is_short(opened.as_fd()));
    }
}
