//! `allow` and `deny`: who may connect to a container, or to those of a network. `allow_out` and `deny_out`: where to these
//! may connect themselves.

use serde::{Deserialize, Serialize};

use crate::names::ContainerName;
use crate::network::{OpenPorts, Prefix};
use crate::networks::NetworkName;

/// One entry: who connects or where to, and to which ports. Anybody, or anywhere, if it names nobody.
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
    /// Ports that are connected to; all of every protocol if absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<OpenPorts>,
}

/// What a container, or a network for its containers, says of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Who may connect to it; all who can reach it if empty.
    pub allow: Vec<Peers>,
    /// Who may not, whatever else is allowed.
    pub deny: Vec<Peers>,
    /// Where to it may connect; wherever it reaches if empty.
    pub allow_out: Vec<Peers>,
    /// Where to it may not, whatever else is allowed.
    pub deny_out: Vec<Peers>,
}

impl Access {
    /// What is allowed and what is denied, of connections to it.
    pub fn inward(&self) -> (&[Peers], &[Peers]) {
        (&self.allow, &self.deny)
    }

    /// What is allowed and what is denied, of connections that it begins.
    pub fn outward(&self) -> (&[Peers], &[Peers]) {
        (&self.allow_out, &self.deny_out)
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Each list with its key in the configuration.
    pub(crate) fn lists(&self) -> [(&'static str, &[Peers]); 4] {
        [("allow", &self.allow), ("deny", &self.deny), ("allow_out", &self.allow_out), ("deny_out", &self.deny_out)]
    }
}
