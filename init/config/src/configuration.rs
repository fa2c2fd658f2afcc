//! The whole configuration: what `berth.toml` and `config.d` say together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::container::{Container, Sysctls, is_default};
use crate::names::{ContainerName, HostName};
use crate::network::Network;
use crate::networks::{ContainerNetwork, NetworkName};
use crate::quantities::{Size, TimeSpan};
use crate::registries::{Proxy, Registry, RegistryName};
use crate::trust::{Trust, TrustScope};

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
    /// How long images stay that no container needs.
    #[serde(skip_serializing_if = "is_default")]
    pub images: Images,
    /// What starts the machine again if it hangs.
    #[serde(skip_serializing_if = "is_default")]
    pub watchdog: Watchdog,
    /// How registries are reached, by their name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub registries: BTreeMap<RegistryName, Registry>,
    /// What images must show before they are taken, by where they come from.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub trust: BTreeMap<TrustScope, Trust>,
    /// What stands between this machine and the registries.
    #[serde(skip_serializing_if = "is_default")]
    pub proxy: Proxy,
    /// Kernel settings of the machine.
    #[serde(skip_serializing_if = "Sysctls::is_empty")]
    pub sysctls: Sysctls,
    /// Networks of containers, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<NetworkName, ContainerNetwork>,
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

    /// The name under which a container is declared: for one of several replicas not its own.
    pub fn declared_name(&self, instance: &str) -> Option<&ContainerName> {
        let alone = self.containers.get_key_value(instance).filter(|(_, container)| container.replicas.is_none());
        let of_many = || {
            let (name, number) = instance.rsplit_once('-')?;
            let (name, container) = self.containers.get_key_value(name)?;
            let number: u32 = number.parse().ok()?;
            container.replicas.is_some_and(|count| (1..=count.get()).contains(&number)).then_some(name)
        };
        alone.map(|(name, _)| name).or_else(of_many)
    }

    /// What the `network` system container has to know.
    pub fn networking(&self) -> Networking {
        let memberships = self.containers.values().flat_map(|container| container.memberships());
        let fixed = memberships.flat_map(|(_, membership)| membership.addresses().collect::<Vec<_>>());
        let mut networks = self.networks.clone();
        networks.entry(NetworkName::of_all()).or_default();
        Networking { host: self.network.clone(), networks, reserved: fixed.map(|(_, address)| address).collect() }
    }

    /// As TOML that loads to an equal configuration. Keys that have their default are left out.
    pub fn to_toml(&self) -> Result<String, ShowError> {
        Ok(toml::to_string(self)?)
    }
}

/// The machine's network and those of its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Networking {
    /// `[network]`.
    pub host: Network,
    /// `[networks]`, and the network of containers that name none.
    pub networks: BTreeMap<NetworkName, ContainerNetwork>,
    /// Fixed addresses of containers, which nobody else gets.
    pub reserved: BTreeSet<IpAddr>,
}

impl Networking {
    /// The networks of `before` whose containers must start anew to be on those of `self`.
    pub fn changed_since<'a>(&self, before: &'a Self) -> BTreeSet<&'a NetworkName> {
        let same = |name, old: &ContainerNetwork| {
            self.networks.get(name).is_some_and(|new: &ContainerNetwork| old.is_same_apart_from_rules(new))
        };
        before.networks.iter().filter(|(name, old)| !same(*name, old)).map(|(name, _)| name).collect()
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

/// `[images]`. Images that a container needs, and those in archives of the user data, stay whatever it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// How long an image is kept after its last use; until the disk is short of room if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<TimeSpan>,
    /// What images leave free of the state partition; 32M, or a sixteenth of a smaller one than 512M, if absent. When less is
    /// free, those that no container needs go, the longest unused first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Size>,
}

/// `[watchdog]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Watchdog {
    /// Which timer; the machine's own by default.
    pub device: WatchdogDevice,
    /// How long the machine may hang, 5s to 10m; 60s by default.
    pub timeout: TimeSpan,
}

/// Values of `watchdog.device`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum WatchdogDevice {
    /// A timer of the chip set or the hypervisor, if there is one.
    #[default]
    Hardware,
    /// The kernel's own timer, which helps as long as the kernel runs.
    Software,
    /// None.
    Off,
}

impl Watchdog {
    /// Longer than any disk takes that is not broken.
    pub const TIMEOUT: TimeSpan = TimeSpan::from_whole_seconds(60);
    /// What can be set: drivers take at least this range.
    pub const TIMEOUTS: std::ops::RangeInclusive<TimeSpan> =
        TimeSpan::from_whole_seconds(5)..=TimeSpan::from_whole_seconds(600);
}

impl Default for Watchdog {
    fn default() -> Self {
        Self { device: WatchdogDevice::default(), timeout: Self::TIMEOUT }
    }
}
