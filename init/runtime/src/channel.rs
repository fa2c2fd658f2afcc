//! Messages between the processes that make a container: JSON over SOCK_SEQPACKET, with descriptors beside it.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

use crate::error::{Chain, Context, Error, SystemError};

/// The kernel passes at most 253 descriptors a message (SCM_MAX_FD).
const MAXIMUM_DESCRIPTORS: usize = 250;

/// Longer than any chain of errors, and short enough not to cost every message a mapping of its own.
const MAXIMUM_LENGTH: usize = 8 * 1024;

/// What is said, and by whom to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Launcher to container: ids are mapped, and these are your trees from the host (more follow unless `last`).
    Trees { last: bool },
    /// Container to launcher: everything is set up.
    Ready,
    /// Container to launcher: the mounts are there, run the hooks that belong here.
    RunHooks,
    /// Launcher to container: they have run.
    HooksDone,
    /// Maker to container, if others are to start it: they can find it now.
    Keep,
    /// Launcher to caller: the container waits for its start; its pidfd comes along, and the way to say [`Self::Keep`]
    /// where that is to be said.
    Created { pid: i32 },
    /// Caller to container: run the program.
    Start,
    /// Launcher to caller: the process, whose pidfd comes along, has failed and ended, and is the caller's to reap.
    Undone(Chain),
    /// Anybody to whom waits for him: I have given up.
    Failed(Chain),
}

/// Two connected ends, closed on exec.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), SystemError> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .on("socketpair", "for reports")
}

/// Sends one message.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    message: &Message,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), SystemError> {
    let bytes = serde_json::to_vec(message).unwrap_or_default();
    let bytes = bytes.get(..bytes.len().min(MAXIMUM_LENGTH)).unwrap_or_default();
    let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(descriptors).size()];
    loop {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Errno::NOBUFS).on("sendmsg", "descriptors");
        }
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            failed => return failed.map(drop).on("sendmsg", "report"),
        }
    }
}

/// Receives one message; none if the other side is gone.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<Option<(Message, Vec<OwnedFd>)>, Errno> {
    let mut buffer = vec![0; MAXIMUM_LENGTH];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAXIMUM_DESCRIPTORS))];
    let mut descriptors = Vec::new();
    let length = loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC);
        match received {
            Ok(received) => {
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        descriptors.extend(rights);
                    }
                }
                break received.bytes;
            }
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    };
    match buffer.get(..length) {
        None | Some([]) => Ok(None),
        Some(bytes) => match serde_json::from_slice(bytes) {
            Ok(message) => Ok(Some((message, descriptors))),
            Err(_) => Err(Errno::BADMSG),
        },
    }
}

/// Sends trees, in as many messages as it takes.
pub(crate) fn send_trees(socket: BorrowedFd<'_>, trees: &[BorrowedFd<'_>]) -> Result<(), SystemError> {
    let mut chunks = trees.chunks(MAXIMUM_DESCRIPTORS).peekable();
    if chunks.peek().is_none() {
        return send(socket, &Message::Trees { last: true }, &[]);
    }
    while let Some(chunk) = chunks.next() {
        send(socket, &Message::Trees { last: chunks.peek().is_none() }, chunk)?;
    }
    Ok(())
}

/// What [`send_trees`] has sent. Waits.
pub(crate) fn receive_trees(socket: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Error> {
    let process = "launching";
    let mut trees = Vec::new();
    loop {
        match receive(socket).on("recvmsg", "trees")? {
            Some((Message::Trees { last }, more)) => {
                trees.extend(more);
                if last {
                    return Ok(trees);
                }
            }
            Some(_) => return Err(Error::Protocol { process }),
            None => return Err(Error::Died { process }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn more_trees_than_a_message_takes_arrive_in_order() {
        let (one, other) = pair().unwrap();
        let trees: Vec<_> = std::iter::repeat_n(one.as_fd(), MAXIMUM_DESCRIPTORS + 3).collect();
        send_trees(one.as_fd(), &trees).unwrap();
        assert_eq!(receive_trees(other.as_fd()).unwrap().len(), MAXIMUM_DESCRIPTORS + 3);
    }

    #[test]
    fn the_end_of_the_other_side_is_told_apart_from_silence() {
        let (one, other) = pair().unwrap();
        drop(one);
        assert!(matches!(receive(other.as_fd()), Ok(None)));
    }
}
