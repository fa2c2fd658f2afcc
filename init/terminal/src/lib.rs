//! Standing between the terminal that a command was typed on and one in a container: for `berth exec` and `berth-oci`.
//!
//! The container's terminal is made in the container, and its master comes over a socket ([`pair`], [`receive`]), as runc
//! has it. A [`Proxy`] then copies in its owner's loop. It must not know who runs the container.

mod keys;

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};
use rustix::termios::{OptionalActions, Termios, Winsize};

pub use keys::{Keys, NoKeys};

/// Of the own terminal, on standard input or else output; `None` if neither is one, or if it does not know, as a serial
/// line.
#[must_use]
pub fn size() -> Option<Winsize> {
    let known = |size: &Winsize| size.ws_row > 0 && size.ws_col > 0;
    let of_input = rustix::termios::tcgetwinsize(rustix::stdio::stdin()).ok().filter(known);
    of_input.or_else(|| rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok().filter(known))
}

/// Two ends of a stream socket: one to send the master to, one to receive it from.
///
/// # Errors
/// socketpair(2).
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// Waits for the master; `None` if the other side is gone without one.
///
/// # Errors
/// recvmsg(2).
pub fn receive(socket: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
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

/// Gives a terminal, by its master, this many lines and characters in a line.
///
/// # Errors
/// ioctl(2) TIOCSWINSZ.
pub fn resize(master: impl AsFd, (rows, columns): (u16, u16)) -> Result<(), Errno> {
    rustix::termios::tcsetwinsize(master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
}

/// Not to wait at all.
const NOW: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };

/// Copies between this command's own terminal and the container's.
#[derive(Debug)]
pub struct Proxy {
    master: OwnedFd,
    before: Option<Termios>,
    input: bool,
    output: bool,
    log: Option<OwnedFd>,
    /// Nothing is read before the log has room: what is read waits nowhere.
    waits_for_log: bool,
    keys: Keys,
    detached: bool,
}

impl Proxy {
    /// Makes the own terminal raw until it is dropped, if what is typed is to be passed on.
    #[must_use]
    pub fn new(master: OwnedFd, input: bool) -> Self {
        let stdin = rustix::stdio::stdin();
        let before = if input { rustix::termios::tcgetattr(stdin).ok() } else { None };
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            // Then what is typed arrives by lines.
            let _ = rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw);
        }
        let (log, keys) = (None, Keys::default());
        let this = Self { master, before, input, output: true, log, waits_for_log: false, keys, detached: false };
        this.resize();
        this
    }

    /// What the container prints goes there too.
    #[must_use]
    pub fn with_log(mut self, log: Option<OwnedFd>) -> Self {
        self.log = log;
        self
    }

    /// Whoever types these keys wants to leave.
    #[must_use]
    pub fn with_keys(mut self, keys: Keys) -> Self {
        self.keys = keys;
        self
    }

    /// Whether the keys to leave were typed. Nothing that is typed is passed on any more.
    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.detached
    }

    /// The container's terminal is as large as ours.
    pub fn resize(&self) {
        if let Some(size) = size() {
            // A size that does not arrive is no reason to end.
            let _ = rustix::termios::tcsetwinsize(&self.master, size);
        }
    }

    /// What is to be waited for beside what the owner waits for.
    #[must_use]
    pub fn polled(&self) -> Vec<PollFd<'_>> {
        let mut polled = Vec::new();
        if self.output {
            polled.push(self.source());
        }
        if self.input {
            polled.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
        polled
    }

    /// Copies what there is. `ready` belongs to what [`Self::polled`] gave.
    pub fn copy(&mut self, ready: &[bool]) {
        let mut ready = ready.iter().copied();
        if self.output && ready.next() == Some(true) {
            self.output = self.print();
        }
        if self.input && ready.next() == Some(true) {
            self.input = self.pass_on();
        }
    }

    /// The container's terminal, or the log that has to have room first.
    fn source(&self) -> PollFd<'_> {
        match &self.log {
            Some(log) if self.waits_for_log => PollFd::new(log, PollFlags::OUT),
            _ => PollFd::new(&self.master, PollFlags::IN),
        }
    }

    fn print(&mut self) -> bool {
        let full = |log: &OwnedFd| rustix::event::poll(&mut [PollFd::new(log, PollFlags::OUT)], Some(&NOW)) != Ok(1);
        self.waits_for_log = self.log.as_ref().is_some_and(full);
        if self.waits_for_log {
            return true;
        }
        // A pipe with room takes this much at once (PIPE_BUF).
        let mut buffer = [0; 4096];
        let text = read_some(&self.master, &mut buffer);
        if self.log.as_ref().is_some_and(|log| !write_all(log, text)) {
            self.log = None;
        }
        !text.is_empty() && write_all(rustix::stdio::stdout(), text)
    }

    fn pass_on(&mut self) -> bool {
        let mut buffer = [0; 8192];
        let text = read_some(rustix::stdio::stdin(), &mut buffer);
        let (typed, leaves) = self.keys.filter(text);
        self.detached |= leaves;
        !text.is_empty() && write_all(&self.master, &typed) && !leaves
    }

    /// What was printed before the end: the other side is closed, so this ends.
    pub fn drain(&mut self) {
        while self.output {
            let time = if self.waits_for_log { None } else { Some(&NOW) };
            if rustix::event::poll(&mut [self.source()], time) != Ok(1) {
                return;
            }
            self.output = self.print();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // There is nothing else to try.
            let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

/// What there is to read; nothing at the end.
pub fn read_some(from: impl AsFd, buffer: &mut [u8]) -> &[u8] {
    let length = rustix::io::read(from, &mut *buffer).unwrap_or(0);
    buffer.get(..length).unwrap_or_default()
}

/// Writes all of it, and waits where that does not block; says whether it could.
pub fn write_all(to: impl AsFd, mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        match rustix::io::write(&to, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                // Fails only as the write after it will.
                let _ = rustix::event::poll(&mut [PollFd::new(&to, PollFlags::OUT)], None);
            }
            Err(_) => return false,
        }
    }
    true
}
