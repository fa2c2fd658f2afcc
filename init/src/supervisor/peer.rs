//! PID 1's end of a channel with a bounded queue behind it: a system container that does not read costs that much
//! memory and no time.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_control::channel::{Channel, ChannelError};
use berth_control::message::{FromInit, Reply, ToInit};
use berth_runtime::handover::{Descriptor, Handed};
use serde::{Deserialize, Serialize};

/// So many messages may wait for a peer in any case.
const QUEUE: usize = 4096;

/// And so many more for each container that there is. The largest bursts are the two log pipes of each, told to a `logs` that
/// has just been started, and the states that all go through when the machine goes down, told to `control`.
const QUEUE_PER_CONTAINER: usize = 4;

/// The most messages that wait for a peer while there are so many containers.
pub(super) fn longest_queue(containers: usize) -> usize {
    QUEUE.saturating_add(containers.saturating_mul(QUEUE_PER_CONTAINER))
}

/// A system container's channel.
#[derive(Debug, Serialize, Deserialize)]
pub struct Peer {
    channel: Handed<Channel>,
    queue: VecDeque<(FromInit, Vec<Descriptor>)>,
    /// Whether it was asked for a sign of life and has given none since.
    #[serde(default)]
    pub owes_sign: bool,
}

/// The peer does not read, or is gone.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// See [`longest_queue`].
    #[error("it has not read its last {most} messages")]
    Stuck {
        /// So many may wait.
        most: usize,
    },
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
        Self { channel: channel.into(), queue: VecDeque::new(), owes_sign: false }
    }

    /// Sends, or queues behind no more than `most` if there is no room.
    pub fn send(&mut self, message: FromInit, descriptors: &[BorrowedFd<'_>], most: usize) -> Result<(), PeerError> {
        if self.queue.is_empty() {
            match self.deliver(&message, descriptors) {
                Err(ChannelError::WouldBlock) => {}
                other => return Ok(other?),
            }
        }
        if self.queue.len() >= most {
            return Err(PeerError::Stuck { most });
        }
        let copies = descriptors.iter().map(|one| one.try_clone_to_owned().map(Descriptor::from));
        self.queue.push_back((message, copies.collect::<Result<_, _>>().map_err(PeerError::Copy)?));
        Ok(())
    }

    /// Sends what waits, as far as there is room. To be called when the peer has read something.
    pub fn flush(&mut self) -> Result<(), PeerError> {
        while let Some((message, descriptors)) = self.queue.front() {
            let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            match self.deliver(message, &borrowed) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(ChannelError::WouldBlock) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Sends one message. That it is too long for the channel is no fault of the peer's: an answer becomes a refusal, and a
    /// notice is left out.
    fn deliver(&self, message: &FromInit, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let length = match self.channel.send(message, descriptors) {
            Err(ChannelError::TooLong { length }) => length,
            other => return other,
        };
        log::error!("a message of {length} bytes to a system container is left out: it is too long for its channel");
        let FromInit::Reply { id, .. } = message else { return Ok(()) };
        let reason = format!("the answer is too long: it would have {length} bytes");
        self.channel.send(&FromInit::Reply { id: *id, reply: Reply::Refused { reason } }, &[])
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
    use berth_control::channel::MAXIMUM_MESSAGE;

    #[test]
    fn what_finds_no_room_waits_in_order() {
        let (ours, theirs) = Channel::pair().unwrap();
        let mut peer = Peer::new(ours);
        let mut sent = 0;
        while !peer.is_waiting() || sent % 50 != 0 {
            peer.send(FromInit::Reply { id: sent, reply: Reply::Refused { reason: "x".repeat(2000) } }, &[], QUEUE)
                .unwrap();
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
    fn an_answer_that_is_too_long_is_refused_and_not_the_peer_s_end() {
        let (ours, theirs) = Channel::pair().unwrap();
        theirs.set_nonblocking().unwrap();
        let mut peer = Peer::new(ours);
        let long = || Reply::Refused { reason: "x".repeat(MAXIMUM_MESSAGE) };
        peer.send(FromInit::Reply { id: 3, reply: long() }, &[], QUEUE).unwrap();
        let (message, _): (FromInit, _) = theirs.receive().unwrap();
        assert!(matches!(message, FromInit::Reply { id: 3, reply: Reply::Refused { .. } }), "{message:?}");
        // The same behind others.
        while !peer.is_waiting() {
            peer.send(FromInit::Reply { id: 4, reply: Reply::Refused { reason: "x".repeat(2000) } }, &[], QUEUE)
                .unwrap();
        }
        peer.send(FromInit::Reply { id: 5, reply: long() }, &[], QUEUE).unwrap();
        let mut last = 0;
        while let Ok((FromInit::Reply { id, .. }, _)) = theirs.receive() {
            last = id;
            peer.flush().unwrap();
        }
        assert_eq!(last, 5);
    }

    #[test]
    fn a_peer_that_never_reads_is_told_apart() {
        let (ours, _theirs) = Channel::pair().unwrap();
        let mut peer = Peer::new(ours);
        let message = || FromInit::Reply { id: 0, reply: Reply::Done };
        let error = (0..QUEUE * 2).find_map(|_| peer.send(message(), &[], 100).err()).unwrap();
        assert!(matches!(error, PeerError::Stuck { most: 100 }));
    }
}
