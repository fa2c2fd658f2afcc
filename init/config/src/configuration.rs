//! The whole configuration: what `berth.toml` and `config.d` say together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::container::{Container, Sysctls, is_default};
use crate::names::{ContainerName, HostName};
use crate::network::Network;
use crate::quantities::{Size, TimeSpan};

/// The state that the machine is wanted in. Without any file it is [`Configuration::default`], which is a machine
/// that gets its addresses from the network and runs no container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Configuration {
    /// The machine's name; from DHCP if absent, else `berth`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostName>,
    /// Links, addresses and name servers.
    #[serde(skip_serializing_if = "is_default")]
    pub network: Network,
    /// What the consoles offer.
    #[serde(skip_serializing_if = "is_default")]
    pub console: Console,
    /// How much of what containers print is kept.
    #[serde(skip_serializing_if = "is_default")]
    pub logs: Logs,
    /// Kernel settings of the machine.
    #[serde(skip_serializing_if = "Sysctls::is_empty")]
    pub sysctls: Sysctls,
    /// The containers to run.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub containers: BTreeMap<ContainerName, Container>,
}

/// A configuration that cannot be written as TOML.
#[derive(Debug, Error)]
#[error("cannot write the configuration as TOML")]
pub struct ShowError {
    #[from]
    source: toml::ser::Error,
}

impl Configuration {
    /// Every container that is to be there, by its own name: each of several replicas, which is one of a kind.
    pub fn instances(&self) -> BTreeMap<String, Container> {
        let one = |container: &Container| Container { replicas: None, ..container.clone() };
        let declared = self.containers.iter();
        let named =
            declared.flat_map(|(name, declared)| declared.instances(name.as_str()).map(move |it| (it, declared)));
        named.map(|(name, declared)| (name, one(declared))).collect()
    }

    /// As TOML that loads to an equal configuration. Keys that have their default are left out.
    pub fn to_toml(&self) -> Result<String, ShowError> {
        Ok(toml::to_string(self)?)
    }
}

/// `[console]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Console {
    /// Whether the consoles offer a shell; true by default. Without it they only show the machine's state.
    pub shell: bool,
}

impl Default for Console {
    fn default() -> Self {
        Self { shell: true }
    }
}

/// `[logs]`. The oldest goes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    /// The most bytes on the disk of the log of one container, compressed; 16M by default.
    pub size: Size,
    /// How long a line is kept; 90d by default.
    pub age: TimeSpan,
    /// The most bytes on the disk of all logs; a tenth of the file system, at most 1G, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Size>,
}

impl Logs {
    /// Some hundred thousand lines of a container.
    const SIZE: Size = Size::from_bytes(16 << 20);
    /// Long enough to look for what happened last quarter.
    const AGE: TimeSpan = TimeSpan::from_days(90);
}

impl Default for Logs {
    fn default() -> Self {
        Self { size: Self::SIZE, age: Self::AGE, total: None }
    }
}
