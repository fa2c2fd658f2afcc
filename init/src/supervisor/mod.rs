//! The containers: started in the order of their dependencies, kept running, stopped in the reverse order.
//!
//! Everything happens in answer to an event: a child that ended ([`Supervisor::ended`]), a report of the runtime
//! ([`Supervisor::set_up`]), a message ([`Supervisor::message`]), a deadline. Each ends in [`Supervisor::settle`], which
//! moves every container on as far as it can go.

mod account;
mod alive;
mod api;
mod applicant;
mod apply;
mod container;
mod controllers;
mod dependencies;
mod description;
mod devices;
mod end;
mod execution;
mod farewell;
mod freeze;
mod health;
mod interaction;
mod launch;
mod layers;
mod lines;
mod listening;
mod made;
mod memory;
mod network;
mod output;
mod peer;
mod pods;
mod preparing;
mod problems;
mod readiness;
mod requests;
mod restored;
mod resume;
mod services;
mod session;
mod sheets;
mod starting;
mod statistics;
mod stop;
pub mod system_spec;
mod timer;
mod user_spec;
mod why;

#[cfg(test)]
mod fleet_model;
#[cfg(test)]
mod made_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod resume_tests;
#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use berth_config::Role;
use berth_control::message::{FromInit, Notice};
use berth_runtime::handover::Descriptor;
use serde::{Deserialize, Serialize};

pub use self::applicant::Applicant;
pub use self::container::{Container, Definition, Goal, State};
pub use self::execution::Execution;
pub use self::requests::Outcome;
use crate::clock;
use crate::made::Unread;
use crate::reactor::{Reactor, Token};
use crate::registry::Registry;

/// The containers and what they share.
#[derive(Debug)]
pub struct Supervisor {
    reactor: Rc<Reactor>,
    pub(crate) containers: Registry<Container>,
    /// Further programs in running containers.
    pub(crate) executions: Registry<Execution>,
    /// What else there is to know.
    pub facts: Facts,
    /// What is wanted.
    pub configuration: berth_config::Configuration,
    /// Where what decides about containers stands in the configuration's files.
    pub locations: berth_config::Locations,
    /// When the present round of events began, on [`crate::clock`]. Everything that is decided in a round is decided by it.
    pub now: Duration,
    /// What the wall clock said then, since 1970 in UTC.
    pub wall: Duration,
    /// Whether some container is to go, so that another one of its name may be there.
    replacing: bool,
    /// How many user containers are being set up.
    beginning: usize,
    /// Whether the next boot may have another configuration than the one in force.
    pub on_trial: bool,
    /// What begins to set a container up.
    launcher: launch::Launcher,
    /// How many containers there may be for one more to be made by hand.
    most: usize,
}

/// What the supervisor knows beside the containers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Facts {
    /// /dev/kmsg, as `logs` reads it; opened when it first comes.
    kernel_log: Option<Descriptor>,
    /// Cgroups of ended containers in which something may still be alive.
    leftovers: Vec<PathBuf>,
    /// Nothing is started any more.
    shutting_down: bool,
    /// Containers started from now on print into the kernel's log: see [`crate::command_line`].
    pub output_to_kernel: bool,
    /// The configuration has been read, or is not waited for any longer.
    pub configured: bool,
    /// The containers that somebody stopped and that stay so over a reboot.
    pub stopped: BTreeSet<String>,
    /// The containers that somebody had stopped, whatever their policy, and that the configuration in force has removed or made
    /// anew, as long as it may be taken back: see [`Supervisor::forget_stopped`].
    #[serde(default)]
    rested: BTreeSet<String>,
    /// Whether `stopped` has changed since it was last written.
    pub stopped_changed: bool,
    /// Whether [`Supervisor::kept_made`] has changed since it was last written.
    #[serde(default)]
    pub made_changed: bool,
    /// Whether those that were kept are there again.
    #[serde(default)]
    pub made_known: bool,
    /// What was kept of some and is none now; kept on.
    #[serde(default)]
    pub made_unread: Vec<Unread>,
    /// The containers that the engine has not forgotten yet, and whether their volumes go too.
    #[serde(default)]
    forgotten: BTreeMap<String, bool>,
    /// Those who wait until it has.
    #[serde(default, deserialize_with = "crate::handover::those_there")]
    farewells: BTreeMap<String, farewell::Farewell>,
}

impl Supervisor {
    /// Without containers.
    pub fn new(reactor: Rc<Reactor>) -> Self {
        Self {
            reactor,
            containers: Registry::default(),
            executions: Registry::default(),
            facts: Facts::default(),
            configuration: berth_config::Configuration::default(),
            locations: berth_config::Locations::default(),
            now: clock::since_boot(),
            wall: clock::wall(),
            replacing: false,
            on_trial: false,
            beginning: 0,
            launcher: launch::launch_one,
            most: made::MOST,
        }
    }

    /// A round of events begins.
    pub fn begin_round(&mut self) {
        self.now = clock::since_boot();
        self.wall = clock::wall();
    }

    /// All containers, system ones first, by name.
    pub fn list(&self) -> Vec<&Container> {
        let mut list: Vec<&Container> = self.containers.values().collect();
        list.sort_by(|left, right| (left.kind(), &left.name).cmp(&(right.kind(), &right.name)));
        list
    }

    /// The container of this name; of one that ends and its successor the latter.
    pub fn find(&self, name: &str) -> Option<&Container> {
        let named = self.containers.values().filter(|container| container.name == name);
        named.max_by_key(|container| (container.goal != Goal::Remove, container.id))
    }

    fn find_mut(&mut self, name: &str) -> Option<&mut Container> {
        let id = self.find(name)?.id;
        self.containers.get_mut(id)
    }

    /// The system container with this role, if it said that it is ready.
    fn service(&self, role: Role) -> Option<u32> {
        let has_role = |container: &&Container| container.system().is_some_and(|system| system.role == Some(role));
        self.containers.values().find(|container| container.ready && has_role(container)).map(|container| container.id)
    }

    /// Whether every container got as far as it will get by itself: the boot is over.
    pub fn all_tried(&self) -> bool {
        self.containers.values().all(|container| container.tried)
    }

    /// When something has to be done at the latest, on [`crate::clock`].
    pub fn deadline(&self) -> Option<Duration> {
        self.containers.values().filter_map(|container| container.deadline(self.now, self.wall)).min()
    }

    /// Moves every container on as far as it can go. To be called after each event.
    pub fn settle(&mut self) {
        self.remove_leftovers();
        // A start may allow another one: again until nothing moves. Every round starts a container, finds who is held by one
        // that is held, which is an order without circles, or is the last.
        loop {
            let mut moved = self.forget_removed();
            self.replacing = self.containers.values().any(|container| container.goal == Goal::Remove);
            self.beginning = self.containers.values().filter(|container| container.is_beginning()).count();
            let ids: Vec<u32> = self.containers.numbers();
            for id in ids {
                moved |= self.move_on(id);
            }
            if !moved {
                break;
            }
        }
    }

    fn move_on(&mut self, id: u32) -> bool {
        let now = self.now;
        let Some(container) = self.containers.get(id) else { return false };
        match &container.state {
            State::Waiting => self.start_if_possible(id),
            State::Backoff { until } if *until <= now => self.try_again(id),
            State::Scheduled(_) if container.session.is_some() => {
                // Of the run that is over: the next one is nobody's yet.
                self.end_session(id);
                true
            }
            State::Scheduled(_) => self.look_at_timer(id),
            State::Creating { deadline, .. }
            | State::Attaching { deadline, .. }
            | State::Executing { deadline, .. }
                if *deadline <= now =>
            {
                self.set_up_failed(id, "setting it up took too long".to_owned());
                true
            }
            State::Stopped | State::Failed => self.come_to_rest(id),
            State::Running(_) if self.may_end(container) => {
                self.stop(id, Goal::Remove);
                true
            }
            State::Running(_) if !container.frozen && container.is_due_for_a_look(now) => {
                self.look_at_port(id);
                true
            }
            State::Running(_)
                if !container.frozen && container.health.as_ref().is_some_and(|health| health.deadline() <= now) =>
            {
                self.check_health(id);
                true
            }
            State::Running(_) if container.quiet_at().is_some_and(|at| at <= now) => {
                self.quiet(id);
                true
            }
            State::Running(_) if !container.frozen && container.overdue_at().is_some_and(|at| at <= now) => {
                self.is_overdue(id);
                true
            }
            State::Running(_) if !container.frozen && container.has_client_to_look_after(now) => {
                self.look_after_client(id);
                true
            }
            State::Stopping { deadline: Some(deadline), .. } if *deadline <= now => {
                self.kill_now(id);
                true
            }
            _ => false,
        }
    }

    fn try_again(&mut self, id: u32) -> bool {
        let Some(container) = self.containers.get_mut(id) else { return false };
        container.restarts = container.restarts.saturating_add(1);
        self.begin_anew(id);
        true
    }

    /// Lets a container without a process wait for its start. Without an image the engine is asked again.
    fn begin_anew(&mut self, id: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let prepared = container.system().is_some() || container.image.is_some();
        container.held = false;
        container.state = if prepared { State::Waiting } else { State::Declared };
        if !prepared {
            // Why it was not running is no reason any more.
            container.reason.clear();
            (container.troubled, container.late) = (false, false);
            self.changed(id);
            self.prepare(id);
        }
    }

    fn start_if_possible(&mut self, id: u32) -> bool {
        let Some(container) = self.containers.get(id) else { return false };
        if container.goal != Goal::Run || self.facts.shutting_down {
            return self.rest(id);
        }
        if let Some(obstacle) = self.obstacle(container) {
            // Counts as a change only if it is one: everybody who waits is asked after every event.
            let turned = container.held != obstacle.lasting;
            if turned || container.reason != obstacle.reason {
                let Some(container) = self.containers.get_mut(id) else { return false };
                container.reason = obstacle.reason;
                container.held = obstacle.lasting;
                container.tried |= obstacle.lasting;
                self.changed(id);
            }
            // Who waits for this one may be held by it, or not any more.
            return turned;
        }
        let unmet = container.system().and_then(|system| system_spec::unmet_condition(system.condition.as_ref()?));
        if let Some(reason) = unmet {
            if let Some(container) = self.containers.get_mut(id) {
                container.state = State::Stopped;
                container.reason = reason;
                container.tried = true;
            }
            return true;
        }
        self.beginning += usize::from(container.user().is_some());
        self.launch(id);
        true
    }

    /// Puts a container that is not to run to rest.
    fn rest(&mut self, id: u32) -> bool {
        let Some(container) = self.containers.get_mut(id) else { return false };
        container.state = State::Stopped;
        container.tried = true;
        true
    }

    /// Drops the containers that are to be forgotten and have ended.
    fn forget_removed(&mut self) -> bool {
        let gone: Vec<u32> = self
            .containers
            .values()
            .filter(|container| container.goal == Goal::Remove && container.is_at_rest())
            .map(|container| container.id)
            .collect();
        let mut removed = Vec::new();
        for id in gone {
            if self.containers.get(id).is_some_and(|container| container.made.is_none()) {
                self.end_session(id);
            }
            removed.extend(self.containers.remove(id));
        }
        if removed.is_empty() {
            return false;
        }
        // First: who is told that a container is gone finds nothing of it.
        self.unmount_unused_layers();
        for container in removed {
            self.tell_of_removal(&container);
            if container.made.is_some() {
                self.forget_made(container);
            } else {
                log::info!("container {} is no longer declared and is gone", container.name);
            }
        }
        true
    }

    /// Sends to the system container with this role, if it is ready; it asks by itself when it becomes ready later.
    fn notify(&mut self, role: Role, notice: Notice) {
        if let Some(id) = self.service(role) {
            self.send(id, FromInit::Notice(notice), &[]);
        }
    }

    /// Sends to a system container. One that does not read is killed: its restart is better than its silence.
    fn send(&mut self, id: u32, message: FromInit, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
        let most = peer::longest_queue(self.containers.count());
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(peer) = container.peer.as_mut() else { return };
        let sent = peer.send(message, descriptors, most);
        let room = self.reactor.watch_room(&*peer, Token::Channel(id), peer.is_waiting());
        if let Err(error) = sent {
            log::warn!("container {}: {error}", container.name);
            self.kill_now(id);
        } else if let Err(error) = room {
            log::warn!("container {}: watch its channel: {error}", container.name);
        }
    }
}
