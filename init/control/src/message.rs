//! The messages between PID 1 and the system containers.
//!
//! A system container that declares a `role` ([`berth_config::Role`]) in its `container.toml` inherits one end of a
//! SOCK_SEQPACKET pair. PID 1 knows by the descriptor who speaks, so a message carries no identity, and it
//! refuses a request that the role does not include. Every [`Request`] is answered by exactly one [`Reply`] with
//! the same `id`; a [`Notice`] comes unasked. PID 1 never waits for an answer from a system container without a
//! deadline.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// From a system container to PID 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToInit {
    /// Chosen by the sender, repeated in the answer. For an answer to a PID 1 notice see [`Request`].
    pub id: u64,
    /// What is wanted.
    pub request: Request,
}

/// From PID 1 to a system container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromInit {
    /// The answer to the request with this number.
    Reply {
        /// The `id` of the request.
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// Something that nobody asked for.
    Notice(Notice),
}

/// What a system container asks or reports. In brackets: the roles that may.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// [all] The service does its work from now on; answered by [`Reply::Done`].
    Ready,

    /// [control] The machine as a whole; answered by [`Reply::Machine`].
    Machine,
    /// [control] The boot's steps; answered by [`Reply::Timeline`].
    Timeline,
    /// [control] Every container; answered by [`Reply::Containers`].
    Containers,
    /// [control] The configuration in force, as TOML; answered by [`Reply::Text`].
    Configuration,
    /// [control] Start a stopped container; answered by [`Reply::Done`] as soon as it is under way.
    Start {
        /// Its name.
        name: String,
    },
    /// [control] Stop a container: its stop signal, then SIGKILL after its time-out.
    Stop {
        /// Its name.
        name: String,
    },
    /// [control] Stop a container and start it again.
    Restart {
        /// Its name.
        name: String,
    },
    /// [control] Send a signal to a container's first process.
    Kill {
        /// Its name.
        name: String,
        /// The signal's number.
        signal: i32,
    },
    /// [control] Leave this boot, in order.
    Power(PowerAction),

    /// [engine] Which user containers are declared; answered by [`Reply::Declared`].
    Declared,
    /// [engine] A container's file system and process are ready to run.
    Prepared {
        /// The container.
        name: String,
        /// What to run and on what.
        image: Box<PreparedImage>,
    },
    /// [engine] It is not going to run with what there is.
    PrepareFailed {
        /// The container.
        name: String,
        /// What is wrong and what to do.
        reason: String,
    },

    /// [network] The `[network]` part of the configuration; answered by [`Reply::NetworkConfiguration`].
    NetworkConfiguration,
    /// [network] What the links are now; replaces what was said before.
    Links {
        /// Every link of the host but loopback.
        links: Vec<Link>,
    },
    /// [network] A host name from DHCP; used if the configuration names none.
    HostName {
        /// As received, checked to be a valid host name.
        name: String,
    },
    /// [network] The network namespace of [`Notice::AttachNetwork`] is set up.
    NetworkAttached {
        /// The container.
        name: String,
        /// Its addresses, without prefix length.
        addresses: Vec<String>,
    },
    /// [network] It could not be set up; the container fails with this reason.
    NetworkFailed {
        /// The container.
        name: String,
        /// What is wrong and what to do.
        reason: String,
    },
}

/// PID 1's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done, or under way.
    Done,
    /// It is not, for this reason.
    Refused {
        /// Lower case, what was wrong and what to do.
        reason: String,
    },
    /// To [`Request::Machine`].
    Machine(Box<Machine>),
    /// To [`Request::Timeline`].
    Timeline(Vec<Step>),
    /// To [`Request::Containers`], in the order of their names, system containers first.
    Containers(Vec<Container>),
    /// To [`Request::Configuration`].
    Text(String),
    /// To [`Request::Declared`].
    Declared(Vec<Declaration>),
    /// To [`Request::NetworkConfiguration`].
    NetworkConfiguration(Box<berth_config::Network>),
}

/// What PID 1 says unasked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// [control] A container's state has changed.
    ContainerChanged(Box<Container>),
    /// [control] The machine's state has changed.
    MachineChanged(MachineState),
    /// [engine] The declared user containers have changed: ask for [`Request::Declared`].
    DeclaredChanged,
    /// [network] The configuration has changed: ask for [`Request::NetworkConfiguration`].
    NetworkConfigurationChanged,
    /// [network] Set up the network namespace whose descriptor comes with this message. Comes again for every running
    /// container when `network` was restarted: PID 1 keeps a copy of the descriptor.
    AttachNetwork {
        /// The container.
        name: String,
        /// Ports to publish.
        ports: Vec<Port>,
    },
    /// [network] The container has ended, and its namespace with it.
    DetachNetwork {
        /// The container.
        name: String,
    },
    /// [logs] Read this pipe until its end; its descriptor comes with this message. The same pipe comes again when
    /// `logs` was restarted: PID 1 keeps a copy.
    LogPipe {
        /// The container.
        container: String,
        /// Which of its outputs.
        stream: Stream,
    },
    /// [all] The machine is about to go down: write what must be written.
    ShuttingDown,
}

/// One of a container's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

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
    /// Addresses with prefix length, without link-local ones.
    pub addresses: Vec<String>,
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

/// Whose container it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "dbus", derive(zbus::Type), zbus(signature = "s"))]
pub enum Kind {
    /// Part of Berth.
    System,
    /// Declared by the configuration.
    User,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "dbus", derive(zbus::Type), zbus(signature = "s"))]
pub enum ContainerState {
    /// Waits for its dependencies.
    Waiting,
    /// The engine is at work on its image.
    Preparing,
    /// Its process is being set up.
    Starting,
    /// Its process runs.
    Running,
    /// It was told to stop.
    Stopping,
    /// Ended, and going to be started again.
    Backoff,
    /// Ended, as intended.
    Stopped,
    /// Not running, and not going to by itself.
    Failed,
}

/// A container as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name; unique over both kinds.
    pub name: String,
    /// System or user.
    pub kind: Kind,
    /// Where it is.
    pub state: ContainerState,
    /// The image's name; empty for system containers.
    pub image: String,
    /// Why it is in this state, in one sentence; empty where the state says all.
    pub reason: String,
    /// Its first process as the host sees it; 0 if none.
    pub pid: u32,
    /// How often it was started again.
    pub restarts: u32,
    /// When the present run began, in microseconds of CLOCK_BOOTTIME; 0 if never.
    pub started_us: u64,
    /// How the last run ended, as a shell would count it (128 + signal); -1 if none has.
    pub exit_code: i32,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its published ports.
    pub ports: Vec<Port>,
}

/// A declared user container, for the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Declaration {
    /// Its name.
    pub name: String,
    /// As configured.
    pub container: berth_config::Container,
}

/// What the engine hands to PID 1: the image's facts merged with the configuration's process settings. Limits,
/// namespaces and capabilities are PID 1's business.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedImage {
    /// The image's manifest digest, `sha256:…`.
    pub digest: String,
    /// Directories of the layers, the uppermost first. Never written to.
    pub layers: Vec<PathBuf>,
    /// The container's writable layer.
    pub upper: PathBuf,
    /// overlayfs's work directory, on the same file system as `upper`.
    pub work: PathBuf,
    /// The program and its arguments; never empty.
    pub arguments: Vec<String>,
    /// `KEY=value`.
    pub environment: Vec<String>,
    /// Where the process starts; absolute.
    pub working_directory: String,
    /// Resolved against the image's /etc/passwd.
    pub uid: u32,
    /// Resolved against the image's /etc/passwd and /etc/group.
    pub gid: u32,
    /// From the image's /etc/group.
    pub additional_gids: Vec<u32>,
    /// What asks the process to end; a signal's number.
    pub stop_signal: i32,
    /// Volumes and bind mounts, in the order of mounting.
    pub mounts: Vec<PreparedMount>,
    /// The image's labels.
    pub labels: BTreeMap<String, String>,
}

/// A directory or file of the host that appears in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedMount {
    /// On the host; exists.
    pub source: PathBuf,
    /// In the container; absolute.
    pub destination: String,
    /// Whether the container may only read it.
    pub read_only: bool,
    /// Whether the source belongs to the container (a volume): owners are then mapped to its id range.
    pub owned: bool,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The host's address; empty for all.
    pub host_address: String,
    /// On the host.
    pub host_port: u16,
    /// In the container.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}
