//! Links: addresses, gateways and routes that fit each other.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use crate::load::Report;
use crate::network::{Ipv6, LinkMatch, LinkName, LinkSettings, Network};
use crate::tree::{Node, Path};

/// RFC 8200: every link that carries IPv6 takes packets of this size.
const LEAST_IPV6_MTU: u32 = 1280;
/// Where the machine's own resolver listens.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);

pub(super) fn check(network: &Network, root: &Node, report: &mut Report) {
    for (name, settings) in &network.links {
        LinkCheck { name, settings, root }.run(report);
    }
    resolver(network, root, report);
    super::made::check(network, root, report);
    super::rules::check(network, root, report);
}

/// Domains are for the machine's own resolver alone; the other servers are whom programs ask if they do not ask it.
fn resolver(network: &Network, root: &Node, report: &mut Report) {
    let top = |key: &str| Path::default().key("network").key(key);
    let of_domains = network.domains.iter().map(|(name, servers)| (top("domains").key(name.as_str()), servers));
    let of_links = network.links.iter().map(|(name, it)| (top("links").key(name.as_str()).key("dns"), &it.dns));
    let others = of_links.chain([(top("dns"), &network.dns)]).filter(|_| network.resolver);
    for (path, servers) in of_domains.chain(others) {
        for (index, server) in servers.iter().enumerate().filter(|(_, server)| server.to_canonical() == RESOLVER) {
            let message = format!("{server} is the machine's own resolver, which would ask itself");
            report
                .add(report.about(root, &path.clone().index(index), message).help("name the server that it is to ask"));
        }
    }
}

struct LinkCheck<'a> {
    name: &'a LinkName,
    settings: &'a LinkSettings,
    root: &'a Node,
}

impl LinkCheck<'_> {
    fn run(&self, report: &mut Report) {
        if self.settings.matching == Some(LinkMatch::default()) {
            self.report(report, &self.path().key("match"), "it matches no link", "name a mac, driver, path or name");
        }
        self.addresses(report);
        self.gateways(report);
        self.routes(report);
        if self.settings.ipv6 != Ipv6::Off && self.settings.mtu.is_some_and(|mtu| mtu.bytes() < LEAST_IPV6_MTU) {
            let help = "`mtu` wants at least 1280, or say `ipv6 = \"off\"`";
            self.report(report, &self.path().key("mtu"), "IPv6 does not work with packets that small", help);
        }
    }

    fn path(&self) -> Path {
        Path::default().key("network").key("links").key(self.name.as_str())
    }

    fn report(&self, report: &mut Report, path: &Path, message: &str, help: &str) {
        report.add(report.about(self.root, path, message).help(help));
    }

    fn addresses(&self, report: &mut Report) {
        let mut seen = BTreeSet::new();
        for (index, address) in self.settings.addresses.iter().enumerate() {
            let path = self.path().key("addresses").index(index);
            if !seen.insert(address.address()) {
                self.report(report, &path, "the address is there twice", "leave one of them out");
            }
            if address.address().is_ipv6() && self.settings.ipv6 == Ipv6::Off {
                self.report(report, &path, "IPv6 is switched off on this link", "say `ipv6 = \"static\"`");
            }
            if address.address().is_unspecified() || address.address().is_multicast() {
                self.report(report, &path, "a link cannot have this address", "name the machine's own address");
            }
        }
    }

    fn gateways(&self, report: &mut Report) {
        let (mut v4, mut v6) = (false, false);
        for (index, gateway) in self.settings.gateways.iter().enumerate() {
            let path = self.path().key("gateways").index(index);
            let family = if gateway.is_ipv4() { &mut v4 } else { &mut v6 };
            if std::mem::replace(family, true) {
                let help = "for a second way out see `routes`, which have a metric";
                self.report(report, &path, "there is a default gateway of this family already", help);
            }
            self.reachable(report, &path, *gateway);
        }
    }

    /// The kernel refuses a gateway that is not on a network of the link ("Nexthop has invalid gateway").
    fn reachable(&self, report: &mut Report, path: &Path, gateway: IpAddr) {
        let elsewhere = match gateway {
            IpAddr::V4(_) => self.settings.uses_dhcp(),
            // Link-local gateways are the usual ones, and an advertised network may have any other.
            IpAddr::V6(address) => address.is_unicast_link_local() || self.settings.ipv6 == Ipv6::Auto,
        };
        if !elsewhere && !self.settings.addresses.iter().any(|address| address.contains(gateway)) {
            let help = "a gateway is in the network of one of the link's `addresses`";
            self.report(report, path, "this link does not reach the gateway", help);
        }
    }

    fn routes(&self, report: &mut Report) {
        for (index, route) in self.settings.routes.iter().enumerate() {
            let path = self.path().key("routes").index(index).key("gateway");
            match route.gateway {
                Some(gateway) if gateway.is_ipv4() != route.destination.address().is_ipv4() => {
                    let message = "the gateway and the destination are not of the same family";
                    self.report(report, &path, message, "both are IPv4 or both are IPv6");
                }
                Some(gateway) => self.reachable(report, &path, gateway),
                None => {}
            }
        }
    }
}
