//! Who may connect to whom: a chain for each container that has such rules, found by its address in one look-up.
//!
//! What is routed passes the table `inet berth`. What stays on a bridge passes a table of the bridge family with the same
//! chains, which is there only if there are any:
//!
//! ```text
//! map to4, to6       address → jump to its chain
//! chain to/…         the container's rules, in order
//! set flows4, flows6 of the bridge's table: what containers with rules have sent over UDP and the like, for its answers;
//!                    not every kernel tracks connections on bridges
//!
//! forward (bridge)   ICMP, all of TCP but the first packet of a connection, what answers a flow: accept; note what
//!                    containers with rules send; look up the destination
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use berth_config::{OpenPorts, Prefix};

use super::element::{Bytes, Element, Part, Set};
use super::expression::{Expressions, FIRST, Header, Meta, Register, Verdict};
use super::ruleset::TABLE;
use super::wire::{Attributes, Batch, Connection, Family, Kind};

/// Where the look-up stands in each table.
const TO: [&str; 2] = ["to4", "to6"];
const FLOWS: [&str; 2] = ["flows4", "flows6"];
const GUARDED: [&str; 2] = ["guarded4", "guarded6"];
/// How long an answer over UDP may take, in milliseconds: as long as the kernel's connection tracking waits.
const FLOW_TIME: u64 = 120_000;
const MOST_FLOWS: u32 = 65_536;
/// ICMP, ICMPv6: neighbours, and what is wrong with packets.
const CONTROL: [u8; 2] = [1, 58];
const TCP: u8 = 6;
/// SYN and ACK; a connection's first packet has only SYN.
const SYN_ACK: u8 = 0x12;
const SYN: u8 = 0x02;

/// The set of one family.
const fn of(names: [&'static str; 2], ipv4: bool) -> &'static str {
    let [of_ipv4, of_ipv6] = names;
    if ipv4 { of_ipv4 } else { of_ipv6 }
}

/// One rule: what it lets through or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where the packet comes from; `None` for anywhere.
    pub source: Option<Prefix>,
    /// Where it goes; `None` for all ports of all protocols.
    pub ports: Option<OpenPorts>,
    /// Whether it goes on.
    pub accept: bool,
}

/// All rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// By chain.
    pub chains: BTreeMap<String, Vec<Rule>>,
    /// The chain of each address that has one.
    pub destinations: BTreeMap<IpAddr, String>,
}

impl Guard {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.destinations.is_empty()
    }
}

/// Declares the maps of the look-up in a new table.
pub fn declare(batch: &mut Batch, first_id: u32) {
    for (id, (map, part)) in (first_id..).zip(TO.into_iter().zip([Part::Ipv4, Part::Ipv6])) {
        Set::declare_verdicts(batch, TABLE, map, part, id);
    }
}

/// Rules that look up the destination; for the chain `forward` of either table.
pub fn look_ups(family: Family) -> [Expressions; 2] {
    [true, false].map(|ipv4| {
        let (offset, length, map) = if ipv4 { (16, 4, of(TO, true)) } else { (24, 16, of(TO, false)) };
        of_family(family, ipv4).payload(Header::Network, offset, length, FIRST).decide(map)
    })
}

/// Fills a table of `inet` that was made anew in the same transaction.
pub fn fill(batch: &mut Batch, guard: &Guard) {
    chains(batch, Family::Inet, guard);
}

/// Makes the bridge's table anew, or removes it if nobody needs it.
pub fn replace_bridge(batch: &mut Batch, guard: &Guard) {
    batch.of(Family::Bridge);
    for kind in [Kind::NewTable, Kind::DeleteTable] {
        batch.message(kind, |table| {
            table.text(1, TABLE);
        });
    }
    if !guard.is_empty() {
        make_bridge(batch);
        chains(batch, Family::Bridge, guard);
        guarded(batch, guard, Kind::NewElements);
    }
    batch.of(Family::Inet);
}

/// From one to the other, at one moment.
pub fn change(connection: &Connection, before: &Guard, after: &Guard) -> io::Result<()> {
    let mut batch = Batch::new();
    clear(&mut batch, before);
    chains(&mut batch, Family::Inet, after);
    if before.is_empty() || after.is_empty() {
        replace_bridge(&mut batch, after);
    } else {
        batch.of(Family::Bridge);
        clear(&mut batch, before);
        guarded(&mut batch, before, Kind::DeleteElements);
        chains(&mut batch, Family::Bridge, after);
        guarded(&mut batch, after, Kind::NewElements);
    }
    connection.commit(batch)
}

fn clear(batch: &mut Batch, guard: &Guard) {
    for address in guard.destinations.keys() {
        Element::new(of(TO, address.is_ipv4()), Bytes::new().address(*address).end()).remove(batch, TABLE);
    }
    for kind in [Kind::DeleteRule, Kind::DeleteChain] {
        for chain in guard.chains.keys() {
            batch.message(kind, |message| {
                message.text(1, TABLE).text(if kind == Kind::DeleteRule { 2 } else { 3 }, chain);
            });
        }
    }
}

fn chains(batch: &mut Batch, family: Family, guard: &Guard) {
    for (chain, rules) in &guard.chains {
        batch.message(Kind::NewChain, |message| {
            message.text(1, TABLE).text(3, chain);
        });
        for rule in rules {
            super::ruleset::add(batch, chain, expressions(family, rule));
        }
    }
    for (address, chain) in &guard.destinations {
        let to = of(TO, address.is_ipv4());
        Element::jump(to, Bytes::new().address(*address).end(), chain).add(batch, TABLE);
    }
}

fn expressions(family: Family, rule: &Rule) -> Expressions {
    let mut expressions = Expressions::new();
    if let Some(prefix) = rule.source {
        let (offset, length) = if prefix.address().is_ipv4() { (12, 4) } else { (8, 16) };
        let mask = mask(prefix.length(), length);
        let loaded = of_family(family, prefix.address().is_ipv4()).payload(Header::Network, offset, length, FIRST);
        expressions = loaded.prefix(FIRST, &mask, &Bytes::new().address(prefix.address()).end());
    }
    if let Some(ports) = rule.ports {
        let protocol = expressions.meta(Meta::Protocol, FIRST).equal(FIRST, &[ports.protocol().number()]);
        expressions = protocol.payload(Header::Transport, 2, 2, FIRST).between(FIRST, ports.first(), ports.last());
    }
    expressions.verdict(if rule.accept { Verdict::Accept } else { Verdict::Drop })
}

fn mask(length: u8, bytes: u32) -> Vec<u8> {
    let bits = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0).to_be_bytes();
    bits.into_iter().take(usize::try_from(bytes).unwrap_or(16)).collect()
}

/// The addresses of containers with rules, whose questions over UDP are noted.
fn guarded(batch: &mut Batch, guard: &Guard, kind: Kind) {
    let addresses: BTreeSet<&IpAddr> = guard.destinations.keys().collect();
    for address in addresses {
        let element = Element::new(of(GUARDED, address.is_ipv4()), Bytes::new().address(*address).end());
        if kind == Kind::NewElements { element.add(batch, TABLE) } else { element.remove(batch, TABLE) }
    }
}

fn of_family(family: Family, ipv4: bool) -> Expressions {
    let rule = Expressions::new();
    match (family, ipv4) {
        (Family::Inet, true) => rule.meta(Meta::Family, FIRST).equal(FIRST, &[2]),
        (Family::Inet, false) => rule.meta(Meta::Family, FIRST).equal(FIRST, &[10]),
        (Family::Bridge, true) => rule.meta(Meta::EtherType, FIRST).equal(FIRST, &[0x08, 0x00]),
        (Family::Bridge, false) => rule.meta(Meta::EtherType, FIRST).equal(FIRST, &[0x86, 0xdd]),
    }
}

/// The bridge family's table without what differs.
fn make_bridge(batch: &mut Batch) {
    let number = |attributes: &mut Attributes, kind, value: u64| {
        attributes.bytes(kind, &value.to_be_bytes());
    };
    batch.message(Kind::NewTable, |table| {
        table.text(1, TABLE);
    });
    declare(batch, 1);
    let flow4 = [Part::Ipv4, Part::Ipv4, Part::Protocol, Part::Port, Part::Port];
    let flow6 = [Part::Ipv6, Part::Ipv6, Part::Protocol, Part::Port, Part::Port];
    for (id, (name, key)) in
        (3..).zip([(of(GUARDED, true), &[Part::Ipv4][..]), (of(GUARDED, false), &[Part::Ipv6][..])])
    {
        Set { name, key, value: &[] }.declare(batch, TABLE, id);
    }
    for (id, (name, key)) in (5..).zip(FLOWS.into_iter().zip([&flow4[..], &flow6[..]])) {
        Set::declare_dynamic(batch, (TABLE, name), key, id, |set| {
            number(set, 11, FLOW_TIME);
            set.nested(9, |description| {
                description.number(1, MOST_FLOWS);
            });
        });
    }
    batch.message(Kind::NewChain, |chain| {
        chain.text(1, TABLE).text(3, "forward").text(7, "filter");
        chain.nested(4, |place| {
            place.number(1, 2).number(2, 0);
        });
        chain.number(5, 1);
    });
    let protocol = |number: u8| Expressions::new().meta(Meta::Protocol, FIRST).equal(FIRST, &[number]);
    let mut rules: Vec<Expressions> =
        CONTROL.into_iter().map(|number| protocol(number).verdict(Verdict::Accept)).collect();
    let later = protocol(TCP).payload(Header::Transport, 13, 1, FIRST).mask(FIRST, &[SYN_ACK, 0, 0, 0]);
    rules.push(later.differ(FIRST, &[SYN, 0, 0, 0]).verdict(Verdict::Accept));
    for ipv4 in [true, false] {
        let flow = |backwards: bool, rule| flow(rule, ipv4, backwards);
        let from_guarded = |name| {
            let (offset, length) = if ipv4 { (12, 4) } else { (8, 16) };
            let loaded = of_family(Family::Bridge, ipv4).payload(Header::Network, offset, length, FIRST);
            loaded.in_set(name, false)
        };
        rules
            .push(flow(false, of_family(Family::Bridge, ipv4)).in_set(of(FLOWS, ipv4), false).verdict(Verdict::Accept));
        rules.push(flow(true, from_guarded(of(GUARDED, ipv4))).note(of(FLOWS, ipv4), FLOW_TIME));
    }
    rules.extend(look_ups(Family::Bridge));
    for rule in rules {
        super::ruleset::add(batch, "forward", rule);
    }
}

/// Loads who talks to whom; backwards it is as the answer will have it.
fn flow(rule: Expressions, ipv4: bool, backwards: bool) -> Expressions {
    let (length, source, destination) = if ipv4 { (4, 12, 16) } else { (16, 8, 24) };
    let (first, second) = if backwards { (destination, source) } else { (source, destination) };
    let (third, fourth) = if backwards { (2, 0) } else { (0, 2) };
    let at = |bytes: u32| -> Register { FIRST.after(bytes) };
    rule.payload(Header::Network, first, length, FIRST)
        .payload(Header::Network, second, length, at(length))
        .meta(Meta::Protocol, at(2 * length))
        .payload(Header::Transport, third, 2, at(2 * length + 4))
        .payload(Header::Transport, fourth, 2, at(2 * length + 8))
}
