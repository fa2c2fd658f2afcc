//! The system calls that std and rustix do not have in a safe form.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io::{Error, Result};
use std::time::{Duration, Instant};

use rustix::thread::UnshareFlags;

/// What became of a process, and what it took.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub success: bool,
    /// The largest resident set, in KiB, of it and of those it has waited for.
    pub peak: u64,
}

/// A mount namespace of its own for this process.
pub fn leave_mount_namespace() -> Result<()> {
    // SAFETY: unshare(2) of the mount namespace is unsafe only for what other threads share; there are none.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?)
}

/// Waits for a child, or with -1 for any: wait4(2).
pub fn wait(pid: i32) -> Result<Ended> {
    let mut status = 0;
    // SAFETY: rusage is plain integers, for which all zeroes is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: wait4(2) writes one int and one rusage, both of which live on this stack.
    let pid = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    if pid < 0 {
        return Err(Error::last_os_error());
    }
    let success = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
    Ok(Ended { success, peak: u64::try_from(usage.ru_maxrss).unwrap_or_default() })
}

/// Becomes a program; returns only why not.
pub fn execute(command: &[&str]) -> Error {
    use std::os::unix::process::CommandExt as _;
    let Some((program, arguments)) = command.split_first() else { return Error::other("no command") };
    std::process::Command::new(program).args(arguments).exec()
}

/// The least that a container can be: clone3(2) with `flags`, execve(2), waitpid(2).
pub fn clone_and_execute(program: &str, flags: u64) -> Result<Duration> {
    let program = CString::new(program)?;
    let arguments = [program.as_ptr(), std::ptr::null()];
    // SAFETY: clone_args is plain integers, for which all zeroes is a valid value.
    let mut clone: libc::clone_args = unsafe { std::mem::zeroed() };
    clone.flags = flags;
    clone.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    let begin = Instant::now();
    // SAFETY: clone3(2) reads `clone`, which lives on this stack, and no pointers in it; without CLONE_VM the child goes
    // on with a copy of this stack.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const clone, std::mem::size_of_val(&clone)) };
    if pid == 0 {
        // SAFETY: the path and the one argument are strings with NUL, the list ends with a null pointer, and there is no
        // environment, which Linux takes as an empty one.
        unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), std::ptr::null()) };
        // SAFETY: _exit(2) takes an integer; the child does not go on.
        unsafe { libc::_exit(1) };
    }
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0).ok_or_else(Error::last_os_error)?;
    if wait(pid)?.success { Ok(begin.elapsed()) } else { Err(Error::other("the program has failed")) }
}
