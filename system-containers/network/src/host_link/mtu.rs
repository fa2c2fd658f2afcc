//! The largest packet of a link, which a link on another one can have only when that has it too.

use berth_config::{Ipv6, LinkSettings, Mtu};

use super::{HostLink, Means, owner};
use crate::dhcp::lease::Lease;
use crate::link::Link;
use crate::report;

/// IEEE 802.3, in bytes.
const ETHERNET_MTU: u32 = 1500;
/// The smallest MTU that a link with IPv6 has (RFC 8200, section 5), in bytes. With less the kernel takes IPv6 off it, with all
/// its switches.
const IPV6_LEAST_MTU: u32 = 1280;

/// The largest packets of a link and of the one below, in bytes.
#[derive(Debug)]
pub(super) struct Packets {
    /// As the kernel has it.
    pub(super) now: u32,
    /// That of before anybody gave it another one.
    own: Option<u32>,
    /// Of the link that this one stands on, when it was last looked at.
    below: u32,
    /// What the kernel said to the last that was wanted.
    refused: Option<String>,
}

impl Packets {
    pub(super) fn new(link: &Link, own: Option<u32>) -> Self {
        Self { now: link.mtu, own, below: 0, refused: None }
    }

    pub(super) fn note_before(&mut self, before: impl FnOnce() -> Option<u32>) {
        self.own = self.own.or_else(before);
    }

    pub(super) fn refused(&self) -> Option<&String> {
        self.refused.as_ref()
    }
}

impl HostLink {
    /// The MTU of the configuration, else that of the lease.
    fn wanted_mtu(&self) -> Option<u32> {
        let of_lease = || mtu_of(self.lease()?, &self.settings);
        self.settings.mtu.map(Mtu::bytes).or_else(of_lease)
    }

    /// Gives the link the MTU that is wanted, else the one that it had before.
    pub(super) async fn arrange_mtu(&mut self, means: &Means) {
        let mtu = match self.wanted_mtu() {
            Some(wanted) => {
                self.packets.own.get_or_insert(self.packets.now);
                wanted
            }
            None => self.packets.own.take().unwrap_or(self.packets.now),
        };
        if mtu == self.packets.now {
            self.packets.refused = None;
        } else {
            self.set_mtu(mtu, means).await;
        }
    }

    /// The link below may take larger packets than before: what it was too small for is tried again.
    pub async fn follow_below(&mut self, below: u32, means: &Means) {
        let has_grown = below > std::mem::replace(&mut self.packets.below, below);
        if let Some(wanted) = self.wanted_mtu().filter(|wanted| has_grown && *wanted > self.packets.now) {
            self.set_mtu(wanted, means).await;
        }
    }

    async fn set_mtu(&mut self, mtu: u32, means: &Means) {
        let refused = match means.netlink.set_mtu(self.index, &self.name, mtu).await {
            Ok(()) => {
                self.packets.now = mtu;
                None
            }
            Err(error) => Some(report::chain(&error)),
        };
        if let Some(text) = refused.as_ref().filter(|text| self.packets.refused.as_ref() != Some(text)) {
            report::say(format_args!("{}: {text}", self.name));
        }
        self.packets.refused = refused;
    }
}

/// What a lease says of it, as far as the link can have that.
fn mtu_of(lease: &Lease, settings: &LinkSettings) -> Option<u32> {
    let least = if settings.ipv6 == Ipv6::Off { 0 } else { IPV6_LEAST_MTU };
    lease.mtu.map(|mtu| u32::from(mtu).max(least))
}

/// What a link had before the configuration or a lease of an earlier run of this program: that of Ethernet, as nobody has
/// noted it.
pub(super) fn mtu_before(link: &Link, settings: &LinkSettings, means: &Means) -> Option<u32> {
    let kept = link.mac.and_then(|mac| means.leases.load::<Lease>(owner(mac, &link.name, settings)));
    let kept = kept.and_then(|lease| mtu_of(&lease, settings));
    let is_given = [settings.mtu.map(Mtu::bytes), kept].contains(&Some(link.mtu));
    (is_given && link.ethernet).then_some(ETHERNET_MTU)
}
