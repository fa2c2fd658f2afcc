//! What containers and services leave: all of it goes with them, or with the next start of this program.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::attachment::{Attachment, Cable};
use super::{Containers, bridge, services};
use crate::link::LinkTable;
use crate::nftables::conntrack::Gone;
use crate::report;

impl Containers {
    /// PID 1 has named all containers that run: the others ended while this program was away.
    pub async fn detach_unnamed(&mut self) {
        for name in std::mem::take(&mut self.unnamed) {
            self.detach(&name).await;
        }
    }

    /// Takes back what a container had. What fails is said; the rest is done all the same.
    pub async fn detach(&mut self, name: &str) {
        self.unnamed.remove(name);
        let Some(attachment) = self.attachments.remove(name) else { return };
        self.resolvers.directory().remove(name);
        self.resolvers.leave(name);
        self.lookouts.leave(name);
        let bridged = || attachment.cables.iter().filter(|cable| cable.bridged);
        // Before its rules go: nobody is to reach it without them.
        for cable in bridged() {
            if let Err(error) = bridge::disconnect(&self.netlink, cable).await {
                report::failure(&error);
            }
        }
        self.publish(&attachment.wanted.service);
        self.watch_over();
        for cable in bridged() {
            self.remove_service(cable).await;
        }
        self.forget(&attachment);
    }

    /// Takes the address of a service from its bridge if this was its last container there.
    async fn remove_service(&self, cable: &Cable) {
        let Some((ipv4, ipv6)) = cable.service else { return };
        let Some(bridge) = self.networks.get(&cable.network).and_then(|network| network.bridge) else { return };
        let addresses = [(IpAddr::V4(ipv4), 32), (IpAddr::V6(ipv6), 128)];
        let is_left = |address| self.attachments.with_address(address).is_none();
        for (address, length) in addresses.into_iter().filter(|(address, _)| is_left(*address)) {
            match self.netlink.remove_address(bridge, address, length).await {
                // Without IPv6 it was never there.
                Err(error) if error.number() != libc::EADDRNOTAVAIL => report::failure(&error),
                _ => {}
            }
        }
    }

    /// Removes links of ours that nobody has.
    pub(super) async fn remove_unknown(&self, table: &LinkTable) {
        let cables = self.attachments.iter().flat_map(|attachment| attachment.cables.iter().map(Cable::link_name));
        let bridges = self.networks.live().map(|(_, network)| network.bridge_name());
        let known: BTreeSet<String> = cables.chain(bridges).collect();
        for link in table.iter().filter(|link| link.is_own() && !known.contains(&link.name)) {
            // The other end of a cable may have taken it along.
            match self.netlink.remove_link(link.index, &link.name).await {
                Err(error) if error.number() != libc::ENODEV => report::failure(&error),
                _ => {}
            }
        }
    }

    /// Removes addresses of services that have no container any more.
    pub(super) async fn remove_unknown_addresses(&self, table: &LinkTable) {
        for (_, network) in self.networks.live() {
            let services = services::on_bridge(network.number, &self.attachments);
            let gateways = [IpAddr::V4(network.subnets.gateway4), IpAddr::V6(network.subnets.gateway6)];
            let link = network.bridge.and_then(|bridge| table.find(bridge));
            for (address, facts) in link.into_iter().flat_map(|link| &link.addresses) {
                let is_known = services.contains(address) || gateways.contains(address) || !facts.global;
                if let (false, Some(bridge)) = (is_known, network.bridge)
                    && let Err(error) = self.netlink.remove_address(bridge, *address, facts.prefix_length).await
                {
                    report::failure(&error);
                }
            }
        }
    }

    /// Its file, and connections that would go on to where nobody is, or to whoever has the address next.
    pub(super) fn forget(&self, attachment: &Attachment) {
        let bridged = attachment.cables.iter().filter(|cable| cable.bridged);
        let addresses = bridged.flat_map(|cable| [IpAddr::V4(cable.ipv4), IpAddr::V6(cable.ipv6)]);
        self.published.forget(addresses.map(Gone::Address));
        let name = &attachment.wanted.name;
        if let Err(error) = self.store.remove(name) {
            report::say(format_args!("forget the addresses of {name}: {error}"));
        }
    }
}
