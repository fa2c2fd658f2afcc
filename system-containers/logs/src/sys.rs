//! accept4(2), which nix hands over as a bare number.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{SockFlag, accept4};

/// Takes a connection from a listening socket.
pub fn accept(listener: BorrowedFd<'_>, flags: SockFlag) -> nix::Result<OwnedFd> {
    let number = accept4(listener.as_raw_fd(), flags)?;
    // SAFETY: `from_raw_fd` wants an open descriptor that nobody else owns: accept4(2) has just made this one and nobody
    // else has seen its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
