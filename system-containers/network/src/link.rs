//! The links as the kernel reports them, and what PID 1 is told of them. Pure: messages in, a table out.

mod routers;
mod taken;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use berth_control::message;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};

pub use self::routers::Routers;
use self::routers::{described_flags, notified_flags};
pub use self::taken::{note as note_taken, taken_address};
use crate::dhcp::message::Mac;
use crate::netlink::OWN_PROTOCOL;

/// Links whose names begin so are ours: the bridges of the containers and the host's ends of their cables.
pub const OWN_PREFIX: &str = "berth";

/// A link of this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number; not used again while the machine runs.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, where it is one of Ethernet.
    pub mac: Option<Mac>,
    /// The hardware address that it came with, by which the configuration knows it: others' change with what they belong to.
    pub identity: Option<Mac>,
    /// What others have written on it.
    pub alias: String,
    /// Whether its frames are those of Ethernet.
    pub ethernet: bool,
    /// Whether it is `lo`.
    pub loopback: bool,
    /// What the kernel made it of, such as `veth` or `bridge`; `None` for hardware.
    pub kind: Option<String>,
    /// The bridge or bond it belongs to.
    pub controller: Option<u32>,
    /// The link that it stands on, as a VLAN does.
    pub below: Option<u32>,
    /// Whether it is set up.
    pub up: bool,
    /// Whether frames can pass.
    pub carrier: bool,
    /// What routers have said last of DHCPv6.
    pub routers: Routers,
    /// The largest packet in bytes.
    pub mtu: u32,
    /// Addresses and their prefix lengths.
    pub addresses: BTreeMap<IpAddr, Address>,
    /// Addresses of IPv6 that the kernel does not use, as another machine on the link has them.
    pub taken: BTreeSet<Ipv6Addr>,
}

/// What there is to know of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// In bits.
    pub prefix_length: u8,
    /// Whether it is good beyond this link.
    pub global: bool,
    /// Whether this program has given it.
    pub own: bool,
    /// Whether the kernel has made it of what a router said.
    pub by_router: bool,
    /// Whether it has no end.
    pub permanent: bool,
}

impl Link {
    /// Reads the kernel's description; the addresses come apart from it.
    fn from_message(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            loopback: flags.contains(LinkFlags::Loopback),
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running),
            ..Self::default()
        };
        let mut below_is_elsewhere = false;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok(),
                LinkAttribute::Controller(index) => link.controller = Some(*index).filter(|index| *index != 0),
                LinkAttribute::PermAddress(bytes) => link.identity = bytes.as_slice().try_into().ok(),
                LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Link(index) => link.below = Some(*index),
                LinkAttribute::LinkNetNsId(_) => below_is_elsewhere = true,
                LinkAttribute::AfSpecUnspec(specification) => {
                    link.routers = described_flags(specification).map_or(Routers::Nothing, Routers::from_flags);
                }
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind_name(kind)),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link.identity = link.identity.or(link.mac);
        link.below = link.below.filter(|below| *below != link.index && !below_is_elsewhere);
        link
    }

    /// Whether it is one that Berth made for containers.
    pub fn is_own(&self) -> bool {
        self.name.starts_with(OWN_PREFIX)
    }

    /// Whether it is a piece of hardware.
    fn is_hardware(&self) -> bool {
        self.ethernet && !self.loopback && self.kind.is_none()
    }

    /// Its hardware address in the usual notation; empty if it has none.
    pub fn mac_text(&self) -> String {
        self.mac.map(text_of).unwrap_or_default()
    }

    /// The hardware address that it came with, likewise.
    pub fn identity_text(&self) -> String {
        self.identity.map(text_of).unwrap_or_default()
    }
}

/// A hardware address in the usual notation.
pub fn text_of(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn kind_name(kind: &InfoKind) -> String {
    match kind {
        InfoKind::Veth => "veth".to_owned(),
        InfoKind::MacVlan => "macvlan".to_owned(),
        InfoKind::IpVlan => "ipvlan".to_owned(),
        other => other.to_string(),
    }
}

/// All links.
#[derive(Clone, Debug, Default)]
pub struct LinkTable {
    links: BTreeMap<u32, Link>,
    /// Of these, the machine's: few, whereas those of containers are many.
    told: BTreeSet<u32>,
    /// Whether there is or was a card that is hardware.
    has_hardware: bool,
}

impl LinkTable {
    /// One of them.
    pub fn find(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// The one with this name.
    pub fn by_name(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// Names are given once: what else was known by this one has gone, or has another.
    pub fn forget_others(&mut self, name: &str, index: u32) {
        self.links.retain(|other, link| *other == index || link.name != name);
        self.told.retain(|index| self.links.contains_key(index));
    }

    /// One that was removed a moment ago.
    pub fn forget(&mut self, index: u32) {
        self.links.remove(&index);
        self.told.remove(&index);
    }

    /// Whether a link is set up without being named in the configuration: Ethernet cards, and what stands for one where
    /// Berth itself runs in a container. On a machine with cards such a link belongs to a program or a container on the
    /// machine's own network, and who is at its other end has no say in where the machine's packets and questions go.
    pub fn is_card(&self, link: &Link) -> bool {
        let kind = link.kind.as_deref();
        let stands_for_one = !self.has_hardware && matches!(kind, Some("veth" | "macvlan" | "ipvlan"));
        !link.is_own() && link.controller.is_none() && link.ethernet && (link.is_hardware() || stands_for_one)
    }

    /// All of them, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// A link is new or has changed. `false` for messages about something else, such as a bridge's view of a port.
    pub fn update(&mut self, message: &LinkMessage) -> bool {
        if message.header.interface_family != AddressFamily::Unspec {
            return false;
        }
        let mut link = Link::from_message(message);
        if let Some(before) = self.links.remove(&link.index) {
            (link.addresses, link.identity) = (before.addresses, before.identity.or(link.identity));
            link.taken = before.taken;
            if !link.carrier {
                // It may be another link next time. The kernel does not look again for what it still has.
                link.forget_missed();
            }
        }
        self.has_hardware |= link.is_hardware();
        if link.loopback || link.is_own() {
            self.told.remove(&link.index);
        } else {
            self.told.insert(link.index);
        }
        self.links.insert(link.index, link);
        true
    }

    /// The kernel has heard something new from a router; `false` for all other messages.
    pub fn update_routers(&mut self, message: &LinkMessage) -> bool {
        let inet6 = message.header.interface_family == AddressFamily::Inet6;
        let flags = notified_flags(message).filter(|_| inet6);
        match (flags, self.links.get_mut(&message.header.index)) {
            (Some(flags), Some(link)) => {
                link.routers = Routers::from_flags(flags);
                true
            }
            _ => false,
        }
    }

    /// A link has gone.
    pub fn remove(&mut self, message: &LinkMessage) -> Option<Link> {
        // A bridge says with RTM_DELLINK and its own family that a port has left; the link is still there.
        if message.header.interface_family != AddressFamily::Unspec {
            return None;
        }
        self.told.remove(&message.header.index);
        self.links.remove(&message.header.index)
    }

    /// An address is new or has changed.
    pub fn update_address(&mut self, message: &AddressMessage) {
        if let (Some(link), Some((address, facts))) = (self.links.get_mut(&message.header.index), read(message)) {
            link.addresses.insert(address, facts);
            taken::note(&mut link.taken, message, true);
        }
    }

    /// An address has gone.
    pub fn remove_address(&mut self, message: &AddressMessage) {
        if let (Some(link), Some(address)) = (self.links.get_mut(&message.header.index), address_of(message)) {
            link.addresses.remove(&address);
            taken::note(&mut link.taken, message, false);
        }
    }

    /// Empties it, before everything is asked for again.
    pub fn clear(&mut self) {
        self.links.clear();
        self.told.clear();
    }

    /// What PID 1 is told: every link but loopback and our own. `missing` says what one lacks.
    pub fn summary(&self, missing: impl Fn(&Link) -> Vec<String>) -> Vec<message::Link> {
        let described = self.told.iter().filter_map(|index| self.links.get(index));
        described
            .map(|link| message::Link {
                name: link.name.clone(),
                mac: link.mac_text(),
                carrier: link.carrier,
                addresses: link
                    .addresses
                    .iter()
                    .filter(|(address, facts)| facts.global || address.is_ipv4())
                    .map(|(address, facts)| format!("{address}/{}", facts.prefix_length))
                    .collect(),
                missing: missing(link),
            })
            .collect()
    }
}

/// An address as the kernel describes it.
pub fn read(message: &AddressMessage) -> Option<(IpAddr, Address)> {
    let is_by = |protocol| message.attributes.contains(&AddressAttribute::Protocol(protocol));
    let facts = Address {
        prefix_length: message.header.prefix_len,
        global: message.header.scope == AddressScope::Universe,
        own: is_by(AddressProtocol::Other(OWN_PROTOCOL)),
        by_router: is_by(AddressProtocol::RouterAnnouncement),
        permanent: message.header.flags.contains(AddressHeaderFlags::Permanent),
    };
    Some((address_of(message)?, facts))
}

/// Ours, not the other end's of a point-to-point link.
fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link_message(index: u32, name: &str, flags: LinkFlags) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.header.flags = flags;
        message.attributes = vec![LinkAttribute::IfName(name.into()), LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1])];
        message
    }

    fn address_message(index: u32, address: &str, scope: AddressScope) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = 24;
        message.header.scope = scope;
        message.attributes = vec![AddressAttribute::Address(address.parse().unwrap())];
        message
    }

    #[test]
    fn carrier_needs_all_three_flags() {
        let mut table = LinkTable::default();
        table.update(&link_message(2, "eth0", LinkFlags::Up | LinkFlags::LowerUp));
        assert!(!table.find(2).unwrap().carrier);
        table.update(&link_message(2, "eth0", LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running));
        assert!(table.find(2).unwrap().carrier);
    }

    #[test]
    fn addresses_survive_a_change_of_the_link_and_link_local_ones_are_not_told() {
        let mut table = LinkTable::default();
        table.update(&link_message(2, "eth0", LinkFlags::Up));
        table.update_address(&address_message(2, "10.0.0.9", AddressScope::Universe));
        table.update_address(&address_message(2, "fe80::1", AddressScope::Link));
        table.update(&link_message(2, "eth0", LinkFlags::empty()));
        let summary = table.summary(|_| Vec::new());
        assert_eq!((summary[0].name.as_str(), summary[0].mac.as_str()), ("eth0", "02:00:00:00:00:01"));
        assert_eq!(summary[0].addresses, ["10.0.0.9/24"]);
        table.remove_address(&address_message(2, "10.0.0.9", AddressScope::Universe));
        assert!(table.summary(|_| Vec::new())[0].addresses.is_empty());
    }

    #[test]
    fn a_pair_of_ends_is_a_card_only_where_there_is_no_hardware() {
        let mut end = link_message(3, "veth9", LinkFlags::Up);
        end.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]));
        let mut table = LinkTable::default();
        table.update(&end);
        let is_card = |table: &LinkTable, index| table.is_card(table.find(index).unwrap());
        assert!(is_card(&table, 3), "Berth runs in a container");
        let card = link_message(2, "eth0", LinkFlags::Up);
        table.update(&card);
        assert!(is_card(&table, 2) && !is_card(&table, 3));
        // One that is plugged out makes no card of what a container has.
        table.remove(&card);
        assert!(!is_card(&table, 3));
        let mut again = LinkTable::default();
        again.update(&end);
        again.remember_missed(&table);
        assert!(!is_card(&again, 3));
    }

    #[test]
    fn our_own_links_and_what_a_bridge_says_of_its_ports_do_not_count() {
        let mut table = LinkTable::default();
        table.update(&link_message(2, "berth0", LinkFlags::Up));
        assert!(table.summary(|_| Vec::new()).is_empty());
        let mut port = link_message(2, "berth0", LinkFlags::Up);
        port.header.interface_family = AddressFamily::Bridge;
        assert!(table.remove(&port).is_none());
        assert!(table.find(2).is_some());
    }
}
