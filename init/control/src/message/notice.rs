//! What PID 1 tells system containers without being asked.

use serde::{Deserialize, Serialize};

use super::{Attachment, Container, Declaration, MachineState};

/// What PID 1 says unasked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// [control] A container's state has changed.
    ContainerChanged(Box<Container>),
    /// [control] There is no container of this name any more; as it was last.
    ContainerRemoved(Box<Container>),
    /// [control] The machine's state has changed.
    MachineChanged(MachineState),
    /// [control] Say [`super::Request::Alive`] if clients get in; who does not is started again.
    AreYouAlive,
    /// [control] Serve clients of a container over this socket, whose listener comes with the message, as far as its
    /// configuration allows. The same one comes again when `control` was restarted: PID 1 keeps it.
    ApiSocket {
        /// The container.
        container: String,
        /// What it may use.
        parts: Vec<berth_config::ApiPart>,
        /// The machine's user ID of the container's root.
        uid_base: u32,
    },
    /// [control] The container has ended, and its clients with it.
    ApiClosed {
        /// The container.
        container: String,
    },
    /// [engine] The declared user containers, or how registries are reached, may have changed: ask for
    /// [`super::Request::Registries`] and [`super::Request::Declared`].
    DeclaredChanged,
    /// [engine] One more container to prepare.
    Prepare(Box<Declaration>),
    /// [engine] Remove the writable layers of a container that is gone; answered by [`super::Request::Forgotten`].
    Forget {
        /// The container.
        name: String,
        /// Also the volumes that only its image asked for.
        volumes: bool,
    },
    /// [network] The configuration has changed: ask for [`super::Request::NetworkConfiguration`].
    NetworkConfigurationChanged,
    /// [network] Set up the network namespace whose descriptor comes with this message. Comes again for every running
    /// container when `network` was restarted: PID 1 keeps a copy of the descriptor.
    AttachNetwork(Box<Attachment>),
    /// [network] After it has become ready every container with a network was named; what any other had is free.
    AllAttached,
    /// [network] Whether connections are to be sent to a container from now on.
    Serving {
        /// The container.
        name: String,
        /// It has no health check, or the last one passed.
        serving: bool,
    },
    /// [network] The container has ended, and its namespace with it.
    DetachNetwork {
        /// The container.
        name: String,
    },
    /// [logs] Keep so much from now on. Comes before the first pipe and whenever the configuration has changed.
    LogLimits(berth_config::Logs),
    /// [logs] Read this pipe, or master of a terminal, until its end; its descriptor comes with this message. The same pipe comes again when
    /// `logs` was restarted: PID 1 keeps a copy.
    LogPipe {
        /// The container.
        container: String,
        /// Which of its outputs.
        stream: Stream,
    },
    /// [logs] Read the container's pipes no more: a client reads them.
    LogRelease {
        /// The container.
        container: String,
    },
    /// [logs] A run of the container is over: what it has printed of a line is a line. Its pipes stay for the next one.
    LogRunEnded {
        /// The container.
        container: String,
    },
    /// [logs] No container of this name is left, and its log stays: who follows it has heard all.
    LogEnded {
        /// The container.
        container: String,
    },
    /// [logs] The container is gone: remove its log.
    LogForget {
        /// The container.
        container: String,
    },
    /// [logs] Read the kernel's log; its descriptor comes with this message. The same one comes again when `logs` was
    /// restarted: PID 1 keeps it, so that nothing is read twice.
    KernelLog,
    /// [all] PID 1 had a defect and is another program now: what was asked or told last may be lost. Ask and tell again.
    Resumed,
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
