//! Who may connect to whom: a chain for each container that has such rules, found in one look-up.
//!
//! What is routed passes the table `inet berth` and is looked up by its address. What stays on a bridge passes a table of
//! the bridge family with the same chains, which is there only if there are any. There the link to the container counts,
//! whatever the address: it has one of the link itself (fe80::), and hears what is sent to many.
//!
//! ```text
//! map to4, to6       address → jump to its chain
//! map links          of the bridge's table: link → jump to its container's chain
//! set guarded        of the bridge's table: those links
//! chain to/…         the container's rules, in order
//! set flows4, flows6 of the bridge's table: what containers with rules have sent over UDP and the like, for its answers;
//!                    not every kernel tracks connections on bridges
//!
//! forward (bridge)   later fragments, ICMP, all of TCP but the first packet of a connection, what answers a flow: accept;
//!                    note what containers with rules send; look up the link
//! ```

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use berth_config::{OpenPorts, Prefix};

use super::element::{Bytes, Element, Part, Set};
use super::expression::{Expressions, FIRST, Header, Meta, Register, Verdict};
use super::ruleset::TABLE;
use super::wire::{Attributes, Batch, Connection, Family, Kind};

/// Where the look-up stands, of what is routed and of what stays on a bridge.
const TO: [&str; 2] = ["to4", "to6"];
const TO_LINK: &str = "links";
const FLOWS: [&str; 2] = ["flows4", "flows6"];
/// The links to containers with rules, whose questions over UDP are noted.
const GUARDED: &str = "guarded";
/// How long an answer over UDP may take, in milliseconds: as long as the kernel's connection tracking waits.
const FLOW_TIME: u64 = 120_000;
const MOST_FLOWS: u32 = 65_536;
/// ICMP, ICMPv6: neighbours, and what is wrong with packets.
const CONTROL: [u8; 2] = [1, 58];
const TCP: u8 = 6;
/// The extension header of IPv6 fragments (RFC 8200, section 4.5).
const FRAGMENT: u8 = 44;
/// SYN and ACK; a connection's first packet has only SYN.
const SYN_ACK: u8 = 0x12;
const SYN: u8 = 0x02;

/// The set of one family.
const fn of(names: [&'static str; 2], ipv4: bool) -> &'static str {
    let [of_ipv4, of_ipv6] = names;
    if ipv4 { of_ipv4 } else { of_ipv6 }
}

/// Where packets come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Anywhere.
    Any,
    /// An address.
    Address(Prefix),
    /// The same bridge, whatever the address.
    Bridge,
    /// The container at the end of this link of the same bridge, whatever the address.
    Link(String),
}

/// One rule: what it lets through or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where the packet comes from.
    pub source: Source,
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
    /// The chain of each bridge's link that has one.
    pub links: BTreeMap<String, String>,
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

/// Rules that look up the destination of what is routed.
pub fn look_ups() -> [Expressions; 2] {
    [true, false].map(|ipv4| {
        let (offset, length) = if ipv4 { (16, 4) } else { (24, 16) };
        of_family(Family::Inet, ipv4).payload(Header::Network, offset, length, FIRST).decide(of(TO, ipv4))
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
    }
    batch.of(Family::Inet);
}

/// From one to the other, at one moment.
pub fn change(connection: &Connection, before: &Guard, after: &Guard) -> io::Result<()> {
    let mut batch = Batch::new();
    clear(&mut batch, Family::Inet, before);
    chains(&mut batch, Family::Inet, after);
    if before.is_empty() || after.is_empty() {
        replace_bridge(&mut batch, after);
    } else {
        batch.of(Family::Bridge);
        clear(&mut batch, Family::Bridge, before);
        chains(&mut batch, Family::Bridge, after);
    }
    connection.commit(batch)
}

fn clear(batch: &mut Batch, family: Family, guard: &Guard) {
    elements(family, guard).iter().for_each(|element| element.remove(batch, TABLE));
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
        for rule in rules.iter().filter_map(|rule| expressions(family, rule)) {
            super::ruleset::add(batch, chain, rule);
        }
    }
    elements(family, guard).iter().for_each(|element| element.add(batch, TABLE));
}

/// Which chain is whose, in the words of a table.
fn elements(family: Family, guard: &Guard) -> Vec<Element> {
    let of_address = |(address, chain): (&IpAddr, &String)| {
        Element::jump(of(TO, address.is_ipv4()), Bytes::new().address(*address).end(), chain)
    };
    let of_link = |(link, chain): (&String, &String)| {
        let key = Bytes::new().link(link).end();
        [Element::new(GUARDED, key.clone()), Element::jump(TO_LINK, key, chain)]
    };
    match family {
        Family::Inet => guard.destinations.iter().map(of_address).collect(),
        Family::Bridge => guard.links.iter().flat_map(of_link).collect(),
    }
}

/// `None` for a rule that is about bridges only, elsewhere.
fn expressions(family: Family, rule: &Rule) -> Option<Expressions> {
    let mut expressions = Expressions::new();
    match &rule.source {
        Source::Any => {}
        Source::Address(prefix) => {
            let (offset, length) = if prefix.address().is_ipv4() { (12, 4) } else { (8, 16) };
            let mask = mask(prefix.length(), length);
            let loaded = of_family(family, prefix.address().is_ipv4()).payload(Header::Network, offset, length, FIRST);
            expressions = loaded.prefix(FIRST, &mask, &Bytes::new().address(prefix.address()).end());
        }
        Source::Bridge | Source::Link(_) if family == Family::Inet => return None,
        Source::Bridge => {}
        Source::Link(name) => {
            expressions = expressions.meta(Meta::InputName, FIRST).equal(FIRST, &Bytes::new().link(name).end());
        }
    }
    if let Some(ports) = rule.ports {
        let protocol = expressions.meta(Meta::Protocol, FIRST).equal(FIRST, &[ports.protocol().number()]);
        expressions = protocol.payload(Header::Transport, 2, 2, FIRST).between(FIRST, ports.first(), ports.last());
    }
    Some(expressions.verdict(if rule.accept { Verdict::Accept } else { Verdict::Drop }))
}

fn mask(length: u8, bytes: u32) -> Vec<u8> {
    let bits = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0).to_be_bytes();
    bits.into_iter().take(usize::try_from(bytes).unwrap_or(16)).collect()
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
    Set::declare_verdicts(batch, TABLE, TO_LINK, Part::Link, 1);
    Set { name: GUARDED, key: &[Part::Link], value: &[] }.declare(batch, TABLE, 2);
    let flow4 = [Part::Ipv4, Part::Ipv4, Part::Protocol, Part::Port, Part::Port];
    let flow6 = [Part::Ipv6, Part::Ipv6, Part::Protocol, Part::Port, Part::Port];
    for (id, (name, key)) in (3..).zip(FLOWS.into_iter().zip([&flow4[..], &flow6[..]])) {
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
    // They have no ports. Without the first, about which the rules decide, nobody can make anything of them. What is routed
    // is put together before (nf_defrag).
    let later4 = of_family(Family::Bridge, true).payload(Header::Network, 6, 2, FIRST).mask(FIRST, &[0x1f, 0xff]);
    let later6 = Expressions::new().extension(FRAGMENT, 2, 2, FIRST).mask(FIRST, &[0xff, 0xf8]);
    let mut rules: Vec<Expressions> =
        [later4, later6].map(|later| later.differ(FIRST, &[0, 0]).verdict(Verdict::Accept)).into();
    rules.extend(CONTROL.into_iter().map(|number| protocol(number).verdict(Verdict::Accept)));
    let later = protocol(TCP).payload(Header::Transport, 13, 1, FIRST).mask(FIRST, &[SYN_ACK, 0, 0, 0]);
    rules.push(later.differ(FIRST, &[SYN, 0, 0, 0]).verdict(Verdict::Accept));
    // What is neither IPv4 nor IPv6 passes: neighbours.
    let of_family = |ipv4| of_family(Family::Bridge, ipv4);
    for ipv4 in [true, false] {
        rules.push(flow(of_family(ipv4), ipv4, false).in_set(of(FLOWS, ipv4), false).verdict(Verdict::Accept));
        let from_guarded = of_family(ipv4).link_in(Meta::InputName, GUARDED, false);
        rules.push(flow(from_guarded, ipv4, true).note(of(FLOWS, ipv4), FLOW_TIME));
        rules.push(of_family(ipv4).meta(Meta::OutputName, FIRST).decide(TO_LINK));
    }
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
