//! Standing between the terminal that a command was typed on and one in a container: for `berth exec` and `berth-oci`.
//!
//! The container's terminal is made in the container, and its master comes over a socket ([`pair`], [`receive`]), as runc
//! has it. A [`Proxy`] then copies in its owner's loop. It must not know who runs the container.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};
use rustix::termios::{OptionalActions, Termios, Winsize};

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

/// Copies between this command's own terminal and the container's.
#[derive(Debug)]
pub struct Proxy {
    master: OwnedFd,
    before: Option<Termios>,
    input: bool,
    output: bool,
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
        let this = Self { master, before, input, output: true };
        this.resize();
        this
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
            polled.push(PollFd::new(&self.master, PollFlags::IN));
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
            self.output = copy_some(&self.master, rustix::stdio::stdout());
        }
        if self.input && ready.next() == Some(true) {
            self.input = copy_some(rustix::stdio::stdin(), &self.master);
        }
    }

    /// What was printed before the end: the other side is closed, so this ends.
    pub fn drain(&mut self) {
        while self.output {
            let mut polled = [PollFd::new(&self.master, PollFlags::IN)];
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            if rustix::event::poll(&mut polled, Some(&now)) != Ok(1) {
                return;
            }
            self.output = copy_some(&self.master, rustix::stdio::stdout());
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

/// Copies what there is; says whether there may be more.
fn copy_some(from: impl AsFd, to: impl AsFd) -> bool {
    let mut buffer = [0; 8192];
    let Ok(length @ 1..) = rustix::io::read(from, &mut buffer) else { return false };
    let mut rest = buffer.get(..length).unwrap_or_default();
    while !rest.is_empty() {
        match rustix::io::write(&to, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}
