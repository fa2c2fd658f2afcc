//! One message a packet over SOCK_SEQPACKET, with descriptors beside it.
//!
//! The encoding is JSON: both ends are always of one build, and a message can be read in a capture. PID 1's end is
//! non-blocking; a peer that does not read is noticed by `WouldBlock` and is PID 1's to judge.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{self, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest message in bytes. Below the kernel's default socket buffer (212,992, net.core.wmem_default), so that a
/// message always fits a socket that is empty.
pub const MAXIMUM_MESSAGE: usize = 160 * 1024;

/// The most descriptors a message brings.
pub const MAXIMUM_DESCRIPTORS: usize = 4;

/// The environment variable that holds the number of the inherited channel descriptor.
pub const CHANNEL_VARIABLE: &str = "BERTH_CHANNEL";

/// Why a message did not get across.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side is gone.
    #[error("the other side has closed the channel")]
    Closed,
    /// Nothing to read, or no room to write, on a non-blocking end.
    #[error("the channel would block")]
    WouldBlock,
    /// Longer than [`MAXIMUM_MESSAGE`].
    #[error("a message of {length} bytes is longer than {MAXIMUM_MESSAGE}")]
    TooLong {
        /// In bytes.
        length: usize,
    },
    /// Not one of the messages.
    #[error("decode a message")]
    Decode(#[source] serde_json::Error),
    /// Cannot be written as JSON.
    #[error("encode a message")]
    Encode(#[source] serde_json::Error),
    /// The system call failed.
    #[error("{operation} on the channel")]
    System {
        /// The call.
        operation: &'static str,
        /// Its error.
        #[source]
        source: nix::Error,
    },
    /// [`CHANNEL_VARIABLE`] is missing or does not name a descriptor.
    #[error("this program is started by PID 1: the variable {CHANNEL_VARIABLE} names no descriptor")]
    NotInherited,
}

/// One end of a channel.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Two connected ends, both closed on exec. The first one, PID 1's, is non-blocking.
    pub fn pair() -> Result<(Self, Self), ChannelError> {
        let system = |operation| move |source| ChannelError::System { operation, source };
        let (ours, theirs) = socket::socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )
        .map_err(system("socketpair"))?;
        let flags = nix::fcntl::OFlag::empty();
        nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_SETFL(flags)).map_err(system("fcntl"))?;
        Ok((Self { socket: ours }, Self { socket: theirs }))
    }

    /// Connects to a service that listens on this path (see [`crate::listener`]); non-blocking and closed on exec. A
    /// unix socket connects at once or says EAGAIN, when the listener's queue is full.
    pub fn connect(path: &std::path::Path) -> Result<Self, ChannelError> {
        let system = |operation| move |source| ChannelError::System { operation, source };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(system("socket"))?;
        let address = socket::UnixAddr::new(path).map_err(system("an address"))?;
        socket::connect(socket.as_raw_fd(), &address).map_err(system("connect"))?;
        Ok(Self { socket })
    }

    /// The end that PID 1 left for this program, by [`CHANNEL_VARIABLE`]. Call once.
    #[allow(unsafe_code)]
    pub fn inherited() -> Result<Self, ChannelError> {
        let number: RawFd = std::env::var(CHANNEL_VARIABLE)
            .ok()
            .and_then(|value| value.parse().ok())
            .filter(|number| *number > 2)
            .ok_or(ChannelError::NotInherited)?;
        // SAFETY: `from_raw_fd` wants an open descriptor that nobody else owns. fcntl(2) F_GETFD on the next line
        // refuses a closed one, and by the contract of CHANNEL_VARIABLE nothing else in this program uses it.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        let close_on_exec = nix::fcntl::FdFlag::FD_CLOEXEC;
        if nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFD(close_on_exec)).is_err() {
            std::mem::forget(socket);
            return Err(ChannelError::NotInherited);
        }
        Ok(Self { socket })
    }

    /// Makes reads and writes return [`ChannelError::WouldBlock`] instead of waiting, for use with an event loop.
    pub fn set_nonblocking(&self) -> Result<(), ChannelError> {
        nix::fcntl::fcntl(&self.socket, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))
            .map(drop)
            .map_err(|source| ChannelError::System { operation: "fcntl", source })
    }

    /// Sends one message.
    pub fn send<M: Serialize>(&self, message: &M, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let bytes = serde_json::to_vec(message).map_err(ChannelError::Encode)?;
        if bytes.len() > MAXIMUM_MESSAGE {
            return Err(ChannelError::TooLong { length: bytes.len() });
        }
        let raw: Vec<RawFd> = descriptors.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL;
        loop {
            let sent = socket::sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&bytes)], control, flags, None);
            match sent {
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return Err(ChannelError::WouldBlock),
                Err(nix::Error::EPIPE | nix::Error::ECONNRESET) => return Err(ChannelError::Closed),
                Err(source) => return Err(ChannelError::System { operation: "sendmsg", source }),
            }
        }
    }

    /// Receives one message and the descriptors that came with it, closed on exec.
    #[allow(unsafe_code)]
    pub fn receive<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        let mut bytes = vec![0; MAXIMUM_MESSAGE];
        let mut control = nix::cmsg_space!([RawFd; MAXIMUM_DESCRIPTORS]);
        let mut descriptors = Vec::new();
        let (length, truncated) = loop {
            let mut buffers = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match socket::recvmsg::<()>(self.socket.as_raw_fd(), &mut buffers, Some(&mut control), flags) {
                Ok(received) => {
                    let messages =
                        received.cmsgs().map_err(|source| ChannelError::System { operation: "recvmsg", source })?;
                    for message in messages {
                        if let ControlMessageOwned::ScmRights(numbers) = message {
                            // SAFETY: the kernel has just installed these descriptors for us (unix(7), SCM_RIGHTS), so
                            // they are open and nobody else owns them.
                            descriptors
                                .extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
                        }
                    }
                    break (received.bytes, received.flags.contains(MsgFlags::MSG_TRUNC));
                }
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return Err(ChannelError::WouldBlock),
                Err(nix::Error::ECONNRESET) => return Err(ChannelError::Closed),
                Err(source) => return Err(ChannelError::System { operation: "recvmsg", source }),
            }
        };
        match bytes.get(..length) {
            Some([]) | None => Err(ChannelError::Closed),
            Some(_) if truncated => Err(ChannelError::TooLong { length }),
            Some(message) => Ok((serde_json::from_slice(message).map_err(ChannelError::Decode)?, descriptors)),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// For tokio's `AsyncFd`, which asks for it.
impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl From<OwnedFd> for Channel {
    /// Takes a connected SOCK_SEQPACKET socket.
    fn from(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.socket
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{PowerAction, Request, ToInit};

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (ours, theirs) = Channel::pair().unwrap();
        let sent = ToInit { id: 7, request: Request::Power(PowerAction::Reboot) };
        theirs.send(&sent, &[theirs.as_fd(), ours.as_fd()]).unwrap();
        let (received, descriptors): (ToInit, _) = ours.receive().unwrap();
        assert_eq!(received, sent);
        assert_eq!(descriptors.len(), 2);
    }

    #[test]
    fn the_first_end_does_not_block() {
        let (ours, _theirs) = Channel::pair().unwrap();
        assert!(matches!(ours.receive::<ToInit>(), Err(ChannelError::WouldBlock)));
    }

    #[test]
    fn a_closed_channel_says_so() {
        let (ours, theirs) = Channel::pair().unwrap();
        drop(theirs);
        assert!(matches!(ours.receive::<ToInit>(), Err(ChannelError::Closed)));
        assert!(matches!(ours.send(&1, &[]), Err(ChannelError::Closed)));
    }

    #[test]
    fn nonsense_is_an_error_and_not_the_end() {
        let (ours, theirs) = Channel::pair().unwrap();
        theirs.send(&"nonsense", &[]).unwrap();
        assert!(matches!(ours.receive::<ToInit>(), Err(ChannelError::Decode(_))));
        theirs.send(&ToInit { id: 1, request: Request::Ready }, &[]).unwrap();
        assert!(ours.receive::<ToInit>().is_ok());
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_by_the_sender() {
        let (ours, _theirs) = Channel::pair().unwrap();
        let long = "x".repeat(MAXIMUM_MESSAGE);
        assert!(matches!(ours.send(&long, &[]), Err(ChannelError::TooLong { .. })));
    }
}
