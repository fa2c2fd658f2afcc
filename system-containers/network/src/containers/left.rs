//! What is there of containers and services that nobody has any more.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::attachment::Cable;
use super::{Containers, services};
use crate::link::LinkTable;
use crate::report;

impl Containers {
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
}
