//! A small init: the container's first process stays, beside the program.
//!
//! ```text
//!  first process ──fork──► program
//!       │ forgets all that it knew
//!       │ signals ──────────►│
//!       │◄─ orphans, its end │
//!       └ ends as the program did, with 128 + n for a signal
//! ```
//! It is no file in the container's root and executes none: it is the runtime's own process, which has given back the
//! copy of its maker's memory. What is left is some stack and the code that all of these processes share. It cannot be
//! traced from inside, for it has never been anything but undumpable (prctl(2), PR_SET_DUMPABLE).
//!
//! Where the container is in another's PID namespace, it is that one's first process that would get the orphans: so it
//! asks for those of its own program.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, WaitOptions};

use crate::error::{Context, Error, Step};
use crate::sys::{clone, init};

/// What the process is known as, at most 15 bytes (prctl(2), PR_SET_NAME).
const NAME: &std::ffi::CStr = c"init";

/// What is opened for the init while the host's /proc is there.
#[derive(Debug)]
pub(crate) struct Init {
    /// This process's mappings.
    maps: OwnedFd,
}

impl Init {
    /// By the host's /proc.
    pub(crate) fn prepare() -> Result<Self, Error> {
        let path = "/proc/self/maps";
        let maps = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).on("open", path);
        Ok(Self { maps: maps.step("prepare the container's init")? })
    }

    /// Returns in the process that is to become the program. This one stays and is the init.
    pub(crate) fn stay_behind(self) -> Result<(), Error> {
        rustix::process::set_child_subreaper(rustix::process::getpid().into()).on("prctl", "PR_SET_CHILD_SUBREAPER")?;
        init::hold_signals(true).on("rt_sigprocmask", "the container's init")?;
        let forked = init::fork().on("fork", "the container's program").step("make the program's process")?;
        match forked {
            Some(program) => self.serve(program),
            None => come_forward(),
        }
    }

    /// Until the program ends.
    fn serve(self, program: i32) -> ! {
        // Only for people to read.
        let _ = rustix::thread::set_name(NAME);
        self.forget();
        // That it still has any would be noticed by who reads to the end of the program's output. All of them are forgotten
        // by their owners.
        let _ = clone::close_range(0, u32::MAX, false);
        std::mem::forget(self);
        loop {
            match init::next_signal() {
                Some(libc::SIGCHLD) => reap(program),
                Some(signal) => init::forward(program, signal),
                // A tracer interrupts like that.
                None => {}
            }
        }
    }

    /// Gives back the maker's memory. Nothing on this path may need any but the stack.
    fn forget(&self) {
        let mut buffer = [0_u8; 2048];
        let mut filled = 0;
        while let Some(free) = buffer.get_mut(filled..) {
            match rustix::io::read(self.maps.as_fd(), free) {
                Ok(0) | Err(_) => return,
                Ok(read) => filled += read,
            }
            let lines = buffer.get(..filled).unwrap_or_default();
            let mut done = 0;
            while let Some(length) = lines.get(done..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
                let line = lines.get(done..done + length).unwrap_or_default();
                if let Some(mapping) = to_give_back(line) {
                    init::forget(mapping);
                }
                done += length + 1;
            }
            buffer.copy_within(done..filled, 0);
            filled -= done;
        }
    }
}

/// The range of a line of proc_pid_maps(5) that is memory of the process alone which it can write; or code, of which the
/// little that goes on being used comes back by itself. Constants stay: where a linker has written addresses among them,
/// the file has them not.
fn to_give_back(line: &[u8]) -> Option<Range<usize>> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (range, access) = (fields.next()?, fields.next()?);
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0_usize, |number, digit| {
            let value = char::from(*digit).to_digit(16)? as usize;
            number.checked_mul(16)?.checked_add(value)
        })
    };
    let mut ends = range.splitn(2, |byte| *byte == b'-');
    let (start, end) = (number(ends.next()?)?, number(ends.next()?)?);
    (matches!(access, b"rw-p" | b"r-xp") && start < end).then_some(start..end)
}

/// Collects what has ended, and ends with the program.
fn reap(program: i32) {
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
        if let Some(code) = code.filter(|_| pid.as_raw_pid() == program) {
            clone::exit_now(code);
        }
    }
}

/// The program is a group of its own, which has the terminal if there is one: what is typed there is for it, not for the
/// init.
fn come_forward() -> Result<(), Error> {
    let own: Option<Pid> = None;
    rustix::process::setpgid(own, own).on("setpgid", "the container's program")?;
    // Without a terminal, or with one that is not the session's, there is nothing to have. SIGTTOU is held back.
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
    Ok(init::hold_signals(false).on("rt_sigprocmask", "the container's program")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_shares_or_a_linker_has_changed_is_not_given_back() {
        let range = |line: &str| to_give_back(line.as_bytes());
        let line = "7ffd1000-7ffd3000 rw-p 00000000 00:00 0   [stack]";
        assert_eq!(range(line), Some(0x7ffd_1000..0x7ffd_3000));
        assert_eq!(range("00400000-00500000 r-xp 00000000 08:01 7 /usr/bin/berth"), Some(0x40_0000..0x50_0000));
        for other in [
            "00400000-00500000 r--p 00000000 08:01 7 /usr/bin/berth",
            "00400000-00500000 rw-s 00000000 00:01 7 /memfd:record",
            "fffffffff600000000000-1 rw-p 0 0:0 0",
            "5000-4000 rw-p 0 0:0 0",
            "5000 rw-p",
            "",
        ] {
            assert_eq!(range(other), None, "{other}");
        }
    }
}
