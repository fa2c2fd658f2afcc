//! What an earlier run of this program left on a link: what is still wanted is taken up, the rest is removed.
//!
//! Must not touch what others have made: addresses are known by the protocol that the kernel keeps with each, routes by those
//! of configuration and DHCP.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;

use super::{HostLink, Means};
use crate::dhcp::lease::Lease;
use crate::dhcp6::message::Granted;
use crate::link::{Address, Link};
use crate::netlink::Route;
use crate::{report, router_advertisement};

impl HostLink {
    /// Does so once. The configuration has to be known: before, nobody knows what is wanted.
    pub async fn take_up(&mut self, link: &Link, means: &Means) {
        if std::mem::replace(&mut self.taken_up, true) {
            return;
        }
        let kept = link.mac.filter(|_| self.settings.uses_dhcp()).and_then(|mac| means.leases.load(self.owner(mac)));
        // Before the addresses: the kernel takes some routes away with those.
        self.take_up_routes(kept.as_ref(), means).await;
        for (address, facts) in link.addresses.iter().filter(|(_, facts)| facts.own) {
            if !self.takes_up(*address, *facts, kept.as_ref()) {
                report::say(format_args!("{}: {address} is not wanted any more", self.name));
                self.say(means.netlink.remove_address(self.index, *address, facts.prefix_length).await);
            }
        }
        if !self.settings.accepts_router_advertisements() {
            self.forget_routers(means).await;
        }
        // What routers have said of names is forgotten, and they may not repeat it for long.
        if link.carrier
            && self.settings.accepts_router_advertisements()
            && let Err(error) = router_advertisement::solicit(self.index)
        {
            report::say(format_args!("{}: ask routers: {error}", self.name));
        }
    }

    fn takes_up(&mut self, address: IpAddr, facts: Address, kept: Option<&Lease>) -> bool {
        let is_fixed = |own: &berth_config::Prefix| (own.address(), own.length()) == (address, facts.prefix_length);
        if self.settings.addresses.iter().any(is_fixed) {
            return true;
        }
        match address {
            // Until the DHCP client says otherwise.
            IpAddr::V4(address) if kept.is_some_and(|kept| kept.address == address) => true,
            IpAddr::V4(address) => {
                let stays = address.is_link_local() && self.settings.uses_dhcp() && self.settings.falls_back();
                self.link_local = self.link_local.or(stays.then_some(address));
                stays
            }
            // A lease of DHCPv6: the next one says whether it stays, and without one it ends.
            IpAddr::V6(address) => {
                let stays = !facts.permanent && self.settings.accepts_router_advertisements();
                if stays && !self.given6.addresses.iter().any(|granted| granted.address == address) {
                    self.given6.addresses.push(Granted { address, preferred: 0, valid: 0 });
                }
                stays
            }
        }
    }

    async fn take_up_routes(&mut self, kept: Option<&Lease>, means: &Means) {
        let (fixed, of_lease) = (self.static_routes(), kept.map_or_else(Vec::new, |lease| self.lease_routes(lease)));
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let present = match means.netlink.routes(family).await {
                Ok(present) => present,
                Err(error) => return self.say(Err(error)),
            };
            let link = self.index;
            for route in present.iter().filter_map(Route::read).filter(|route| route.link == link) {
                if let Some(wanted) = of_lease.iter().find(|wanted| wanted.is_same(&route)) {
                    if !self.dhcp_routes.contains(wanted) {
                        self.dhcp_routes.push(wanted.clone());
                    }
                } else if !fixed.iter().any(|wanted| wanted.is_same(&route)) {
                    self.say(means.netlink.remove_route(&route).await);
                }
            }
        }
    }
}
