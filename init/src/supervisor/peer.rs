//! PID 1's end of a channel with a bounded queue behind it: a system container that does not read costs that much
//! memory and no time.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_control::channel::{Channel, ChannelError};
use berth_control::message::{FromInit, ToInit};
use berth_runtime::handover::Descriptor;
use serde::{Deserialize, Serialize};

/// The most messages that wait for a peer. The largest burst is two log pipes for each of a thousand containers, told
/// to a `logs` that has just been started.
const MAXIMUM_QUEUE: usize = 8192;

/// A system container's channel.
#[derive(Debug, Serialize, Deserialize)]
pub struct Peer {
    #[serde(with = "berth_runtime::handover")]
    channel: Channel,
    queue: VecDeque<(FromInit, Vec<Descriptor>)>,
    /// Whether it was asked for a sign of life and has given none since.
    #[serde(default)]
    pub owes_sign: bool,
}

/// The peer does not read, or is gone.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// See [`MAXIMUM_QUEUE`].
    #[error("it has not read its last {MAXIMUM_QUEUE} messages")]
    Stuck,
    /// The descriptor could not be copied.
    #[error("copy a descriptor")]
    Copy(#[source] std::io::Error),
    /// The channel failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

impl Peer {
    /// Around a non-blocking end.
    pub fn new(channel: Channel) -> Self {
        Self { channel, queue: VecDeque::new(), owes_sign: false }
    }

    /// Sends, or queues if there is no room.
    pub fn send(&mut self, message: FromInit, descriptors: &[BorrowedFd<'_>]) -> Result<(), PeerError> {
        if self.queue.is_empty() {
            match self.channel.send(&message, descriptors) {
                Err(ChannelError::WouldBlock) => {}
                other => return Ok(other?),
            }
        }
        if self.queue.len() >= MAXIMUM_QUEUE {
            return Err(PeerError::Stuck);
        }
        let copies = descriptors.iter().map(|one| one.try_clone_to_owned().map(Descriptor::from));
        self.queue.push_back((message, copies.collect::<Result<_, _>>().map_err(PeerError::Copy)?));
        Ok(())
    }

    /// Sends what waits, as far as there is room. To be called when the peer has read something.
    pub fn flush(&mut self) -> Result<(), PeerError> {
        while let Some((message, descriptors)) = self.queue.front() {
            let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            match self.channel.send(message, &borrowed) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(ChannelError::WouldBlock) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether messages wait for room.
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next message and what came with it, if there is one.
    pub fn receive(&self) -> Result<(ToInit, Vec<OwnedFd>), ChannelError> {
        self.channel.receive()
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_control::message::Reply;

    #[test]
    fn what_finds_no_room_waits_in_order() {
        let (ours, theirs) = Channel::pair().unwrap();
        let mut peer = Peer::new(ours);
        let mut sent = 0;
        while !peer.is_waiting() || sent % 50 != 0 {
            peer.send(FromInit::Reply { id: sent, reply: Reply::Text("x".repeat(2000)) }, &[]).unwrap();
            sent += 1;
        }
        for expected in 0..sent {
            let (message, _): (FromInit, _) = theirs.receive().unwrap();
            assert!(matches!(message, FromInit::Reply { id, .. } if id == expected), "{expected}: {message:?}");
            peer.flush().unwrap();
        }
        assert!(!peer.is_waiting());
    }

    #[test]
    fn a_peer_that_never_reads_is_told_apart() {
        let (ours, _theirs) = Channel::pair().unwrap();
        let mut peer = Peer::new(ours);
        let message = || FromInit::Reply { id: 0, reply: Reply::Done };
        let error = (0..MAXIMUM_QUEUE * 2).find_map(|_| peer.send(message(), &[]).err()).unwrap();
        assert!(matches!(error, PeerError::Stuck));
    }
}
