//! Terminals: the socket to send one to, and standing in for one in the foreground. pidfds go the same way.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::termios::{OptionalActions, Termios};

use crate::container::Failure;

fn failed(call: &'static str, subject: &Path) -> impl FnOnce(rustix::io::Errno) -> Failure {
    let subject = subject.display().to_string();
    move |source| berth_runtime::SystemError { call, subject, source }.into()
}

/// The other end of `--console-socket`.
pub fn connect(path: &Path) -> Result<OwnedFd, Failure> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(failed("socket", path))?;
    let address = SocketAddrUnix::new(path).map_err(failed("connect", path))?;
    rustix::net::connect(&socket, &address).map_err(failed("connect", path))?;
    Ok(socket)
}

/// Sends a process's pidfd, as runc does: one message with the descriptor and a name.
pub fn send_pidfd(path: &Path, pidfd: &OwnedFd) -> Result<(), Failure> {
    let socket = connect(path)?;
    let descriptors = [pidfd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(failed("sendmsg", path)(rustix::io::Errno::NOBUFS));
    }
    let name = [IoSlice::new(b"pidfd")];
    rustix::net::sendmsg(&socket, &name, &mut control, SendFlags::NOSIGNAL).map_err(failed("sendmsg", path))?;
    Ok(())
}

/// The container's end, and ours.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Failure> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(failed("socketpair", Path::new("for the terminal")))
}

/// The master that the container's process has sent.
pub fn receive(socket: &OwnedFd) -> Result<OwnedFd, Failure> {
    let mut name = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let subject = Path::new("the terminal");
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .map_err(failed("recvmsg", subject))?;
    let mut received = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    received.next().ok_or(rustix::io::Errno::BADMSG).map_err(failed("recvmsg", subject))
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
    /// Makes the own terminal raw, until it is dropped.
    pub fn new(master: OwnedFd) -> Self {
        let stdin = rustix::stdio::stdin();
        let before = rustix::termios::tcgetattr(stdin).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            // Then what is typed arrives by lines.
            let _ = rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw);
        }
        let this = Self { master, before, input: true, output: true };
        this.resize();
        this
    }

    /// The container's terminal is as large as ours.
    pub fn resize(&self) {
        if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
            // A size that does not arrive is no reason to end.
            let _ = rustix::termios::tcsetwinsize(&self.master, size);
        }
    }

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

    /// `ready` belongs to what [`Self::polled`] gave.
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
