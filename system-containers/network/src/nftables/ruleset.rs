//! The table `inet berth`: where containers' packets go. Rules are few and fixed; what differs from container to
//! container are elements of sets and maps, so the five-hundredth costs what the first did.
//!
//! ```text
//! set networks            names of the bridges
//! set open                of those that have a way out
//! map published4          protocol . port                 → address . port     any address of the machine
//! map published4_at       address . protocol . port       → address . port     one address of the machine
//! map published6, published6_at                                                the same for IPv6
//!
//! guard        prerouting raw   from a bridge to 127.0.0.0/8: drop (route_localnet would let it in)
//! prerouting   from a bridge for port 53 of its own address: accept, that is the resolver
//!              for this machine: jump publish           output   for this machine: jump publish
//! publish      look up the address and port, else the port, and redirect
//! forward      policy drop; known connections, from an open bridge to where no bridge is, redirected to a bridge: accept;
//!              from a bridge that is not open: drop
//! postrouting  from an open bridge to elsewhere: masquerade    redirected back to a bridge: masquerade
//!              from 127.0.0.0/8 or ::1 to a bridge: masquerade
//! ```

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::expression::{Conntrack, Expressions, FIRST, Header, Meta, STATE_KNOWN, STATUS_DNAT, Verdict};
use super::wire::{Batch, Connection, Kind};

/// The table's name.
pub const TABLE: &str = "berth";
const NETWORKS: &str = "networks";
const OPEN: &str = "open";
const IPV4: u32 = 2;
const IPV6: u32 = 10;

/// nft's numbers for data types (its `nft describe`), six bits each where they are joined. The kernel only keeps
/// them, so that `nft list ruleset` can show the elements.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_SERVICE: u32 = 13;
const TYPE_LINK_NAME: u32 = 41;
const SET_IS_MAP: u32 = 8;
/// IFNAMSIZ
const LINK_NAME_LENGTH: usize = 16;

/// A map of published ports: name, nft's type and length in bytes of the key and of the value.
struct Map {
    name: &'static str,
    key_type: u32,
    key_length: u32,
    value_type: u32,
    value_length: u32,
}

const MAPS: [Map; 4] = [
    Map {
        name: "published4",
        key_type: TYPE_PROTOCOL << 6 | TYPE_SERVICE,
        key_length: 8,
        value_type: TYPE_IPV4 << 6 | TYPE_SERVICE,
        value_length: 8,
    },
    Map {
        name: "published4_at",
        key_type: TYPE_IPV4 << 12 | TYPE_PROTOCOL << 6 | TYPE_SERVICE,
        key_length: 12,
        value_type: TYPE_IPV4 << 6 | TYPE_SERVICE,
        value_length: 8,
    },
    Map {
        name: "published6",
        key_type: TYPE_PROTOCOL << 6 | TYPE_SERVICE,
        key_length: 8,
        value_type: TYPE_IPV6 << 6 | TYPE_SERVICE,
        value_length: 20,
    },
    Map {
        name: "published6_at",
        key_type: TYPE_IPV6 << 12 | TYPE_PROTOCOL << 6 | TYPE_SERVICE,
        key_length: 24,
        value_type: TYPE_IPV6 << 6 | TYPE_SERVICE,
        value_length: 20,
    },
];

/// Base chains: name, type, hook, priority, whether the policy is to drop.
const CHAINS: [(&str, &str, u32, i32, bool); 5] = [
    ("guard", "filter", 0, -300, false),
    ("prerouting", "nat", 0, -100, false),
    ("output", "nat", 3, -100, false),
    ("forward", "filter", 2, 0, true),
    ("postrouting", "nat", 4, 100, false),
];

/// A port of the machine that leads to one of a container, for one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirection {
    /// The machine's address; `None` for all.
    pub host_address: Option<IpAddr>,
    /// The machine's port.
    pub host_port: u16,
    /// The number of the protocol.
    pub protocol: u8,
    /// The container's address and port; of the same family as `host_address`.
    pub to: SocketAddr,
}

impl Redirection {
    fn map(&self) -> &'static str {
        match (self.to.is_ipv4(), self.host_address.is_some()) {
            (true, false) => "published4",
            (true, true) => "published4_at",
            (false, false) => "published6",
            (false, true) => "published6_at",
        }
    }

    fn key(&self) -> Vec<u8> {
        let mut key = self.host_address.map(address_bytes).unwrap_or_default();
        key.extend([self.protocol, 0, 0, 0]);
        key.extend(self.host_port.to_be_bytes());
        key.extend([0, 0]);
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

/// Publishes ports.
pub fn publish(connection: &Connection, redirections: &[Redirection]) -> io::Result<()> {
    let mut batch = Batch::new();
    add_all(&mut batch, redirections);
    connection.commit(batch)
}

/// Takes ports back.
pub fn withdraw(connection: &Connection, redirections: &[Redirection]) -> io::Result<()> {
    let mut batch = Batch::new();
    for each in redirections {
        elements(&mut batch, Kind::DeleteElements, each.map(), &each.key(), None);
    }
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
            set.text(1, TABLE).text(2, map.name).number(3, SET_IS_MAP).number(4, map.key_type);
            set.number(5, map.key_length).number(6, map.value_type).number(7, map.value_length).number(10, id);
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
    for (number, offset, length, map) in [(IPV4, 16, 4, "published4_at"), (IPV6, 24, 16, "published6_at")] {
        let address = family(number).payload(Header::Network, offset, length, FIRST);
        let key = address.meta(Meta::Protocol, FIRST.after(length));
        let key = key.payload(Header::Transport, 2, 2, FIRST.after(length + 4));
        add(batch, "publish", key.look_up(map).redirect(number, length));
    }
    for (number, length, map) in [(IPV4, 4, "published4"), (IPV6, 16, "published6")] {
        let key = family(number).meta(Meta::Protocol, FIRST).payload(Header::Transport, 2, 2, FIRST.after(4));
        add(batch, "publish", key.look_up(map).redirect(number, length));
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

fn add(batch: &mut Batch, chain: &str, expressions: Expressions) {
    let list = expressions.into_attributes();
    batch.message(Kind::NewRule, |rule| {
        rule.text(1, TABLE).text(2, chain).nested(4, |inner| *inner = list);
    });
}
