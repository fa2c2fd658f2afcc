//! A router advertisement as it comes from the network (RFC 4861, 4.2): who sends it and what it says is on the link.

use std::net::Ipv6Addr;

use berth_config::Prefix;

/// IPv6, without headers between it and ICMPv6.
const HEADER: usize = 40;
const ICMPV6: u8 = 58;
/// Says that a message has passed no router; others are ignored.
pub const HOP_LIMIT: u8 = 255;
/// Its type.
pub const ADVERTISEMENT: u8 = 134;
/// Before the options.
const FIXED: usize = 16;
const PREFIX_INFORMATION: u8 = 3;
/// The most prefixes that are taken from one message.
const MOST: usize = 32;

/// Of one router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// The router's address on the link.
    pub router: Ipv6Addr,
    /// Networks of the link.
    pub prefixes: Vec<Prefix>,
}

impl Advertisement {
    /// Reads a packet; `None` if the kernel would not take it for one either.
    pub fn decode(packet: &[u8]) -> Option<Self> {
        let (header, message) = packet.split_at_checked(HEADER)?;
        let router: [u8; 16] = header.get(8..24)?.try_into().ok()?;
        let router = Ipv6Addr::from(router);
        let is_one = header.first()? >> 4 == 6
            && header.get(6..8)? == [ICMPV6, HOP_LIMIT]
            && message.get(..2)? == [ADVERTISEMENT, 0]
            && router.is_unicast_link_local();
        let mut rest = message.get(FIXED..).filter(|_| is_one)?;
        let mut prefixes = Vec::new();
        while let [kind, units, ..] = rest {
            // An option of no length makes all of it invalid.
            let (option, following) = rest.split_at_checked(usize::from(*units) * 8).filter(|_| *units > 0)?;
            if *kind == PREFIX_INFORMATION && prefixes.len() < MOST {
                prefixes.extend(prefix(option));
            }
            rest = following;
        }
        Some(Self { router, prefixes })
    }
}

/// One that still holds.
fn prefix(option: &[u8]) -> Option<Prefix> {
    let is_valid = option.get(4..8)? != [0; 4];
    let network: [u8; 16] = option.get(16..32)?.try_into().ok()?;
    Prefix::new(Ipv6Addr::from(network).into(), *option.get(2)?).filter(|_| is_valid)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(options: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, ICMPV6, HOP_LIMIT];
        packet.extend("fe80::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("ff02::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend([ADVERTISEMENT, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend(options);
        packet
    }

    fn information(network: &str, length: u8, valid: u8) -> Vec<u8> {
        let mut option = vec![PREFIX_INFORMATION, 4, length, 0xc0, 0, 0, 0, valid, 0, 0, 0, 0, 0, 0, 0, 0];
        option.extend(network.parse::<Ipv6Addr>().unwrap().octets());
        option
    }

    #[test]
    fn a_router_and_the_networks_that_hold_are_read() {
        let options = [information("fd77::", 64, 9), vec![1, 1, 2, 0, 0, 0, 0, 1], information("fd78::", 64, 0)];
        let read = Advertisement::decode(&packet(&options.concat())).unwrap();
        assert_eq!(read.router, "fe80::1".parse::<Ipv6Addr>().unwrap());
        assert_eq!(read.prefixes, ["fd77::/64".parse().unwrap()]);
    }

    #[test]
    fn what_may_have_passed_a_router_or_is_broken_is_none() {
        let whole = packet(&information("fd77::", 64, 9));
        let changed = |place: usize, value: u8| {
            let mut packet = whole.clone();
            packet[place] = value;
            Advertisement::decode(&packet)
        };
        assert!(Advertisement::decode(&whole).is_some());
        // The version, the protocol, the hop limit, the sender, the type, the code, the length of an option.
        for (place, value) in [(0, 0x45), (6, 17), (7, 254), (8, 0x20), (40, 133), (41, 1), (57, 0), (57, 5)] {
            assert_eq!(changed(place, value), None, "byte {place}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            Advertisement::decode(&bytes);
            Advertisement::decode(&packet(&bytes));
        }
    }
}
