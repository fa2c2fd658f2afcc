//! The routes of a link: those of the configuration and those of a lease.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::route::RouteProtocol;

use super::HostLink;
use crate::dhcp::lease::Lease;
use crate::dhcp::routes::mask_of;
use crate::netlink::{MAIN_TABLE, Route};

/// Where the configuration gives none. Added to a link's number, so that two links' default routes do not replace each
/// other. Routes by configuration are preferred to those by DHCP; the kernel gives those by router advertisements 1024.
const STATIC_METRIC: u32 = 512;
const DHCP_METRIC: u32 = 1024;

impl HostLink {
    pub(super) fn lease_routes(&self, lease: &Lease) -> Vec<Route> {
        let mask = mask_of(lease.prefix_length);
        let on_subnet = |gateway: Ipv4Addr| u32::from(gateway) & mask == u32::from(lease.address) & mask;
        let route = |route: &crate::dhcp::routes::Route| Route {
            link: self.index,
            destination: route.destination.into(),
            prefix_length: route.prefix_length,
            gateway: Some(route.gateway).filter(|gateway| !gateway.is_unspecified()).map(IpAddr::V4),
            // Clouds give addresses of /32 with a gateway beyond.
            onlink: !on_subnet(route.gateway),
            source: Some(lease.address.into()),
            metric: Some(self.settings.metric.unwrap_or_else(|| DHCP_METRIC.saturating_add(self.index))),
            protocol: RouteProtocol::Dhcp,
            table: self.table(),
        };
        lease.routes.iter().map(route).collect()
    }

    /// How much it comes behind other links.
    pub fn metric(&self) -> u32 {
        let own = if self.settings.gateways.is_empty() { DHCP_METRIC } else { STATIC_METRIC };
        self.settings.metric.unwrap_or_else(|| own.saturating_add(self.index))
    }

    /// Where its routes are, if they do not say it themselves.
    fn table(&self) -> u32 {
        self.settings.table.unwrap_or(MAIN_TABLE)
    }

    pub(super) fn static_routes(&self) -> Vec<Route> {
        let unspecified = |address: &IpAddr| match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let route = |destination, prefix_length, gateway: Option<IpAddr>, metric, table: Option<u32>| Route {
            link: self.index,
            destination,
            prefix_length,
            gateway,
            onlink: gateway.is_some_and(|gateway| !self.settings.addresses.iter().any(|own| covers(own, gateway))),
            source: None,
            metric,
            protocol: RouteProtocol::Static,
            table: table.unwrap_or_else(|| self.table()),
        };
        let metric = Some(self.settings.metric.unwrap_or_else(|| STATIC_METRIC.saturating_add(self.index)));
        let defaults =
            self.settings.gateways.iter().map(|gateway| route(unspecified(gateway), 0, Some(*gateway), metric, None));
        let further = self.settings.routes.iter().map(|each| {
            let (length, metric) = (each.destination.length(), each.metric.or(self.settings.metric));
            route(network_of(&each.destination), length, each.gateway, metric, each.table)
        });
        defaults.chain(further).collect()
    }
}

/// The prefix's address without the bits that are not the network's.
fn network_of(prefix: &berth_config::Prefix) -> IpAddr {
    match prefix.address() {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) & mask_of(prefix.length())).into()),
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.length())).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

/// Whether the address is in the prefix's network.
fn covers(prefix: &berth_config::Prefix, address: IpAddr) -> bool {
    let text = format!("{address}/{}", prefix.length());
    prefix.address().is_ipv4() == address.is_ipv4()
        && text.parse::<berth_config::Prefix>().is_ok_and(|other| network_of(&other) == network_of(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_covers_its_own_addresses_only() {
        let covers = |prefix: &str, address: &str| covers(&prefix.parse().unwrap(), address.parse().unwrap());
        assert!(covers("192.0.2.7/24", "192.0.2.1"));
        assert!(!covers("192.0.2.7/24", "192.0.3.1"));
        assert!(covers("2001:db8::7/64", "2001:db8::1"));
        assert!(!covers("2001:db8::7/64", "192.0.2.1"));
        assert!(!covers("192.0.2.7/32", "192.0.2.1"));
        assert!(covers("0.0.0.0/0", "192.0.2.1"));
    }
}
