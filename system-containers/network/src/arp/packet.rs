//! ARP packets for IPv4 on Ethernet (RFC 826), without the Ethernet header.

use std::net::Ipv4Addr;

use crate::dhcp::message::Mac;

const LENGTH: usize = 28;
/// Ethernet, IPv4, addresses of 6 and 4 bytes.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// A request or an answer; for conflicts there is no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who sends it.
    pub sender_mac: Mac,
    /// The address it has; 0.0.0.0 if it only wants to know.
    pub sender: Ipv4Addr,
    /// The address that is asked about.
    pub target: Ipv4Addr,
}

impl Packet {
    /// As a request.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = KIND.to_vec();
        bytes.extend([0, REQUEST]);
        bytes.extend(self.sender_mac);
        bytes.extend(self.sender.octets());
        bytes.extend([0; 6]);
        bytes.extend(self.target.octets());
        bytes
    }

    /// `None` if it is something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let packet = bytes.get(..LENGTH)?;
        let address =
            |at: usize| packet.get(at..at + 4).and_then(|it| <[u8; 4]>::try_from(it).ok()).map(Ipv4Addr::from);
        let known = packet.get(..6)? == KIND && matches!(packet.get(6..8)?, [0, REQUEST | REPLY]);
        known.then_some(Self {
            sender_mac: packet.get(8..14)?.try_into().ok()?,
            sender: address(14)?,
            target: address(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let packet = Packet { sender_mac: [1, 2, 3, 4, 5, 6], sender: [0; 4].into(), target: [192, 0, 2, 7].into() };
        let mut bytes = packet.encode();
        assert_eq!(Packet::decode(&bytes), Some(packet));
        // Ethernet's shortest frame is longer.
        bytes.resize(46, 0);
        assert_eq!(Packet::decode(&bytes), Some(packet));
        for length in 0..LENGTH {
            assert_eq!(Packet::decode(&bytes[..length]), None);
        }
        bytes[7] = 3;
        assert_eq!(Packet::decode(&bytes), None);
    }
}
