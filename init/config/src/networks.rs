//! `[networks.<name>]`: bridges that containers are joined by.
//!
//! A container is on the network [`ContainerNetwork::DEFAULT`] if it names none; that one is there without being declared.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::container::is_default;
use crate::names::{NameError, check_container_name};
use crate::network::{Mtu, Prefix};
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

/// `[networks.<name>]`. Containers of one network reach each other; those of different networks do not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ContainerNetwork {
    /// Where its addresses come from, at most one of each family; chosen where one is absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<Prefix>,
    /// The machine's own addresses in `subnets`; the first of each if absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
    /// Whether there is no way out of it.
    #[serde(skip_serializing_if = "is_default")]
    pub internal: bool,
    /// The largest packet; 1500 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
}

impl ContainerNetwork {
    /// The network of containers that name none.
    pub const DEFAULT: &'static str = "default";

    /// The subnet of a family, if one is given.
    pub fn subnet(&self, ipv4: bool) -> Option<Prefix> {
        self.subnets.iter().copied().find(|subnet| subnet.address().is_ipv4() == ipv4)
    }

    /// The gateway of a family, if one is given.
    pub fn gateway(&self, ipv4: bool) -> Option<IpAddr> {
        self.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == ipv4)
    }
}
