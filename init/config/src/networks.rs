//! `[networks.<name>]`: bridges that containers are joined by.
//!
//! A container is on the network [`ContainerNetwork::DEFAULT`] if it names none; that one is there without being declared.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::container::{Bandwidth, is_default};
use crate::names::{NameError, check_container_name};
use crate::network::{LinkName, Mtu, Prefix};
use crate::peers::{Access, Peers};
use crate::text::checked_string;

checked_string! {
    /// The name of a network of containers.
    NetworkName, NameError, check_container_name,
    "a name of at most 63 small letters, digits, \"-\", \"_\" and \".\" that starts and ends with a letter or digit"
}

impl NetworkName {
    /// [`ContainerNetwork::DEFAULT`].
    pub(crate) fn of_all() -> Self {
        Self(ContainerNetwork::DEFAULT.to_owned())
    }
}

/// What joins the containers of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NetworkDriver {
    /// A bridge of the machine, which is also their router.
    #[default]
    Bridge,
    /// Each has a hardware address of its own on `parent`, as if it were a machine there.
    Macvlan,
    /// All have the hardware address of `parent`.
    Ipvlan,
}

/// How containers on a `parent` reach it and each other (ip-link(8)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ParentMode {
    /// macvlan: they reach each other directly.
    Bridge,
    /// macvlan: they do not reach each other.
    Private,
    /// macvlan: they reach each other by a switch that sends back what came from it.
    Vepa,
    /// macvlan: one container has the parent for itself.
    Passthru,
    /// ipvlan: frames are switched.
    L2,
    /// ipvlan: packets are routed, without broadcasts.
    L3,
    /// ipvlan: the same, and the machine's connection tracking sees them.
    L3s,
}

/// `[networks.<name>]`. Containers of one network reach each other; those of different networks do not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ContainerNetwork {
    /// What joins its containers.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: NetworkDriver,
    /// The link of the machine that a `macvlan` or `ipvlan` network is on; a VLAN or a bond is one too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<LinkName>,
    /// How containers reach the parent and each other; `bridge` for `macvlan` and `l2` for `ipvlan` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ParentMode>,
    /// Where its addresses come from, at most one of each family; chosen where one is absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<Prefix>,
    /// The machine's own addresses in `subnets`; the first of each if absent. With a `parent` the router's, and there is
    /// no way out without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
    /// Whether there is no way out of it.
    #[serde(skip_serializing_if = "is_default")]
    pub internal: bool,
    /// Whether its containers do not reach each other, only what is outside, and are reached by published ports.
    #[serde(skip_serializing_if = "is_default")]
    pub isolated: bool,
    /// Who may connect to its containers from elsewhere, other networks too; who can reach them if absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Peers>,
    /// Who may not connect to its containers, whatever else is allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Peers>,
    /// Where to beyond this network its containers may connect; wherever they reach if absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_out: Vec<Peers>,
    /// Where to its containers may not connect, whatever else is allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny_out: Vec<Peers>,
    /// How much its containers together may send to what is beyond the network and this machine, and receive from there.
    #[serde(skip_serializing_if = "is_default")]
    pub bandwidth: Bandwidth,
    /// The largest packet; 1500 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
}

impl ContainerNetwork {
    /// The network of containers that name none.
    pub const DEFAULT: &'static str = "default";

    /// Whether its containers notice nothing of the change from the other.
    pub fn is_same_apart_from_rules(&self, other: &Self) -> bool {
        let Access { allow, deny, allow_out, deny_out } = self.access();
        *self == Self { allow, deny, allow_out, deny_out, bandwidth: self.bandwidth, ..other.clone() }
    }

    /// What it says of connections to its containers and from them.
    pub fn access(&self) -> Access {
        Access {
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            allow_out: self.allow_out.clone(),
            deny_out: self.deny_out.clone(),
        }
    }

    /// `mode` or the driver's default; `None` for bridges.
    pub fn parent_mode(&self) -> Option<ParentMode> {
        match self.driver {
            NetworkDriver::Bridge => None,
            NetworkDriver::Macvlan => Some(self.mode.unwrap_or(ParentMode::Bridge)),
            NetworkDriver::Ipvlan => Some(self.mode.unwrap_or(ParentMode::L2)),
        }
    }

    /// The subnet of a family, if one is given.
    pub fn subnet(&self, ipv4: bool) -> Option<Prefix> {
        self.subnets.iter().copied().find(|subnet| subnet.address().is_ipv4() == ipv4)
    }

    /// The gateway of a family, if one is given.
    pub fn gateway(&self, ipv4: bool) -> Option<IpAddr> {
        self.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == ipv4)
    }
}
