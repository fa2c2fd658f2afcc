//! Published ports: how they lead to containers.
//!
//! Replicas have the same ports. Connections to them are shared out by [`SLOTS`] slots that the packet filter takes in
//! turn: each belongs to one of the replicas that do their work, or of all if none does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

use berth_config::Protocol;

use super::attachment::Attachment;
use super::conflicts::{host_address, protocol_number};
use super::register::Register;
use super::services;
use crate::nftables::conntrack::{self, Gone, Way};
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
            port: Some(port.host_port),
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
        let is_new = |way: &&Way| way.port.is_some() && !self.ways.iter().any(|other| other.begins_as(way));
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
    pub fn replace(&mut self, mut table: Table, attachments: &Register) -> io::Result<()> {
        let services: BTreeSet<&String> = attachments.iter().map(|attachment| &attachment.wanted.service).collect();
        let wanted = |service: &String| (service.clone(), Led::of(service, attachments));
        let before = std::mem::replace(&mut self.present, services.into_iter().map(wanted).collect());
        table.elements = self.present.values().flat_map(|led| &led.elements).cloned().collect();
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
    let mut all: BTreeSet<Redirection> = alone.into_iter().flat_map(of_one).collect();
    let any_serves = replicas.iter().any(|attachment| attachment.wanted.serving);
    // By all that stands before the address they lead to.
    let mut shared: BTreeMap<(Option<IpAddr>, u16, u8, bool), Vec<Redirection>> = BTreeMap::new();
    for replica in replicas.into_iter().filter(|attachment| attachment.wanted.serving || !any_serves) {
        for each in of_one(replica) {
            let key = (each.host_address, each.host_port, each.protocol, each.to.is_ipv4());
            shared.entry(key).or_default().push(each);
        }
    }
    for candidates in shared.into_values() {
        let slots = (0..SLOTS).zip(candidates.iter().cycle());
        all.extend(slots.map(|(slot, each)| Redirection { slot: Some(slot), ..*each }));
    }
    all
}

/// The ports of one container. Those that are wrong were refused by [`super::conflicts::check_ports`].
fn of_one(attachment: &Attachment) -> Vec<Redirection> {
    let Some(cable) = attachment.way_out.and_then(|index| attachment.cables.get(index)) else { return Vec::new() };
    let mut redirections = Vec::new();
    for port in &attachment.wanted.ports {
        let (Ok(host_address), Ok(protocol)) = (host_address(port), protocol_number(port)) else { continue };
        let families = [IpAddr::V4(cable.ipv4), IpAddr::V6(cable.ipv6)];
        let wanted = |to: &IpAddr| host_address.is_none_or(|address| address.is_ipv4() == to.is_ipv4());
        redirections.extend(families.into_iter().filter(wanted).map(|to| Redirection {
            host_address: host_address.filter(|address| !address.is_unspecified()),
            host_port: port.host_port,
            protocol,
            slot: None,
            to: SocketAddr::new(to, port.container_port),
        }));
    }
    redirections
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use berth_control::message::Port;

    use super::super::attachment::tests::attachment;
    use super::*;

    fn port(host_address: &str, host_port: u16, protocol: &str) -> Port {
        Port { host_address: host_address.into(), host_port, container_port: 80, protocol: protocol.into() }
    }

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
}
