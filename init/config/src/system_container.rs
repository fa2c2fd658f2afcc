//! A system container: the `container.toml` that lies beside each one's program in the image.

use serde::{Deserialize, Serialize};

use crate::container::{Capability, is_default};
use crate::names::{AbsolutePath, ContainerName};
use crate::quantities::{Size, TimeSpan};

/// Part of Berth that runs in a container: always restarted, never more privilege than it names here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemContainer {
    /// What it does, in one line.
    pub description: String,
    /// The program and its arguments, absolute in the container's view.
    pub command: Vec<String>,
    /// What it may ask of PID 1; without one just what every system container may, such as to say that it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Everything it may do beyond an ordinary process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Capability>,
    /// Namespaces of the machine that it shares. The mount namespace is always its own; the user namespace is always
    /// the machine's, so that its user IDs and its few capabilities are what they say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_namespaces: Vec<HostNamespace>,
    /// How much of the machine's files it sees.
    #[serde(default, skip_serializing_if = "is_default")]
    pub view: View,
    /// Directories and files of the machine on top of the view.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Device nodes on top of null, zero, full, random, urandom and tty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<AbsolutePath>,
    /// System containers that must be ready before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<ContainerName>,
    /// Whether it starts only when the configuration has been read, because that decides what it offers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub after_configuration: bool,
    /// When it counts as ready.
    #[serde(default, skip_serializing_if = "is_default")]
    pub readiness: Readiness,
    /// What must be there for it to be started at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// Memory it is sure of and memory it may use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory: SystemMemory,
    /// How long it may take to end before it is killed; 5 s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<TimeSpan>,
    /// Whether the default system call filter applies; true by default. A shell for the operator goes without.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub seccomp: bool,
}

impl SystemContainer {
    /// For `stop_timeout`: the whole machine is to be off within 10 s.
    pub const STOP_TIMEOUT: TimeSpan = TimeSpan::from_whole_seconds(5);

    /// `stop_timeout` or its default.
    pub fn stop_timeout(&self) -> TimeSpan {
        self.stop_timeout.unwrap_or(Self::STOP_TIMEOUT)
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// What a system container may ask of PID 1; berth-control's `Role` has the same names and says what each includes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything that the control API offers its clients.
    Control,
    /// Images of user containers.
    Engine,
    /// Links and addresses.
    Network,
    /// Output of containers.
    Logs,
}

/// A namespace that a system container may share with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostNamespace {
    /// Links, addresses, sockets.
    Network,
    /// Processes.
    Pid,
    /// System V and POSIX message queues.
    Ipc,
    /// Host name.
    Uts,
    /// The root of the cgroup tree.
    Cgroup,
}

/// How much of the machine's files a system container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// The read-only root, with /proc, /dev and /run of its own.
    #[default]
    Minimal,
    /// Everything.
    Host,
}

/// A directory or file of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// On the machine.
    pub source: AbsolutePath,
    /// In the container; the same as `source` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<AbsolutePath>,
    /// Whether it can only be read.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// Whether PID 1 makes the directory if it is not there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub create: bool,
}

impl Mount {
    /// In the container.
    pub fn destination(&self) -> &AbsolutePath {
        self.destination.as_ref().unwrap_or(&self.source)
    }
}

/// When a system container counts as ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Readiness {
    /// When its program runs.
    Started,
    /// When it says so on its channel.
    #[default]
    Notify,
}

/// What must be there for a system container to be started: every key that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Condition {
    /// A virtio-serial port of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtio_port: Option<String>,
    /// A file or directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<AbsolutePath>,
}

/// `[memory]` of a system container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SystemMemory {
    /// Kept for it when memory is short: cgroup v2's `memory.low`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Size>,
    /// The most it may use: `memory.max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Size>,
}
