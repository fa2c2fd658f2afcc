//! How DHCP messages travel: a packet socket before there is an address, a UDP socket to prolong a lease.
//!
//! The packet socket hears in every state; it is open only while an answer is awaited, so that a machine at rest has
//! nothing open on the network and is not woken by other machines' DHCP. UDP's checksum is not looked at: packets of a
//! machine on the same host come with the sum not yet made (the card would have made it), and the transaction number
//! decides anyway.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::sockopt;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn};
use tokio::io::unix::AsyncFd;

use super::message::ServerMessage;
use crate::sys::{self, Instruction};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
const HEADERS: usize = 28;
/// More than any Ethernet frame without jumbo, and the most this client says it takes (option 57).
const LARGEST: usize = 2048;

/// IPv4, UDP, not a later fragment, to port 68. Offsets count from the IP header.
const FILTER: [Instruction; 9] = [
    (0x30, 0, 0, 9),                  // A = protocol
    (0x15, 0, 6, 17),                 // UDP?
    (0x28, 0, 0, 6),                  // A = flags and fragment offset
    (0x45, 4, 0, 0x1fff),             // a later fragment?
    (0xb1, 0, 0, 0),                  // X = length of the IP header
    (0x48, 0, 0, 2),                  // A = UDP destination port
    (0x15, 0, 1, CLIENT_PORT as u32), // ours?
    (0x06, 0, 0, LARGEST as u32),     // let in
    (0x06, 0, 0, 0),                  // leave out
];

/// The packet socket of one link.
#[derive(Debug)]
pub struct PacketSocket {
    link: u32,
    socket: AsyncFd<OwnedFd>,
}

impl PacketSocket {
    /// Opens it on the link with this index. Within a tokio runtime; needs CAP_NET_RAW.
    pub fn open(link: u32) -> io::Result<Self> {
        Ok(Self { link, socket: sys::watch(sys::packet_socket(link, sys::IPV4, &FILTER)?)? })
    }

    /// Sends a message from 0.0.0.0, or the address given, to everyone.
    pub fn broadcast(&self, from: Ipv4Addr, message: &[u8]) -> io::Result<()> {
        let packet = packet(from, Ipv4Addr::BROADCAST, message);
        sys::send_packet(self.socket.as_fd(), (self.link, sys::IPV4), [0xff; 6], &packet)
    }

    /// The next message of a server. Whatever is not one is passed over.
    pub async fn receive(&self) -> io::Result<ServerMessage> {
        let mut buffer = [0; LARGEST];
        loop {
            let mut ready = self.socket.readable().await?;
            let result = ready.try_io(|socket| Ok(socket::recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?));
            let Ok(length) = result else { continue };
            let message = buffer.get(..length?).and_then(payload).and_then(ServerMessage::decode);
            if let Some(message) = message {
                return Ok(message);
            }
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A UDP socket from our address to a server. While it is open the kernel does not answer the server's reply with
/// "port unreachable"; it is connected, so it takes nothing from anybody else.
pub fn connect(link: &str, from: Ipv4Addr, server: Ipv4Addr) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let descriptor = socket::socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    socket::setsockopt(&descriptor, sockopt::ReuseAddr, &true)?;
    socket::setsockopt(&descriptor, sockopt::BindToDevice, &link.into())?;
    socket::bind(descriptor.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, CLIENT_PORT)))?;
    let socket = UdpSocket::from(descriptor);
    socket.connect(SocketAddrV4::new(server, SERVER_PORT))?;
    Ok(socket)
}

/// What UDP carries in an IPv4 packet.
fn payload(packet: &[u8]) -> Option<&[u8]> {
    let version_and_length = *packet.first()?;
    let header = usize::from(version_and_length & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    if version_and_length >> 4 != 4 || header < 20 || *packet.get(9)? != 17 {
        return None;
    }
    let udp = packet.get(header..total.min(packet.len()))?;
    let length = usize::from(u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]));
    let from_server = udp.get(..4)? == [0, 67, 0, 68];
    udp.get(8..length).filter(|_| from_server)
}

/// An IPv4 packet with a UDP datagram from port 68 to port 67.
fn packet(from: Ipv4Addr, to: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let total = u16::try_from(HEADERS + message.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0x10];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let [high, low] = checksum(&packet, 0).to_be_bytes();
    packet.iter_mut().skip(10).zip([high, low]).for_each(|(to, from)| *to = from);
    let length = total.saturating_sub(20);
    let mut udp = Vec::with_capacity(usize::from(length));
    udp.extend(CLIENT_PORT.to_be_bytes());
    udp.extend(SERVER_PORT.to_be_bytes());
    udp.extend(length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(message);
    let pseudo: Vec<u8> = [&from.octets()[..], &to.octets(), &[0, 17], &length.to_be_bytes()].concat();
    let sum = match checksum(&udp, sum_of(&pseudo)) {
        // 0 would say that there is no checksum (RFC 768).
        0 => u16::MAX,
        sum => sum,
    };
    udp.iter_mut().skip(6).zip(sum.to_be_bytes()).for_each(|(to, from)| *to = from);
    packet.extend(udp);
    packet
}

fn sum_of(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| {
        let high = pair.first().copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([high, pair.get(1).copied().unwrap_or(0)]))
    };
    bytes.chunks(2).map(word).sum()
}

/// The Internet checksum (RFC 1071) of at most 64 KiB.
fn checksum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = sum_of(bytes).saturating_add(start);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_sums_that_come_to_nothing() {
        for message in [&b"even"[..], b"odd"] {
            let from = Ipv4Addr::new(10, 0, 0, 9);
            let bytes = packet(from, Ipv4Addr::BROADCAST, message);
            assert_eq!(checksum(&bytes[..20], 0), 0);
            let pseudo = [&bytes[12..20], &[0, 17], &bytes[24..26]].concat();
            assert_eq!(checksum(&bytes[20..], sum_of(&pseudo)), 0);
            assert_eq!(&bytes[28..], message);
        }
    }

    #[test]
    fn only_what_a_server_sent_is_unpacked() {
        let mut bytes = packet(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, b"hello");
        assert_eq!(payload(&bytes), None);
        bytes[20..24].copy_from_slice(&[0, 67, 0, 68]);
        assert_eq!(payload(&bytes), Some(&b"hello"[..]));
        for cut in 0..bytes.len() {
            payload(&bytes[..cut]);
        }
        bytes[0] = 0x41;
        assert_eq!(payload(&bytes), None);
    }
}
