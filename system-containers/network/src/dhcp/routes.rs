//! Routes in DHCPv4 messages: options 33 (RFC 2132), 121 (RFC 3442) and 249 (MS-DHCPE, section 2.2.12). Pure.

use std::net::Ipv4Addr;

use super::message::{LIST_LIMIT, address, is_usable};

/// A route from option 33, 121 or 249.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Route {
    /// The destination; its host bits are zero.
    pub destination: Ipv4Addr,
    /// 0 to 32.
    pub prefix_length: u8,
    /// The next hop; 0.0.0.0 means that the destination is on the link.
    pub gateway: Ipv4Addr,
}

/// Options 121 and 249: a prefix length, the significant bytes of the destination, the gateway (RFC 3442). A list with an
/// impossible entry is dropped whole, because what follows cannot be told apart.
pub fn classless(mut value: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let [prefix_length, rest @ ..] = value {
        let prefix_length = *prefix_length;
        if prefix_length > 32 {
            return None;
        }
        let (significant, rest) = rest.split_at_checked(usize::from(prefix_length.div_ceil(8)))?;
        let (gateway, rest) = rest.split_at_checked(4)?;
        let mut destination = [0; 4];
        destination.iter_mut().zip(significant).for_each(|(to, from)| *to = *from);
        let mask = mask_of(prefix_length);
        let destination = Ipv4Addr::from(u32::from_be_bytes(destination) & mask);
        routes.push(Route { destination, prefix_length, gateway: address(gateway)? });
        value = rest;
    }
    routes.truncate(LIST_LIMIT);
    (!routes.is_empty()).then_some(routes)
}

/// Option 33: pairs of a destination and a router (RFC 2132, section 5.8). The default route is none of them. It has no masks: a
/// destination without host bits in its class is a network, every other one a machine.
pub fn of_classes(value: &[u8]) -> Vec<Route> {
    let route = |pair: &[u8]| {
        let (destination, gateway) = (address(pair.get(..4)?)?, address(pair.get(4..)?)?);
        let of_class = prefix_length_by_class(destination);
        let is_network = u32::from(destination) & !mask_of(of_class) == 0;
        let prefix_length = if is_network { of_class } else { 32 };
        (is_usable(destination) && is_usable(gateway)).then_some(Route { destination, prefix_length, gateway })
    };
    value.chunks_exact(8).filter_map(route).take(LIST_LIMIT).collect()
}

/// What RFC 950 assumes where a server does not say.
pub fn prefix_length_by_class(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

/// The netmask of a prefix length of 0 to 32, as a number.
pub fn mask_of(prefix_length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_length.min(32))).unwrap_or(0)
}
