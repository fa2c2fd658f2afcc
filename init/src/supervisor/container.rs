//! One container as PID 1 keeps it.
//!
//! ```text
//!  Declared
//!     │ the engine is told
//!     ▼     prepared         dependencies met       set up          attached          executed
//! Preparing ────────▶ Waiting ──────────────▶ Creating ─────▶ Attaching ─────▶ Executing ────────▶ Running
//!                        ▲                       │ fails         │ fails          │ fails    ends │   │ told to stop
//!                        │ time is up            ▼               ▼                ▼               │   ▼
//!                     Backoff ◀───────────────────────────────────────────────────────────────────┘ Stopping
//!                                                │ policy says no                                     │ ends
//!                                                ▼                                                    ▼
//!                                              Failed                                              Stopped
//! ```
//! System containers begin in Waiting. Containers without a network of their own pass Attaching at once. One with a timer
//! goes to Scheduled instead of Stopped and Failed, and from there to Waiting when its time comes.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use berth_config::{ContainerName, RestartPolicy, SystemContainer};
use berth_control::message::{self, Kind, PreparedImage};
use berth_runtime::handover::Descriptor;
use berth_runtime::{Created, Creating, Running};
use serde::{Deserialize, Serialize};

use super::health::Health;
use super::interaction::Interaction;
use super::made::Made;
use super::network::SharedNetwork;
use super::output::Output;
use super::peer::Peer;
use super::pods::Pod;
use super::readiness::Awaited;
use super::session::Session;
use super::timer::Timer;
use super::user_spec::Place;
use super::why::End;

/// What a container is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Definition {
    /// Part of Berth.
    System(Box<SystemContainer>),
    /// Declared by the configuration.
    User(Box<berth_config::Container>),
}

/// What is wanted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    /// It runs, as far as its restart policy goes.
    Run,
    /// It does not, until somebody says so.
    Stop,
    /// It ends, and starts again at once.
    Restart,
    /// It ends and is forgotten.
    Remove,
}

impl Goal {
    /// Whether it is to run, now or again.
    pub fn goes_on(self) -> bool {
        matches!(self, Self::Run | Self::Restart)
    }
}

/// Where it is. Deadlines are on [`crate::clock`].
#[derive(Debug, Serialize, Deserialize)]
pub enum State {
    /// The engine has not been told of it yet.
    Declared,
    /// The engine is at work on its image.
    Preparing,
    /// For its dependencies.
    Waiting,
    /// The runtime sets it up.
    Creating {
        /// Reports through its descriptor; `None` only while it is being asked.
        creating: Option<Creating>,
        /// When that has taken too long.
        deadline: Duration,
    },
    /// `network` gives it its addresses.
    Attaching {
        /// Everything but its first instruction.
        created: Option<Created>,
        /// When that has taken too long.
        deadline: Duration,
    },
    /// It has been told to begin; whether its program can be run is not known yet.
    Executing {
        /// Its first process.
        running: Running,
        /// When that has taken too long.
        deadline: Duration,
    },
    /// It runs.
    Running(Running),
    /// It was told to end.
    Stopping {
        /// Its first process.
        running: Running,
        /// When it is killed; `None` once it was.
        deadline: Option<Duration>,
    },
    /// It is going to be started again.
    Backoff {
        /// When.
        until: Duration,
    },
    /// For its time.
    Scheduled(Timer),
    /// Not running, as intended.
    Stopped,
    /// Not running, and not going to by itself.
    Failed,
}

/// A container.
#[derive(Debug, Serialize, Deserialize)]
pub struct Container {
    /// Never used twice, unlike the name.
    pub id: u32,
    /// Unique at any time.
    pub name: String,
    /// What it is.
    pub definition: Definition,
    /// What is wanted.
    pub goal: Goal,
    /// Where it is.
    pub state: State,
    /// Why, in one sentence.
    pub reason: String,
    /// What the engine prepared.
    pub image: Option<Box<PreparedImage>>,
    /// PID 1's end of its channel, while it runs.
    pub peer: Option<Peer>,
    /// How many channels it has had, which tells them apart.
    #[serde(default)]
    pub(super) channels: u32,
    /// Its output pipes.
    pub output: Output,
    /// What it is talked to by, while it runs.
    #[serde(default)]
    pub interaction: Interaction,
    /// The client that talks to it.
    #[serde(default)]
    pub session: Option<Session>,
    /// What it was made with, if no configuration declares it.
    #[serde(default)]
    pub made: Option<Made>,
    /// Listens for its clients of the control API, while it runs with such a socket.
    #[serde(default)]
    pub api: Option<Descriptor>,
    /// Whether its processes stand still.
    #[serde(default)]
    pub frozen: bool,
    /// What it has not done yet to be ready, while it runs or is set up.
    #[serde(default)]
    pub awaited: Option<Awaited>,
    /// Its network namespace, while it runs with one of its own.
    pub network: Option<Descriptor>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// What its /etc/resolv.conf says, if it is its own.
    #[serde(default)]
    pub resolv_conf: String,
    /// The network of another container that it runs in.
    #[serde(default)]
    pub shared: Option<SharedNetwork>,
    /// The IPC and PID namespaces of another container that it runs in.
    #[serde(default)]
    pub pod: Option<Pod>,
    /// What its health check has found, while it runs with one.
    pub health: Option<Health>,
    /// Its range of host ids: see [`super::user_spec`].
    pub slot: u32,
    /// A system container that said so, or a user container that runs.
    pub ready: bool,
    /// Whether it runs and has not become ready in the time that is given for that: see [`super::readiness`].
    #[serde(default)]
    pub overdue: bool,
    /// Whether its last run ended by itself, as intended, and no other one is to follow.
    #[serde(default)]
    pub completed: bool,
    /// Whether it got as far as it will get by itself at least once; the boot is over when all have.
    pub tried: bool,
    /// Whether the engine has said that something is wrong with its image, while it is being prepared.
    #[serde(default)]
    pub troubled: bool,
    /// Whether it had not when the time for the boot was up: a problem until it has.
    #[serde(default)]
    pub late: bool,
    /// The calendar's time of its last run that the calendar began.
    #[serde(default)]
    pub due: Option<Duration>,
    /// Somebody has started it by hand before its image was there: it does not wait for its time then.
    #[serde(default)]
    pub at_once: bool,
    /// Whether what it waits for will not go away by itself, while it is in [`State::Waiting`].
    #[serde(default)]
    pub held: bool,
    /// Those that depend on it and are to be forgotten too, which end before it.
    #[serde(default)]
    pub(super) ends_after: Vec<u32>,
    /// Starts after the first.
    pub restarts: u32,
    /// Runs in a row that ended soon, each started again by the policy, for the back-off; a long run ends the row.
    pub attempt: u32,
    /// Failed runs in a row, for the limit of `on-failure`. One that succeeds ends the row, and so does whoever starts it by
    /// hand; one that was told to end is not part of it.
    #[serde(default)]
    pub failures: u32,
    /// See [`message::Container::started_us`].
    pub started_us: u64,
    /// See [`message::Container::exit_code`].
    pub exit_code: i32,
    /// How its last runs ended, the oldest first.
    pub ends: VecDeque<End>,
    /// What it used, in bytes, when it was killed because the machine ran out of memory.
    pub out_of_memory: Option<u64>,
    /// memory.events' `oom_kill` can be read for the last time when the container ends; kept for the reason.
    pub cgroup: PathBuf,
}

impl Container {
    /// A container that nothing has been done for.
    pub fn new(id: u32, name: String, definition: Definition, output: Output, slot: u32) -> Self {
        let (state, tree) = match definition {
            Definition::System(_) => (State::Waiting, "system"),
            Definition::User(_) => (State::Declared, "user"),
        };
        let cgroup = PathBuf::from("/sys/fs/cgroup").join(tree).join(&name);
        Self {
            id,
            name,
            definition,
            goal: Goal::Run,
            state,
            reason: String::new(),
            image: None,
            peer: None,
            channels: 0,
            output,
            interaction: Interaction::default(),
            session: None,
            made: None,
            api: None,
            frozen: false,
            awaited: None,
            network: None,
            addresses: Vec::new(),
            resolv_conf: String::new(),
            shared: None,
            pod: None,
            health: None,
            slot,
            ready: false,
            overdue: false,
            completed: false,
            tried: false,
            troubled: false,
            late: false,
            due: None,
            at_once: false,
            held: false,
            ends_after: Vec::new(),
            restarts: 0,
            attempt: 0,
            failures: 0,
            started_us: 0,
            exit_code: -1,
            ends: VecDeque::new(),
            out_of_memory: None,
            cgroup,
        }
    }

    /// System or user.
    pub fn kind(&self) -> Kind {
        match self.definition {
            Definition::System(_) => Kind::System,
            Definition::User(_) => Kind::User,
        }
    }

    /// The user container's configuration.
    pub fn user(&self) -> Option<&berth_config::Container> {
        match &self.definition {
            Definition::User(container) => Some(container),
            Definition::System(_) => None,
        }
    }

    /// The system container's definition.
    pub fn system(&self) -> Option<&SystemContainer> {
        match &self.definition {
            Definition::System(container) => Some(container),
            Definition::User(_) => None,
        }
    }

    /// The names of those that it starts after, and ends before.
    pub fn dependencies(&self) -> impl Iterator<Item = &str> {
        let system = self.system().into_iter().flat_map(|system| system.depends_on.iter().map(ContainerName::as_str));
        let user = self.user().into_iter().flat_map(|user| {
            let targets = user.targets().map(|(_, name)| name);
            user.depends_on.iter().map(|(name, _)| name).chain(targets).map(ContainerName::as_str)
        });
        system.chain(user)
    }

    /// The first process, if there is one, as the machine sees it.
    pub fn pid(&self) -> Option<i32> {
        match &self.state {
            State::Attaching { created, .. } => created.as_ref().map(Created::pid),
            State::Executing { running, .. } | State::Running(running) | State::Stopping { running, .. } => {
                Some(running.pid)
            }
            _ => None,
        }
    }

    /// The range of host ids that its user namespace has.
    pub fn ids(&self) -> u32 {
        self.pod.as_ref().map_or(self.slot, |pod| pod.slot)
    }

    /// Where it is among others.
    pub fn place(&self) -> Place<'_> {
        Place { ids: self.ids(), network: self.shared.as_ref(), pod: self.pod.as_ref() }
    }

    /// Whether there is, or is about to be, something in its cgroup.
    pub fn may_have_processes(&self) -> bool {
        matches!(self.state, State::Creating { .. }) || self.pid().is_some()
    }

    /// How it is to be checked: as its definition says, and its image where that says nothing.
    pub fn health_settings(&self) -> Option<Cow<'_, berth_config::Health>> {
        let of_image = self.image.as_ref().and_then(|image| image.health.as_ref());
        match &self.user()?.health {
            Some(own) => own.over(of_image).map(Cow::Owned),
            None => of_image.map(Cow::Borrowed),
        }
    }

    /// Whether its health check fails.
    pub fn is_unhealthy(&self) -> bool {
        self.health.as_ref().is_some_and(|health| health.status() == message::Health::Unhealthy)
    }

    /// Whether it stays stopped over a reboot, once somebody has stopped it.
    pub fn stays_stopped(&self) -> bool {
        self.user().is_some_and(|user| user.restart == RestartPolicy::UnlessStopped)
    }

    /// Does not run until somebody says so.
    pub fn rest(&mut self, reason: String) {
        self.goal = Goal::Stop;
        self.state = State::Stopped;
        self.reason = reason;
        self.tried = true;
    }

    /// Whether it is a user container between its start and its program's first instruction.
    pub fn is_beginning(&self) -> bool {
        let begins = matches!(self.state, State::Creating { .. } | State::Attaching { .. } | State::Executing { .. });
        begins && self.user().is_some()
    }

    /// Whether it stands still until something from outside happens to it.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.state, State::Stopped | State::Failed)
    }

    /// When something has to be done about it at the latest, as the wall clock stands now.
    pub fn deadline(&self, now: Duration, wall: Duration) -> Option<Duration> {
        match &self.state {
            State::Creating { deadline, .. }
            | State::Attaching { deadline, .. }
            | State::Executing { deadline, .. } => Some(*deadline),
            State::Stopping { deadline, .. } => *deadline,
            State::Backoff { until } => Some(*until),
            State::Scheduled(timer) => Some(timer.deadline(now, wall)),
            State::Running(_) if self.frozen => self.quiet_at(),
            State::Running(_) => {
                let look = self.awaited.as_ref().and_then(Awaited::deadline);
                let client = self.session.as_ref().and_then(Session::deadline);
                let check = self.health.as_ref().map(Health::deadline);
                let times = [look, check, client, self.quiet_at(), self.overdue_at()];
                times.into_iter().flatten().min()
            }
            _ => None,
        }
    }
}
