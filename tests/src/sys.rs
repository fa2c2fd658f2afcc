//! What needs unsafe code: a child that does not outlive its parent and inherits named descriptors.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::io::FdFlags;
use rustix::process::Signal;

/// Starts `command` with `inherited` open in it under the numbers they have here. The child is killed when the
/// calling thread ends (prctl(2), PR_SET_PDEATHSIG), so that a killed test run leaves no machine behind.
///
/// # Errors
/// Those of [`Command::spawn`] and of the two system calls.
pub fn spawn_tied(command: &mut Command, inherited: &[OwnedFd]) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    let numbers: Vec<i32> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have ended before the call above.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        for number in &numbers {
            // SAFETY: `borrow_raw` wants a descriptor that stays open while it is borrowed. `inherited` is borrowed
            // by the caller until after the fork, the child has a copy of the whole table, and it closes none
            // before the exec.
            let descriptor = unsafe { BorrowedFd::borrow_raw(*number) };
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed (fork(2)). The closure makes three
    // system calls through rustix, which neither allocate nor lock, and its error values hold no allocation.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}
