//! One link of the host that Berth looks after: its fixed addresses and routes, its DHCP client, its names.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use berth_config::{Ipv6, LinkSettings};
use netlink_packet_route::route::RouteProtocol;
use tokio::sync::mpsc::Sender;

use crate::dhcp::client::{Client, Event};
use crate::dhcp::lease::{FOR_EVER, Lease, LeaseStore};
use crate::dhcp::message::mask_of;
use crate::dhcp::port::{Heard, Outcome, Port};
use crate::link::Link;
use crate::netlink::{Lifetime, Netlink, NetlinkError, Route};
use crate::resolver::{Names, server_text};
use crate::router_advertisement::Advertised;
use crate::{report, sysctl};

/// Added to a link's number, so that two links' default routes do not replace each other. Routes by configuration are
/// preferred to those by DHCP; the kernel gives those by router advertisements 1024.
const STATIC_METRIC: u32 = 512;
const DHCP_METRIC: u32 = 1024;

/// What every link works with.
#[derive(Debug)]
pub struct Means {
    /// The kernel.
    pub netlink: Netlink,
    /// Where leases are kept.
    pub leases: LeaseStore,
    /// Where DHCP messages arrive.
    pub heard: Sender<Heard>,
    /// What DHCP servers are told; empty if the machine has no name yet.
    pub host_name: String,
    /// For what must not be guessed or collide with other machines.
    pub seed: u64,
}

/// A link and what was done to it.
#[derive(Debug)]
pub struct HostLink {
    index: u32,
    name: String,
    settings: LinkSettings,
    dhcp: Option<Port>,
    dhcp_routes: Vec<Route>,
    advertised: Vec<(Advertised, Duration)>,
    carrier: bool,
}

impl HostLink {
    /// Sets the link up and does what its settings say. What fails is said and does not keep the rest from being done.
    pub async fn adopt(link: &Link, settings: LinkSettings, means: &Means) -> Self {
        let mut this = Self {
            index: link.index,
            name: link.name.clone(),
            settings,
            dhcp: None,
            dhcp_routes: Vec::new(),
            advertised: Vec::new(),
            carrier: false,
        };
        this.apply(link, means).await;
        this
    }

    /// Does what changed settings say.
    pub async fn reconfigure(&mut self, link: &Link, settings: LinkSettings, means: &Means) {
        if self.settings == settings {
            return;
        }
        for route in self.static_routes() {
            self.say(means.netlink.remove_route(&route).await);
        }
        let gone = |address: &&berth_config::Prefix| !settings.addresses.contains(address);
        for address in self.settings.addresses.iter().filter(gone) {
            self.say(means.netlink.remove_address(self.index, address.address(), address.length()).await);
        }
        if !settings.uses_dhcp() {
            let lease = self.dhcp.take().and_then(|port| port.client().lease().cloned());
            if let Some(lease) = lease {
                self.unconfigure(&lease, means).await;
            }
        }
        if !settings.accepts_router_advertisements() {
            self.advertised.clear();
        }
        self.settings = settings;
        self.carrier = false;
        self.apply(link, means).await;
        self.follow(link, means, crate::clock::now()).await;
    }

    async fn apply(&mut self, link: &Link, means: &Means) {
        let switches: &[(&str, &str)] = match self.settings.ipv6 {
            // 2: also on a machine that forwards, which one with containers does.
            Ipv6::Auto => &[("disable_ipv6", "0"), ("accept_ra", "2")],
            Ipv6::Static => &[("disable_ipv6", "0"), ("accept_ra", "0")],
            Ipv6::Off => &[("disable_ipv6", "1")],
        };
        for (key, value) in switches {
            if let Err(error) = sysctl::set_link("ipv6", &self.name, key, value) {
                report::failure(&error);
            }
        }
        if let Some(mtu) = self.settings.mtu.filter(|mtu| mtu.bytes() != link.mtu) {
            self.say(means.netlink.set_mtu(self.index, &self.name, mtu.bytes()).await);
        }
        if !link.up {
            self.say(means.netlink.set_up(self.index, &self.name).await);
        }
        for address in &self.settings.addresses {
            let (address, length) = (address.address(), address.length());
            self.say(means.netlink.add_address(self.index, address, length, Lifetime::FOR_EVER, false).await);
        }
        for route in self.static_routes() {
            self.say(means.netlink.add_route(&route).await);
        }
        if let Some(mac) = link.mac.filter(|_| self.settings.uses_dhcp() && self.dhcp.is_none()) {
            let name = Some(means.host_name.clone()).filter(|name| !name.is_empty());
            let seed = mac.iter().fold(means.seed, |seed, byte| seed.rotate_left(8) ^ u64::from(*byte));
            let client = Client::new(mac, name, means.leases.load(mac), seed);
            self.dhcp = Some(Port::new(self.index, client, means.heard.clone()));
        }
    }

    /// The link's name or carrier may have changed.
    pub async fn follow(&mut self, link: &Link, means: &Means, now: Duration) {
        self.name.clone_from(&link.name);
        if link.carrier != self.carrier {
            self.carrier = link.carrier;
            report::say(format_args!("{}: {}", self.name, if link.carrier { "carrier" } else { "no carrier" }));
            let event = if link.carrier { Event::CarrierUp } else { Event::CarrierLost };
            self.dhcp_event(event, means, now).await;
        }
    }

    /// Gives its DHCP client an event.
    pub async fn dhcp_event(&mut self, event: Event, means: &Means, now: Duration) {
        let Some(port) = &mut self.dhcp else { return };
        for outcome in port.step(&self.name, now, event) {
            match outcome {
                Outcome::Configure(lease) => self.configure(&lease, means).await,
                Outcome::Unconfigure(lease) => self.unconfigure(&lease, means).await,
                Outcome::Save(lease) => self.keep(Some(&lease), means),
                Outcome::Forget => self.keep(None, means),
                Outcome::Report(text) => report::say(format_args!("{}: {text}", self.name)),
            }
        }
    }

    /// Router advertisements that hold no longer are forgotten, and the DHCP client gets its timer.
    pub async fn tick(&mut self, means: &Means, now: Duration) {
        self.advertised.retain(|(_, expires)| *expires > now);
        if self.dhcp.as_ref().and_then(|port| port.client().deadline()).is_some_and(|deadline| deadline <= now) {
            self.dhcp_event(Event::Timer, means, now).await;
        }
    }

    /// When [`Self::tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        let dhcp = self.dhcp.as_ref().and_then(|port| port.client().deadline());
        self.advertised.iter().map(|(_, expires)| *expires).chain(dhcp).min()
    }

    /// A router has said something about names.
    pub fn advertise(&mut self, advertised: Advertised, now: Duration) {
        if !self.settings.accepts_router_advertisements() {
            return;
        }
        let same =
            |other: &Advertised| other.dns_servers == advertised.dns_servers && other.search == advertised.search;
        self.advertised.retain(|(other, _)| !same(other));
        // A hostile router could name new servers with every message.
        if !advertised.lifetime.is_zero() && self.advertised.len() < 8 {
            let expires = now.saturating_add(advertised.lifetime);
            self.advertised.push((advertised, expires));
        }
    }

    /// The lease in use.
    pub fn lease(&self) -> Option<&Lease> {
        self.dhcp.as_ref()?.client().lease()
    }

    /// What it knows about names, the configuration's first.
    pub fn names(&self) -> Names {
        let text = |address: IpAddr| server_text(address, &self.name);
        let mut names = Names { servers: self.settings.dns.iter().copied().map(text).collect(), search: Vec::new() };
        if let Some(lease) = self.lease() {
            names.servers.extend(lease.dns_servers.iter().map(Ipv4Addr::to_string));
            names.search.extend(lease.search.iter().cloned());
        }
        for (advertised, _) in &self.advertised {
            names.servers.extend(advertised.dns_servers.iter().copied().map(IpAddr::V6).map(text));
            names.search.extend(advertised.search.iter().cloned());
        }
        names
    }

    async fn configure(&mut self, lease: &Lease, means: &Means) {
        let lifetime = Lifetime { valid: if lease.lease_time == FOR_EVER { u32::MAX } else { lease.lease_time } };
        let address = IpAddr::V4(lease.address);
        let done = means.netlink.add_address(self.index, address, lease.prefix_length, lifetime, false).await;
        let failed = done.is_err();
        self.say(done);
        let routes = self.lease_routes(lease);
        for route in self.dhcp_routes.iter().filter(|route| !routes.contains(route)) {
            self.say(means.netlink.remove_route(route).await);
        }
        for route in routes.iter().filter(|_| !failed) {
            self.say(means.netlink.add_route(route).await);
        }
        if routes != self.dhcp_routes {
            let (name, length, seconds) = (&self.name, lease.prefix_length, lease.lease_time);
            report::say(format_args!("{name}: {address}/{length} from {} for {seconds} s", lease.server));
        }
        self.dhcp_routes = routes;
        if let Some(mtu) = lease.mtu.filter(|_| self.settings.mtu.is_none()) {
            self.say(means.netlink.set_mtu(self.index, &self.name, u32::from(mtu)).await);
        }
    }

    async fn unconfigure(&mut self, lease: &Lease, means: &Means) {
        self.dhcp_routes.clear();
        // The kernel may have been quicker: it removes the address itself when the lease ends.
        match means.netlink.remove_address(self.index, lease.address.into(), lease.prefix_length).await {
            Err(error) if error.number() == libc::EADDRNOTAVAIL => {}
            done => self.say(done),
        }
    }

    fn keep(&self, lease: Option<&Lease>, means: &Means) {
        let Some(mac) = self.dhcp.as_ref().map(|port| port.client().mac()) else { return };
        let done = match lease {
            Some(lease) => means.leases.save(mac, lease),
            None => means.leases.forget(mac),
        };
        if let Err(error) = done {
            report::say(format_args!("{}: the lease cannot be kept for the next boot: {error}", self.name));
        }
    }

    fn lease_routes(&self, lease: &Lease) -> Vec<Route> {
        let mask = mask_of(lease.prefix_length);
        let on_subnet = |gateway: Ipv4Addr| u32::from(gateway) & mask == u32::from(lease.address) & mask;
        let route = |route: &crate::dhcp::message::Route| Route {
            link: self.index,
            destination: route.destination.into(),
            prefix_length: route.prefix_length,
            gateway: Some(route.gateway).filter(|gateway| !gateway.is_unspecified()).map(IpAddr::V4),
            // Clouds give addresses of /32 with a gateway beyond.
            onlink: !on_subnet(route.gateway),
            source: Some(lease.address.into()),
            metric: Some(DHCP_METRIC.saturating_add(self.index)),
            protocol: RouteProtocol::Dhcp,
        };
        lease.routes.iter().map(route).collect()
    }

    fn static_routes(&self) -> Vec<Route> {
        let unspecified = |address: &IpAddr| match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        };
        let route = |destination, prefix_length, gateway: Option<IpAddr>, metric| Route {
            link: self.index,
            destination,
            prefix_length,
            gateway,
            onlink: gateway.is_some_and(|gateway| !self.settings.addresses.iter().any(|own| covers(own, gateway))),
            source: None,
            metric,
            protocol: RouteProtocol::Static,
        };
        let metric = Some(STATIC_METRIC.saturating_add(self.index));
        let defaults =
            self.settings.gateways.iter().map(|gateway| route(unspecified(gateway), 0, Some(*gateway), metric));
        let further = self
            .settings
            .routes
            .iter()
            .map(|each| route(network_of(&each.destination), each.destination.length(), each.gateway, each.metric));
        defaults.chain(further).collect()
    }

    fn say(&self, done: Result<(), NetlinkError>) {
        if let Err(error) = done {
            report::say(format_args!("{}: {}", self.name, report::chain(&error)));
        }
    }
}

/// The prefix's address without the bits that are not the network's.
pub fn network_of(prefix: &berth_config::Prefix) -> IpAddr {
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
