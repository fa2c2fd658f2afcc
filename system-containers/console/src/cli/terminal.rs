//! The terminal of `berth exec -t`: until the program ends, this command stands between it and the person.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use berth_control::message::TerminalSize;
use berth_terminal::Proxy;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};

/// Of the own terminal; what every terminal has if there is none.
pub fn size() -> TerminalSize {
    let own = berth_terminal::size().map(|size| TerminalSize { rows: size.ws_row, columns: size.ws_col });
    own.unwrap_or(TerminalSize { rows: 24, columns: 80 })
}

/// Copies until `end` is readable and everything printed before has been passed on.
pub fn stand_in(master: OwnedFd, input: bool, end: BorrowedFd<'_>) -> io::Result<()> {
    let mask: SigSet = [Signal::SIGWINCH].into_iter().collect();
    mask.thread_block()?;
    let resized = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut proxy = Proxy::new(master, input);
    loop {
        let mut polled = vec![PollFd::from_borrowed_fd(end, PollFlags::IN), PollFd::new(&resized, PollFlags::IN)];
        let own = polled.len();
        polled.extend(proxy.polled());
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        drop(polled);
        proxy.copy(&ready[own..]);
        while let Ok(Some(_)) = resized.read_signal() {
            proxy.resize();
        }
        if ready[0] {
            proxy.drain();
            return Ok(());
        }
    }
}
