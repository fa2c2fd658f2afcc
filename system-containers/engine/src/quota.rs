//! How much a directory may hold: ext4's project quotas.
//!
//! A directory's project is its own inode number, which nothing else has as long as the directory is there, so no list
//! of numbers has to be kept. What is made in it inherits the project, and everything counts to it. A limit lasts over
//! reboots; it is set before anything is in the directory. Without a limit it is still counted, so that its size is known
//! without a walk.
//!
//! Overlayfs writes without the right to pass over limits (CAP_SYS_RESOURCE), whoever has mounted it.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use crate::sys;

/// Why a directory has no limit.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// The file system cannot: not ext4, or made without project quotas.
    #[error("the file system of the state has no project quotas")]
    Unsupported,
    /// It could.
    #[error("{operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Its error.
        #[source]
        source: Errno,
    },
}

fn failed(operation: &'static str) -> impl FnOnce(Errno) -> QuotaError {
    move |source| match source {
        Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::ENOSYS | Errno::ESRCH | Errno::EINVAL => QuotaError::Unsupported,
        source => QuotaError::System { operation, source },
    }
}

/// Has what is in a new, empty directory counted, and limits it to so many bytes; 0 is no limit.
pub fn limit(directory: BorrowedFd<'_>, bytes: u64) -> Result<(), QuotaError> {
    let metadata = rustix::fs::fstat(directory).map_err(|error| Errno::from_raw(error.raw_os_error()));
    let inode = metadata.map_err(failed("look up the directory"))?.st_ino;
    // ext4's inode numbers have 32 bits; a file system with longer ones has no such quotas.
    let project = u32::try_from(inode).map_err(|_| QuotaError::Unsupported)?;
    // The limit first: a directory with a project and without its limit would never be looked at again. Also none: one that
    // is gone may have had this number, and a limit.
    sys::limit_project(directory, project, bytes).map_err(failed("set the limit of a project"))?;
    let mut attributes = sys::attributes(directory).map_err(failed("look up the directory's project"))?;
    attributes.project = project;
    attributes.flags |= sys::PROJECT_INHERITED;
    sys::set_attributes(directory, &attributes).map_err(failed("give the directory a project"))
}

/// What a directory with a limit holds, and the limit, in bytes; none without one.
pub fn used(directory: BorrowedFd<'_>) -> Option<(u64, u64)> {
    project_use(directory).filter(|(_, limit)| *limit > 0)
}

/// What a directory holds, in bytes on the disk, itself among them; none if that is not counted.
pub fn counted(directory: BorrowedFd<'_>) -> Option<u64> {
    project_use(directory).map(|(used, _)| used)
}

fn project_use(directory: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let project = sys::attributes(directory).ok()?.project;
    sys::project_use(directory, project).ok().filter(|_| project != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_file_system_without_quotas_says_so() {
        // The kernels that tests run on by themselves have no project quotas; the machine's has.
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let opened = std::fs::File::open(directory.path()).unwrap();
        assert!(matches!(limit(opened.as_fd(), 1 << 20), Err(QuotaError::Unsupported)));
        assert_eq!(used(opened.as_fd()), None);
        assert_eq!(counted(opened.as_fd()), None);
    }
}
