//! The byte stream of one client, with the bounds that keep it from growing this program or holding it up.
//!
//! zbus reads a message of up to 128 MiB and waits for ever for a client to read. Here a message is at most
//! [`MAXIMUM_REQUEST`] with at most [`MAXIMUM_DESCRIPTORS`] beside it, and a client that takes nothing for
//! [`WRITE_TIMEOUT`] is cut off.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use tokio::io::Interest;
use tokio::net::UnixStream;
use zbus::Message;
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;
use zbus::fdo::ConnectionCredentials;

use crate::places::Activity;

/// The largest message from a client in bytes. zbus queues up to 64 of them a client, so this times 64 is what a
/// client can make us hold. The largest honest one is a name of 253 bytes and its header.
const MAXIMUM_REQUEST: usize = 32 * 1024;

/// The most descriptors in one message, or before the first: the three streams of an execution. The kernel drops those that a
/// read has no room for, and zbus refuses the message that misses them. But a message may come in any number of reads.
const MAXIMUM_DESCRIPTORS: usize = 3;

/// How long a client may leave its answers unread. Generous for a terminal that was stopped with Ctrl-S.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The part of a message that tells its length (D-Bus specification, "Message Format").
const FIXED_HEADER: usize = 16;

/// A connected client.
#[derive(Debug)]
pub struct Transport {
    stream: Arc<UnixStream>,
    uid: u32,
    activity: Arc<Activity>,
}

impl Transport {
    /// Takes a connection whose peer has this user id, and notes what it does.
    pub fn new(stream: Arc<UnixStream>, uid: u32, activity: Arc<Activity>) -> Self {
        Self { stream, uid, activity }
    }
}

impl Socket for Transport {
    type ReadHalf = Bounded;
    type WriteHalf = Writer;

    fn split(self) -> Split<Bounded, Writer> {
        let (stream, activity) = (Arc::clone(&self.stream), Arc::clone(&self.activity));
        let reader = Reader { stream, uid: self.uid, activity, early: Vec::new(), descriptors: 0 };
        Split::new(Bounded(reader), Writer { stream: self.stream, activity: self.activity })
    }
}

/// Reads bytes.
#[derive(Debug)]
struct Reader {
    stream: Arc<UnixStream>,
    uid: u32,
    activity: Arc<Activity>,
    /// Came with the beginning of a message whose rest is not read yet.
    early: Vec<OwnedFd>,
    /// How many descriptors have come with this message.
    descriptors: usize,
}

impl Reader {
    /// Counts descriptors, and refuses too many.
    fn count(&mut self, more: usize) -> io::Result<()> {
        self.descriptors += more;
        if self.descriptors > MAXIMUM_DESCRIPTORS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors beside one message"));
        }
        Ok(())
    }
}

#[async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        loop {
            self.stream.readable().await?;
            match self.stream.try_io(Interest::READABLE, || receive(&self.stream, buffer)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    let (length, descriptors) = read?;
                    self.activity.sends();
                    self.count(descriptors.len())?;
                    let mut all = std::mem::take(&mut self.early);
                    all.extend(descriptors);
                    return Ok((length, all));
                }
            }
        }
    }
}

/// One read, with the descriptors that came with it.
fn receive(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAXIMUM_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(buffer)];
    let received = rustix::net::recvmsg(stream, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok((received.bytes, descriptors))
}

/// Reads messages and refuses long ones before they are allocated.
#[derive(Debug)]
pub struct Bounded(Reader);

#[async_trait]
impl ReadHalf for Bounded {
    async fn receive_message(
        &mut self,
        seq: u64,
        already_received_bytes: &mut Vec<u8>,
        already_received_fds: &mut Vec<OwnedFd>,
    ) -> zbus::Result<Message> {
        // zbus trusts a message that it has received descriptors for before to name no more of them.
        self.0.early.append(already_received_fds);
        self.0.descriptors = self.0.early.len();
        while already_received_bytes.len() < FIXED_HEADER {
            let mut buffer = [0; FIXED_HEADER];
            let missing = FIXED_HEADER - already_received_bytes.len();
            let (length, descriptors) = self.0.recvmsg(&mut buffer[..missing]).await?;
            if length == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.0.early.extend(descriptors);
            already_received_bytes.extend_from_slice(&buffer[..length]);
        }
        if message_length(already_received_bytes).is_none_or(|length| length > MAXIMUM_REQUEST) {
            return Err(zbus::Error::ExcessData);
        }
        let message = self.0.receive_message(seq, already_received_bytes, already_received_fds).await;
        self.0.activity.asks();
        message
    }

    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        self.0.recvmsg(buffer).await
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        Ok(ConnectionCredentials::default().set_unix_user_id(self.0.uid))
    }
}

/// The length of the message that begins like this, in bytes; `None` if its header does not say.
fn message_length(header: &[u8]) -> Option<usize> {
    let number = |at: usize| -> Option<usize> {
        let bytes: [u8; 4] = header.get(at..at + 4)?.try_into().ok()?;
        let number = match header.first()? {
            b'l' => u32::from_le_bytes(bytes),
            b'B' => u32::from_be_bytes(bytes),
            _ => return None,
        };
        usize::try_from(number).ok()
    };
    let (body, fields) = (number(4)?, number(12)?);
    FIXED_HEADER.checked_add(fields.checked_next_multiple_of(8)?)?.checked_add(body)
}

/// Writes messages, with a time limit.
#[derive(Debug)]
pub struct Writer {
    stream: Arc<UnixStream>,
    activity: Arc<Activity>,
}

#[async_trait]
impl WriteHalf for Writer {
    async fn sendmsg(&mut self, buffer: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let numbers: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        let write = self.stream.async_io(Interest::WRITABLE, || {
            let rights = [ControlMessage::ScmRights(&numbers)];
            let control: &[ControlMessage<'_>] = if numbers.is_empty() { &[] } else { &rights };
            let flags = MsgFlags::MSG_NOSIGNAL;
            Ok(sendmsg::<()>(self.stream.as_raw_fd(), &[IoSlice::new(buffer)], control, flags, None)?)
        });
        match tokio::time::timeout(WRITE_TIMEOUT, write).await {
            Ok(written) => {
                self.activity.gets(!fds.is_empty());
                written
            }
            Err(_) => {
                self.close().await?;
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    /// Ends both directions, which is how the reading half learns of it.
    async fn close(&mut self) -> io::Result<()> {
        let socket = self.stream.as_raw_fd();
        nix::sys::socket::shutdown(socket, nix::sys::socket::Shutdown::Both).map_err(io::Error::from)?;
        Ok(())
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_message_is_read_in_both_byte_orders() {
        let little = [b'l', 1, 0, 1, 5, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0];
        assert_eq!(message_length(&little), Some(16 + 16 + 5));
        let big = [b'B', 1, 0, 1, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 9];
        assert_eq!(message_length(&big), Some(16 + 16 + 5));
    }

    #[test]
    fn a_header_that_is_none_has_no_length() {
        assert_eq!(message_length(b"GET / HTTP/1.1\r\n"), None);
        assert_eq!(message_length(b"l"), None);
    }
}
