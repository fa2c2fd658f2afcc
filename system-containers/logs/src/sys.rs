//! The system calls that nix has not, or hands over as bare numbers.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{SockFlag, accept4};

/// Takes a connection from a listening socket.
pub fn accept(listener: BorrowedFd<'_>, flags: SockFlag) -> nix::Result<OwnedFd> {
    let number = accept4(listener.as_raw_fd(), flags)?;
    // SAFETY: `from_raw_fd` wants an open descriptor that nobody else owns: accept4(2) has just made this one and nobody
    // else has seen its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// FIONREAD: how many bytes a pipe has, see pipe(7).
pub fn readable(pipe: BorrowedFd<'_>) -> nix::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: ioctl(2) with FIONREAD writes one int through its third argument, which points to one that lives until
    // the call returns; the descriptor is open for as long as it is borrowed. A descriptor that is no pipe is answered
    // with an error or a number.
    let result = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    Errno::result(result)?;
    Ok(usize::try_from(count).unwrap_or(0))
}
