//! The messages between PID 1 and the system containers.
//!
//! A system container that declares a `role` ([`berth_config::Role`]) in its `container.toml` inherits one end of a
//! SOCK_SEQPACKET pair. PID 1 knows by the descriptor who speaks, so a message carries no identity, and it
//! refuses a request that the role does not include. Every [`Request`] is answered by exactly one [`Reply`] with
//! the same `id`; a [`Notice`] comes unasked. PID 1 never waits for an answer from a system container without a
//! deadline.

mod cause;
mod container;
mod ending;
mod execution;
mod machine;
mod notice;
mod run;
mod session;
mod statistics;

use serde::{Deserialize, Serialize};

pub use self::cause::Cause;
pub use self::container::{
    Attachment, Container, ContainerState, Declaration, Health, Kind, Port, PreparedImage, PreparedLayer,
    PreparedMount, Registries,
};
pub use self::ending::Ending;
pub use self::execution::{Execution, ExecutionEnd, TerminalSize};
pub use self::machine::{Boot, Link, Machine, MachineState, Network, PowerAction, Step};
pub use self::notice::{Notice, Stream};
pub use self::run::Run;
pub use self::session::{Creation, FromClient, Interest, SessionStream, ToClient};
pub use self::statistics::Statistics;

/// The most networks of containers that are told of: the first by their names.
pub const NETWORKS_AT_MOST: usize = 256;

/// The most containers in one answer about what they use, which fits a message ([`crate::channel::MAXIMUM_MESSAGE`]).
pub const CONTAINERS_AT_ONCE: usize = 64;

/// The longest [`PreparedImage`], in bytes of JSON. The kernel has no more room for environment and arguments by much, and PID 1
/// keeps all of it.
pub const LONGEST_SHEET: u64 = 1 << 20;

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
    /// [control] The list of boots; answered by [`Reply::Boots`].
    Boots,
    /// [control] To [`Notice::AreYouAlive`].
    Alive,
    /// [control] All containers as they are in this moment, system containers first, by name: a file in memory with a
    /// [`crate::listing`] comes with [`Reply::Done`].
    Containers,
    /// [control] What the next [`CONTAINERS_AT_ONCE`] containers in the order of their names use; answered by
    /// [`Reply::Statistics`], where those that do not run are absent.
    Statistics {
        /// The last name that is known already; empty at the beginning.
        after: String,
    },
    /// [control] What has led to the state of a container, of a link or of the boot; answered by [`Reply::Why`].
    Why {
        /// Its name; `boot` for the boot.
        name: String,
    },
    /// [control] The configuration in force, as TOML: a file in memory with it comes with [`Reply::Done`], however long it
    /// is.
    Configuration,
    /// [control] What the configuration in force and the containers made beside it loosen: a [`berth_config::Audit`] in
    /// JSON, in a file in memory likewise.
    Audit,
    /// [control] What a container is to be and what it was prepared from: in a file in memory likewise, JSON of a table with
    /// `definition`, as in a configuration, and `prepared`, a [`PreparedImage`] or null.
    Definition {
        /// Its name.
        name: String,
    },
    /// [control] Start a stopped container; answered by [`Reply::Done`] as soon as it is under way.
    Start {
        /// Its name.
        name: String,
    },
    /// [control] Stop a container: its stop signal, then SIGKILL after its time-out.
    Stop {
        /// Its name.
        name: String,
        /// How, if not as it is declared.
        #[serde(default)]
        ending: Ending,
    },
    /// [control] Stop a container and start it again.
    Restart {
        /// Its name.
        name: String,
        /// How it is stopped, if not as it is declared.
        #[serde(default)]
        ending: Ending,
    },
    /// [control] Send a signal to a container's first process.
    Kill {
        /// Its name.
        name: String,
        /// The signal's number.
        signal: i32,
    },
    /// [control] Make a container that no configuration declares; answered by [`Reply::Done`]. If a session is wanted, the
    /// client's end of it comes with the answer.
    Create {
        /// What it is to be.
        creation: Box<Creation>,
        /// Of a session.
        session: Option<Interest>,
    },
    /// [control] A session with a running container; its descriptor comes with [`Reply::Done`].
    Attach {
        /// Its name.
        name: String,
        /// Start it with the session, as [`Request::Start`] does, unless it runs.
        #[serde(default)]
        start: bool,
    },
    /// [control] Forget a container that no configuration declares, with its writable layer and its log.
    Remove {
        /// Its name.
        name: String,
        /// Also one that runs: it is killed.
        force: bool,
        /// Also the volumes that only its image asked for.
        volumes: bool,
    },
    /// [control] Let a container's processes stand still.
    Pause {
        /// Its name.
        name: String,
    },
    /// [control] Let them go on.
    Unpause {
        /// Its name.
        name: String,
    },
    /// [control] Give a container's terminal another size.
    Resize {
        /// Its name.
        name: String,
        /// The new one.
        size: TerminalSize,
    },
    /// [control] The containers that a name stands for: all replicas of one that has them. Answered by [`Reply::Names`].
    Instances {
        /// As it is declared.
        name: String,
    },
    /// [control] Run a further program in a running container; answered by [`Reply::Done`] when that is under way.
    /// With it come descriptors: standard input, output and error, or, for a terminal, the stream socket that the
    /// terminal's master is sent to; and last the write end of a pipe for the [`ExecutionEnd`].
    Execute(Box<Execution>),
    /// [control] Leave this boot, in order.
    Power(PowerAction),
    /// [control] What another configuration would change. With it comes a descriptor of a file in memory: JSON of a list of
    /// names and texts of configuration files, read from its beginning; [`Reply::Done`] means that a
    /// [`berth_config::Plan`] has taken its place.
    Plan,
    /// [control] The same, and the configuration is in force and recorded by the time of the answer.
    Apply {
        /// In milliseconds: if there is no [`Request::Confirm`] in that time, the configuration before is in force again.
        confirm_ms: Option<u64>,
    },
    /// [control] The configuration that was applied on trial is to stay.
    Confirm,
    /// [control] PID 1 executes itself anew, or the program whose descriptor comes with it, and no container notices;
    /// answered by [`Reply::Done`] when the next program is there.
    Reexecute,

    /// [engine] The next user containers that are declared, in the order of their names; answered by [`Reply::Declared`].
    Declared {
        /// The last name that is known already; empty at the beginning.
        after: String,
    },
    /// [engine] A container's file system and process are ready to run.
    Prepared {
        /// The container.
        name: String,
        /// What to run and on what.
        image: Box<PreparedImage>,
    },
    /// [engine] The same of one that has more to say than a message holds: its [`PreparedImage`] is JSON in a file of memory
    /// (memfd_create(2)) that comes with it, of at most [`LONGEST_SHEET`].
    PreparedOnSheet {
        /// The container.
        name: String,
    },
    /// [engine] What [`Notice::Forget`] names is gone.
    Forgotten {
        /// The container.
        name: String,
    },
    /// [engine] It is not going to run with what there is.
    PrepareFailed {
        /// The container.
        name: String,
        /// What is wrong and what to do.
        reason: String,
    },

    /// [engine] It cannot be prepared yet.
    PrepareDelayed {
        /// The container.
        name: String,
        /// What it waits for, or what is wrong.
        reason: String,
        /// If something is wrong: in how many seconds it is tried again.
        retry_s: Option<u64>,
    },
    /// [engine] How registries are reached; answered by [`Reply::Registries`].
    Registries,

    /// [network] What the configuration says of networks; answered by [`Reply::NetworkConfiguration`].
    NetworkConfiguration,
    /// [network] What the links are now; replaces what was said before.
    Links {
        /// Every link of the host but loopback.
        links: Vec<Link>,
    },
    /// [network] What the networks of containers are now; replaces what was said before.
    Networks {
        /// At most [`NETWORKS_AT_MOST`].
        networks: Vec<Network>,
    },
    /// [network] A host name from DHCP; used if the configuration names none.
    HostName {
        /// As received, checked to be a valid host name.
        name: String,
    },
    /// [network] The wall clock is wrong by so much. Refused if it would then say what no clock can.
    Clock {
        /// What it is behind, in microseconds; negative if it is fast.
        behind: i64,
        /// In how many seconds it is compared again.
        next: u64,
    },
    /// [network] The network namespace of [`Notice::AttachNetwork`] is set up.
    NetworkAttached {
        /// The container.
        name: String,
        /// Its addresses, without prefix length.
        addresses: Vec<String>,
        /// What its /etc/resolv.conf is to say.
        resolv_conf: String,
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
    /// To [`Request::Boots`], the oldest first.
    Boots(Vec<Boot>),
    /// To [`Request::Instances`].
    Names(Vec<String>),
    /// To [`Request::Why`].
    Why(Vec<Cause>),
    /// To [`Request::Statistics`].
    Statistics {
        /// What each uses.
        statistics: Vec<Statistics>,
        /// The name to go on after; absent at the end.
        next: Option<String>,
    },
    /// To [`Request::Declared`]: as many as a message holds.
    Declared {
        /// Each with its name.
        declarations: Vec<Declaration>,
        /// The name to go on after; absent at the end.
        next: Option<String>,
    },
    /// To [`Request::Registries`].
    Registries(Box<Registries>),
    /// To [`Request::NetworkConfiguration`].
    NetworkConfiguration(Box<berth_config::Networking>),
}
