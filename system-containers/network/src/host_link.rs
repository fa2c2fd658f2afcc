//! One link of the host that Berth looks after: its fixed addresses and routes, its DHCP clients, its names.

mod earlier;
mod ipv4;
mod ipv6;
mod mtu;
mod routers;
mod routes;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use berth_config::{Ipv6, LinkSettings};

use self::mtu::{Packets, mtu_before};
use tokio::sync::mpsc::Sender;

use crate::dhcp::client::Event;
use crate::dhcp::lease::Lease;
use crate::dhcp::message::Mac;
use crate::dhcp::port::{Heard, Port};
use crate::dhcp6;
use crate::leases::{LeaseStore, Owner};
use crate::link::{Address, Link, Routers};
use crate::netlink::{IPV6_METRIC, Lifetime, Netlink, NetlinkError, Route};
use crate::resolver::{Names, server_text};
use crate::{arp, report, router_advertisement, sysctl};

/// Without carrier on a link, packets take another one that leads to the same place.
const WAY_ROUND: (&str, &str) = ("ignore_routes_with_linkdown", "1");
/// A link answers for its own addresses: not for those of another one on the same switch, whose place it would take in
/// neighbours' tables.
const OWN_ADDRESSES: (&str, &str) = ("arp_ignore", "1");

/// What every link works with.
#[derive(Debug)]
pub struct Means {
    /// The kernel.
    pub netlink: Netlink,
    /// Where leases are kept.
    pub leases: LeaseStore,
    /// Where DHCP messages arrive.
    pub heard: Sender<Heard>,
    /// Where those of DHCPv6 do.
    pub heard6: Sender<dhcp6::port::Heard>,
    /// Where ARP packets do that are about an address in question.
    pub heard_arp: Sender<arp::port::Heard>,
    /// Where advertisements do while it is looked for routers.
    pub heard_routers: Sender<router_advertisement::port::Heard>,
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
    /// Whether the address of the lease, or a link-local one, is free.
    detection: Option<arp::port::Port>,
    /// The address that was asked about last: a lease that is prolonged needs no further look.
    detected: Option<Ipv4Addr>,
    /// The link-local address in use, and how many were tried.
    link_local: Option<Ipv4Addr>,
    link_local_attempt: u32,
    dhcp6: Option<dhcp6::port::Port>,
    /// What DHCPv6 servers have given.
    given6: dhcp6::lease::Lease,
    /// The most that routers have said of DHCPv6.
    said: Routers,
    /// What routers have said of names.
    advertised: router_advertisement::Kept,
    /// Which routers there are behind the cable.
    search: Option<router_advertisement::port::Port>,
    /// Whether the next cable may be another one.
    lost_carrier: bool,
    carrier: bool,
    /// Whether it is set up, once it was.
    up: Option<bool>,
    packets: Packets,
    /// Whether what an earlier run of this program left was looked at.
    taken_up: bool,
    /// What the kernel refused last.
    refused: Option<String>,
}

impl HostLink {
    /// Sets the link up and does what its settings say. What fails is said and does not keep the rest from being done.
    pub async fn adopt(link: &Link, settings: LinkSettings, means: &Means) -> Self {
        let mut this = Self {
            index: link.index,
            name: link.name.clone(),
            packets: Packets::new(link, mtu_before(link, &settings, means)),
            settings,
            dhcp: None,
            dhcp_routes: Vec::new(),
            detection: None,
            detected: None,
            link_local: None,
            link_local_attempt: 0,
            dhcp6: None,
            given6: dhcp6::lease::Lease::default(),
            said: Routers::Nothing,
            advertised: router_advertisement::Kept::default(),
            search: None,
            lost_carrier: link.up && !link.carrier,
            carrier: false,
            up: None,
            taken_up: false,
            refused: None,
        };
        this.apply(link, means).await;
        this
    }

    /// Does what changed settings say, if they are others than before.
    pub async fn reconfigure(&mut self, link: &Link, settings: LinkSettings, means: &Means) -> bool {
        if self.settings == settings {
            return false;
        }
        for route in self.static_routes() {
            self.say(means.netlink.remove_route(&route).await);
        }
        let gone = |address: &&berth_config::Prefix| !settings.addresses.contains(address);
        let gone: Vec<_> = self.settings.addresses.iter().filter(gone).copied().collect();
        for address in gone {
            self.say(means.netlink.remove_address(self.index, address.address(), address.length()).await);
        }
        if !settings.uses_dhcp() {
            self.end_dhcp(means).await;
        } else if !settings.falls_back() {
            self.end_fall_back(means).await;
        }
        let is_deaf_now = self.settings.accepts_router_advertisements() && !settings.accepts_router_advertisements();
        // Routes of a lease have the link's metric and table.
        let again = self.lease().cloned().filter(|_| settings.uses_dhcp());
        for route in std::mem::take(&mut self.dhcp_routes) {
            self.say(means.netlink.remove_route(&route).await);
        }
        if !self.taken_up {
            self.packets.note_before(|| mtu_before(link, &settings, means));
        }
        self.settings = settings;
        self.refused = None;
        self.carrier = false;
        self.apply(link, means).await;
        if is_deaf_now {
            self.forget_routers(means).await;
        }
        if let Some(lease) = again {
            self.configure(&lease, means).await;
        }
        self.follow(link, means, crate::clock::now()).await;
        true
    }

    async fn apply(&mut self, link: &Link, means: &Means) {
        if self.settings.ipv6 == Ipv6::Off
            && let Err(error) = sysctl::disable_ipv6(&self.name)
        {
            report::failure(&error);
        }
        // What a lease of before has brought holds until its server has been asked.
        if self.dhcp.is_some() || !self.settings.uses_dhcp() || self.settings.mtu.is_some() {
            self.arrange_mtu(means).await;
        }
        let temporary = if self.settings.privacy { "2" } else { "0" };
        let switches: &[(&str, &str)] = match self.settings.ipv6 {
            // 2: also on a machine that forwards, which one with containers does.
            Ipv6::Auto => &[WAY_ROUND, ("disable_ipv6", "0"), ("accept_ra", "2"), ("use_tempaddr", temporary)],
            Ipv6::Static => &[WAY_ROUND, ("disable_ipv6", "0"), ("accept_ra", "0")],
            Ipv6::Off => &[],
        };
        let of_ipv6 = switches.iter().map(|switch| ("ipv6", switch));
        let of_ipv4 = [WAY_ROUND, OWN_ADDRESSES];
        for (family, (key, value)) in of_ipv4.iter().map(|switch| ("ipv4", switch)).chain(of_ipv6) {
            if let Err(error) = sysctl::set_link(family, &self.name, key, value) {
                report::failure(&error);
            }
        }
        if self.settings.accepts_router_advertisements() {
            let metric = self.settings.metric.unwrap_or(IPV6_METRIC).to_string();
            if let Err(error) = sysctl::set_link("ipv6", &self.name, "ra_defrtr_metric", &metric) {
                report::failure(&error);
            }
            if let Err(error) = sysctl::accept_routes(&self.name) {
                report::failure(&error);
            }
        }
        if let Some(mac) = self.settings.mac.map(|mac| mac.bytes()).filter(|mac| link.mac != Some(*mac)) {
            self.say(means.netlink.set_mac(self.index, &self.name, mac).await);
        }
        // Although it was up a moment ago: a bond that is removed sets its ports down when it has let them go.
        self.say(means.netlink.set_up(self.index, &self.name).await);
        self.give_fixed(means).await;
        self.begin_dhcp(link, means);
    }

    async fn give_fixed(&mut self, means: &Means) {
        for address in self.settings.addresses.clone() {
            let (address, length) = (address.address(), address.length());
            self.say(means.netlink.add_address(self.index, address, length, Lifetime::FOR_EVER, false).await);
        }
        for route in self.static_routes() {
            self.say(means.netlink.add_route(&route).await);
        }
    }

    /// Gives the link what the kernel takes away when somebody sets it down, if only for a moment, as some drivers do and as it
    /// does to what stands on such a link: routes, and addresses of IPv6.
    pub async fn give_again(&mut self, means: &Means, now: Duration) {
        self.refused = None;
        self.give_fixed(means).await;
        if let Some(lease) = self.lease().cloned() {
            self.configure(&lease, means).await;
        }
        self.give_again6(means, now).await;
    }

    /// The link's name, hardware address or carrier may have changed, or what routers say.
    pub async fn follow(&mut self, link: &Link, means: &Means, now: Duration) {
        self.name.clone_from(&link.name);
        self.packets.now = link.mtu;
        if link.up && self.up == Some(false) {
            self.give_again(means, now).await;
        }
        // A link that was never up was given everything when it was set up.
        self.up = if link.up { Some(true) } else { self.up.map(|_| false) };
        // A bond has the address of its first port from then on. Servers know clients by it.
        if self.dhcp.as_ref().is_some_and(|port| link.mac.is_some_and(|mac| mac != port.client().mac())) {
            self.end_dhcp(means).await;
            self.begin_dhcp(link, means);
            self.carrier = false;
        }
        if link.carrier != self.carrier {
            self.carrier = link.carrier;
            report::say(format_args!("{}: {}", self.name, if link.carrier { "carrier" } else { "no carrier" }));
            let event = if link.carrier { Event::CarrierUp } else { Event::CarrierLost };
            if !link.carrier {
                self.forget_detection();
            }
            self.dhcp_event(event, means, now).await;
            if let Some(address) = self.link_local.filter(|_| link.carrier) {
                self.ask_about(address, means, now).await;
            }
            self.seek_routers(link, means, now).await;
        }
        self.follow_routers(link, means, now).await;
    }

    /// Router advertisements that hold no longer are forgotten, and the DHCP clients get their timers.
    pub async fn tick(&mut self, means: &Means, now: Duration) {
        self.advertised.expire(now);
        let is_due = |deadline: Option<Duration>| deadline.is_some_and(|deadline| deadline <= now);
        if is_due(self.dhcp.as_ref().and_then(|port| port.client().deadline())) {
            self.dhcp_event(Event::Timer, means, now).await;
        }
        if is_due(self.dhcp6.as_ref().and_then(|port| port.client().deadline())) {
            self.dhcp6_event(dhcp6::client::Event::Timer, means, now).await;
        }
        if is_due(self.detection.as_ref().and_then(|port| port.detector().deadline())) {
            self.detect(means, now).await;
        }
        if is_due(self.search.as_ref().and_then(|port| port.search().deadline())) {
            self.search_routers(means, now).await;
        }
    }

    /// When [`Self::tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        let dhcp = self.dhcp.as_ref().and_then(|port| port.client().deadline());
        let dhcp6 = self.dhcp6.as_ref().and_then(|port| port.client().deadline());
        let detection = self.detection.as_ref().and_then(|port| port.detector().deadline());
        let search = self.search.as_ref().and_then(|port| port.search().deadline());
        [self.advertised.deadline(), dhcp, dhcp6, detection, search].into_iter().flatten().min()
    }

    /// The lease in use.
    pub fn lease(&self) -> Option<&Lease> {
        self.dhcp.as_ref()?.client().lease()
    }

    /// Whether it has not been given an address of the family yet that others give.
    pub fn awaits(&self, link: &Link, ipv4: bool) -> bool {
        if ipv4 {
            return self.dhcp.is_some() && self.lease().is_none();
        }
        let is_given = |(address, facts): (&IpAddr, &Address)| {
            address.is_ipv6() && facts.global && !(facts.own && facts.permanent)
        };
        link.ethernet && self.settings.accepts_router_advertisements() && !link.addresses.iter().any(is_given)
    }

    /// Whether anybody can be reached by it.
    pub fn has_carrier(&self) -> bool {
        self.carrier
    }

    /// What it knows about names, the configuration's first.
    pub fn names(&self) -> Names {
        let text = |address: IpAddr| server_text(address, &self.name);
        let mut names = Names { servers: self.settings.dns.iter().copied().map(text).collect(), search: Vec::new() };
        if let Some(lease) = self.lease() {
            names.servers.extend(lease.dns_servers.iter().map(Ipv4Addr::to_string));
            names.search.extend(lease.search.iter().cloned());
        }
        names.servers.extend(self.given6.dns_servers.iter().copied().map(IpAddr::V6).map(text));
        names.search.extend(self.given6.search.iter().cloned());
        names.servers.extend(self.advertised.servers().copied().map(IpAddr::V6).map(text));
        names.search.extend(self.advertised.domains().cloned());
        names
    }

    /// Who can be asked for the time, as DHCP servers say.
    pub fn time_servers(&self) -> Vec<String> {
        let of_lease = self.lease().into_iter().flat_map(|lease| &lease.ntp_servers).copied().map(IpAddr::V4);
        let of_lease6 = self.given6.ntp_servers.iter().copied().map(IpAddr::V6);
        of_lease.chain(of_lease6).map(|address| server_text(address, &self.name)).collect()
    }

    /// What the link lacks, for people.
    pub fn missing(&self, link: &Link) -> Vec<String> {
        let mut missing: Vec<String> = self.refused.iter().chain(self.packets.refused()).cloned().collect();
        if !link.up {
            missing.push("the link is down".to_owned());
        } else if !link.carrier {
            missing.push("no carrier: is the cable plugged in, and the other end on?".to_owned());
            return missing;
        }
        let taken = |address| format!("another machine has the address {address}: give one of the two another");
        missing.extend(link.taken.iter().map(taken));
        missing.extend(self.dhcp.as_ref().and_then(|port| port.client().trouble()));
        missing.extend(self.dhcp6.as_ref().and_then(|port| port.client().trouble()));
        if let Some(address) = self.link_local {
            missing.push(format!("has no address but {address}, which is good on this link only"));
        }
        missing
    }

    /// Whose its leases are, under this hardware address.
    fn owner(&self, mac: Mac) -> Owner<'_> {
        owner(mac, &self.name, &self.settings)
    }

    fn say(&mut self, done: Result<(), NetlinkError>) {
        if let Err(error) = done {
            let text = report::chain(&error);
            report::say(format_args!("{}: {text}", self.name));
            self.refused = Some(text);
        }
    }
}

/// Whose leases a link's are.
fn owner<'a>(mac: Mac, name: &'a str, settings: &LinkSettings) -> Owner<'a> {
    Owner { mac, made: settings.made().is_some().then_some(name) }
}
