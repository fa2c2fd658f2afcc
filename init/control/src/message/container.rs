//! A container as clients see it, and what the engine and PID 1 tell each other of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use berth_config::{Images, Proxy, Registry, RegistryName, Trust, TrustScope};
use serde::{Deserialize, Serialize};

/// Whose container it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "dbus", derive(zbus::Type), zbus(signature = "s"))]
pub enum Kind {
    /// Part of Berth.
    System,
    /// Declared by the configuration, or made by `berth run` and `berth create`.
    User,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "dbus", derive(zbus::Type), zbus(signature = "s"))]
pub enum ContainerState {
    /// It is to run, and nobody has begun with it yet.
    Declared,
    /// Waits for its dependencies.
    Waiting,
    /// The engine is at work on its image.
    Preparing,
    /// Its process is being set up.
    Starting,
    /// Its process runs.
    Running,
    /// Its process runs, and its health check fails.
    Unhealthy,
    /// Its processes stand still.
    Paused,
    /// It was told to stop.
    Stopping,
    /// Ended, and going to be started again.
    Backoff,
    /// Ended, as intended.
    Stopped,
    /// Not running, and not going to by itself.
    Failed,
}

/// What a container's health check says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "dbus", derive(zbus::Type), zbus(signature = "s"))]
pub enum Health {
    /// There is none, or the container does not run.
    #[default]
    None,
    /// No check has passed yet, and failures do not count yet.
    Starting,
    /// The last check passed, or too few have failed since.
    Healthy,
    /// Too many have failed in a row.
    Unhealthy,
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
    /// What its health check says.
    pub health: Health,
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
    /// Its published ports, then those that its image exposes beside them.
    pub ports: Vec<Port>,
}

/// A declared user container, for the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Declaration {
    /// Its name.
    pub name: String,
    /// As configured.
    pub container: berth_config::Container,
    /// The digest of the image that it was last prepared from, if that is known.
    #[serde(default)]
    pub digest: Option<String>,
    /// Whether the next boot may have another definition of it: the configuration in force is on trial.
    #[serde(default)]
    pub trial: bool,
}

impl Declaration {
    /// Of one that was never prepared.
    pub fn new(name: &str, container: berth_config::Container) -> Self {
        Self { name: name.to_owned(), container, digest: None, trial: false }
    }
}

/// How registries are reached and images kept, for the engine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Registries {
    /// What is known of each.
    pub registries: BTreeMap<RegistryName, Registry>,
    /// What images must show.
    pub trust: BTreeMap<TrustScope, Trust>,
    /// What stands between.
    pub proxy: Proxy,
    /// How long images stay.
    #[serde(default)]
    pub images: Images,
}

/// What the engine hands to PID 1: the image's facts merged with the configuration's process settings. Limits,
/// namespaces and capabilities are PID 1's business.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedImage {
    /// The image's manifest digest, `sha256:…`.
    pub digest: String,
    /// The layers, the uppermost first. Never written to.
    pub layers: Vec<PreparedLayer>,
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
    /// Ports that the image says its program listens on.
    #[serde(default)]
    pub exposed: Vec<Port>,
    /// Volumes and bind mounts, in the order of mounting.
    pub mounts: Vec<PreparedMount>,
    /// The image's labels.
    pub labels: BTreeMap<String, String>,
    /// The image's health check, for a container whose definition says nothing of one.
    #[serde(default)]
    pub health: Option<berth_config::Health>,
    /// What is not as it was asked for, a sentence each, though the container can run.
    #[serde(default)]
    pub remarks: Vec<String>,
}

/// A layer of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PreparedLayer {
    /// Its image, a file with an EROFS in it.
    pub path: PathBuf,
    /// The fs-verity digest that the file must have, 64 hexadecimal digits; none if it is not protected.
    #[serde(default)]
    pub verity: Option<String>,
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
    /// Whether owners are mapped to the container's id range: of a volume, and of a path that asks for it.
    pub owned: bool,
}

/// What a container's network is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The container.
    pub name: String,
    /// The name it is declared by, which it shares with its replicas.
    pub service: String,
    /// Where it is to have links, in their order; never empty.
    pub networks: Vec<(berth_config::NetworkName, berth_config::Membership)>,
    /// Ports to publish. Those of replicas are the same, and connections are shared out among them.
    pub ports: Vec<Port>,
    /// See [`super::Notice::Serving`].
    pub serving: bool,
    /// Whether the service has addresses of its own, from which connections are shared out among its containers.
    pub service_address: bool,
    /// Who may connect to it, and where to it may connect.
    pub access: berth_config::Access,
    /// How much it may send and receive.
    pub bandwidth: berth_config::Bandwidth,
    /// Whom it asks for names.
    #[serde(default)]
    pub resolution: berth_config::Resolution,
}

/// A port of a container that is published, or that its image says its program listens on; or a range of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The host's address; empty for all.
    pub host_address: String,
    /// On the host; 0 of a port that is not published.
    pub host_port: u16,
    /// In the container.
    pub container_port: u16,
    /// Of a range, how many ports follow this one on the host, each of which leads to the one that follows in the container.
    #[serde(default)]
    pub further_ports: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}
