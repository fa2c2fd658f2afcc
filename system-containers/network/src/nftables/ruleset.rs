//! The table `inet berth`: where containers' packets go. Rules are few and fixed; what differs from container to
//! container are elements of sets and maps, so the five-hundredth costs what the first did.
//!
//! ```text
//! set networks            names of the bridges
//! set open                of those that have a way out
//! map published4          protocol . port                 → address . port     any address of the machine
//! map published4_at       address . protocol . port       → address . port     one address of the machine
//! map shared4             protocol . port . slot          → address . port     replicas: each new connection has the next slot
//! map shared4_at          address . protocol . port . slot → address . port
//! map published6 …                                                             the same for IPv6
//!
//! guard        prerouting raw   from a bridge to 127.0.0.0/8: drop (route_localnet would let it in)
//! prerouting   from a bridge for port 53 of its own address: accept, that is the resolver
//!              for this machine: jump publish           output   for this machine: jump publish
//! publish      look up address and port, else the port, and redirect
//! input        policy drop; known connections, the loopback, ICMP, answers of DHCP servers, containers' questions to the
//!              resolver, and what the configuration opens: accept
//! forward      policy drop; known connections, from an open bridge to where no bridge is, redirected to a bridge: accept;
//!              from a bridge that is not open: drop
//! postrouting  from an open bridge to elsewhere: masquerade    redirected back to a bridge: masquerade
//!              from 127.0.0.0/8 or ::1 to a bridge: masquerade
//! ```

use std::io;
use std::net::{IpAddr, SocketAddr};

use berth_config::OpenPorts;

use super::expression::{Conntrack, Expressions, FIRST, Header, Meta, STATE_KNOWN, STATUS_DNAT, Verdict};
use super::wire::{Batch, Connection, Kind};

/// The table's name.
pub const TABLE: &str = "berth";
const NETWORKS: &str = "networks";
const OPEN: &str = "open";
/// Numbers of protocols. Without ICMP neither neighbours nor the size of packets would be known.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const UDP: u8 = 17;
/// Where servers answer, by broadcast or to what was asked by multicast (RFC 2131, RFC 8415).
const DHCP_CLIENTS: [u16; 2] = [68, 546];
const IPV4: u32 = 2;
const IPV6: u32 = 10;

/// nft's numbers for data types (its `nft describe`), six bits each where they are joined. The kernel only keeps
/// them, so that `nft list ruleset` can show the elements.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_SERVICE: u32 = 13;
const TYPE_MARK: u32 = 19;
const TYPE_LINK_NAME: u32 = 41;
const SET_IS_MAP: u32 = 8;
/// Between how many places connections to replicas are shared out: more than a service has replicas, and with a few of
/// them nobody has much more than another.
pub const SLOTS: u32 = 256;
/// IFNAMSIZ
const LINK_NAME_LENGTH: usize = 16;

/// A map of published ports.
#[derive(Clone, Copy, Debug)]
struct Map {
    name: &'static str,
    /// Of the machine's address in the key, and of the container's.
    ipv4: bool,
    /// Whether the machine's address is part of the key.
    at: bool,
    /// Whether a slot is.
    shared: bool,
}

/// In the order they are looked into.
const MAPS: [Map; 8] = [
    Map { name: "published4_at", ipv4: true, at: true, shared: false },
    Map { name: "published6_at", ipv4: false, at: true, shared: false },
    Map { name: "shared4_at", ipv4: true, at: true, shared: true },
    Map { name: "shared6_at", ipv4: false, at: true, shared: true },
    Map { name: "published4", ipv4: true, at: false, shared: false },
    Map { name: "published6", ipv4: false, at: false, shared: false },
    Map { name: "shared4", ipv4: true, at: false, shared: true },
    Map { name: "shared6", ipv4: false, at: false, shared: true },
];

impl Map {
    const fn address(&self) -> (u32, u32) {
        if self.ipv4 { (TYPE_IPV4, 4) } else { (TYPE_IPV6, 16) }
    }

    /// nft's type and the length in bytes.
    fn key(&self) -> (u32, u32) {
        let (mut kind, mut length) = if self.at { self.address() } else { (0, 0) };
        let slot = self.shared.then_some(TYPE_MARK);
        for part in [TYPE_PROTOCOL, TYPE_SERVICE].into_iter().chain(slot) {
            (kind, length) = (kind << 6 | part, length + 4);
        }
        (kind, length)
    }

    fn value(&self) -> (u32, u32) {
        let (kind, length) = self.address();
        (kind << 6 | TYPE_SERVICE, length + 4)
    }

    /// The rule that looks into it.
    fn rule(&self) -> Expressions {
        let (family, offset) = if self.ipv4 { (IPV4, 16) } else { (IPV6, 24) };
        let (_, length) = self.address();
        let mut rule = Expressions::new().meta(Meta::Family, FIRST).equal(FIRST, &family.to_le_bytes()[..1]);
        let mut at = 0;
        if self.at {
            rule = rule.payload(Header::Network, offset, length, FIRST);
            at = length;
        }
        rule = rule.meta(Meta::Protocol, FIRST.after(at)).payload(Header::Transport, 2, 2, FIRST.after(at + 4));
        if self.shared {
            rule = rule.count(SLOTS, FIRST.after(at + 8));
        }
        rule.look_up(self.name).redirect(family, length)
    }
}

/// Base chains: name, type, hook, priority, whether the policy is to drop.
const CHAINS: [(&str, &str, u32, i32, bool); 6] = [
    ("guard", "filter", 0, -300, false),
    ("prerouting", "nat", 0, -100, false),
    ("output", "nat", 3, -100, false),
    ("input", "filter", 1, 0, true),
    ("forward", "filter", 2, 0, true),
    ("postrouting", "nat", 4, 100, false),
];

/// A port of the machine that leads to one of a container, for one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Redirection {
    /// The machine's address; `None` for all.
    pub host_address: Option<IpAddr>,
    /// The machine's port.
    pub host_port: u16,
    /// The number of the protocol.
    pub protocol: u8,
    /// Below [`SLOTS`]: it leads there for one connection of as many.
    pub slot: Option<u32>,
    /// The container's address and port; of the same family as `host_address`.
    pub to: SocketAddr,
}

impl Redirection {
    fn map(&self) -> &'static str {
        let wanted = (self.to.is_ipv4(), self.host_address.is_some(), self.slot.is_some());
        let map = MAPS.iter().find(|map| (map.ipv4, map.at, map.shared) == wanted);
        map.map_or("", |map| map.name)
    }

    fn key(&self) -> Vec<u8> {
        let mut key = self.host_address.map(address_bytes).unwrap_or_default();
        key.extend([self.protocol, 0, 0, 0]);
        key.extend(self.host_port.to_be_bytes());
        key.extend([0, 0]);
        key.extend(self.slot.into_iter().flat_map(u32::to_ne_bytes));
        key
    }

    fn value(&self) -> Vec<u8> {
        let mut value = address_bytes(self.to.ip());
        value.extend(self.to.port().to_be_bytes());
        value.extend([0, 0]);
        value
    }
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// What the table is to hold.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The names of all bridges.
    pub networks: Vec<String>,
    /// Of those with a way out.
    pub open: Vec<String>,
    /// Published ports.
    pub redirections: Vec<Redirection>,
    /// Ports of the machine itself that are open.
    pub inbound: Vec<OpenPorts>,
}

/// Puts the whole table in place of the one that is there, without a moment between.
pub fn replace(connection: &Connection, wanted: &Table) -> io::Result<()> {
    let mut batch = Batch::new();
    // A table that is not there cannot be deleted, so it is made first.
    for kind in [Kind::NewTable, Kind::DeleteTable, Kind::NewTable] {
        batch.message(kind, |table| {
            table.text(1, TABLE);
        });
    }
    sets(&mut batch);
    chains(&mut batch);
    rules(&mut batch);
    input(&mut batch, &wanted.inbound);
    for (set, names) in [(NETWORKS, &wanted.networks), (OPEN, &wanted.open)] {
        for name in names {
            let mut name = name.as_bytes().to_vec();
            name.resize(LINK_NAME_LENGTH, 0);
            elements(&mut batch, Kind::NewElements, set, &name, None);
        }
    }
    add_all(&mut batch, &wanted.redirections);
    connection.commit(batch)
}

/// Takes some ports back and publishes others, all at the same moment.
pub fn change(connection: &Connection, gone: &[Redirection], new: &[Redirection]) -> io::Result<()> {
    let mut batch = Batch::new();
    for each in gone {
        elements(&mut batch, Kind::DeleteElements, each.map(), &each.key(), None);
    }
    add_all(&mut batch, new);
    connection.commit(batch)
}

fn add_all(batch: &mut Batch, redirections: &[Redirection]) {
    for each in redirections {
        elements(batch, Kind::NewElements, each.map(), &each.key(), Some(&each.value()));
    }
}

fn elements(batch: &mut Batch, kind: Kind, set: &str, key: &[u8], value: Option<&[u8]>) {
    batch.message(kind, |message| {
        message.text(1, TABLE).text(2, set).nested(3, |list| {
            list.nested(1, |element| {
                element.nested(1, |data| {
                    data.bytes(1, key);
                });
                if let Some(value) = value {
                    element.nested(2, |data| {
                        data.bytes(1, value);
                    });
                }
            });
        });
    });
}

fn sets(batch: &mut Batch) {
    for (id, name) in (1..).zip([NETWORKS, OPEN]) {
        batch.message(Kind::NewSet, |set| {
            set.text(1, TABLE).text(2, name).number(3, 0).number(4, TYPE_LINK_NAME);
            set.number(5, u32::try_from(LINK_NAME_LENGTH).unwrap_or(16)).number(10, id);
        });
    }
    for (id, map) in (3..).zip(&MAPS) {
        batch.message(Kind::NewSet, |set| {
            let ((key, key_length), (value, value_length)) = (map.key(), map.value());
            set.text(1, TABLE).text(2, map.name).number(3, SET_IS_MAP).number(4, key).number(5, key_length);
            set.number(6, value).number(7, value_length).number(10, id);
        });
    }
}

fn chains(batch: &mut Batch) {
    for (name, kind, hook, priority, closed) in CHAINS {
        batch.message(Kind::NewChain, |chain| {
            chain.text(1, TABLE).text(3, name).text(7, kind);
            chain.nested(4, |place| {
                place.number(1, hook).number(2, priority.cast_unsigned());
            });
            chain.number(5, u32::from(!closed));
        });
    }
    batch.message(Kind::NewChain, |chain| {
        chain.text(1, TABLE).text(3, "publish");
    });
}

fn rules(batch: &mut Batch) {
    let rule = Expressions::new;
    let family = |family: u32| rule().meta(Meta::Family, FIRST).equal(FIRST, &family.to_le_bytes()[..1]);
    let from_open = || rule().link_in(Meta::InputName, OPEN, false);
    let from_network = || rule().link_in(Meta::InputName, NETWORKS, false);
    let to_network = |rule: Expressions| rule.link_in(Meta::OutputName, NETWORKS, false);
    let to_elsewhere = |rule: Expressions| rule.link_in(Meta::OutputName, NETWORKS, true);
    let from_loopback = |rule: Expressions| rule.payload(Header::Network, 12, 4, FIRST);
    let mut loopback6 = [0; 16];
    loopback6[15] = 1;

    let to_loopback =
        from_network().meta(Meta::Family, FIRST).equal(FIRST, &[2]).payload(Header::Network, 16, 4, FIRST);
    add(batch, "guard", to_loopback.prefix(FIRST, [255, 0, 0, 0], [127, 0, 0, 0]).verdict(Verdict::Drop));

    let port = |rule: Expressions| rule.payload(Header::Transport, 2, 2, FIRST);
    let to_resolver = port(from_network().for_its_link()).equal(FIRST, &crate::resolver::PORT.to_be_bytes());
    add(batch, "prerouting", to_resolver.verdict(Verdict::Accept));
    for chain in ["prerouting", "output"] {
        add(batch, chain, rule().for_this_machine().verdict(Verdict::Jump("publish")));
    }
    for map in &MAPS {
        add(batch, "publish", map.rule());
    }

    add(batch, "forward", rule().conntrack(Conntrack::State, STATE_KNOWN).verdict(Verdict::Accept));
    add(batch, "forward", to_elsewhere(from_open()).verdict(Verdict::Accept));
    let from_closed = from_network().link_in(Meta::InputName, OPEN, true);
    add(batch, "forward", from_closed.verdict(Verdict::Drop));
    let redirected = to_network(rule()).conntrack(Conntrack::Status, STATUS_DNAT);
    add(batch, "forward", redirected.verdict(Verdict::Accept));

    add(batch, "postrouting", to_elsewhere(from_open()).masquerade());
    add(batch, "postrouting", to_network(from_network()).conntrack(Conntrack::Status, STATUS_DNAT).masquerade());
    let own = from_loopback(to_network(family(IPV4))).prefix(FIRST, [255, 0, 0, 0], [127, 0, 0, 0]);
    add(batch, "postrouting", own.masquerade());
    let own = to_network(family(IPV6)).payload(Header::Network, 8, 16, FIRST).equal(FIRST, &loopback6);
    add(batch, "postrouting", own.masquerade());
}

/// Who may reach the machine itself.
fn input(batch: &mut Batch, open: &[OpenPorts]) {
    let rule = Expressions::new;
    let protocol = |number: u8| rule().meta(Meta::Protocol, FIRST).equal(FIRST, &[number]);
    let port = |rule: Expressions| rule.payload(Header::Transport, 2, 2, FIRST);
    let mut loopback = b"lo".to_vec();
    loopback.resize(LINK_NAME_LENGTH, 0);
    add(batch, "input", rule().conntrack(Conntrack::State, STATE_KNOWN).verdict(Verdict::Accept));
    let from_itself = rule().meta(Meta::InputName, FIRST).equal(FIRST, &loopback);
    add(batch, "input", from_itself.verdict(Verdict::Accept));
    for number in [ICMP, ICMPV6] {
        add(batch, "input", protocol(number).verdict(Verdict::Accept));
    }
    for client in DHCP_CLIENTS {
        let to_client = port(protocol(UDP)).equal(FIRST, &client.to_be_bytes());
        add(batch, "input", to_client.verdict(Verdict::Accept));
    }
    let to_resolver = port(rule().link_in(Meta::InputName, NETWORKS, false).for_its_link());
    let to_resolver = to_resolver.equal(FIRST, &crate::resolver::PORT.to_be_bytes());
    add(batch, "input", to_resolver.verdict(Verdict::Accept));
    for each in open {
        let ports = port(protocol(each.protocol().number())).between(FIRST, each.first(), each.last());
        add(batch, "input", ports.verdict(Verdict::Accept));
    }
}

fn add(batch: &mut Batch, chain: &str, expressions: Expressions) {
    let list = expressions.into_attributes();
    batch.message(Kind::NewRule, |rule| {
        rule.text(1, TABLE).text(2, chain).nested(4, |inner| *inner = list);
    });
}
