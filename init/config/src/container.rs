//! A user container as it is declared: `[containers.<name>]`.

mod api;
mod bandwidth;
mod capability;
mod command;
mod cpuset;
mod defaults;
mod dependencies;
mod device;
mod endpoint_mode;
mod environment;
mod health;
mod network_mode;
mod networks;
mod port;
mod priority;
mod readiness;
mod resolution;
mod restart;
mod schedule;
mod security;
mod sharing;
mod signal;
mod sysctl;
mod ulimit;
mod user;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

pub use self::api::{ApiPart, ApiPartError};
pub use self::bandwidth::{Bandwidth, BitRate};
pub use self::capability::{Capability, CapabilityChoice};
pub use self::command::Command;
pub use self::cpuset::{Cpuset, CpusetError};
pub use self::dependencies::{Dependencies, Dependency, DependencyCondition};
pub use self::device::Device;
pub use self::endpoint_mode::EndpointMode;
pub use self::environment::Environment;
pub use self::health::{Health, HttpTarget, TargetError, TcpTarget};
pub use self::network_mode::NetworkMode;
pub use self::networks::{MacAddress, Membership, Networks};
pub(crate) use self::port::{PortError, PortRange};
pub use self::port::{PortMapping, Protocol, PublishedPorts};
pub use self::priority::{CpuShares, OomScore, PriorityError};
pub use self::readiness::{ReadyWhen, ReadyWhenError};
pub use self::resolution::{Resolution, ResolverOption, SearchDomain};
pub use self::restart::RestartPolicy;
pub use self::schedule::{Date, Schedule, ScheduleError, utc};
pub use self::security::{Seccomp, Security, UserNamespace};
pub use self::sharing::{IpcMode, PidMode};
pub use self::signal::Signal;
pub use self::sysctl::Sysctls;
pub use self::ulimit::{Ulimit, UlimitName};
pub use self::user::{Group, User};
pub use self::volume::{TemporaryMount, Volume};
use crate::names::{AbsolutePath, ContainerName, HostName, ImageName};
use crate::networks::NetworkName;
use crate::peers::{Access, Peers};
use crate::quantities::{Cpus, Size, TimeSpan};

/// A container that Berth runs for the user. Keys are named as in Compose where Compose has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// The image to run.
    pub image: ImageName,
    /// The arguments, or the program and its arguments where the image has no entrypoint. Replaces the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// The program and its first arguments. Replaces the image's, and with it the image's command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Command>,
    /// Variables, on top of the image's.
    #[serde(default, skip_serializing_if = "Environment::is_empty")]
    pub environment: Environment,
    /// Who the process runs as. The image's choice if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// Further groups that the process is in, by name or number, beside those that the image's /etc/group lists the user in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group_add: Vec<Group>,
    /// Where the process starts. The image's choice if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<AbsolutePath>,
    /// The container's host name; its own name if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostName>,
    /// Whether the process has a terminal, which `berth attach` leads to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tty: bool,
    /// Whether standard input stays open for `berth attach`; it is empty otherwise.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stdin_open: bool,
    /// Whether a small init is its first process: it forwards signals to the program, collects orphans and ends with it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub init: bool,

    /// How many of it there are, `<name>-1` and so on; one with the name itself if absent. At most 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<NonZeroU32>,
    /// What the name of all replicas stands for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub endpoint_mode: EndpointMode,
    /// Containers that must run, and be healthy if they have a health check, before this one starts; or a table that
    /// says of each how far it must have come.
    #[serde(default, skip_serializing_if = "Dependencies::is_empty")]
    pub depends_on: Dependencies,
    /// What happens when the process ends.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: RestartPolicy,
    /// The times at which it runs, once each; all the time if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// How long it rests from the end of a run to the next; it is not started again like that if absent. At least 1 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<TimeSpan>,
    /// When it counts as ready, and those that depend on it start: `started`, `notify` or `listening:PORT`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub readiness: ReadyWhen,
    /// How Berth finds out whether the container does its work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// What asks the process to end. The image's choice if absent, else SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<Signal>,
    /// How long the process may take to end before it is killed; 10 s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<TimeSpan>,

    /// Which network it sees.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network_mode: NetworkMode,
    /// The networks it is on; `default` if none is named. Its way out and its published ports are on the first that is
    /// not internal.
    #[serde(default, skip_serializing_if = "Networks::is_empty")]
    pub networks: Networks,
    /// Names and their addresses, for its /etc/hosts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_hosts: BTreeMap<HostName, IpAddr>,
    /// Who is asked for names that are no container's, in place of the machine's servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Domains in which names are looked for, in place of the machine's; only "." for none at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<SearchDomain>,
    /// Options of its /etc/resolv.conf, such as "timeout:1".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_opt: Vec<ResolverOption>,
    /// Ports of the machine that lead to ports of the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PublishedPorts>,
    /// Who may connect to it; all who can reach it if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Peers>,
    /// Who may not connect to it, whatever else is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Peers>,
    /// Where to it may connect; wherever it reaches if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_out: Vec<Peers>,
    /// Where to it may not connect, whatever else is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_out: Vec<Peers>,
    /// How much it may send and receive on each of its networks.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bandwidth: Bandwidth,
    /// Volumes and directories of the machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Directories in memory, empty at each start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<TemporaryMount>,
    /// The size of /dev/shm; 64 MiB if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<Size>,
    /// Whether the root file system can only be read.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// Device nodes of the machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,

    /// The most memory it may use; no limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// How much memory it keeps when others want more; nothing if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_reservation: Option<Size>,
    /// How soon it is ended when the machine runs out of memory: 0, as late as the machine's own, to 1000; 100 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<OomScore>,
    /// The most that it may write to its root file system, on the disk; no limit if absent. At least 1M. Volumes and
    /// directories in memory do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Size>,
    /// The most processor time it may use, in processors; no limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cpus>,
    /// Its part of the processors' time beside others that want it; 1024 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<CpuShares>,
    /// The processors it runs on; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<Cpuset>,
    /// The most processes and threads it may have; 2,048 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<NonZeroU32>,
    /// Limits of each process.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<UlimitName, Ulimit>,

    /// Capabilities on top of the default ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<CapabilityChoice>,
    /// Capabilities to take away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<CapabilityChoice>,
    /// The parts of the control API that it may use, through /run/berth/control.sock; it has no such socket if there is
    /// none. Some of them are as good as the whole machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub api: Vec<ApiPart>,
    /// With whom it shares memory, semaphores and message queues.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ipc: IpcMode,
    /// Whose processes it sees.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pid: PidMode,
    /// What keeps the container apart from the machine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub security: Security,
    /// Kernel settings of the container's own namespaces.
    #[serde(default, skip_serializing_if = "Sysctls::is_empty")]
    pub sysctls: Sysctls,
    /// Free text for tools; Berth does not act on it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Container {
    /// This one, with what another says of all that takes effect while a container runs: what only the supervisor and the
    /// packet filter look at.
    pub fn updated_by(&self, other: &Self) -> Self {
        let Self { depends_on, restart, schedule, every, health, stop_grace_period, labels, .. } = other.clone();
        let Access { allow, deny, allow_out, deny_out } = other.access();
        Self {
            depends_on,
            restart,
            schedule,
            every,
            health,
            stop_grace_period,
            labels,
            allow,
            deny,
            allow_out,
            deny_out,
            ..self.clone()
        }
    }

    /// What it says of connections to it and from it.
    pub fn access(&self) -> Access {
        Access {
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            allow_out: self.allow_out.clone(),
            deny_out: self.deny_out.clone(),
        }
    }

    /// What it says of names and who is asked for them.
    pub fn resolution(&self) -> Resolution {
        let (dns, search, options) = (self.dns.clone(), self.dns_search.clone(), self.dns_opt.clone());
        Resolution { servers: dns, search, options }
    }

    /// Every published port, ranges taken apart.
    pub fn port_mappings(&self) -> impl Iterator<Item = PortMapping> + '_ {
        self.ports.iter().flat_map(PublishedPorts::mappings)
    }

    /// The networks it is on, in order; none without a network of its own.
    pub fn memberships(&self) -> Vec<(NetworkName, Membership)> {
        if self.network_mode != NetworkMode::Bridge {
            return Vec::new();
        }
        let named: Vec<_> = self.networks.iter().map(|(name, membership)| (name.clone(), membership)).collect();
        if named.is_empty() { vec![(NetworkName::of_all(), Membership::default())] } else { named }
    }

    /// The containers whose namespaces it runs in, with the keys that say so.
    pub fn targets(&self) -> impl Iterator<Item = (&'static str, &ContainerName)> {
        let network = match &self.network_mode {
            NetworkMode::Container(name) => Some(name),
            NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None => None,
        };
        let all = [("network_mode", network), ("ipc", self.ipc.target()), ("pid", self.pid.target())];
        all.into_iter().filter_map(|(key, target)| target.map(|target| (key, target)))
    }

    /// What the container's processes may have: the default set, less `cap_drop`, with `cap_add`. `ALL` is applied
    /// before single names, so that `cap_drop = ["ALL"]` with `cap_add = ["NET_BIND_SERVICE"]` leaves just that one.
    pub fn capabilities(&self) -> BTreeSet<Capability> {
        let mut set: BTreeSet<Capability> = Capability::DEFAULT.into_iter().collect();
        if self.cap_drop.contains(&CapabilityChoice::All) {
            set.clear();
        }
        if self.cap_add.contains(&CapabilityChoice::All) {
            set.extend(Capability::all());
        }
        set.extend(self.cap_add.iter().filter_map(CapabilityChoice::one));
        for dropped in self.cap_drop.iter().filter_map(CapabilityChoice::one) {
            set.remove(&dropped);
        }
        set
    }

    /// The names of the containers that a container declared under this name stands for.
    pub fn instances(&self, name: &str) -> impl Iterator<Item = String> + use<> {
        let (name, count) = (name.to_owned(), self.replicas.map_or(0, NonZeroU32::get));
        let alone = (count == 0).then(|| name.clone());
        alone.into_iter().chain((1..=count).map(move |number| format!("{name}-{number}")))
    }

    /// Whether a timer starts it, run by run.
    pub fn has_timer(&self) -> bool {
        self.schedule.is_some() || self.every.is_some()
    }
}

/// For `skip_serializing_if`.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
