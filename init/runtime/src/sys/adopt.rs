//! Owning a descriptor by its number.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::check;

/// Takes a descriptor that the last program left open over its exec, and closes it on the next one. EBADF: there is none,
/// or it is this program's own already.
pub(crate) fn adopt(number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: fcntl(2) F_GETFD touches no memory, and is an error for a number that is no descriptor.
    let flags = check(libc::c_long::from(unsafe { libc::fcntl(number, libc::F_GETFD) }))?;
    if number < 3 || flags & libc::c_long::from(libc::FD_CLOEXEC) != 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: as above, for F_SETFD.
    check(libc::c_long::from(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }))?;
    // SAFETY: it is open, and nobody else in this program owns it: everything that the program opens is closed on exec,
    // and so is, since the line above, what was adopted once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
