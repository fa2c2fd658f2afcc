//! Ends a program at a step of its work that is the same in each run: ptrace(2) counts the system calls by which it changes
//! something outside itself (messages to the kernel and to PID 1, files, switches below /proc), over all of its threads, and
//! the program is killed before the one that is wanted. Or it only tells what it did to make its changes last.

use std::collections::BTreeSet;
use std::fs;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// With a descriptor as their first argument.
const WRITE: [i64; 4] = [libc::SYS_write, libc::SYS_pwrite64, libc::SYS_sendto, libc::SYS_sendmsg];
/// A file may be made, by a flag of openat(2) (its third argument).
const CREATE: u64 = libc::O_CREAT as u64;
/// Of whole files.
const REPLACE: [i64; 6] = [
    libc::SYS_renameat2,
    libc::SYS_renameat,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
];
/// The same on processors that have more than one call for it.
#[cfg(target_arch = "x86_64")]
const REPLACE_OLD: [i64; 5] = [libc::SYS_rename, libc::SYS_unlink, libc::SYS_mkdir, libc::SYS_link, libc::SYS_symlink];
#[cfg(not(target_arch = "x86_64"))]
const REPLACE_OLD: [i64; 0] = [];

/// What gives a file another name.
#[cfg(target_arch = "x86_64")]
const RENAME: [i64; 3] = [libc::SYS_rename, libc::SYS_renameat, libc::SYS_renameat2];
#[cfg(not(target_arch = "x86_64"))]
const RENAME: [i64; 2] = [libc::SYS_renameat, libc::SYS_renameat2];

/// Kills a program before the change with this number, counted from now, from one. The value, when the program has ended, is
/// the changes that it came to: this number if this is why, fewer if it ended before.
///
/// # Panics
/// If the program cannot be followed, by whoever has no right to or because something else does.
#[must_use]
pub fn end_at(program: u32, step: u32) -> JoinHandle<u32> {
    following(program, move |program, armed| {
        let mut count = 0;
        let is_there = |thread| {
            count += u32::from(is_change(program, thread));
            count == step
        };
        follow(program, armed, is_there);
        count
    })
}

/// What makes a program's changes last, and visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// syncfs(2): all of a file system.
    SyncAll,
    /// fsync(2) or fdatasync(2): one file.
    Sync,
    /// rename(2) and its kin.
    Rename,
}

/// Follows a program to its end, from now on. The value is what it did of these, in order.
///
/// # Panics
/// As [`end_at`].
#[must_use]
pub fn lasting(program: u32) -> JoinHandle<Vec<Lasting>> {
    following(program, |program, armed| {
        let mut seen = Vec::new();
        let note = |thread| {
            seen.extend(match call(program, thread).0 {
                libc::SYS_syncfs => Some(Lasting::SyncAll),
                libc::SYS_fsync | libc::SYS_fdatasync => Some(Lasting::Sync),
                number if RENAME.contains(&number) => Some(Lasting::Rename),
                _ => None,
            });
            false
        };
        follow(program, armed, note);
        seen
    })
}

/// Whoever attaches to a program must be the thread that follows it. It does so when this returns.
fn following<T: Send + 'static>(
    program: u32,
    follow: impl FnOnce(Pid, &Sender<()>) -> T + Send + 'static,
) -> JoinHandle<T> {
    let program = Pid::from_raw(program.try_into().unwrap());
    let (armed, waiting) = channel();
    let follower = thread::spawn(move || follow(program, &armed));
    waiting.recv().expect("the program can be followed");
    follower
}

/// Calls `begins` for each system call that one of the threads begins; the program is killed before the first one for which
/// it says so.
fn follow(program: Pid, armed: &Sender<()>, mut begins: impl FnMut(Pid) -> bool) {
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_TRACECLONE;
    for thread in fs::read_dir(format!("/proc/{program}/task")).unwrap().flatten() {
        let thread = Pid::from_raw(thread.file_name().to_str().unwrap().parse().unwrap());
        // It stops before it does anything else.
        match ptrace::seize(thread, options).and_then(|()| ptrace::interrupt(thread)) {
            // One that has just done its work.
            Err(Errno::ESRCH | Errno::EPERM) if thread != program => {}
            done => done.unwrap(),
        }
    }
    armed.send(()).unwrap();
    let mut inside = BTreeSet::new();
    while let Some(stopped) = next(program) {
        let (thread, signal) = match stopped {
            WaitStatus::PtraceSyscall(thread) => {
                // Every other stop is the end of a call.
                if !inside.remove(&thread) {
                    inside.insert(thread);
                    if begins(thread) {
                        kill(program, Signal::SIGKILL).unwrap();
                        while next(program).is_some() {}
                        return;
                    }
                }
                (thread, None)
            }
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            _ => continue,
        };
        match ptrace::syscall(thread, signal) {
            // Somebody else has killed it.
            Err(Errno::ESRCH) => {}
            done => done.unwrap(),
        }
    }
}

/// What one of the threads has come to; `None` when the program has ended, which is left for its parent to see.
fn next(program: Pid) -> Option<WaitStatus> {
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    let look = flags | WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
    let thread = waitid(Id::All, look).ok()?.pid()?;
    let ended = |status: &WaitStatus| matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
    let peeked = waitid(Id::Pid(thread), look | WaitPidFlag::WNOHANG).ok()?;
    if thread == program && ended(&peeked) { None } else { waitpid(thread, Some(flags)).ok() }
}

/// The system call that a thread begins, with its first arguments.
fn call(program: Pid, thread: Pid) -> (i64, Vec<u64>) {
    let text = fs::read_to_string(format!("/proc/{program}/task/{thread}/syscall")).unwrap_or_default();
    let mut words = text.split_whitespace();
    let number = words.next().and_then(|number| number.parse().ok()).unwrap_or(-1);
    (number, words.map_while(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok()).collect())
}

/// Whether a thread that begins a system call is about to change something that others see.
fn is_change(program: Pid, thread: Pid) -> bool {
    let (number, arguments) = call(program, thread);
    if number == libc::SYS_openat {
        return arguments.get(2).is_some_and(|flags| flags & CREATE != 0);
    }
    if WRITE.contains(&number) {
        let descriptor = arguments.first().copied().unwrap_or_default();
        let file = fs::read_link(format!("/proc/{program}/fd/{descriptor}")).unwrap_or_default();
        // One thread wakes another.
        return !file.to_string_lossy().starts_with("anon_inode:");
    }
    REPLACE.contains(&number) || REPLACE_OLD.contains(&number)
}
