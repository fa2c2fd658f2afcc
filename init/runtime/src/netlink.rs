//! A socket of rtnetlink(7), and the few messages that moving a link takes. Pure but for the socket.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{Context, SystemError};

/// Message types and flags of linux/rtnetlink.h and linux/netlink.h.
pub(crate) const NEW_LINK: u16 = 16;
pub(crate) const GET_LINK: u16 = 18;
pub(crate) const NEW_ADDRESS: u16 = 20;
pub(crate) const GET_ADDRESS: u16 = 22;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const DUMP: u16 = 0x300;

/// The kernel fills at most this much at once (NLMSG_GOODSIZE, and 32 KiB for dumps).
const BUFFER: usize = 32 * 1024;

/// `struct nlmsghdr` has this many bytes.
const HEADER: usize = 16;

/// A message's fixed part and its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Its type.
    pub kind: u16,
    /// Everything after the header.
    pub body: Vec<u8>,
}

/// A message under construction.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    flags: u16,
}

impl Request {
    /// `fixed` is the type's own structure, such as `struct ifinfomsg`.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let flags = REQUEST | flags | if flags & DUMP == DUMP { 0 } else { ACKNOWLEDGE };
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(fixed);
        Self { bytes, flags }
    }

    /// Adds an attribute.
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn finished(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX).to_ne_bytes();
        for (target, byte) in self.bytes.iter_mut().zip(length) {
            *target = byte;
        }
        self.bytes
    }
}

/// A socket, for good in the network namespace that it was made in.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// In the caller's network namespace.
    pub(crate) fn open() -> Result<Self, SystemError> {
        // No protocol is number 0, NETLINK_ROUTE.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .on("socket", "netlink")?;
        Ok(Self { socket })
    }

    /// Asks the kernel and waits for its answers: none to what only changes something.
    pub(crate) fn ask(&self, request: Request) -> Result<Vec<Reply>, Errno> {
        let dump = request.flags & DUMP == DUMP;
        rustix::net::send(&self.socket, &request.finished(), SendFlags::empty())?;
        let mut replies = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let (length, _) = match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                result => result?,
            };
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((reply, next)) = split(rest) {
                match reply.kind {
                    DONE => return Ok(replies),
                    ERROR => {
                        let code = reply.body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                        return if code == 0 { Ok(replies) } else { Err(Errno::from_raw_os_error(-code)) };
                    }
                    _ => replies.push(reply),
                }
                rest = next;
            }
            if !rest.is_empty() || (length == 0 && !dump) {
                return Err(Errno::BADMSG);
            }
        }
    }
}

/// The first message, and what comes after it.
fn split(bytes: &[u8]) -> Option<(Reply, &[u8])> {
    let length = usize::try_from(word(bytes, 0)?).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..6)?.first_chunk()?);
    let body = bytes.get(HEADER..length)?.to_vec();
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((Reply { kind, body }, next))
}

impl Reply {
    /// The attributes after a fixed part of `skipped` bytes.
    pub(crate) fn attributes(&self, skipped: usize) -> Vec<(u16, &[u8])> {
        /// NLA_F_NESTED and NLA_F_NET_BYTEORDER are not of the type.
        const TYPE: u16 = 0x3fff;
        let mut rest = self.body.get(skipped..).unwrap_or_default();
        let mut all = Vec::new();
        while let (Some(length), Some(kind)) = (rest.first_chunk(), rest.get(2..4).and_then(|kind| kind.first_chunk()))
        {
            let length = usize::from(u16::from_ne_bytes(*length));
            let Some(value) = rest.get(4..length) else { break };
            all.push((u16::from_ne_bytes(*kind) & TYPE, value));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        all
    }

    /// Four bytes of the fixed part.
    pub(crate) fn word(&self, offset: usize) -> Option<u32> {
        word(&self.body, offset)
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_built_is_read_back() {
        let bytes = Request::new(NEW_LINK, CREATE, &[7; 16]).with(3, b"eth0\0").with(9, &[1, 2]).finished();
        assert_eq!(bytes.len() % 4, 0);
        let (reply, rest) = split(&bytes).unwrap();
        assert!(rest.is_empty() && reply.kind == NEW_LINK);
        assert_eq!(reply.attributes(16), [(3, &b"eth0\0"[..]), (9, &[1, 2][..])]);
        assert_eq!(reply.word(4), Some(0x0707_0707));
    }

    #[test]
    fn the_kernel_knows_the_loopback() {
        let mut fixed = [0; 16];
        fixed[0] = 0;
        let replies = Netlink::open().unwrap().ask(Request::new(GET_LINK, 0, &fixed).with(3, b"lo\0")).unwrap();
        assert_eq!(replies[0].word(4), Some(1));
        let missing = Netlink::open().unwrap().ask(Request::new(GET_LINK, 0, &fixed).with(3, b"none-such\0"));
        assert_eq!(missing, Err(Errno::NODEV));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some((reply, _)) = split(&bytes) {
                reply.attributes(16);
            }
        }
    }
}
