//! A link's IPv6 addresses that neither the configuration nor the kernel makes: by DHCPv6, where routers say so.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol};

use super::{HostLink, Means};
use crate::dhcp6::client::{Client, Event, Lease, Wanted};
use crate::dhcp6::port::{Outcome, Port};
use crate::link::{self, Address, Link, Routers};
use crate::netlink::Lifetime;
use crate::report;

/// DHCPv6 says nothing of networks: what is on the link, routers say (RFC 5942).
const LENGTH: u8 = 128;

impl HostLink {
    /// What is asked of DHCPv6 servers: what the configuration says, else what routers do.
    fn wanted6(&self, link: &Link) -> Wanted {
        if !self.settings.accepts_router_advertisements() {
            return Wanted::Nothing;
        }
        match (self.settings.dhcp6, link.routers) {
            (Some(false), _) | (None, Routers::Nothing) => Wanted::Nothing,
            (Some(true), _) | (None, Routers::Managed) => Wanted::Addresses,
            (None, Routers::Other) => Wanted::Information,
        }
    }

    pub(super) async fn follow_routers(&mut self, link: &Link, means: &Means, now: Duration) {
        let wanted = self.wanted6(link);
        let Some(mac) = link.mac else { return };
        if self.dhcp6.as_ref().is_some_and(|port| port.client().mac() != mac) {
            self.dhcp6_event(Event::Want(Wanted::Nothing), means, now).await;
            self.dhcp6 = None;
        }
        if self.dhcp6.is_none() && wanted != Wanted::Nothing {
            let client = Client::new(mac, means.seed ^ u64::from(self.index).rotate_left(32));
            self.dhcp6 = Some(Port::new(self.index, client, means.heard6.clone()));
        }
        let event = match wanted {
            Wanted::Nothing => Event::Want(wanted),
            _ if !link.carrier => Event::CarrierLost,
            _ => Event::Want(wanted),
        };
        self.dhcp6_event(event, means, now).await;
    }

    /// Takes away what routers have brought: nobody listens to them any more, and the kernel would keep it for days.
    pub(super) async fn forget_routers(&mut self, means: &Means) {
        self.advertised.clear();
        // What was noticed of addresses may be of a moment ago.
        let present = means.netlink.addresses().await.unwrap_or_default();
        let on_link = present.iter().filter(|message| message.header.index == self.index).filter_map(link::read);
        // Those that end and are not ours.
        let by_routers =
            on_link.filter(|(address, facts)| address.is_ipv6() && facts.global && !facts.own && !facts.permanent);
        let by_routers: Vec<(IpAddr, Address)> = by_routers.collect();
        for (address, facts) in by_routers {
            match means.netlink.remove_address(self.index, address, facts.prefix_length).await {
                // A temporary one goes with the one that it was made for.
                Err(error) if error.number() == libc::EADDRNOTAVAIL => {}
                done => self.say(done),
            }
        }
        let routes = means.netlink.routes(AddressFamily::Inet6).await.unwrap_or_default();
        // What is on the link is a route of the kernel's own, which ends as only those do.
        let ends = |fact: &RouteAttribute| matches!(fact, RouteAttribute::CacheInfo(facts) if facts.expires != 0);
        let by_routers = routes.into_iter().filter(|route| {
            let protocol = route.header.protocol;
            let is_from_them =
                protocol == RouteProtocol::Ra || protocol == RouteProtocol::Kernel && route.attributes.iter().any(ends);
            is_from_them && route.attributes.contains(&RouteAttribute::Oif(self.index))
        });
        let by_routers: Vec<RouteMessage> = by_routers.collect();
        for route in by_routers {
            self.say(means.netlink.remove_route_as_it_is(route).await);
        }
    }

    /// Gives its DHCPv6 client an event.
    pub async fn dhcp6_event(&mut self, event: Event, means: &Means, now: Duration) {
        let Some(port) = &mut self.dhcp6 else { return };
        for outcome in port.step(&self.name, now, event) {
            match outcome {
                Outcome::Configure(lease) => self.configure6(lease, means).await,
                Outcome::Report(text) => report::say(format_args!("{}: {text}", self.name)),
            }
        }
    }

    /// The kernel has found another machine with the address.
    pub async fn conflict6(&mut self, address: Ipv6Addr, means: &Means, now: Duration) {
        self.dhcp6_event(Event::Conflict(address), means, now).await;
    }

    async fn configure6(&mut self, lease: Lease, means: &Means) {
        for granted in &lease.addresses {
            let lifetime = Lifetime { preferred: granted.preferred, valid: granted.valid };
            let done = means.netlink.add_address(self.index, granted.address.into(), LENGTH, lifetime, false).await;
            if done.is_ok() && !self.given6.addresses.iter().any(|before| before.address == granted.address) {
                report::say(format_args!("{}: {} by DHCPv6 for {} s", self.name, granted.address, granted.valid));
            }
            self.say(done);
        }
        let before = std::mem::replace(&mut self.given6, lease);
        let stays = |address: Ipv6Addr, lease: &Lease| lease.addresses.iter().any(|granted| granted.address == address);
        for granted in before.addresses {
            if !stays(granted.address, &self.given6) {
                match means.netlink.remove_address(self.index, granted.address.into(), LENGTH).await {
                    // It has ended.
                    Err(error) if error.number() == libc::EADDRNOTAVAIL => {}
                    done => self.say(done),
                }
            }
        }
    }
}
