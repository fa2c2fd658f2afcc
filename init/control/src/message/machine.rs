//! The machine as clients see it.

use serde::{Deserialize, Serialize};

/// How to leave the running system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    /// Switch the machine off.
    PowerOff,
    /// Start it again, through the firmware.
    Reboot,
    /// Stop the processor and leave the power on.
    Halt,
}

impl PowerAction {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PowerOff => "power off",
            Self::Reboot => "reboot",
            Self::Halt => "halt",
        }
    }
}

/// Where the machine is between power-on and power-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "dbus", derive(zbus::Type), zbus(signature = "s"))]
pub enum MachineState {
    /// Not everything that is declared has been tried.
    Booting,
    /// Every system container is ready, every declared user container has started.
    Ready,
    /// As ready, but something is wrong: see [`Machine::problems`].
    Degraded,
    /// On the way down.
    ShuttingDown,
}

/// The machine as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// As the kernel has it.
    pub hostname: String,
    /// Berth's version.
    pub version: String,
    /// The kernel's release.
    pub kernel: String,
    /// The slot of the running root, `a` or `b`; empty if the boot did not say.
    pub slot: String,
    /// Where it is.
    pub state: MachineState,
    /// Since power-on as the kernel counts it, in milliseconds.
    pub uptime_ms: u64,
    /// What is wrong and what to do, a sentence each; empty on a machine that is well.
    pub problems: Vec<String>,
    /// Links and their addresses.
    pub links: Vec<Link>,
    /// Networks of containers that are or were in use.
    #[serde(default)]
    pub networks: Vec<Network>,
    /// The watchdog that is wound up and its time-out; empty if there is none.
    pub watchdog: String,
    /// What holds the state: a device, or `memory`.
    pub state_storage: String,
    /// Where the configuration came from, in the order of merging; empty if there was none.
    pub configuration_sources: Vec<String>,
}

/// A link of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its hardware address in the usual notation; empty if it has none.
    pub mac: String,
    /// Whether it has carrier.
    pub carrier: bool,
    /// Addresses with prefix length, without those of IPv6 that are link-local.
    pub addresses: Vec<String>,
    /// What it lacks, a sentence each; empty if it is as it should be.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// A network of containers as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// `bridge`, `macvlan` or `ipvlan`.
    pub driver: String,
    /// The machine's link that its containers are joined by, a bridge or their parent; empty for a bridge that is not there.
    pub link: String,
    /// Where its addresses come from, of both families, with prefix length.
    pub subnets: Vec<String>,
    /// Where its containers' ways out lead.
    pub gateways: Vec<String>,
    /// Whether there is no way out of it.
    pub internal: bool,
    /// Whether its containers do not reach each other.
    pub isolated: bool,
}

/// A boot, this one or an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The kernel's id of it, a UUID.
    pub id: String,
    /// Berth's version.
    pub version: String,
    /// The kernel's release.
    pub kernel: String,
    /// The slot of its root.
    pub slot: String,
    /// When it began, in seconds since 1970 by the machine's clock of that time.
    pub began: u64,
    /// When it ended, likewise; absent for this one, and for one that was cut off.
    pub ended: Option<u64>,
    /// What it ended by; empty for this one.
    pub reason: String,
}

/// A step of the boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What was done.
    pub name: String,
    /// When it began, in microseconds since the kernel started (CLOCK_BOOTTIME).
    pub start_us: u64,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// What came of it; empty if there is nothing to tell.
    pub outcome: String,
    /// Whether it went wrong.
    pub failed: bool,
}
