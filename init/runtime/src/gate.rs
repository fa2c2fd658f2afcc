//! The gate at which a process that is set up waits for the word to run its program.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::channel::{self, Message};
use crate::error::{Chain, Error};
use crate::sys::clone;

/// Where the word comes from.
#[derive(Debug)]
pub(crate) enum Gate {
    /// The other end is the caller's.
    Connected(OwnedFd),
    /// A listening socket that the starter connects to.
    Listening(OwnedFd),
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Connected(socket) | Self::Listening(socket) => socket.as_fd(),
        }
    }
}

impl Gate {
    /// Whether the container waits although the process that made it has ended.
    pub(crate) fn outlives_the_caller(&self) -> bool {
        matches!(self, Self::Listening(_))
    }

    /// The same gate by another descriptor.
    pub(crate) fn moved(&self, socket: OwnedFd) -> Self {
        match self {
            Self::Connected(_) => Self::Connected(socket),
            Self::Listening(_) => Self::Listening(socket),
        }
    }

    /// Waits. The end that gave the word also hears if the program cannot be run; none if it never comes.
    pub(crate) fn wait(self) -> Option<OwnedFd> {
        let starter = match self {
            Self::Connected(socket) => socket,
            Self::Listening(listener) => rustix::net::accept_with(&listener, rustix::net::SocketFlags::CLOEXEC).ok()?,
        };
        match channel::receive(starter.as_fd()) {
            Ok(Some((Message::Start, _))) => Some(starter),
            _ => None,
        }
    }
}

/// Reports an error and ends the process.
pub(crate) fn give_up(to: BorrowedFd<'_>, error: &Error) -> ! {
    // If nobody listens any more, nobody wants to know.
    let _ = channel::send(to, &Message::Failed(Chain::of(error)), &[]);
    clone::exit_now(1)
}
