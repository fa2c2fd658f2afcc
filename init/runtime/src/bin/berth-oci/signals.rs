//! Signals by name, to containers, and those that arrive while a command waits for one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use berth_terminal::Proxy;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

use crate::activation::Readiness;
use crate::container::Failure;
use crate::store::process_start_time;
use crate::sys;

/// The first and last real-time signal, as C libraries count them.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// A name with or without SIG, in any case, or a number. 0 reaches nobody, and tells whether there is somebody.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (0..=64).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset =
        |rest: &str, sign: i32| if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok().map(|n| n * sign) };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let number = REAL_TIME.start() + offset(rest.trim_start_matches('+'), 1)?;
        return REAL_TIME.contains(&number).then_some(number);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        let number = REAL_TIME.end() + offset(rest.trim_start_matches('-'), -1)?;
        return REAL_TIME.contains(&number).then_some(number);
    }
    let aliases = [("IOT", Signal::SIGABRT), ("CLD", Signal::SIGCHLD), ("POLL", Signal::SIGIO)];
    let alias = aliases.iter().find(|(alias, _)| *alias == name).map(|(_, signal)| *signal);
    alias.or_else(|| format!("SIG{name}").parse().ok()).map(|signal| signal as i32)
}

/// The descriptors that `--preserve-fds` speaks of: 3 and up.
pub fn inherited(count: i32) -> Result<Vec<OwnedFd>, Failure> {
    let one = |number| {
        sys::inherited(number).map_err(|_| Failure::Option {
            option: "--preserve-fds",
            must: format!("is {count}, but descriptor {number} is not open"),
        })
    };
    (3..3_i32.saturating_add(count)).map(one).collect()
}

/// Sends a signal to a process; one that has ended is an error.
pub fn send(pid: i32, signal: i32) -> Result<(), Failure> {
    let pidfd = open(pid)?;
    Ok(berth_runtime::send_signal(pidfd.as_fd(), signal)?)
}

/// A process by its number; one that has ended is an error.
pub fn open(pid: i32) -> Result<OwnedFd, Failure> {
    let Some(pid) = Pid::from_raw(pid) else { return Err(Failure::NotRunning) };
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => Err(Failure::NotRunning),
        result => result.map_err(system("pidfd_open")),
    }
}

fn system(call: &'static str) -> impl Fn(Errno) -> Failure {
    move |source| berth_runtime::SystemError { call, subject: "a process of the container".to_owned(), source }.into()
}

/// Waits until a process that was sent a signal is gone.
pub fn await_end(pid: i32, start_time: u64, limit: Duration) -> Result<(), Failure> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    // The number may be somebody else's by now.
    if process_start_time(pid.as_raw_pid()) != Some(start_time) {
        return Ok(());
    }
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(Failure::Survivors),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            failed => drop(failed.map_err(system("poll"))?),
        }
    }
}

/// From here on signals wait for [`wait_for`]. The container's process unblocks its own.
pub fn block_all() {
    // Only an unknown `how` can fail.
    let _ = SigSet::all().thread_block();
}

/// Readable when somebody wants this command to end. From here on such signals do not end it by themselves; those that
/// nobody has read [`wait_for`] passes on.
pub fn interruption() -> Result<SignalFd, Failure> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        set.add(signal);
    }
    let failed = |call| move |errno| system(call)(errno_of(errno));
    set.thread_block().map_err(failed("sigprocmask"))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(failed("signalfd"))
}

/// Waits for a child's end, passing on signals, that it is ready where somebody waits for that, and, with a terminal,
/// what is typed and printed. The exit code as a shell counts it.
pub fn wait_for(
    pidfd: BorrowedFd<'_>,
    mut proxy: Option<Proxy>,
    mut readiness: Option<Readiness>,
) -> Result<u8, Failure> {
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let arriving = SignalFd::with_flags(&SigSet::all(), flags).map_err(|errno| system("signalfd")(errno_of(errno)))?;
    loop {
        let mut polled = vec![PollFd::from_borrowed_fd(pidfd, PollFlags::IN), PollFd::new(&arriving, PollFlags::IN)];
        polled.extend(readiness.as_ref().map(|readiness| PollFd::new(readiness, PollFlags::IN)));
        let others = polled.len();
        if let Some(proxy) = &proxy {
            polled.extend(proxy.polled());
        }
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            failed => drop(failed.map_err(system("poll"))?),
        }
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        drop(polled);
        if let Some(proxy) = &mut proxy {
            proxy.copy(ready.get(others..).unwrap_or_default());
        }
        if let Some(readiness) = &mut readiness {
            readiness.pass_on()?;
        }
        pass_on(&arriving, pidfd, proxy.as_ref());
        if ready.first() == Some(&true) {
            break;
        }
    }
    if let Some(proxy) = &mut proxy {
        proxy.drain();
    }
    reap(pidfd)
}

fn errno_of(errno: nix::Error) -> Errno {
    Errno::from_raw_os_error(errno as i32)
}

fn pass_on(arriving: &SignalFd, pidfd: BorrowedFd<'_>, proxy: Option<&Proxy>) {
    while let Ok(Some(information)) = arriving.read_signal() {
        let signal = information.ssi_signo.cast_signed();
        if signal == libc::SIGCHLD {
            continue;
        }
        match proxy {
            Some(proxy) if signal == libc::SIGWINCH => proxy.resize(),
            // It may have ended in this moment, which the loop sees next.
            _ => drop(berth_runtime::send_signal(pidfd, signal)),
        }
    }
}

fn reap(pidfd: BorrowedFd<'_>) -> Result<u8, Failure> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                return Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255));
            }
            Ok(None) | Err(Errno::INTR) => {}
            failed => drop(failed.map_err(system("waitid"))?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("10", 10),
            ("0", 0),
            ("RTMIN", 34),
            ("SIGRTMIN+2", 36),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["", "65", "NONE", "RTMIN+31", "-9"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
