//! Who may connect to whom: a chain for each container that has such rules, found in one look-up, and one for where to it may
//! connect itself.
//!
//! What is routed, or for the machine itself, passes the table `inet berth` and is looked up by its addresses. What stays on
//! a bridge passes a table of the bridge family with the same chains, which is there only if there are any. There the link to
//! the container counts, whatever the address: it has one of the link itself (fe80::), and hears what is sent to many.
//!
//! ```text
//! map to4, to6       address → jump to its chain
//! map from4, from6   the same, for what it sends
//! map links          of the bridge's table: link → jump to its container's chain
//! map from_links     of the bridge's table: the same, for what comes in there
//! set guarded        of the bridge's table: the links with a chain of what is sent there
//! set bounded        of the bridge's table: the links with a chain of what comes in there
//! set own4, own6     of the bridge's table: link . address of all containers
//! set known4, known6 of the bridge's table: the same addresses alone
//! chain to/…         what a container may be sent, in order
//! chain from/…       what it may send: dropped, or back to where other rules decide
//! set flows4, flows6 of the bridge's table: what containers with rules have sent over UDP and the like, for its answers; not
//!                    every kernel tracks connections on bridges
//! set asked4, asked6 of the bridge's table: the same of what those that may not send everything were sent: where a neighbour
//!                    fills it, only their answers get lost
//!
//! forward (bridge)   later fragments, ICMP, all of TCP but the first packet of a connection: accept; with the address of a
//!                    container that is at another link: drop; what answers a flow: accept;
//!                    look up the link it comes from; note what containers with rules send and are sent; look up the link
//!                    it goes to
//! input (bridge)     to the machine, or through it: the same, but accept what has the container's own address, about which
//!                    the other table decides; look up the link it comes from
//! output (bridge)    note what the machine sends to addresses of the link itself
//! ```

mod bridge;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use berth_config::{OpenPorts, Prefix};

use super::element::{Bytes, Element, Part, Set};
use super::expression::{Expressions, FIRST, Header, Meta, Verdict};
use super::ruleset::TABLE;
use super::wire::{Batch, Connection, Family, Kind};

/// The bridge's table: the addresses of containers with their links.
const OWN: [&str; 2] = ["own4", "own6"];
/// The same without: who sends with one of these by another link is not the one it says.
const KNOWN: [&str; 2] = ["known4", "known6"];

/// The set of one family.
const fn of(names: [&'static str; 2], ipv4: bool) -> &'static str {
    let [of_ipv4, of_ipv6] = names;
    if ipv4 { of_ipv4 } else { of_ipv6 }
}

/// Whose connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Those to a container.
    In,
    /// Those that a container begins.
    Out,
}

impl Direction {
    /// Where the look-up by address stands.
    const fn addresses(self, ipv4: bool) -> &'static str {
        match self {
            Self::In => of(["to4", "to6"], ipv4),
            Self::Out => of(["from4", "from6"], ipv4),
        }
    }

    /// Where the look-up by the link of a bridge stands.
    const fn links(self) -> &'static str {
        match self {
            Self::In => "links",
            Self::Out => "from_links",
        }
    }

    /// The links that are looked up.
    const fn watched(self) -> &'static str {
        match self {
            Self::In => "guarded",
            Self::Out => "bounded",
        }
    }

    /// Where the container's address stands in the header of a family, and how long it is.
    const fn own(self, ipv4: bool) -> (u32, u32) {
        match (self, ipv4) {
            (Self::In, true) => (16, 4),
            (Self::In, false) => (24, 16),
            (Self::Out, true) => (12, 4),
            (Self::Out, false) => (8, 16),
        }
    }

    /// The one in which the other end is what this end is here.
    const fn reverse(self) -> Self {
        match self {
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }
}

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Anywhere.
    Any,
    /// An address.
    Address(Prefix),
    /// An address that is on no bridge: who has it there has given it to itself. Only who is let in.
    Routed(Prefix),
    /// An address to which packets go out by a link: not the machine itself, whichever of its addresses is one of these. Only
    /// where to a container may connect.
    Beyond(Prefix),
    /// On the same bridge, whatever the address.
    Bridge,
    /// The container at the end of this link of the same bridge, whatever the address.
    Link(String),
}

/// One rule: what it lets through or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where the packet comes from, or where it goes.
    pub peer: Peer,
    /// The ports that it is for; `None` for all of all protocols.
    pub ports: Option<OpenPorts>,
    /// Whether it goes on.
    pub accept: bool,
}

/// The rules of a container, or of those of a network that have none of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Of which connections.
    pub direction: Direction,
    /// In order; what none is about goes on.
    pub rules: Vec<Rule>,
}

/// All rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// By name.
    pub chains: BTreeMap<String, Chain>,
    /// The chain of each address that has one.
    pub addresses: BTreeMap<(Direction, IpAddr), String>,
    /// The chain of each bridge's link that has one.
    pub links: BTreeMap<(Direction, String), String>,
    /// The addresses of all containers with their links, if there is any chain.
    pub own: BTreeSet<(String, IpAddr)>,
}

impl Guard {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// What the other has not, or has otherwise.
    fn without(&self, other: &Self) -> Self {
        Self {
            chains: without(&self.chains, &other.chains),
            addresses: without(&self.addresses, &other.addresses),
            links: without(&self.links, &other.links),
            own: self.own.difference(&other.own).cloned().collect(),
        }
    }
}

fn without<K: Ord + Clone, V: PartialEq + Clone>(one: &BTreeMap<K, V>, other: &BTreeMap<K, V>) -> BTreeMap<K, V> {
    one.iter()
        .filter(|(key, value)| other.get(key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Declares the maps of the look-up in a new table.
pub fn declare(batch: &mut Batch, first_id: u32) {
    let maps = [Direction::In, Direction::Out].into_iter().flat_map(|direction| {
        [(true, Part::Ipv4), (false, Part::Ipv6)].map(|(ipv4, part)| (direction.addresses(ipv4), part))
    });
    for (id, (map, part)) in (first_id..).zip(maps) {
        Set::declare_verdicts(batch, TABLE, map, part, id);
    }
}

/// Rules that look up the container's address in what is routed, or for the machine.
pub fn look_ups(direction: Direction) -> [Expressions; 2] {
    [true, false].map(|ipv4| {
        let (offset, length) = direction.own(ipv4);
        let loaded = of_family(Family::Inet, ipv4).payload(Header::Network, offset, length, FIRST);
        loaded.decide(direction.addresses(ipv4))
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
        bridge::make(batch);
        chains(batch, Family::Bridge, guard);
    }
    batch.of(Family::Inet);
}

/// From one to the other, at one moment. What is in both stays as it is and is not told of.
pub fn change(connection: &Connection, before: &Guard, after: &Guard) -> io::Result<()> {
    connection.commit(difference(before, after))
}

fn difference(before: &Guard, after: &Guard) -> Batch {
    let (gone, new) = (before.without(after), after.without(before));
    let mut batch = Batch::new();
    replace_part(&mut batch, Family::Inet, (&gone, &new), (before, after));
    if before.is_empty() || after.is_empty() {
        replace_bridge(&mut batch, after);
    } else {
        batch.of(Family::Bridge);
        replace_part(&mut batch, Family::Bridge, (&gone, &new), (before, after));
    }
    batch
}

/// Elements first: a chain that one leads to cannot go.
fn replace_part(batch: &mut Batch, family: Family, (gone, new): (&Guard, &Guard), (before, after): (&Guard, &Guard)) {
    elements(family, gone).iter().for_each(|element| element.remove(batch, TABLE));
    for name in gone.chains.keys() {
        batch.message(Kind::DeleteRule, |message| {
            message.text(1, TABLE).text(2, name);
        });
        if !after.chains.contains_key(name) {
            batch.message(Kind::DeleteChain, |message| {
                message.text(1, TABLE).text(3, name);
            });
        }
    }
    for (name, chain) in &new.chains {
        if !before.chains.contains_key(name) {
            make_chain(batch, name);
        }
        fill_chain(batch, family, name, chain);
    }
    elements(family, new).iter().for_each(|element| element.add(batch, TABLE));
}

fn chains(batch: &mut Batch, family: Family, guard: &Guard) {
    let nothing = Guard::default();
    replace_part(batch, family, (&nothing, guard), (&nothing, guard));
}

fn make_chain(batch: &mut Batch, name: &str) {
    batch.message(Kind::NewChain, |message| {
        message.text(1, TABLE).text(3, name);
    });
}

fn fill_chain(batch: &mut Batch, family: Family, name: &str, chain: &Chain) {
    for rule in chain.rules.iter().filter_map(|rule| expressions(family, chain.direction, rule)) {
        super::ruleset::add(batch, name, rule);
    }
}

/// Which chain is whose, in the words of a table.
fn elements(family: Family, guard: &Guard) -> Vec<Element> {
    let of_address = |((direction, address), chain): (&(Direction, IpAddr), &String)| {
        Element::jump(direction.addresses(address.is_ipv4()), Bytes::new().address(*address).end(), chain)
    };
    let of_link = |((direction, link), chain): (&(Direction, String), &String)| {
        let key = Bytes::new().link(link).end();
        [Element::new(direction.watched(), key.clone()), Element::jump(direction.links(), key, chain)]
    };
    let own = |(link, address): &(String, IpAddr)| {
        let (own, known) = (of(OWN, address.is_ipv4()), of(KNOWN, address.is_ipv4()));
        let key = Bytes::new().link(link).address(*address).end();
        [Element::new(own, key), Element::new(known, Bytes::new().address(*address).end())]
    };
    match family {
        Family::Inet | Family::Ipv4 => guard.addresses.iter().map(of_address).collect(),
        Family::Bridge => guard.links.iter().flat_map(of_link).chain(guard.own.iter().flat_map(own)).collect(),
    }
}

/// `None` for a rule that is about bridges only, elsewhere.
fn expressions(family: Family, direction: Direction, rule: &Rule) -> Option<Expressions> {
    let mut expressions = Expressions::new();
    let link = match direction {
        Direction::In => Meta::InputName,
        Direction::Out => Meta::OutputName,
    };
    match &rule.peer {
        Peer::Any => {}
        Peer::Routed(_) if family == Family::Bridge => return None,
        Peer::Address(prefix) | Peer::Routed(prefix) | Peer::Beyond(prefix) => {
            let (offset, length) = direction.reverse().own(prefix.address().is_ipv4());
            let mask = mask(prefix.length(), length);
            let loaded = of_family(family, prefix.address().is_ipv4()).payload(Header::Network, offset, length, FIRST);
            expressions = loaded.prefix(FIRST, &mask, &Bytes::new().address(prefix.address()).end());
            if matches!(rule.peer, Peer::Beyond(_)) {
                expressions = by_any_link(expressions, link);
            }
        }
        Peer::Bridge | Peer::Link(_) if family == Family::Inet => return None,
        Peer::Bridge => expressions = by_any_link(expressions, link),
        Peer::Link(name) => {
            expressions = expressions.meta(link, FIRST).equal(FIRST, &Bytes::new().link(name).end());
        }
    }
    if let Some(ports) = rule.ports {
        let protocol = expressions.meta(Meta::Protocol, FIRST).equal(FIRST, &[ports.protocol().number()]);
        expressions = protocol.payload(Header::Transport, 2, 2, FIRST).between(FIRST, ports.first(), ports.last());
    }
    Some(expressions.verdict(match (rule.accept, direction) {
        (false, _) => Verdict::Drop,
        (true, Direction::In) => Verdict::Accept,
        // Whether it may come in there is for others to say.
        (true, Direction::Out) => Verdict::Return,
    }))
}

/// What is for the machine itself leaves by no link.
fn by_any_link(rule: Expressions, link: Meta) -> Expressions {
    rule.meta(link, FIRST).differ(FIRST, &Bytes::new().link("").end())
}

fn mask(length: u8, bytes: u32) -> Vec<u8> {
    let bits = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0).to_be_bytes();
    bits.into_iter().take(usize::try_from(bytes).unwrap_or(16)).collect()
}

fn of_family(family: Family, ipv4: bool) -> Expressions {
    let rule = Expressions::new();
    match (family, ipv4) {
        (Family::Inet | Family::Ipv4, true) => rule.meta(Meta::Family, FIRST).equal(FIRST, &[2]),
        (Family::Inet | Family::Ipv4, false) => rule.meta(Meta::Family, FIRST).equal(FIRST, &[10]),
        (Family::Bridge, true) => rule.meta(Meta::EtherType, FIRST).equal(FIRST, &[0x08, 0x00]),
        (Family::Bridge, false) => rule.meta(Meta::EtherType, FIRST).equal(FIRST, &[0x86, 0xdd]),
    }
}

#[cfg(test)]
#[path = "guard/tests.rs"]
mod tests;
