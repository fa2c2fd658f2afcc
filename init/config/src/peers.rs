//! `allow` and `deny`: who may connect to a container, or to those of a network.

use serde::{Deserialize, Serialize};

use crate::names::ContainerName;
use crate::network::{OpenPorts, Prefix};
use crate::networks::NetworkName;

/// One entry: who connects, and to which ports. Anybody if it names nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Peers {
    /// A container, or all replicas of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerName>,
    /// All containers of a network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkName>,
    /// An address, or all addresses of a prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Prefix>,
    /// Ports of the container itself; all of every protocol if absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<OpenPorts>,
}
