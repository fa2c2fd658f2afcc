//! nf_tables messages on the wire (linux/netfilter/nf_tables.h): a transaction is written into one buffer and takes
//! effect as a whole or not at all.
//!
//! Our own, because netlink-packet-netfilter has neither batches nor the NAT, masquerade, fib and conntrack
//! expressions; what is needed is this file.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt};

/// NFNL_SUBSYS_NFTABLES.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
/// Room for the rules of thousands of containers in one transaction.
const SEND_BUFFER: usize = 64 << 20;
/// Room for what is answered to it: only errors.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What tables are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IPv4 and IPv6 together, routed (NFPROTO_INET).
    Inet = 1,
    /// IPv4 alone (NFPROTO_IPV4).
    Ipv4 = 2,
    /// What bridges pass on (NFPROTO_BRIDGE).
    Bridge = 7,
}

/// What a message asks for (enum nf_tables_msg_types).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// NFT_MSG_NEWTABLE
    NewTable = 0,
    /// NFT_MSG_DELTABLE
    DeleteTable = 2,
    /// NFT_MSG_NEWCHAIN
    NewChain = 3,
    /// NFT_MSG_DELCHAIN
    DeleteChain = 5,
    /// NFT_MSG_NEWRULE
    NewRule = 6,
    /// NFT_MSG_DELRULE; all of a chain if it names none.
    DeleteRule = 8,
    /// NFT_MSG_NEWSET
    NewSet = 9,
    /// NFT_MSG_NEWSETELEM
    NewElements = 12,
    /// NFT_MSG_DELSETELEM
    DeleteElements = 14,
}

/// Attributes, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    bytes: Vec<u8>,
}

impl Attributes {
    /// Bytes as they are.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// A number in network byte order.
    pub fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Text that ends in a zero.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// All of them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Attributes in an attribute.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(kind | NESTED, &inner.bytes)
    }
}

/// A transaction.
#[derive(Clone, Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    family: Family,
}

impl Batch {
    /// An empty one.
    pub fn new() -> Self {
        let mut batch = Self::loose();
        batch.append(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, &[]);
        batch
    }

    /// Messages that are no transaction: each takes effect by itself.
    pub fn loose() -> Self {
        Self { bytes: Vec::new(), sequence: 0, family: Family::Inet }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many messages are in it.
    pub fn count(&self) -> u32 {
        self.sequence
    }

    /// Adds a message to another part of the kernel's packet filter, which is answered only if it fails.
    pub fn request(&mut self, kind: u16, family: u8, attributes: &Attributes) {
        self.append(kind, REQUEST, family, 0, &attributes.bytes);
    }

    /// The messages that follow are about a table of this family; before the first such call of [`Family::Inet`].
    pub fn of(&mut self, family: Family) {
        self.family = family;
    }

    /// Adds a message, which is answered only if it fails: what thousands are answered with would not fit into the buffer.
    pub fn message(&mut self, kind: Kind, fill: impl FnOnce(&mut Attributes)) -> &mut Self {
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        let flags = match kind {
            Kind::DeleteTable | Kind::DeleteChain | Kind::DeleteRule | Kind::DeleteElements => REQUEST,
            Kind::NewRule => REQUEST | CREATE | APPEND,
            Kind::NewTable | Kind::NewChain | Kind::NewSet | Kind::NewElements => REQUEST | CREATE,
        };
        self.append(SUBSYSTEM << 8 | kind as u16, flags, self.family as u8, 0, &attributes.bytes);
        self
    }

    /// Adds a question that has many answers.
    pub fn dump(&mut self, kind: u16, family: u8, attributes: &Attributes) {
        self.append(kind, REQUEST | DUMP, family, 0, &attributes.bytes);
    }

    fn append(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) {
        let length = u32::try_from(HEADER + 4 + attributes.len()).unwrap_or(u32::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(attributes);
        self.sequence += 1;
    }
}

/// A socket to nf_tables, in the network namespace it was opened in.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
}

impl Connection {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        socket::setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER)?;
        socket::setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        Ok(Self { socket })
    }

    /// Lets the transaction take effect. The kernel does so while it is sent, so this does not wait.
    pub fn commit(&self, mut batch: Batch) -> io::Result<()> {
        batch.append(BATCH_END, REQUEST, 0, SUBSYSTEM, &[]);
        self.send(&batch, None)
    }

    /// Sends messages, and returns the first error of their answers that is not the tolerated one.
    pub fn send(&self, batch: &Batch, tolerated: Option<i32>) -> io::Result<()> {
        self.drain(None);
        socket::send(self.socket.as_raw_fd(), &batch.bytes, MsgFlags::empty())?;
        match self.drain(tolerated) {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => Ok(()),
        }
    }

    /// Sends a question and shows the attributes of each of its answers, which the kernel makes while they are read.
    pub fn read(&self, question: &Batch, mut show: impl FnMut(&[u8])) -> io::Result<()> {
        self.drain(None);
        socket::send(self.socket.as_raw_fd(), &question.bytes, MsgFlags::empty())?;
        answers(&self.socket, |message| show(message.get(HEADER + 4..).unwrap_or_default()))
    }

    /// Reads what has been answered and returns the first error that is not the tolerated one.
    fn drain(&self, tolerated: Option<i32>) -> Option<i32> {
        let mut first = None;
        let mut buffer = [0; 8192];
        loop {
            match socket::recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => {
                    let error = error_of(buffer.get(..length).unwrap_or_default());
                    first = first.or(error.filter(|error| Some(*error) != tolerated));
                }
                Err(nix::Error::EAGAIN) => return first,
                Err(nix::Error::EINTR) => {}
                Err(error) => return first.or(Some(error as i32)),
            }
        }
    }
}

/// Shows each message of a long answer, which the kernel makes while it is read, to its end.
pub fn answers(socket: &OwnedFd, mut show: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let length = socket::recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((length, kind)) = rest.get(..HEADER).and_then(header) {
            match kind {
                ERROR => return error_of(rest).map_or(Ok(()), |error| Err(io::Error::from_raw_os_error(error))),
                DONE => return Ok(()),
                _ => show(rest.get(..length).unwrap_or_default()),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// The length and the kind of a netlink message.
pub fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    usize::try_from(length).ok().filter(|length| *length >= HEADER).map(|length| (length, kind))
}

/// The value of an attribute.
pub fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// All attributes with their values, as far as they are whole.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !NESTED, value))
    })
}

/// The number of the error that a message carries, positive; none for an acknowledgement.
pub fn error_of(message: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let error = i32::from_ne_bytes(message.get(HEADER..HEADER + 4)?.try_into().ok()?);
    (kind == ERROR && error != 0).then(|| error.saturating_neg())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_but_count_their_own_length() {
        let mut attributes = Attributes::default();
        attributes.text(1, "berth").number(2, 1);
        assert_eq!(attributes.bytes, [&[10, 0, 1, 0][..], b"berth\0\0\0", &[8, 0, 2, 0, 0, 0, 0, 1]].concat());
    }

    #[test]
    fn an_acknowledgement_is_no_error() {
        let mut message = [0; 36];
        message[4] = 2;
        assert_eq!(error_of(&message), None);
        message[16..20].copy_from_slice(&(-17_i32).to_ne_bytes());
        assert_eq!(error_of(&message), Some(17));
        assert_eq!(error_of(&message[..10]), None);
    }
}
