//! The first two packets of an SCTP association (RFC 9260), by raw sockets: machines whose kernel has no SCTP pass them on
//! all the same.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::set_socket_timeout;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recvfrom, sendto, socket};

use super::Namespace;

const HEADER: usize = 12;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// Of an INIT chunk without parameters.
const CHUNK: u16 = 20;
/// What each side wants to find in the packets that come for it.
const CLIENTS_TAG: u32 = 0x0c11_e417;
const SERVERS_TAG: u32 = 0x5e57_e5e5;

/// A socket for all packets of SCTP.
pub fn listen(namespace: &Namespace, ipv4: bool) -> OwnedFd {
    let family = if ipv4 { AddressFamily::INET } else { AddressFamily::INET6 };
    let made = namespace.within(|| socket(family, SocketType::RAW, Some(ipproto::SCTP))).unwrap();
    set_socket_timeout(&made, rustix::net::sockopt::Timeout::Recv, Some(Duration::from_secs(1))).unwrap();
    made
}

/// Answers the next association at a port; says who asked. `None` if nobody did for a second.
pub fn answer(socket: &OwnedFd, port: u16) -> Option<SocketAddr> {
    let (packet, from) = receive(socket, |packet| packet[2..4] == port.to_be_bytes() && packet[HEADER] == INIT)?;
    let source = [packet[0], packet[1]];
    send(socket, from, (port.to_be_bytes(), source), CLIENTS_TAG, (INIT_ACK, SERVERS_TAG));
    Some(SocketAddr::new(from, u16::from_be_bytes(source)))
}

/// Asks for an association.
pub fn ask(socket: &OwnedFd, to: IpAddr, (own, port): (u16, u16)) {
    send(socket, to, (own.to_be_bytes(), port.to_be_bytes()), 0, (INIT, CLIENTS_TAG));
}

/// Whether the port that was asked has answered.
pub fn is_answered(socket: &OwnedFd, by: IpAddr, (own, port): (u16, u16)) -> bool {
    let ports = [port.to_be_bytes(), own.to_be_bytes()].concat();
    let expected = |packet: &[u8]| packet[..4] == ports && packet[HEADER] == INIT_ACK;
    receive(socket, expected).is_some_and(|(_, from)| from == by)
}

fn send(socket: &OwnedFd, to: IpAddr, ports: ([u8; 2], [u8; 2]), tag: u32, (kind, own_tag): (u8, u32)) {
    let mut packet = [&ports.0[..], &ports.1, &tag.to_be_bytes(), &[0; 4], &[kind, 0], &CHUNK.to_be_bytes()].concat();
    // Its own tag, how much it takes, streams in both directions, the first number.
    packet.extend([own_tag, 65_536, (1 << 16) | 1, 1].map(u32::to_be_bytes).concat());
    let sum = checksum(&packet);
    packet[8..HEADER].copy_from_slice(&sum.to_le_bytes());
    sendto(socket, &packet, SendFlags::empty(), &SocketAddr::new(to, 0)).unwrap();
}

/// The next packet as expected with its sender; its checksum is right.
fn receive(socket: &OwnedFd, expected: impl Fn(&[u8]) -> bool) -> Option<(Vec<u8>, IpAddr)> {
    let mut buffer = [0_u8; 2048];
    loop {
        let (_, length, from) = recvfrom(socket, &mut buffer, RecvFlags::empty()).ok()?;
        let from = SocketAddr::try_from(from?).unwrap().ip();
        // With IPv4 its header comes along.
        let begin = if from.is_ipv4() { usize::from(buffer[0] & 15) * 4 } else { 0 };
        let mut packet = buffer[begin..length].to_vec();
        if packet.len() > HEADER && expected(&packet) {
            let sum = u32::from_le_bytes(packet[8..HEADER].try_into().unwrap());
            packet[8..HEADER].fill(0);
            assert_eq!(sum, checksum(&packet), "the checksum");
            return Some((packet, from));
        }
    }
}

/// CRC32c, as appendix A has it.
fn checksum(bytes: &[u8]) -> u32 {
    let shift = |sum: u32| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg());
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| shift(sum)))
}
