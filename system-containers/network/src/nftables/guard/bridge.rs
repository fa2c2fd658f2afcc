//! The bridge family's table without what differs from container to container.

use super::{Direction, KNOWN, OWN, of, of_family};
use crate::nftables::element::{Part, Set};
use crate::nftables::expression::{Expressions, FIRST, Header, Meta, Register, Verdict};
use crate::nftables::ruleset::{TABLE, add};
use crate::nftables::wire::{Attributes, Batch, Family, Kind};

const FLOWS: [&str; 2] = ["flows4", "flows6"];
/// Apart, as anybody can fill it: before the rules of who is asked, nobody knows what of it passes.
const ASKED: [&str; 2] = ["asked4", "asked6"];
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
/// Base chains with their hooks (NF_BR_LOCAL_IN and so on).
const CHAINS: [(&str, u32); 3] = [("input", 1), ("forward", 2), ("output", 3)];

/// Makes it.
pub(super) fn make(batch: &mut Batch) {
    batch.message(Kind::NewTable, |table| {
        table.text(1, TABLE);
    });
    sets(batch);
    for (name, hook) in CHAINS {
        batch.message(Kind::NewChain, |chain| {
            chain.text(1, TABLE).text(3, name).text(7, "filter");
            chain.nested(4, |place| {
                place.number(1, hook).number(2, 0);
            });
            chain.number(5, 1);
        });
    }
    // What is neither IPv4 nor IPv6 passes: neighbours.
    let both = |rule: &dyn Fn(bool) -> Expressions| [true, false].map(rule);
    let of_family = |ipv4| of_family(Family::Bridge, ipv4);
    let answers =
        |sets, ipv4| flow(of_family(ipv4), ipv4, false).in_set(of(sets, ipv4), false).verdict(Verdict::Accept);
    let (answers, answers_asked) = (|ipv4| answers(FLOWS, ipv4), |ipv4| answers(ASKED, ipv4));
    let note = |rule, sets, ipv4| flow(rule, ipv4, true).note(of(sets, ipv4), FLOW_TIME);
    let comes_from = |ipv4| of_family(ipv4).meta(Meta::InputName, FIRST).decide(Direction::Out.links());
    let goes_to = |ipv4| of_family(ipv4).meta(Meta::OutputName, FIRST).decide(Direction::In.links());
    let sent = |ipv4| note(of_family(ipv4).link_in(Meta::InputName, Direction::In.watched(), false), FLOWS, ipv4);
    let asked = |ipv4| note(of_family(ipv4).link_in(Meta::OutputName, Direction::Out.watched(), false), ASKED, ipv4);
    let with_source = |rule: Expressions, ipv4, to: Register| {
        let (offset, length) = Direction::Out.own(ipv4);
        rule.payload(Header::Network, offset, length, to)
    };
    let at_link = |rule: Expressions, ipv4, not| {
        let loaded = with_source(rule.meta(Meta::InputName, FIRST), ipv4, FIRST.after(16));
        loaded.in_set(of(OWN, ipv4), not)
    };
    let is_own = |ipv4| at_link(of_family(ipv4), ipv4, false).verdict(Verdict::Accept);
    let is_anothers = |ipv4| {
        let known = with_source(of_family(ipv4), ipv4, FIRST).in_set(of(KNOWN, ipv4), false);
        at_link(known, ipv4, true).verdict(Verdict::Drop)
    };
    let forward = [
        both(&is_anothers),
        both(&answers),
        both(&answers_asked),
        both(&comes_from),
        both(&sent),
        both(&asked),
        both(&goes_to),
    ];
    let input = [both(&is_anothers), both(&answers_asked), both(&is_own), both(&comes_from)];
    for (chain, rules) in [("forward", &forward[..]), ("input", &input[..])] {
        for rule in later().into_iter().chain(rules.iter().flatten().cloned()) {
            add(batch, chain, rule);
        }
    }
    let (offset, _) = Direction::In.own(false);
    let to_link_local = of_family(false).payload(Header::Network, offset, 2, FIRST);
    let to_link_local = to_link_local.prefix(FIRST, &[0xff, 0xc0], &[0xfe, 0x80]);
    let to_link_local = to_link_local.link_in(Meta::OutputName, Direction::Out.watched(), false);
    add(batch, "output", note(to_link_local, ASKED, false));
}

fn sets(batch: &mut Batch) {
    let number = |attributes: &mut Attributes, kind, value: u64| {
        attributes.bytes(kind, &value.to_be_bytes());
    };
    let mut id = 0;
    let mut next = || {
        id += 1;
        id
    };
    for direction in [Direction::In, Direction::Out] {
        Set::declare_verdicts(batch, TABLE, direction.links(), Part::Link, next());
        Set::new(direction.watched(), &[Part::Link], &[]).declare(batch, TABLE, next());
    }
    for (ipv4, address) in [(true, Part::Ipv4), (false, Part::Ipv6)] {
        Set::new(of(OWN, ipv4), &[Part::Link, address], &[]).declare(batch, TABLE, next());
        Set::new(of(KNOWN, ipv4), &[address], &[]).declare(batch, TABLE, next());
        let key = [address, address, Part::Protocol, Part::Port, Part::Port];
        for sets in [FLOWS, ASKED] {
            Set::declare_dynamic(batch, (TABLE, of(sets, ipv4)), &key, next(), |set| {
                number(set, 11, FLOW_TIME);
                set.nested(9, |description| {
                    description.number(1, MOST_FLOWS);
                });
            });
        }
    }
}

/// What no rule of a container is about.
fn later() -> Vec<Expressions> {
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
    rules
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
