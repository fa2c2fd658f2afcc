//! execve(2), execveat(2), TIOCSCTTY.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::Errno;

use super::check;

/// Becomes another program; returns only on failure.
pub(crate) fn execute(path: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    let pointers = |texts: &[CString]| {
        texts.iter().map(|text| text.as_ptr()).chain(std::iter::once(std::ptr::null())).collect::<Vec<_>>()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: execve(2) reads a NUL-terminated path and two arrays of such texts that end in a null pointer; all of
    // them are borrowed for the length of this function.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    check(-1).err().unwrap_or(Errno::IO)
}

/// Becomes the program of a descriptor; returns only on failure. See execveat(2).
pub(crate) fn execute_descriptor(program: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> Errno {
    let pointers = |texts: &[CString]| {
        texts.iter().map(|text| text.as_ptr()).chain(std::iter::once(std::ptr::null())).collect::<Vec<_>>()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    let (arguments, environment) = (arguments.as_ptr(), environment.as_ptr());
    let number = program.as_raw_fd();
    // SAFETY: execveat(2) reads an empty path, which with AT_EMPTY_PATH stands for the descriptor, and two arrays of
    // NUL-terminated texts that end in a null pointer; all of them are borrowed for the length of this function.
    unsafe {
        libc::syscall(libc::SYS_execveat, number, c"".as_ptr(), arguments, environment, libc::AT_EMPTY_PATH);
    }
    check(-1).err().unwrap_or(Errno::IO)
}

/// Has a command start with every signal at its default and none blocked.
pub(crate) fn with_default_signals(command: &mut Command) {
    // SAFETY: `pre_exec` wants a function that does nothing between fork and exec that other threads' locks could stop:
    // this one makes system calls only, and neither allocates nor panics.
    unsafe {
        command.pre_exec(|| {
            super::clone::reset_signals();
            Ok(())
        })
    };
}

/// Makes `terminal` the controlling terminal of the calling session leader.
pub(crate) fn control_terminal(terminal: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: TIOCSCTTY takes an integer; the descriptor is open for the time of the borrow.
    check(libc::c_long::from(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) })).map(drop)
}
