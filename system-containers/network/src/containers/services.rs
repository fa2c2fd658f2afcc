//! A service's own addresses: one of each family in every network that its replicas are on, from which the packet filter
//! sends each new connection to one of those that do their work. Pure.
//!
//! The address belongs to the bridge, is chosen by the first replica that comes, and goes with the last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::attachment::Cable;
use super::bridge;
use super::register::Register;
use crate::nftables::conntrack::Way;
use crate::nftables::element::{Bytes, Element, SLOTS};

/// One of each family.
pub type Addresses = (Ipv4Addr, Ipv6Addr);

/// What the address of a service is chosen by: no container has such a name.
pub fn seed(service: &str) -> String {
    format!("{service} (all)")
}

/// The address that the replicas before have in a network.
pub fn of_others(service: &str, network: &str, attachments: &Register) -> Option<Addresses> {
    let of_service = attachments.of_service(service);
    of_service
        .flat_map(|attachment| &attachment.cables)
        .find_map(|cable| cable.service.filter(|_| cable.network == network))
}

/// All addresses of services on a bridge.
pub fn on_bridge(number: u16, attachments: &Register) -> BTreeSet<IpAddr> {
    let cables = attachments.iter().flat_map(|attachment| &attachment.cables);
    let services = cables.filter(|cable| cable.number == number).filter_map(|cable| cable.service);
    services.flat_map(|(ipv4, ipv6)| [IpAddr::V4(ipv4), IpAddr::V6(ipv6)]).collect()
}

/// Of a service in each of its networks, the containers that do their work, or all if none does.
fn chosen<'a>(service: &str, attachments: &'a Register) -> BTreeMap<(u16, Addresses), Vec<&'a Cable>> {
    let mut networks: BTreeMap<(u16, Addresses), Vec<(bool, &Cable)>> = BTreeMap::new();
    for attachment in attachments.of_service(service) {
        for cable in &attachment.cables {
            if let Some(addresses) = cable.service {
                networks.entry((cable.number, addresses)).or_default().push((attachment.wanted.serving, cable));
            }
        }
    }
    let chosen = |replicas: Vec<(bool, &'a Cable)>| {
        let any_serves = replicas.iter().any(|(serving, _)| *serving);
        replicas.into_iter().filter(|(serving, _)| *serving || !any_serves).map(|(_, cable)| cable).collect()
    };
    networks.into_iter().map(|(network, replicas)| (network, chosen(replicas))).collect()
}

/// What the packet filter has to know of a service.
pub fn elements(service: &str, attachments: &Register) -> Vec<Element> {
    let mut all = Vec::new();
    for ((number, (ipv4, ipv6)), chosen) in chosen(service, attachments) {
        for link in [bridge::name(number).as_str(), "lo"] {
            for (set, address) in [("doors4", IpAddr::V4(ipv4)), ("doors6", IpAddr::V6(ipv6))] {
                all.push(Element::new(set, Bytes::new().link(link).address(address).end()));
            }
        }
        for (slot, cable) in (0..SLOTS).zip(chosen.iter().cycle()) {
            for (map, address, to) in [
                ("services4", IpAddr::V4(ipv4), IpAddr::V4(cable.ipv4)),
                ("services6", IpAddr::V6(ipv6), IpAddr::V6(cable.ipv6)),
            ] {
                let key = Bytes::new().address(address).slot(slot).end();
                all.push(Element::with_value(map, key, Bytes::new().address(to).end()));
            }
        }
    }
    all
}

/// From a service's addresses to its containers.
pub fn ways(service: &str, attachments: &Register) -> Vec<Way> {
    let of_cable = |(ipv4, ipv6): Addresses, cable: &Cable| {
        [(IpAddr::V4(ipv4), IpAddr::V4(cable.ipv4)), (IpAddr::V6(ipv6), IpAddr::V6(cable.ipv6))]
            .map(|(address, to)| Way { address: Some(address), ports: None, to, to_port: None })
    };
    let networks = chosen(service, attachments).into_iter();
    networks
        .flat_map(|((_, addresses), cables)| cables.into_iter().flat_map(move |cable| of_cable(addresses, cable)))
        .collect()
}
