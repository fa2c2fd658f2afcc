//! Standing between the terminal that a command was typed on and one in a container.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_control::message::TerminalSize;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};
use rustix::termios::{OptionalActions, Termios};

/// Of the terminal on standard output; what every terminal has if it is none.
pub fn size() -> TerminalSize {
    match rustix::termios::tcgetwinsize(rustix::stdio::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => TerminalSize { rows: size.ws_row, columns: size.ws_col },
        _ => TerminalSize { rows: 24, columns: 80 },
    }
}

/// For the master: ours, and the one to send.
pub fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Waits for the master; `None` if the other side is gone without one.
pub fn receive(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut name = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut received = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    Ok(received.next())
}

/// Copies between the two terminals.
#[derive(Debug)]
pub struct Proxy {
    master: OwnedFd,
    /// Of our terminal, to be put back.
    before: Option<Termios>,
    input: bool,
}

impl Proxy {
    /// Makes our own terminal raw until it is dropped, if what is typed is to be passed on.
    pub fn new(master: OwnedFd, input: bool) -> Self {
        let stdin = rustix::stdio::stdin();
        let before = if input { rustix::termios::tcgetattr(stdin).ok() } else { None };
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            // Without it, what is typed arrives by lines.
            let _ = rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw);
        }
        Self { master, before, input }
    }

    /// Copies until `end` is readable and everything printed before has been passed on.
    pub fn run(mut self, end: BorrowedFd<'_>) -> io::Result<()> {
        let mask: SigSet = [Signal::SIGWINCH].into_iter().collect();
        mask.thread_block()?;
        let resized = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        loop {
            let stdin = rustix::stdio::stdin();
            let stdin_flags = if self.input { PollFlags::IN } else { PollFlags::empty() };
            let mut polled = [
                PollFd::new(&self.master, PollFlags::IN),
                PollFd::from_borrowed_fd(end, PollFlags::IN),
                PollFd::new(&resized, PollFlags::IN),
                PollFd::from_borrowed_fd(stdin, stdin_flags),
            ];
            match rustix::event::poll(&mut polled, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => drop(other?),
            }
            let [output, ended, resize, typed] = polled.map(|one| !one.revents().is_empty());
            if resize {
                self.resize();
                while let Ok(Some(_)) = resized.read_signal() {}
            }
            if typed && self.input {
                self.input = copy_some(stdin, &self.master);
            }
            if output {
                // EIO: nobody has the other side open any more (tty_ioctl(4) calls it a hang-up).
                if !copy_some(&self.master, rustix::stdio::stdout()) {
                    return Ok(());
                }
            } else if ended {
                return Ok(());
            }
        }
    }

    fn resize(&self) {
        if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdout()) {
            // A size that does not arrive is no reason to end.
            let _ = rustix::termios::tcsetwinsize(&self.master, size);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // There is nothing else to try.
            let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, before);
        }
    }
}

/// Copies what there is; says whether there may be more.
fn copy_some(from: impl AsFd, to: impl AsFd) -> bool {
    let mut buffer = [0; 8192];
    let Ok(length @ 1..) = rustix::io::read(from, &mut buffer) else { return false };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        match rustix::io::write(&to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}
