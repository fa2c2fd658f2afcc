//! Published ports: how they lead to containers.
//!
//! Replicas have the same ports. Connections to them are shared out by [`SLOTS`] slots that the packet filter takes in
//! turn: each belongs to one of the replicas that do their work, or of all if none does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

use berth_config::Protocol;
use berth_control::message::Port;

use super::attachment::Attachment;
use super::conflicts::Opening;
use super::register::Register;
use super::services;
use crate::nftables::conntrack::{self, Beginning, Gone, Way};
use crate::nftables::element::{Element, Redirection, SLOTS};
use crate::nftables::guard::{self, Guard};
use crate::nftables::ruleset::{self, Table};
use crate::nftables::wire::Connection;
use crate::report;

/// How a service's containers are reached.
#[derive(Debug, Default)]
struct Led {
    /// All that it has in sets and maps.
    elements: BTreeSet<Element>,
    /// The same where connections have no end of their own.
    ways: BTreeSet<Way>,
}

impl Led {
    fn of(service: &str, attachments: &Register) -> Self {
        let ports = redirections(service, attachments);
        let udp = ports.iter().filter(|port| port.protocol == Protocol::Udp.number());
        let ways = udp.map(|port| Way {
            address: port.host_address,
            ports: Some((port.host_port, port.last_port)),
            to: port.to.ip(),
            to_port: Some(port.to.port()),
        });
        let ways = ways.chain(services::ways(service, attachments)).collect();
        let elements = ports.into_iter().map(Element::from).chain(services::elements(service, attachments)).collect();
        Self { elements, ways }
    }

    /// The connections that are not to go on when it is so instead.
    fn gone(&self, wanted: &Self) -> Vec<Gone> {
        // What came to a port before it was published went to the machine itself.
        let before: BTreeSet<Beginning> = self.ways.iter().map(Way::beginning).collect();
        let is_new = |way: &&Way| way.ports.is_some() && !before.contains(&way.beginning());
        let begun = wanted.ways.iter().filter(is_new).copied().map(Gone::Beginning);
        self.ways.difference(&wanted.ways).copied().map(Gone::Way).chain(begun).collect()
    }
}

/// What the packet filter has been told.
#[derive(Debug)]
pub struct Published {
    filter: Connection,
    /// By service.
    present: BTreeMap<String, Led>,
    guard: Guard,
}

impl Published {
    /// Nothing yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self { filter: Connection::open()?, present: BTreeMap::new(), guard: Guard::default() })
    }

    /// Makes the whole table anew.
    pub fn replace(&mut self, table: Table<'_>, attachments: &Register) -> io::Result<()> {
        let services: BTreeSet<&String> = attachments.iter().map(|attachment| &attachment.wanted.service).collect();
        let wanted = |service: &String| (service.clone(), Led::of(service, attachments));
        // With the greatest number of ports there is not room in memory for these twice.
        let mut before = std::mem::take(&mut self.present);
        before.values_mut().for_each(|led| led.elements.clear());
        self.present = services.into_iter().map(wanted).collect();
        let elements = self.present.values().flat_map(|led| &led.elements).collect();
        let table = Table { elements, ..table };
        self.guard = table.guard.clone();
        ruleset::replace(&self.filter, &table)?;
        let nothing = Led::default();
        let after = |service: &String| self.present.get(service).unwrap_or(&nothing);
        self.forget(before.iter().flat_map(|(service, led)| led.gone(after(service))));
        Ok(())
    }

    /// Ends connections in the middle.
    pub fn forget(&self, gone: impl IntoIterator<Item = Gone>) {
        if let Err(error) = conntrack::forget(&self.filter, gone) {
            report::say(format_args!("forget connections to who has gone: {error}"));
        }
    }

    /// Makes the rules about containers these. If that fails it is not known what there is, and [`Self::replace`] is
    /// needed.
    pub fn guard(&mut self, wanted: Guard) -> io::Result<()> {
        if self.guard != wanted {
            guard::change(&self.filter, &self.guard, &wanted)?;
            self.guard = wanted;
        }
        Ok(())
    }

    /// Makes a service's ports lead to its containers as they are now. If that fails it is not known what there is, and
    /// [`Self::replace`] is needed.
    pub fn update(&mut self, service: &str, attachments: &Register) -> io::Result<()> {
        let wanted = Led::of(service, attachments);
        let nothing = Led::default();
        let present = self.present.get(service).unwrap_or(&nothing);
        if present.elements != wanted.elements {
            let (before, after) = (&present.elements, &wanted.elements);
            ruleset::change(&self.filter, before.difference(after), after.difference(before))?;
            self.forget(present.gone(&wanted));
        }
        if wanted.elements.is_empty() {
            self.present.remove(service);
        } else {
            self.present.insert(service.to_owned(), wanted);
        }
        Ok(())
    }
}

/// All ports of a service.
fn redirections(service: &str, attachments: &Register) -> BTreeSet<Redirection> {
    let (alone, replicas): (Vec<&Attachment>, Vec<_>) =
        attachments.of_service(service).partition(|attachment| attachment.wanted.name == attachment.wanted.service);
    let any_serves = replicas.iter().any(|attachment| attachment.wanted.serving);
    let replicas = replicas.into_iter().filter(|attachment| attachment.wanted.serving || !any_serves);
    let (mut ranges, shared): (Vec<_>, Vec<_>) = replicas.flat_map(of_one).partition(Redirection::is_range);
    let (ranges_alone, ports_alone): (Vec<_>, Vec<_>) =
        alone.into_iter().flat_map(of_one).partition(Redirection::is_range);
    let mut all = BTreeSet::from_iter(ports_alone);
    for candidates in by_place(shared).into_values() {
        all.extend(share_out(&candidates));
    }
    // In the packet filter no range meets another one, with whichever ports a replica was started before.
    ranges.extend(ranges_alone);
    for candidates in by_place(cut(&ranges)).into_values() {
        match candidates.as_slice() {
            [alone] => all.extend([*alone]),
            several => all.extend(share_out(several)),
        }
    }
    all
}

/// All that stands before the address that a port leads to.
type Place = (Option<IpAddr>, u16, u8, bool);

fn by_place(redirections: Vec<Redirection>) -> BTreeMap<Place, Vec<Redirection>> {
    let mut places: BTreeMap<Place, Vec<Redirection>> = BTreeMap::new();
    for each in redirections {
        places.entry((each.host_address, each.host_port, each.protocol, each.to.is_ipv4())).or_default().push(each);
    }
    places
}

fn share_out(candidates: &[Redirection]) -> impl Iterator<Item = Redirection> + '_ {
    (0..SLOTS).zip(candidates.iter().cycle()).map(|(slot, each)| Redirection { slot: Some(slot), ..*each })
}

/// The same ranges in pieces, of which two are of the same ports or have none in common.
fn cut(ranges: &[Redirection]) -> Vec<Redirection> {
    let ends = ranges.iter().filter_map(|range| range.last_port.checked_add(1));
    let begins: BTreeSet<u16> = ranges.iter().map(|range| range.host_port).chain(ends).collect();
    let pieces = |range: &Redirection| {
        let (range, within) = (*range, begins.range(range.host_port..=range.last_port));
        let firsts: Vec<u16> = within.copied().collect();
        let lasts: Vec<u16> = firsts.iter().skip(1).map(|next| next - 1).chain([range.last_port]).collect();
        firsts.into_iter().zip(lasts).map(move |(first, last)| {
            let to = SocketAddr::new(range.to.ip(), first);
            Redirection { host_port: first, last_port: last, to, ..range }
        })
    };
    ranges.iter().flat_map(pieces).collect()
}

/// The ports of one container. Those that are wrong were refused by [`super::conflicts::check_ports`].
fn of_one(attachment: &Attachment) -> Vec<Redirection> {
    let Some(cable) = attachment.way_out.and_then(|index| attachment.cables.get(index)) else { return Vec::new() };
    let mut redirections = Vec::new();
    for port in &attachment.wanted.ports {
        let Ok(Opening { address, protocol, .. }) = Opening::of(port) else { continue };
        let families = [IpAddr::V4(cable.ipv4), IpAddr::V6(cable.ipv6)];
        let wanted = |to: &IpAddr| address.is_none_or(|address| address.is_ipv4() == to.is_ipv4());
        for to in families.into_iter().filter(wanted) {
            redirections.extend(single_or_range(port).map(|(host_port, last_port, container_port)| Redirection {
                host_address: address.filter(|address| !address.is_unspecified()),
                host_port,
                last_port,
                protocol: protocol.number(),
                slot: None,
                to: SocketAddr::new(to, container_port),
            }));
        }
    }
    redirections
}

/// The first and the last port of the machine and that of the container, one for each port of a range that leads to others.
fn single_or_range(port: &Port) -> impl Iterator<Item = (u16, u16, u16)> + use<> {
    let (host_port, container_port, further) = (port.host_port, port.container_port, port.further_ports);
    let is_one = host_port == container_port;
    let count = if is_one { 0 } else { further };
    (0..=count).map(move |ahead| {
        let first = host_port.saturating_add(ahead);
        (first, first.saturating_add(if is_one { further } else { 0 }), container_port.saturating_add(ahead))
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::attachment::tests::{attachment, port};
    use super::*;

    #[test]
    fn a_port_for_all_addresses_is_one_for_both_families() {
        let families = |address| of_one(&attachment("web", vec![port(address, 80, "tcp")]));
        assert_eq!(families("").len(), 2);
        assert_eq!(families("0.0.0.0").len(), 1);
        assert!(families("0.0.0.0")[0].host_address.is_none() && families("0.0.0.0")[0].to.is_ipv4());
        assert!(families("::1")[0].to.is_ipv6() && families("::1")[0].host_address.is_some());
    }

    #[test]
    fn replicas_that_do_their_work_share_all_slots_evenly() {
        let mut attachments = Register::default();
        for number in 1..=3_u8 {
            let mut replica = attachment(&format!("web-{number}"), vec![port("0.0.0.0", 80, "tcp")]);
            replica.wanted.service = "web".into();
            replica.cables[0].ipv4 = Ipv4Addr::new(10, 0, 0, number);
            attachments.insert(replica);
        }
        let counts = |attachments: &Register| {
            let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
            let slots: BTreeSet<_> = redirections("web", attachments)
                .into_iter()
                .map(|each| (each.slot, *counts.entry(each.to.ip()).or_default() += 1).0)
                .collect();
            assert_eq!(slots.len(), 256);
            counts.into_values().collect::<Vec<_>>()
        };
        assert_eq!(counts(&attachments), [86, 85, 85]);
        let fall_ill = |name: &str, attachments: &mut Register| {
            let mut replica = attachments.remove(name).unwrap();
            replica.wanted.serving = false;
            attachments.insert(replica);
        };
        fall_ill("web-2", &mut attachments);
        assert_eq!(counts(&attachments), [128, 128]);
        for name in ["web-1", "web-3"] {
            fall_ill(name, &mut attachments);
        }
        assert_eq!(counts(&attachments), [86, 85, 85]);
    }

    /// A replica that publishes these ports of the machine as they are.
    fn with_range(number: u8, (first, last): (u16, u16)) -> Attachment {
        let range = Port { container_port: first, further_ports: last - first, ..port("0.0.0.0", first, "udp") };
        let mut replica = attachment(&format!("sip-{number}"), vec![range]);
        replica.wanted.service = "sip".into();
        replica.cables[0].ipv4 = Ipv4Addr::new(10, 0, 0, number);
        replica
    }

    #[test]
    fn a_range_that_leads_to_the_same_ports_is_one_element_and_any_other_one_for_each() {
        let range = |further_ports| Port { further_ports, ..port("", 80, "udp") };
        let alone = Register::from_iter([attachment("web", vec![range(9_999)])]);
        assert_eq!(redirections("web", &alone).len(), 2);
        let others = Register::from_iter([attachment("web", vec![Port { host_port: 81, ..range(9_999) }])]);
        assert_eq!(redirections("web", &others).len(), 20_000);
        let led = Led::of("web", &others);
        assert_eq!(led.gone(&led).len(), 0);
        assert_eq!(Led::default().gone(&led).len(), 20_000, "in no time");
    }

    #[test]
    fn replicas_share_a_range_by_its_slots_and_ranges_of_different_length_where_they_meet() {
        let same = Register::from_iter([with_range(1, (10_000, 20_000)), with_range(2, (10_000, 20_000))]);
        assert_eq!(redirections("sip", &same).len(), 256);
        let other = Register::from_iter([with_range(1, (10_000, 20_000)), with_range(2, (15_000, 25_000))]);
        let found = redirections("sip", &other);
        let pieces: BTreeSet<_> = found.iter().map(|each| (each.host_port, each.last_port, each.to.port())).collect();
        let expected = [(10_000, 14_999, 10_000), (15_000, 20_000, 15_000), (20_001, 25_000, 20_001)];
        assert_eq!(pieces.into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(found.len(), 1 + 256 + 1);
    }
}
