//! Addresses of IPv6 that another machine on the link has: the kernel looks for one before it uses an address (RFC 4862,
//! section 5.4). One that has an end it takes away then; one without stays and is not used.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

use super::{Link, LinkTable, address_of, read};

/// The address that a message is about, if the kernel has found another machine with it.
pub fn taken_address(message: &AddressMessage) -> Option<Ipv6Addr> {
    has(message, AddressFlags::Dadfailed).then(|| ipv6_of(message)).flatten()
}

/// Follows what the kernel says of an address that is `there`, or has gone.
pub fn note(taken: &mut BTreeSet<Ipv6Addr>, message: &AddressMessage, there: bool) {
    let Some(address) = ipv6_of(message) else { return };
    // Routers still want it used. Of temporary ones the kernel makes others, of those of DHCPv6 the server is told.
    let is_missed = || {
        read(message).is_some_and(|(_, facts)| facts.by_router && !facts.permanent)
            && !has(message, AddressFlags::Secondary)
    };
    if taken_address(message).is_some() && (there || is_missed()) {
        taken.insert(address);
    } else if !there || !has(message, AddressFlags::Tentative) {
        taken.remove(&address);
    }
}

impl LinkTable {
    /// After everything was asked for again: of what the kernel has taken away it says nothing then.
    pub fn remember_missed(&mut self, before: &Self) {
        self.has_hardware |= before.has_hardware;
        for (index, link) in self.links.iter_mut().filter(|(_, link)| link.carrier) {
            let missed = before.find(*index).into_iter().flat_map(|before| &before.taken);
            let missed: Vec<Ipv6Addr> =
                missed.filter(|address| !link.addresses.contains_key(&IpAddr::V6(**address))).copied().collect();
            link.taken.extend(missed);
        }
    }

    /// Nobody listens to routers on a link any more, or something else is wanted there: what the kernel has no more was theirs,
    /// and it says nothing further of that.
    pub fn forget_missed(&mut self, index: u32) {
        if let Some(link) = self.links.get_mut(&index) {
            link.forget_missed();
        }
    }
}

impl Link {
    /// Leaves only what the kernel still has, and may use again.
    pub(super) fn forget_missed(&mut self) {
        self.taken.retain(|address| self.addresses.contains_key(&IpAddr::V6(*address)));
    }
}

fn ipv6_of(message: &AddressMessage) -> Option<Ipv6Addr> {
    match address_of(message) {
        Some(IpAddr::V6(address)) => Some(address),
        _ => None,
    }
}

fn has(message: &AddressMessage, flag: AddressFlags) -> bool {
    message
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, AddressAttribute::Flags(flags) if flags.contains(flag)))
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::{AddressHeaderFlags, AddressProtocol};
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    fn message(flags: AddressFlags, protocol: AddressProtocol) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.flags = AddressHeaderFlags::from_bits_retain(flags.bits() as u8);
        let address = AddressAttribute::Address("2001:db8::9".parse().unwrap());
        message.attributes = vec![address, AddressAttribute::Flags(flags), AddressAttribute::Protocol(protocol)];
        message
    }

    #[test]
    fn an_address_is_taken_until_the_kernel_uses_it_or_nobody_wants_it() {
        let failed = AddressFlags::Tentative | AddressFlags::Dadfailed;
        let lasting = failed | AddressFlags::Permanent;
        let (fixed, of_router) = (AddressProtocol::Other(7), AddressProtocol::RouterAnnouncement);
        for (messages, expected) in [
            (vec![(lasting, fixed, true)], true),
            (vec![(lasting, fixed, true), (AddressFlags::Tentative, fixed, true)], true),
            (vec![(lasting, fixed, true), (AddressFlags::Permanent, fixed, true)], false),
            (vec![(lasting, fixed, true), (lasting, fixed, false)], false),
            (vec![(failed, of_router, false)], true),
            (vec![(failed | AddressFlags::Secondary, of_router, false)], false),
            (vec![(failed, fixed, false)], false),
        ] {
            let mut taken = BTreeSet::new();
            for (flags, protocol, there) in &messages {
                note(&mut taken, &message(*flags, *protocol), *there);
            }
            assert_eq!(!taken.is_empty(), expected, "{messages:?}");
        }
    }

    #[test]
    fn an_address_of_a_router_is_forgotten_with_the_setting_and_one_that_is_there_is_not() {
        let failed = AddressFlags::Tentative | AddressFlags::Dadfailed;
        let mut of_router = message(failed, AddressProtocol::RouterAnnouncement);
        let mut fixed = message(failed | AddressFlags::Permanent, AddressProtocol::Other(7));
        fixed.attributes[0] = AddressAttribute::Address("2001:db8::7".parse().unwrap());
        let mut link = LinkMessage::default();
        (link.header.index, of_router.header.index, fixed.header.index) = (2, 2, 2);
        let mut table = LinkTable::default();
        table.update(&link);
        table.update_address(&fixed);
        table.remove_address(&of_router);
        assert_eq!(table.find(2).unwrap().taken.len(), 2);
        table.forget_missed(2);
        assert_eq!(table.find(2).unwrap().taken, ["2001:db8::7".parse().unwrap()].into());
    }
}
