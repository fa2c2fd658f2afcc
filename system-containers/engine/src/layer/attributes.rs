//! Which extended attributes of an image are kept.
//!
//! `user.*`, `security.*` (file capabilities above all) and the POSIX access control lists are. `trusted.*` is the
//! host's own name space: `trusted.overlay.redirect` from an image would make overlayfs show directories of its
//! choice, so none of it is taken.

use std::os::fd::BorrowedFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Whether an attribute of an image is written.
pub fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"security.")
        || matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default")
}

/// Sets one attribute of an open file or directory. A file system that cannot keep it is no error, except for file
/// capabilities: without them a program would run differently.
pub fn set(file: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    tolerate(name, rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()))
}

fn tolerate(name: &[u8], result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::OPNOTSUPP | Errno::PERM) if name != b"security.capability" => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::is_kept;

    #[test]
    fn the_hosts_attributes_are_not_the_images() {
        assert!(is_kept(b"user.comment") && is_kept(b"security.capability") && is_kept(b"system.posix_acl_access"));
        assert!(
            !is_kept(b"trusted.overlay.redirect")
                && !is_kept(b"trusted.overlay.opaque")
                && !is_kept(b"system.nfs4_acl")
        );
    }
}
