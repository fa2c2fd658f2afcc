//! What system containers ask of PID 1 and tell it, each as far as its role allows.

use std::os::fd::OwnedFd;
use std::time::Duration;

use berth_config::Role;
use berth_control::channel::ChannelError;
use berth_control::message::{CONTAINERS_AT_ONCE, Kind, Link, Network, Notice, PowerAction, Reply, Request, ToInit};

use super::applicant::Applicant;
use super::container::{Goal, State};
use super::preparing::Delay;
use super::{Supervisor, statistics};
use crate::clock;
use crate::reactor::Token;

/// So many messages of one peer are answered before the others, and signals, have their turn.
pub(super) const MESSAGES_AT_ONCE: usize = 32;

/// What a request wants of the machine as a whole; the caller carries it out.
#[derive(Debug)]
pub enum Outcome {
    /// Answer with [`Reply::Machine`].
    Machine(Applicant),
    /// Answer with [`Reply::Timeline`].
    Timeline(Applicant),
    /// Answer with [`Reply::Boots`].
    Boots(Applicant),
    /// The control API answers.
    Alive,
    /// Answer by [`Supervisor::answer_with`].
    Configuration(Applicant),
    /// See [`Request::Plan`].
    Plan {
        /// Who asks.
        applicant: Applicant,
        /// With files, and for the plan.
        sheet: OwnedFd,
    },
    /// See [`Request::Apply`].
    Apply {
        /// Who asks.
        applicant: Applicant,
        /// With files, and for the plan.
        sheet: OwnedFd,
        /// Within which time it is to be confirmed.
        confirm: Option<Duration>,
    },
    /// See [`Request::Why`]: of something that is no container.
    Why {
        /// Who asks.
        applicant: Applicant,
        /// Of what.
        name: String,
    },
    /// See [`Request::Confirm`].
    Confirm(Applicant),
    /// It is done. Answer when the next boot knows of it.
    Kept {
        /// Who asks.
        applicant: Applicant,
        /// What goes with the answer.
        descriptor: Option<OwnedFd>,
    },
    /// Leave this boot.
    Power {
        /// Who is told whether it is done.
        applicant: Applicant,
        /// How.
        action: PowerAction,
    },
    /// Become the next program, which answers.
    Reexecute {
        /// Who answers is the next program.
        applicant: Applicant,
        /// Another one than the one that runs.
        program: Option<OwnedFd>,
    },
    /// The links have changed.
    Links(Vec<Link>),
    /// The networks of containers have changed.
    Networks(Vec<Network>),
    /// DHCP names the machine.
    HostName(String),
}

impl Supervisor {
    /// A system container's channel is readable, writable or gone. What is left after [`MESSAGES_AT_ONCE`] waits for the
    /// next round.
    pub fn message(&mut self, id: u32) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for _ in 0..MESSAGES_AT_ONCE {
            let Some(container) = self.containers.get_mut(id) else { return outcomes };
            let Some(peer) = container.peer.as_mut() else { return outcomes };
            if let Err(error) = peer.flush() {
                log::warn!("container {}: {error}", container.name);
            }
            if let Err(error) = self.reactor.watch_room(&*peer, Token::Channel(id), peer.is_waiting()) {
                log::warn!("container {}: watch its channel: {error}", container.name);
            }
            match peer.receive() {
                Ok((message, descriptors)) => outcomes.extend(self.answer(id, message, descriptors)),
                Err(ChannelError::WouldBlock) => return outcomes,
                Err(ChannelError::Closed) => {
                    // It has closed its end; whether it lives on without is its business until its process ends.
                    if let Some(peer) = container.peer.take() {
                        self.reactor.remove(&peer);
                    }
                    return outcomes;
                }
                Err(error) => log::warn!("container {} sends nonsense: {error}", container.name),
            }
        }
        outcomes
    }

    fn answer(&mut self, from: u32, message: ToInit, descriptors: Vec<OwnedFd>) -> Option<Outcome> {
        let role = self.containers.get(from).and_then(|container| container.system()?.role);
        let (applicant, request) = (self.applicant(from, message.id), message.request);
        if !allowed(role, &request) {
            let reason = "this system container's role does not include that request".to_owned();
            self.refuse(applicant, reason);
            return None;
        }
        let request = match self.hand_out(applicant, request) {
            Ok(()) => return None,
            Err(request) => request,
        };
        let reply = match request {
            Request::Alive => {
                self.is_alive(from);
                self.reply_to(applicant, Reply::Done);
                return Some(Outcome::Alive);
            }
            Request::Create { creation, session } => return self.create_for(applicant, *creation, session),
            Request::Statistics { after } => {
                let some = self.some_after(&after);
                let more = some.len() == CONTAINERS_AT_ONCE;
                let next = some.last().filter(|_| more).map(|container| container.name.clone());
                Reply::Statistics { statistics: some.into_iter().filter_map(statistics::of).collect(), next }
            }
            Request::Why { name } => match self.why(&name) {
                Some(causes) => Reply::Why(causes),
                None => return Some(Outcome::Why { applicant, name }),
            },
            Request::Declared { after } => {
                if after.is_empty() {
                    self.forget_again();
                }
                let (declarations, next) = self.tell_declarations_after(&after);
                Reply::Declared { declarations, next }
            }
            Request::Registries => Reply::Registries(Box::new(self.registries())),
            Request::NetworkConfiguration => Reply::NetworkConfiguration(Box::new(self.configuration.networking())),
            Request::PreparedOnSheet { name } => done(self.prepared_on_sheet(&name, descriptors)),
            Request::Execute(execution) => done(self.execute(&execution, descriptors)),
            Request::Instances { name } => match self.instances(&name) {
                Ok(names) => Reply::Names(names),
                Err(reason) => Reply::Refused { reason },
            },
            Request::Remove { name, force, volumes } => {
                // Answered when it is gone.
                let removed = self.remove_made(applicant, &name, force, volumes);
                removed.unwrap_or_else(|reason| self.refuse(applicant, reason));
                return None;
            }
            request => match for_the_machine(applicant, request, descriptors) {
                Ok(outcome) => {
                    // The others are answered when it is done.
                    let at_once = matches!(outcome, Outcome::Links(_) | Outcome::Networks(_) | Outcome::HostName(_));
                    if at_once {
                        self.reply_to(applicant, Reply::Done);
                    }
                    return Some(outcome);
                }
                Err(request) => {
                    let lasts = is_for_the_next_boot(&request);
                    let result = self.carry_out(from, request);
                    if lasts && result.is_ok() && (self.facts.made_changed || self.facts.stopped_changed) {
                        return Some(Outcome::Kept { applicant, descriptor: None });
                    }
                    done(result)
                }
            },
        };
        self.reply_to(applicant, reply);
        None
    }

    /// The requests whose answers come with a descriptor; others are given back.
    fn hand_out(&mut self, applicant: Applicant, request: Request) -> Result<(), Request> {
        match request {
            Request::Containers => {
                let sheet = self.listing().map(Some);
                self.hand_over(applicant, sheet);
            }
            Request::Audit => {
                let audit = self.audit();
                self.answer_with(applicant, audit);
            }
            Request::Definition { name } => {
                let definition = self.definition(&name);
                self.answer_with(applicant, definition);
            }
            Request::Attach { name, start } => {
                let attached = if start { self.start_attached(&name) } else { self.attach_client(&name) }.map(Some);
                self.hand_over(applicant, attached);
            }
            other => return Err(other),
        }
        Ok(())
    }

    /// The requests that are answered by a yes or a no.
    fn carry_out(&mut self, from: u32, request: Request) -> Result<(), String> {
        match request {
            Request::Ready => self.service_ready(from),
            Request::Start { name } => self.start_by_name(&name)?,
            Request::Stop { name, ending } => {
                let id = self.id_of(&name)?;
                // Without `control` nobody could ask for it again, and without `logs` everybody's pipe fills.
                if self.containers.get(id).is_some_and(|container| container.kind() == Kind::System) {
                    return Err(format!(
                        "{name} is a system container, which the machine needs; `berth restart {name}` starts it anew"
                    ));
                }
                self.stop_with(id, Goal::Stop, ending)?;
                self.keep_stopped(&name, true);
            }
            Request::Restart { name, ending } => {
                let id = self.id_of(&name)?;
                self.may_begin(&name)?;
                self.stop_with(id, Goal::Restart, ending)?;
                if let Some(container) = self.containers.get_mut(id) {
                    container.failures = 0;
                    container.at_once = container.image.is_none();
                }
                self.keep_stopped(&name, false);
            }
            Request::Kill { name, signal } => self.signal_container(self.id_of(&name)?, signal)?,
            Request::Pause { name } => self.freeze(&name, true)?,
            Request::Unpause { name } => self.freeze(&name, false)?,
            Request::Resize { name, size } => {
                self.find_mut(&name).ok_or_else(|| unknown(&name))?.interaction.resize(size)?;
            }
            Request::Forgotten { name } => self.forgotten(&name),
            Request::Prepared { name, image } => self.image_prepared(&name, image)?,
            Request::PrepareFailed { name, reason } => self.not_prepared(&name, reason, Delay::Ever)?,
            Request::PrepareDelayed { name, reason, retry_s } => {
                self.not_prepared(&name, reason, retry_s.map_or(Delay::Underway, Delay::Seconds))?;
            }
            Request::NetworkAttached { name, addresses, resolv_conf } => self.attached(&name, addresses, resolv_conf),
            Request::NetworkFailed { name, reason } => self.not_attached(self.id_of(&name)?, reason),
            Request::Clock { behind, next } => clock::correct(behind, next)?,
            // Without its descriptor.
            _ => return Err("this request comes with a descriptor".to_owned()),
        }
        Ok(())
    }

    pub(super) fn id_of(&self, name: &str) -> Result<u32, String> {
        self.find(name).map(|container| container.id).ok_or_else(|| unknown(name))
    }

    pub(super) fn start_by_name(&mut self, name: &str) -> Result<(), String> {
        self.may_start(name)?;
        self.keep_stopped(name, false);
        let container = self.find_mut(name).ok_or_else(|| unknown(name))?;
        if matches!(container.state, State::Stopping { .. }) {
            container.goal = Goal::Restart;
            container.failures = 0;
            return Ok(());
        }
        let runs = container.may_have_processes();
        // One that was killed and has not ended of it is wanted again.
        container.goal = Goal::Run;
        if runs {
            return Ok(());
        }
        (container.attempt, container.failures) = (0, 0);
        container.at_once = container.image.is_none();
        let id = container.id;
        self.note_begun(id);
        self.begin_anew(id);
        Ok(())
    }

    /// Tells `control` that a container has changed.
    pub(super) fn changed(&mut self, id: u32) {
        let Some(container) = self.containers.get(id) else { return };
        let notice = Notice::ContainerChanged(Box::new(container.describe()));
        self.notify(Role::Control, notice);
    }

    /// Tells `control` that a container is gone, unless another one has its name.
    pub(super) fn tell_of_removal(&mut self, container: &super::Container) {
        if self.find(&container.name).is_none() {
            self.notify(Role::Control, Notice::ContainerRemoved(Box::new(container.describe())));
            // That of one that was made goes with it.
            if container.made.is_none() {
                self.notify(Role::Logs, Notice::LogEnded { container: container.name.clone() });
            }
        }
    }

    /// Tells `control` that the machine has changed.
    pub fn machine_changed(&mut self, state: berth_control::message::MachineState) {
        self.notify(Role::Control, Notice::MachineChanged(state));
    }

    /// The next containers in the order of their names.
    fn some_after(&self, name: &str) -> Vec<&super::Container> {
        let mut some: Vec<_> = self.containers.values().filter(|container| container.name.as_str() > name).collect();
        some.sort_by(|left, right| left.name.cmp(&right.name));
        some.truncate(CONTAINERS_AT_ONCE);
        some
    }
}

/// Whether it may change which containers the next boot has, or which of them stay stopped.
fn is_for_the_next_boot(request: &Request) -> bool {
    matches!(request, Request::Start { .. } | Request::Stop { .. } | Request::Restart { .. })
}

/// What a request wants of the machine; the request itself if it wants nothing of it.
fn for_the_machine(applicant: Applicant, request: Request, descriptors: Vec<OwnedFd>) -> Result<Outcome, Request> {
    let mut descriptors = descriptors.into_iter();
    Ok(match (request, descriptors.next()) {
        (Request::Machine, _) => Outcome::Machine(applicant),
        (Request::Timeline, _) => Outcome::Timeline(applicant),
        (Request::Boots, _) => Outcome::Boots(applicant),
        (Request::Configuration, _) => Outcome::Configuration(applicant),
        (Request::Plan, Some(sheet)) => Outcome::Plan { applicant, sheet },
        (Request::Apply { confirm_ms }, Some(sheet)) => {
            Outcome::Apply { applicant, sheet, confirm: confirm_ms.map(Duration::from_millis) }
        }
        (Request::Confirm, _) => Outcome::Confirm(applicant),
        (Request::Power(action), _) => Outcome::Power { applicant, action },
        (Request::Reexecute, program) => Outcome::Reexecute { applicant, program },
        (Request::Links { links }, _) => Outcome::Links(links),
        (Request::Networks { networks }, _) => Outcome::Networks(networks),
        (Request::HostName { name }, _) => Outcome::HostName(name),
        (other, _) => return Err(other),
    })
}

fn done(result: Result<(), String>) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(reason) => Reply::Refused { reason },
    }
}

pub(super) fn unknown(name: &str) -> String {
    format!("there is no container {name}; `berth ps --all` lists what there is")
}

/// Whether a role includes a request: message.rs has the list.
fn allowed(role: Option<Role>, request: &Request) -> bool {
    let needed = match request {
        Request::Ready => return role.is_some(),
        Request::Machine
        | Request::Timeline
        | Request::Boots
        | Request::Alive
        | Request::Containers
        | Request::Statistics { .. }
        | Request::Why { .. }
        | Request::Configuration
        | Request::Audit
        | Request::Definition { .. }
        | Request::Start { .. }
        | Request::Stop { .. }
        | Request::Restart { .. }
        | Request::Kill { .. }
        | Request::Create { .. }
        | Request::Attach { .. }
        | Request::Remove { .. }
        | Request::Pause { .. }
        | Request::Unpause { .. }
        | Request::Resize { .. }
        | Request::Instances { .. }
        | Request::Execute(_)
        | Request::Power(_)
        | Request::Reexecute
        | Request::Plan
        | Request::Apply { .. }
        | Request::Confirm => Role::Control,
        Request::Declared { .. }
        | Request::Registries
        | Request::Forgotten { .. }
        | Request::Prepared { .. }
        | Request::PreparedOnSheet { .. }
        | Request::PrepareFailed { .. }
        | Request::PrepareDelayed { .. } => Role::Engine,
        Request::Links { .. }
        | Request::Networks { .. }
        | Request::HostName { .. }
        | Request::Clock { .. }
        | Request::NetworkConfiguration
        | Request::NetworkAttached { .. }
        | Request::NetworkFailed { .. } => Role::Network,
    };
    role == Some(needed)
}
