//! Links that are made, not found: bonds, VLANs, bridges, dummies, VRFs, WireGuard tunnels.

use serde::{Deserialize, Serialize};

use super::{Bond, LinkName, LinkSettings, WireGuard};
use crate::container::is_default;
use crate::quantities::TimeSpan;

/// One VLAN of another link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Vlan {
    /// The link's name, or that of an entry with `match`.
    pub link: LinkName,
    /// 1 to 4094.
    pub id: u16,
    /// The tag's kind.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: VlanProtocol,
}

/// How packets are tagged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum VlanProtocol {
    /// Customers' tags.
    #[default]
    #[serde(rename = "802.1q")]
    Customer,
    /// Providers' tags.
    #[serde(rename = "802.1ad")]
    Provider,
}

/// A switch in the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Bridge {
    /// Names of its links, or of entries with `match`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<LinkName>,
    /// Whether loops are looked for.
    #[serde(skip_serializing_if = "is_default")]
    pub stp: bool,
    /// For the choice of the tree's root: the lowest wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// How long a new port listens, with `stp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_delay: Option<TimeSpan>,
    /// How long an address is remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ageing_time: Option<TimeSpan>,
    /// Whether multicast goes only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multicast_snooping: Option<bool>,
    /// Whether VLANs are kept apart.
    #[serde(skip_serializing_if = "is_default")]
    pub vlan_filtering: bool,
}

/// Routing of its own for some links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Vrf {
    /// The number of its routing table.
    pub table: u32,
    /// Names of its links, or of entries with `match`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<LinkName>,
}

/// What kind of link an entry makes.
#[derive(Clone, Copy, Debug)]
pub enum Made<'a> {
    /// Several links as one.
    Bond(&'a Bond),
    /// One VLAN of a link.
    Vlan(&'a Vlan),
    /// A switch.
    Bridge(&'a Bridge),
    /// Nothing leads out of it.
    Dummy,
    /// Routing of its own.
    Vrf(&'a Vrf),
    /// A tunnel.
    WireGuard(&'a WireGuard),
}

impl Made<'_> {
    /// The key in the configuration, which is the kernel's name for it too.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Bond(_) => "bond",
            Self::Vlan(_) => "vlan",
            Self::Bridge(_) => "bridge",
            Self::Dummy => "dummy",
            Self::Vrf(_) => "vrf",
            Self::WireGuard(_) => "wireguard",
        }
    }
}

impl LinkSettings {
    /// Everything that the entry makes; more than one is a mistake.
    pub(crate) fn all_made(&self) -> impl Iterator<Item = Made<'_>> {
        let all = [
            self.bond.as_ref().map(Made::Bond),
            self.vlan.as_ref().map(Made::Vlan),
            self.bridge.as_ref().map(Made::Bridge),
            self.dummy.then_some(Made::Dummy),
            self.vrf.as_ref().map(Made::Vrf),
            self.wireguard.as_ref().map(Made::WireGuard),
        ];
        all.into_iter().flatten()
    }

    /// What the entry makes; `None` if it is about a link that is there anyway.
    pub fn made(&self) -> Option<Made<'_>> {
        self.all_made().next()
    }

    /// The links that hang on this one.
    pub fn ports(&self) -> &[LinkName] {
        match self.made() {
            Some(Made::Bond(bond)) => &bond.ports,
            Some(Made::Bridge(bridge)) => &bridge.ports,
            Some(Made::Vrf(vrf)) => &vrf.ports,
            _ => &[],
        }
    }

    /// One link that must be there for this one to work, by its place in the entry.
    pub(crate) fn below(&self, index: usize) -> Option<&LinkName> {
        match &self.vlan {
            Some(vlan) => Some(&vlan.link).filter(|_| index == 0),
            None => self.ports().get(index),
        }
    }
}
