//! What routers have brought to a link: it goes when nobody listens to them, or when others are behind the cable.
//!
//! Must not touch what others have made: the kernel keeps with addresses and routes that a router brought them.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use berth_config::Prefix;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};

use super::{HostLink, Means};
use crate::link::{self, Address, Link, Routers};
use crate::netlink::{self, NetlinkError};
use crate::report;
use crate::router_advertisement::Advertised;
use crate::router_advertisement::packet::Advertisement;
use crate::router_advertisement::port::Port;
use crate::router_advertisement::search::Found;

impl HostLink {
    /// A router has said something about names.
    pub fn advertise(&mut self, advertised: Advertised, now: Duration) {
        if self.settings.accepts_router_advertisements() {
            self.advertised.hear(advertised, now);
        }
    }

    /// The carrier has gone or come. What was there stays until it is known who is behind the cable now.
    pub(super) async fn seek_routers(&mut self, link: &Link, means: &Means, now: Duration) {
        if !link.carrier {
            self.search = None;
            self.lost_carrier = true;
        } else if std::mem::take(&mut self.lost_carrier) && self.settings.accepts_router_advertisements() {
            match Port::open(self.index, means.heard_routers.clone(), now) {
                Ok(port) => self.search = Some(port),
                Err(error) => report::say(format_args!("{}: listen for routers: {error}", self.name)),
            }
            self.search_routers(means, now).await;
        }
    }

    /// Whether it is not known yet which routers there are.
    pub(super) fn is_searching(&self) -> bool {
        self.search.is_some()
    }

    /// A router has said something, whatever it is.
    pub fn hear_router(&mut self, advertisement: Advertisement, now: Duration) {
        if let Some(port) = &mut self.search {
            port.hear(advertisement, now);
        }
    }

    /// Does what is due.
    pub(super) async fn search_routers(&mut self, means: &Means, now: Duration) {
        let Some(port) = &mut self.search else { return };
        match port.tick(now) {
            Ok(None) => {}
            Ok(Some(found)) => {
                self.advertised.forget_before(port.search().began());
                self.search = None;
                if self.settings.accepts_router_advertisements() {
                    self.keep_of_routers(&found, means).await;
                }
            }
            Err(error) => report::say(format_args!("{}: ask routers: {error}", self.name)),
        }
    }

    /// Takes away what routers have brought: nobody listens to them any more, and the kernel would keep it for days.
    pub(super) async fn forget_routers(&mut self, means: &Means) {
        self.search = None;
        self.said = Routers::Nothing;
        self.advertised.clear();
        self.keep_of_routers(&Found::default(), means).await;
    }

    /// Takes away what routers have brought that are not among these.
    async fn keep_of_routers(&mut self, found: &Found, means: &Means) {
        let done = self.keep_addresses(found, means).await;
        self.say(done);
        let done = self.keep_routes(found, means).await;
        self.say(done);
    }

    async fn keep_addresses(&mut self, found: &Found, means: &Means) -> Result<(), NetlinkError> {
        for (address, facts) in self.addresses6(means).await?.into_iter().filter(|(_, facts)| facts.by_router) {
            let stays = |it: &Prefix| it.length() == facts.prefix_length && it.contains(address);
            if found.prefixes.iter().any(stays) {
                continue;
            }
            report::say(format_args!("{}: {address} is no router's any more", self.name));
            match means.netlink.remove_address(self.index, address, facts.prefix_length).await {
                // A temporary one goes with the one that it was made for.
                Err(error) if error.number() == libc::EADDRNOTAVAIL => {}
                done => self.say(done),
            }
        }
        Ok(())
    }

    async fn keep_routes(&mut self, found: &Found, means: &Means) -> Result<(), NetlinkError> {
        // An address that somebody gave for a time has a route of the kernel's own too.
        let stay = self.addresses6(means).await?.into_iter();
        let stay = stay.filter_map(|(address, facts)| Prefix::new(address, facts.prefix_length));
        let stay: Vec<Prefix> = stay.chain(found.prefixes.iter().copied()).collect();
        let is_of_them =
            |network: Prefix| stay.iter().any(|it| it.length() == network.length() && it.overlaps(network));
        // What is on the link is a route of the kernel's own, which ends as only those do.
        let ends = |fact: &RouteAttribute| matches!(fact, RouteAttribute::CacheInfo(facts) if facts.expires != 0);
        for route in means.netlink.routes(AddressFamily::Inet6).await? {
            let goes = match route.header.protocol {
                RouteProtocol::Ra => !gateway(&route).is_some_and(|router| found.routers.contains(&router)),
                RouteProtocol::Kernel => {
                    route.attributes.iter().any(ends) && !netlink::destination(&route).is_some_and(is_of_them)
                }
                _ => false,
            };
            if goes && route.attributes.contains(&RouteAttribute::Oif(self.index)) {
                self.say(means.netlink.remove_route_as_it_is(route).await);
            }
        }
        Ok(())
    }

    /// Its addresses of IPv6: what was noticed of them may be of a moment ago.
    async fn addresses6(&self, means: &Means) -> Result<Vec<(IpAddr, Address)>, NetlinkError> {
        let present = means.netlink.addresses().await?;
        let on_link = present.iter().filter(|message| message.header.index == self.index).filter_map(link::read);
        Ok(on_link.filter(|(address, _)| address.is_ipv6()).collect())
    }
}

fn gateway(route: &RouteMessage) -> Option<Ipv6Addr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => Some(*address),
        _ => None,
    })
}
