//! Making and entering processes and namespaces: clone3(2), setns(2), close_range(2), pidfd ioctls.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::check;

/// `CLONE_INTO_CGROUP` of linux/sched.h; libc's constant has too small a type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a clone the caller is.
#[derive(Debug)]
pub(crate) enum Side {
    /// The one that was there before.
    Parent {
        /// In the caller's PID namespace.
        pid: i32,
        /// Closed on exec.
        pidfd: OwnedFd,
    },
    /// The new process, with a copy of the caller's memory.
    Child,
}

/// Makes a process with its own copy of memory and descriptors, as fork(2). `flags` are namespaces and
/// `CLONE_PARENT`; the new process starts in `cgroup` if one is given.
///
/// The caller must be the only thread of its process: another thread's locks would stay locked in the child.
pub(crate) fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Side, Errno> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain integers, for which all zeroes is a valid value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags | libc::CLONE_PIDFD as u64;
    arguments.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    // With CLONE_PARENT the signal is the caller's own, and naming one is refused (clone(2)).
    arguments.exit_signal = if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    let size = std::mem::size_of::<libc::clone_args>();
    // SAFETY: clone3(2) reads `size` bytes of `arguments`, which lives on this stack, and writes a descriptor number
    // to `pidfd`, likewise. Without CLONE_VM the child continues on a copy of this stack, so no stack is needed and
    // no memory is shared; neither CLONE_SETTLS nor CLONE_CHILD_SETTID is ever passed.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&arguments), size) })?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    // SAFETY: on success the kernel has installed a new descriptor and written its number (clone(2), CLONE_PIDFD);
    // nobody else knows of it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Side::Parent { pid: i32::try_from(pid).unwrap_or(i32::MAX), pidfd })
}

/// Enters the namespaces of kinds `flags` that `descriptor`, a namespace or a pidfd, stands for: setns(2).
pub(crate) fn setns(descriptor: BorrowedFd<'_>, flags: u64) -> Result<(), Errno> {
    let flags = libc::c_int::try_from(flags).map_err(|_| Errno::INVAL)?;
    // SAFETY: setns(2) takes two integers; the descriptor is open for the time of the borrow.
    check(libc::c_long::from(unsafe { libc::setns(descriptor.as_raw_fd(), flags) })).map(drop)
}

/// Leaves namespaces for new ones: unshare(2) with `CLONE_NEW…` flags only.
pub(crate) fn unshare(flags: u64) -> Result<(), Errno> {
    let flags = libc::c_int::try_from(flags).map_err(|_| Errno::INVAL)?;
    // SAFETY: unshare(2) takes an integer; the callers pass namespace flags, none of CLONE_FILES, CLONE_FS or CLONE_VM
    // that would change what other threads share.
    check(libc::c_long::from(unsafe { libc::unshare(flags) })).map(drop)
}

/// Which namespace [`namespace_of`] asks for: `PIDFD_GET_*_NAMESPACE` of linux/pidfd.h.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(crate) enum PidfdNamespace {
    /// `_IO(0xff, 4)`
    Network = 0xff04,
    /// `_IO(0xff, 9)`
    User = 0xff09,
}

/// A descriptor of one of a process's namespaces (Linux 6.11).
pub(crate) fn namespace_of(pidfd: BorrowedFd<'_>, which: PidfdNamespace) -> Result<OwnedFd, Errno> {
    // SAFETY: these ioctls take no argument (the third one must be 0) and return a new descriptor or -1.
    let result = check(libc::c_long::from(unsafe { libc::ioctl(pidfd.as_raw_fd(), which as libc::Ioctl, 0) }))?;
    let number = RawFd::try_from(result).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just installed this descriptor for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes, or marks for closing on exec, the descriptors `first..=last`: close_range(2).
///
/// Only for a process that is about to exec or exit: owners of the closed descriptors must never be dropped.
pub(crate) fn close_range(first: u32, last: u32, on_exec: bool) -> Result<(), Errno> {
    let flags = if on_exec { libc::CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: close_range(2) takes three integers. It breaks the ownership of the descriptors in the range, which is
    // why this function is for processes that never run a destructor again.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Makes `to` a copy of `from` that survives exec: dup2(2), or clearing the flag if they are the same.
///
/// Only for a process that is about to exec: an owner of `to` in this process must never be dropped.
pub(crate) fn duplicate_to(from: BorrowedFd<'_>, to: RawFd) -> Result<(), Errno> {
    if from.as_raw_fd() == to {
        // SAFETY: F_SETFD takes an integer; the descriptor is open for the time of the borrow.
        return check(libc::c_long::from(unsafe { libc::fcntl(to, libc::F_SETFD, 0) })).map(drop);
    }
    // SAFETY: dup2(2) takes two integers; what `to` was is closed, and by this function's contract nobody relies on it.
    check(libc::c_long::from(unsafe { libc::dup2(from.as_raw_fd(), to) })).map(drop)
}

/// Ends the process at once, without destructors: _exit(2).
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Every signal gets its default action back and none is blocked.
pub(crate) fn reset_signals() {
    /// `struct sigaction` as the kernel has it: all zeroes is SIG_DFL.
    #[repr(C)]
    struct Action {
        handler: usize,
        flags: libc::c_ulong,
        restorer: usize,
        mask: u64,
    }
    let default = Action { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };
    let old = std::ptr::null_mut::<Action>();
    for signal in (1..=64).filter(|signal| !matches!(*signal, libc::SIGKILL | libc::SIGSTOP)) {
        // SAFETY: rt_sigaction(2) reads one action in the kernel's layout with a mask of 8 bytes, as said; the old one
        // is not asked for. SIG_DFL installs no handler, so there is none that must be sound to run. The raw call,
        // because C libraries keep 32 and 33 for themselves and a caller may have ignored them.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, std::ptr::from_ref(&default), old, 8_usize) };
    }
    // SAFETY: sigset_t is plain integers, for which all zeroes is a valid value (and the empty set on Linux).
    let empty: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: sigprocmask(2) reads one sigset_t from this stack; the old set is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut()) };
}

/// Sends any signal, real-time ones as well: pidfd_send_signal(2).
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let information = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal(2) takes integers and a pointer that may be null, and is.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, information, 0) }).map(drop)
}
