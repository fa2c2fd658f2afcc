//! Taking over descriptors that the caller of the command left open. With [`heap`] the only unsafe code.
#![allow(unsafe_code)]

pub mod heap;

use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use rustix::io::Errno;

/// Descriptor `number`, which this command was started with. Call once for a number, before anything is opened.
pub fn inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: F_GETFD takes no argument and changes nothing; a number that is not open gives EBADF.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(Errno::BADF);
    }
    // SAFETY: `from_raw_fd` wants an open descriptor that nobody else owns. It is open (see above), and by this
    // function's contract it was there before this program opened any, so no owner of ours has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Nothing that this command runs itself, as a hook, is to have what its caller left open.
pub fn close_others_on_exec() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: close_range(2) takes three integers; with CLOSE_RANGE_CLOEXEC nothing is closed now, so no owner of a
    // descriptor is wronged.
    // A kernel without it (before 5.11) cannot run containers of ours anyway.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}
