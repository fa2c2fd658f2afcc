//! The table `inet berth`: where containers' packets go. Rules are few and fixed; what differs from container to
//! container are elements of sets and maps, so the five-hundredth costs what the first did.
//!
//! ```text
//! set networks            names of the bridges
//! set open                of those that have a way out
//! set within              of the others, twice: from such a bridge back to it
//! set doors4              link . address                 where a service is reached: its network's bridge, or lo
//! map services4           address . slot                 → address                a service's containers
//! map published4          protocol . port                 → address . port     any address of the machine
//! map published4_at       address . protocol . port       → address . port     one address of the machine
//! map shared4             protocol . port . slot          → address . port     replicas: each new connection has the next slot
//! map shared4_at          address . protocol . port . slot → address . port
//! map ranges4             protocol . ports . slots        → address           many ports that lead to the same ones of a container
//! map ranges4_at          address . protocol . ports . slots → address
//! map published6 …                                                             the same for IPv6
//!
//! guard        prerouting raw   from any link but lo to 127.0.0.0/8: drop (from a bridge route_localnet would let it in, and
//!              what is published there is led elsewhere before the kernel looks at where it came from)
//! prerouting   from a bridge with a source that is elsewhere, and from elsewhere with one that is at a bridge: drop
//! prerouting, output   at a door: to the container that has the slot
//! prerouting   from a bridge for port 53 of its own address: accept, that is the resolver
//! output       to 127.0.0.53: accept, that is the resolver too
//! prerouting, output   for this machine: jump publish
//! prerouting   before all that: for an address of a VRF's port, there: jump publish, with a mark (see `apart`)
//! publish      look up address and port, else the port, and redirect
//! apart        prerouting, behind it: redirected from a VRF's port, or an answer to that: mark for the policy rules
//! input        policy drop; known connections, the loopback, ICMP, answers of DHCP servers: accept; from a container with
//!              rules: its chain (see `guard`); containers' questions to the resolver, and what the configuration opens: accept
//! forward      policy drop; from or to a network with a limit, and beyond that: drop; known connections: accept; from and to a container with rules: its chains; from an open bridge to where no bridge is, redirected to a bridge, redirected
//!              within a bridge that is not open: accept; all else from one that is not open: drop
//! postrouting  from an open bridge to elsewhere: masquerade    redirected back to a bridge: masquerade
//!              from 127.0.0.0/8 or ::1 to a bridge: masquerade
//! ```

use std::io;

use berth_config::{Bandwidth, BitRate, OpenPorts};

use super::apart::{self, Apart};
use super::element::{Bytes, Element, Part, SLOTS, Set};
use super::expression::{Conntrack, Expressions, FIRST, Header, Meta, STATE_KNOWN, STATUS_DNAT, Verdict};
use super::guard::{self, Direction, Guard};
use super::wire::{Batch, Connection, Kind};

/// The table's name.
pub const TABLE: &str = "berth";
pub(super) const NETWORKS: &str = "networks";
const OPEN: &str = "open";
const WITHIN: &str = "within";
/// The chain of published ports.
pub(super) const PUBLISH: &str = "publish";
/// Above those of all other sets.
const GUARD_ID: u32 = 100;
/// Numbers of protocols. Without ICMP neither neighbours nor the size of packets would be known.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const UDP: u8 = 17;
/// Where servers answer, by broadcast or to what was asked by multicast (RFC 2131, RFC 8415).
const DHCP_CLIENTS: [u16; 2] = [68, 546];
const IPV4: u32 = 2;
const IPV6: u32 = 10;

/// What may pass at once after a pause: that of some ten milliseconds on the way, and two of the largest packets that cards
/// put together.
const BURSTS_A_SECOND: u64 = 20;
const LEAST_BURST: u32 = 128 << 10;

/// All but the maps of published ports.
const SETS: &[Set] = &[
    Set::new(NETWORKS, &[Part::Link], &[]),
    Set::new(OPEN, &[Part::Link], &[]),
    Set::new(WITHIN, &[Part::Link, Part::Link], &[]),
    Set::new("doors4", &[Part::Link, Part::Ipv4], &[]),
    Set::new("doors6", &[Part::Link, Part::Ipv6], &[]),
    Set::new("services4", &[Part::Ipv4, Part::Slot], &[Part::Ipv4]),
    Set::new("services6", &[Part::Ipv6, Part::Slot], &[Part::Ipv6]),
];

/// The maps of published ports, in the order they are looked into.
const MAPS: &[Set] = &[
    Set::new("published4_at", &[Part::Ipv4, Part::Protocol, Part::Port], &[Part::Ipv4, Part::Port]),
    Set::new("published6_at", &[Part::Ipv6, Part::Protocol, Part::Port], &[Part::Ipv6, Part::Port]),
    Set::new("shared4_at", &[Part::Ipv4, Part::Protocol, Part::Port, Part::Slot], &[Part::Ipv4, Part::Port]),
    Set::new("shared6_at", &[Part::Ipv6, Part::Protocol, Part::Port, Part::Slot], &[Part::Ipv6, Part::Port]),
    Set::of_ranges("ranges4_at", &[Part::Ipv4, Part::Protocol, Part::Port, Part::Slot], &[Part::Ipv4]),
    Set::of_ranges("ranges6_at", &[Part::Ipv6, Part::Protocol, Part::Port, Part::Slot], &[Part::Ipv6]),
    Set::new("published4", &[Part::Protocol, Part::Port], &[Part::Ipv4, Part::Port]),
    Set::new("published6", &[Part::Protocol, Part::Port], &[Part::Ipv6, Part::Port]),
    Set::new("shared4", &[Part::Protocol, Part::Port, Part::Slot], &[Part::Ipv4, Part::Port]),
    Set::new("shared6", &[Part::Protocol, Part::Port, Part::Slot], &[Part::Ipv6, Part::Port]),
    Set::of_ranges("ranges4", &[Part::Protocol, Part::Port, Part::Slot], &[Part::Ipv4]),
    Set::of_ranges("ranges6", &[Part::Protocol, Part::Port, Part::Slot], &[Part::Ipv6]),
];

/// A family: its number, where the destination stands in its header, and the length of an address.
const FAMILIES: [(u32, u32, u32); 2] = [(IPV4, 16, 4), (IPV6, 24, 16)];

/// The rule that looks into a map of published ports.
fn published(map: &Set) -> Expressions {
    let [of_ipv4, of_ipv6] = FAMILIES;
    let (family, offset, length) = if map.value.first() == Some(&Part::Ipv6) { of_ipv6 } else { of_ipv4 };
    let mut rule = of_family(family);
    let mut at = 0;
    for part in map.key {
        let register = FIRST.after(at);
        at += 4;
        rule = match part {
            Part::Ipv4 | Part::Ipv6 => {
                at = length;
                rule.payload(Header::Network, offset, length, register)
            }
            Part::Protocol => rule.meta(Meta::Protocol, register),
            Part::Port => rule.payload(Header::Transport, 2, 2, register),
            Part::Slot | Part::Link => rule.count(SLOTS, register),
        };
    }
    // Without a port in the map the packet keeps its own.
    rule.look_up(map.name).redirect(family, map.value.contains(&Part::Port).then_some(length))
}

/// The rule that sends what is for a service's address, on a link of its network, to one of its containers.
fn service(key: Meta, (family, offset, length): (u32, u32, u32)) -> Expressions {
    let (doors, services) = if family == IPV4 { ("doors4", "services4") } else { ("doors6", "services6") };
    let destination = |rule: Expressions, to| rule.payload(Header::Network, offset, length, to);
    let at_door = destination(of_family(family).meta(key, FIRST), FIRST.after(16)).in_set(doors, false);
    destination(at_door, FIRST).count(SLOTS, FIRST.after(length)).look_up(services).redirect(family, None)
}

fn of_family(family: u32) -> Expressions {
    Expressions::new().meta(Meta::Family, FIRST).equal(FIRST, &family.to_le_bytes()[..1])
}

/// Base chains: name, type, hook, priority, whether the policy is to drop.
const CHAINS: [(&str, &str, u32, i32, bool); 7] = [
    ("guard", "filter", 0, -300, false),
    ("prerouting", "nat", 0, -100, false),
    (apart::CHAIN, "filter", 0, -90, false),
    ("output", "nat", 3, -100, false),
    ("input", "filter", 1, 0, true),
    ("forward", "filter", 2, 0, true),
    ("postrouting", "nat", 4, 100, false),
];

/// What the table is to hold.
#[derive(Clone, Debug, Default)]
pub struct Table<'a> {
    /// The names of all bridges.
    pub networks: Vec<String>,
    /// Of those with a way out.
    pub open: Vec<String>,
    /// Published ports, and all else that differs from container to container.
    pub elements: Vec<&'a Element>,
    /// How much passes between networks, by the names of their bridges, and what is beyond.
    pub limits: Vec<(String, Bandwidth)>,
    /// Ports of VRFs.
    pub apart: Vec<Apart>,
    /// Ports of the machine itself that are open.
    pub inbound: Vec<OpenPorts>,
    /// Who may connect to which containers.
    pub guard: Guard,
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
    limits(&mut batch, &wanted.limits);
    apart::publish(&mut batch, &wanted.apart);
    rules(&mut batch);
    apart::route(&mut batch, &wanted.apart);
    input(&mut batch, &wanted.inbound);
    for (set, names) in [(NETWORKS, &wanted.networks), (OPEN, &wanted.open)] {
        for name in names {
            Element::new(set, Bytes::new().link(name).end()).add(&mut batch, TABLE);
        }
    }
    for name in wanted.networks.iter().filter(|name| !wanted.open.contains(name)) {
        Element::new(WITHIN, Bytes::new().link(name).link(name).end()).add(&mut batch, TABLE);
    }
    wanted.elements.iter().for_each(|element| element.add(&mut batch, TABLE));
    guard::fill(&mut batch, &wanted.guard);
    guard::replace_bridge(&mut batch, &wanted.guard);
    connection.commit(batch)
}

/// Takes some elements away and adds others, all at the same moment.
pub fn change<'a>(
    connection: &Connection,
    gone: impl Iterator<Item = &'a Element>,
    new: impl Iterator<Item = &'a Element>,
) -> io::Result<()> {
    let mut batch = Batch::new();
    gone.for_each(|element| element.remove(&mut batch, TABLE));
    new.for_each(|element| element.add(&mut batch, TABLE));
    connection.commit(batch)
}

fn sets(batch: &mut Batch) {
    for (id, set) in (1..).zip(SETS.iter().chain(MAPS)) {
        set.declare(batch, TABLE, id);
    }
    guard::declare(batch, GUARD_ID);
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
        chain.text(1, TABLE).text(3, PUBLISH);
    });
}

/// What is sent beyond a limit gets lost, which TCP takes for a sign.
fn limits(batch: &mut Batch, limits: &[(String, Bandwidth)]) {
    for (link, Bandwidth { ingress, egress }) in limits {
        let name = Bytes::new().link(link).end();
        let ways = [(ingress, Meta::OutputName, Meta::InputName), (egress, Meta::InputName, Meta::OutputName)];
        for (rate, own, other) in ways {
            let Some(rate) = rate.map(BitRate::bytes) else { continue };
            let burst = u32::try_from(rate / BURSTS_A_SECOND).unwrap_or(u32::MAX).max(LEAST_BURST);
            let passes =
                Expressions::new().meta(own, FIRST).equal(FIRST, &name).meta(other, FIRST).differ(FIRST, &name);
            add(batch, "forward", passes.over(rate, burst).verdict(Verdict::Drop));
        }
    }
}

fn rules(batch: &mut Batch) {
    let rule = Expressions::new;
    let from_open = || rule().link_in(Meta::InputName, OPEN, false);
    let from_network = || rule().link_in(Meta::InputName, NETWORKS, false);
    let to_network = |rule: Expressions| rule.link_in(Meta::OutputName, NETWORKS, false);
    let to_elsewhere = |rule: Expressions| rule.link_in(Meta::OutputName, NETWORKS, true);
    let from_loopback = |rule: Expressions| rule.payload(Header::Network, 12, 4, FIRST);
    let mut loopback6 = [0; 16];
    loopback6[15] = 1;

    // Every packet passes this rule: a look at its address is less work than one into a set.
    let to_loopback = of_family(IPV4).payload(Header::Network, 16, 4, FIRST);
    let to_loopback = to_loopback.prefix(FIRST, &[255, 0, 0, 0], &[127, 0, 0, 0]);
    add(batch, "guard", to_loopback.meta(Meta::InputName, FIRST).differ(FIRST, &loopback()).verdict(Verdict::Drop));

    // Rules about who may connect go by the source. Only the first packet of a connection passes here.
    add(batch, "prerouting", from_network().has_no_way_back().verdict(Verdict::Drop));
    let from_elsewhere = rule().link_in(Meta::InputName, NETWORKS, true);
    add(batch, "prerouting", from_elsewhere.way_back_in(NETWORKS).verdict(Verdict::Drop));
    for family in FAMILIES {
        add(batch, "prerouting", service(Meta::InputName, family));
        add(batch, "output", service(Meta::OutputName, family));
    }
    let port = |rule: Expressions| rule.payload(Header::Transport, 2, 2, FIRST);
    let to_resolver = port(from_network().for_its_link()).equal(FIRST, &crate::resolver::PORT.to_be_bytes());
    add(batch, "prerouting", to_resolver.verdict(Verdict::Accept));
    let to_own = of_family(IPV4).payload(Header::Network, 16, 4, FIRST).equal(FIRST, &crate::resolver::LOCAL.octets());
    add(batch, "output", to_own.verdict(Verdict::Accept));
    for chain in ["prerouting", "output"] {
        add(batch, chain, rule().for_this_machine().verdict(Verdict::Jump(PUBLISH)));
    }
    for map in MAPS {
        add(batch, PUBLISH, published(map));
    }

    add(batch, "forward", rule().conntrack(Conntrack::State, STATE_KNOWN).verdict(Verdict::Accept));
    // Where to it may decides first: it only takes away.
    for look_up in [Direction::Out, Direction::In].into_iter().flat_map(guard::look_ups) {
        add(batch, "forward", look_up);
    }
    add(batch, "forward", to_elsewhere(from_open()).verdict(Verdict::Accept));
    let within = rule().meta(Meta::InputName, FIRST).meta(Meta::OutputName, FIRST.after(16)).in_set(WITHIN, false);
    add(batch, "forward", within.conntrack(Conntrack::Status, STATUS_DNAT).verdict(Verdict::Accept));
    let from_closed = from_network().link_in(Meta::InputName, OPEN, true);
    add(batch, "forward", from_closed.verdict(Verdict::Drop));
    let redirected = to_network(rule()).conntrack(Conntrack::Status, STATUS_DNAT);
    add(batch, "forward", redirected.verdict(Verdict::Accept));

    add(batch, "postrouting", to_elsewhere(from_open()).masquerade());
    add(batch, "postrouting", to_network(from_network()).conntrack(Conntrack::Status, STATUS_DNAT).masquerade());
    let own = from_loopback(to_network(of_family(IPV4))).prefix(FIRST, &[255, 0, 0, 0], &[127, 0, 0, 0]);
    add(batch, "postrouting", own.masquerade());
    let own = to_network(of_family(IPV6)).payload(Header::Network, 8, 16, FIRST).equal(FIRST, &loopback6);
    add(batch, "postrouting", own.masquerade());
}

/// Its name, as rules compare it.
fn loopback() -> Vec<u8> {
    Bytes::new().link("lo").end()
}

/// Who may reach the machine itself.
fn input(batch: &mut Batch, open: &[OpenPorts]) {
    let rule = Expressions::new;
    let protocol = |number: u8| rule().meta(Meta::Protocol, FIRST).equal(FIRST, &[number]);
    let port = |rule: Expressions| rule.payload(Header::Transport, 2, 2, FIRST);
    add(batch, "input", rule().conntrack(Conntrack::State, STATE_KNOWN).verdict(Verdict::Accept));
    let from_itself = rule().meta(Meta::InputName, FIRST).equal(FIRST, &loopback());
    add(batch, "input", from_itself.verdict(Verdict::Accept));
    for number in [ICMP, ICMPV6] {
        add(batch, "input", protocol(number).verdict(Verdict::Accept));
    }
    for client in DHCP_CLIENTS {
        let to_client = port(protocol(UDP)).equal(FIRST, &client.to_be_bytes());
        add(batch, "input", to_client.verdict(Verdict::Accept));
    }
    for look_up in guard::look_ups(Direction::Out) {
        add(batch, "input", look_up);
    }
    let to_resolver = port(rule().link_in(Meta::InputName, NETWORKS, false).for_its_link());
    let to_resolver = to_resolver.equal(FIRST, &crate::resolver::PORT.to_be_bytes());
    add(batch, "input", to_resolver.verdict(Verdict::Accept));
    for each in open {
        let ports = port(protocol(each.protocol().number())).between(FIRST, each.first(), each.last());
        add(batch, "input", ports.verdict(Verdict::Accept));
    }
}

/// Adds a rule at the end of a chain.
pub fn add(batch: &mut Batch, chain: &str, expressions: Expressions) {
    let list = expressions.into_attributes();
    batch.message(Kind::NewRule, |rule| {
        rule.text(1, TABLE).text(2, chain).nested(4, |inner| *inner = list);
    });
}
