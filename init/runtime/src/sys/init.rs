//! What the first process of a container with an init needs: fork(2), signals that wait to be fetched, madvise(2).
#![allow(unsafe_code)]

use std::ops::Range;

use rustix::io::Errno;

use super::check;

/// The kernel's `sigset_t`: a bit a signal.
const ALL_SIGNALS: u64 = u64::MAX;

/// So much around a value of the stack, or of the thread's own variables, is in use with it: the frames of a few small
/// functions, one of them with a buffer.
const IN_USE: usize = 12 << 10;

/// Signals wait to be fetched from now on, or again do what they do.
pub(crate) fn hold_signals(hold: bool) -> Result<(), Errno> {
    let mask = if hold { ALL_SIGNALS } else { 0 };
    let old = std::ptr::null_mut::<u64>();
    // SAFETY: rt_sigprocmask(2) reads a mask of 8 bytes, as said, from this stack; the old one is not asked for.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, std::ptr::from_ref(&mask), old, size_of::<u64>())
    };
    check(result).map(drop)
}

/// The next signal that was sent to this process, which holds them all back: rt_sigtimedwait(2) without a time.
pub(crate) fn next_signal() -> Option<i32> {
    let (information, time) = (std::ptr::null_mut::<libc::siginfo_t>(), std::ptr::null::<libc::timespec>());
    let mask = std::ptr::from_ref(&ALL_SIGNALS);
    // SAFETY: the call reads a mask of 8 bytes, as said; who sent the signal is not asked for, and there is no time.
    let signal = unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, mask, information, time, size_of::<u64>()) };
    i32::try_from(signal).ok().filter(|signal| *signal > 0)
}

/// A second process with a copy of this one's memory: its id, none in itself. See fork(2).
pub(crate) fn fork() -> Result<Option<i32>, Errno> {
    // SAFETY: fork(2) is sound in a process of one thread, which the library's callers are (see [`crate::create()`]).
    let pid = check(libc::c_long::from(unsafe { libc::fork() }))?;
    Ok(i32::try_from(pid).ok().filter(|pid| *pid > 0))
}

/// Sends any signal to a child; one that has ended is fine.
pub(crate) fn forward(child: i32, signal: i32) {
    // SAFETY: kill(2) takes two integers. ESRCH: its end is fetched next.
    let _ = unsafe { libc::kill(child, signal) };
}

/// Gives back what the private memory of `mapping` holds, but for the stack and the thread's own variables: it reads as
/// zeroes, or as the file has it, afterwards. See madvise(2), MADV_DONTNEED.
///
/// Only for a process that goes on with what is on its stack and never returns from the caller: no owner of memory may be
/// dropped or looked at any more.
pub(crate) fn forget(mapping: Range<usize>) {
    let local = 0_u8;
    let stack = around(std::ptr::from_ref(&local).addr());
    // SAFETY: __errno_location(3) returns the address of this thread's errno; it is not read here.
    let thread = around(unsafe { libc::__errno_location() }.addr());
    let (first, second) = if stack.start < thread.start { (stack, thread) } else { (thread, stack) };
    for part in [
        mapping.start..mapping.end.min(first.start),
        mapping.start.max(first.end)..mapping.end.min(second.start),
        mapping.start.max(second.end)..mapping.end,
    ] {
        if part.start < part.end {
            // SAFETY: by this function's contract nothing in the range is used again; what is, the stack around this frame
            // and the variables of the thread, which system call wrappers use, is left out. The addresses stay valid.
            // What cannot be given back, such as locked memory, stays.
            unsafe {
                let address = std::ptr::without_provenance_mut(part.start);
                libc::madvise(address, part.end - part.start, libc::MADV_DONTNEED);
            };
        }
    }
}

/// In whole pages.
fn around(address: usize) -> Range<usize> {
    // SAFETY: sysconf(3) takes an integer; that for the size of a page is there on every Linux.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(1 << 16).max(1);
    let start = address.saturating_sub(IN_USE) / page * page;
    start..address.saturating_add(IN_USE).div_ceil(page) * page
}
