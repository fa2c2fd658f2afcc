//! Links as the kernel has them: who looks after which, from when it is there until it is gone.

use berth_config::{Ipv6, LinkName, LinkSettings, Made, Network};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};

use super::{Service, ServiceError};
use crate::host_link::HostLink;
use crate::link::{self, Link, LinkTable};
use crate::netlink::{Netlink, NetlinkError};
use crate::{clock, made, report};

impl Service {
    /// Follows what the kernel says of links and addresses. Says whether it was about the machine's own: of those of containers, of
    /// which there are many, nobody is told.
    pub(super) async fn kernel(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) -> Result<bool, ServiceError> {
        let is_told = match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                let index = link.header.index;
                let before = self.place_of(index);
                if self.table.update_routers(&link) {
                    self.adopt(index).await;
                } else if self.table.update(&link) {
                    if self.place_of(index) != before {
                        self.arrange().await;
                        self.adopt_all().await;
                    }
                    self.adopt(index).await;
                    self.follow_below().await;
                }
                before.is_some() || self.is_of_machine(index)
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                let gone = self.table.remove(&link);
                if let Some(link) = gone.as_ref().filter(|link| link.is_own()) {
                    self.containers.lose_bridge(link.index, &self.table).await;
                }
                let gone = gone.filter(|link| !link.is_own());
                if let Some(link) = &gone {
                    self.entries.remove(&link.index);
                    if self.links.remove(&link.index).is_some() {
                        report::say(format_args!("{}: gone", link.name));
                    }
                    self.arrange().await;
                }
                gone.is_some()
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                self.table.update_address(&address);
                self.conflict6(&address).await;
                self.is_of_machine(address.header.index)
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(address)) => {
                self.table.remove_address(&address);
                self.conflict6(&address).await;
                self.is_of_machine(address.header.index)
            }
            // More happened than the socket could hold: what is there now counts, not how it came about.
            NetlinkPayload::Overrun(_) => {
                self.look_around().await?;
                true
            }
            _ => false,
        };
        Ok(is_told)
    }

    /// An address that another machine has may be one of DHCPv6, of which the server is told.
    async fn conflict6(&mut self, message: &AddressMessage) {
        if let (Some(taken), Some(link)) = (link::taken_address(message), self.links.get_mut(&message.header.index)) {
            link.conflict6(taken, &self.means, clock::now()).await;
        }
    }

    fn is_of_machine(&self, index: u32) -> bool {
        self.table.find(index).is_some_and(|link| !link.is_own())
    }

    /// What others' places may depend on; `None` for links of containers.
    fn place_of(&self, index: u32) -> Option<(String, Option<u32>, String)> {
        let link = self.table.find(index).filter(|link| !link.is_own())?;
        Some((link.name.clone(), link.controller, link.alias.clone()))
    }

    /// Asks the kernel for everything.
    async fn look_around(&mut self) -> Result<(), ServiceError> {
        let before = std::mem::take(&mut self.table);
        read_links(&self.means.netlink, &mut self.table).await?;
        self.table.remember_missed(&before);
        let table = &self.table;
        self.links.retain(|index, _| table.find(*index).is_some());
        self.entries.retain(|index, _| table.find(*index).is_some());
        self.containers.lose_missed(&self.table).await;
        self.arrange().await;
        self.adopt_all().await;
        // Each may have been down, or another machine may have an address of it.
        for host_link in self.links.values_mut() {
            host_link.give_again(&self.means, clock::now()).await;
        }
        Ok(())
    }

    pub(super) async fn adopt_all(&mut self) {
        let indices: Vec<u32> = self.table.iter().map(|link| link.index).collect();
        for index in indices {
            self.adopt(index).await;
        }
        self.follow_below().await;
    }

    /// Links on others may have waited for these to take larger packets.
    async fn follow_below(&mut self) {
        for (index, host_link) in &mut self.links {
            let below = self.table.find(*index).and_then(|link| link.below).and_then(|below| self.table.find(below));
            if let Some(below) = below {
                host_link.follow_below(below.mtu, &self.means).await;
            }
        }
    }

    /// Looks after a link as the configuration says, from now on or still.
    async fn adopt(&mut self, index: u32) {
        let Some(link) = self.table.find(index) else { return };
        if link.loopback && !link.up {
            if let Err(error) = self.means.netlink.set_up(index, &link.name).await {
                report::failure(&error);
            }
            return;
        }
        let (entry, settings) = settings(self.network.as_ref(), &self.table, link);
        match entry {
            Some(entry) => drop(self.entries.insert(index, entry)),
            None => drop(self.entries.remove(&index)),
        }
        let is_known = self.network.is_some();
        match (self.links.get_mut(&index), settings) {
            (Some(host_link), Some(settings)) => {
                let changed = host_link.reconfigure(link, settings, &self.means).await;
                if is_known {
                    host_link.take_up(link, &self.means).await;
                }
                host_link.follow(link, &self.means, clock::now()).await;
                if changed {
                    self.table.forget_missed(index);
                }
            }
            (Some(_), None) => {
                self.links.remove(&index);
            }
            (None, Some(settings)) => {
                let mut host_link = HostLink::adopt(link, settings, &self.means).await;
                if is_known {
                    host_link.take_up(link, &self.means).await;
                }
                host_link.follow(link, &self.means, clock::now()).await;
                self.links.insert(index, host_link);
            }
            (None, None) => {}
        }
    }
}

/// Asks the kernel for every link and address.
pub(super) async fn read_links(netlink: &Netlink, table: &mut LinkTable) -> Result<(), NetlinkError> {
    table.clear();
    for link in netlink.links().await? {
        table.update(&link);
    }
    for address in netlink.addresses().await? {
        table.update_address(&address);
    }
    Ok(())
}

/// The entry that is for a link, and what is to be done with it; `None` if nothing.
fn settings(network: Option<&Network>, table: &LinkTable, link: &Link) -> (Option<LinkName>, Option<LinkSettings>) {
    if link.loopback || link.is_own() {
        return (None, None);
    }
    let nothing = Network::default();
    let network = network.unwrap_or(&nothing);
    made::with_identity(link, |identity| {
        let (entry, configured) = network.link_settings(identity).map(|(name, it)| (name.clone(), it.clone())).unzip();
        let settings = match network.controller(identity).and_then(|(_, controller)| controller.made()) {
            Some(Made::Vrf(vrf)) => {
                let settings = configured.unwrap_or_default();
                Some(LinkSettings { table: settings.table.or(Some(vrf.table)), ..settings })
            }
            // A port has no addresses of its own.
            Some(_) => {
                let (mtu, mac) = configured.map_or((None, None), |settings| (settings.mtu, settings.mac));
                Some(LinkSettings { dhcp: Some(false), ipv6: Ipv6::Off, mtu, mac, ..LinkSettings::default() })
            }
            None => configured.or_else(|| table.is_card(link).then(LinkSettings::default)),
        };
        (entry, settings)
    })
}
