//! Whether running containers do their work: `[containers.<name>.health]`.
//!
//! ```text
//!             passes                 `retries` failures in a row
//! Starting ───────────▶ Healthy ───────────────────────────────▶ Unhealthy
//!     │                    ▲                                        │  ▲
//!     │                    └──────────────── passes ────────────────┘  │
//!     └──────────── `retries` failures after the start period ─────────┘
//! ```
//! A program runs as an execution in the container. A page or a port is looked at by PID 1's own loop, over a socket in
//! the container's network: see [`probe`].

mod printed;
mod probe;

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use berth_control::message::{self, Execution, ExecutionEnd};
use berth_runtime::handover::Handed;
use serde::{Deserialize, Serialize};

use self::printed::Found;
use self::probe::Probe;
use super::Supervisor;
use super::container::{Container, State};
use crate::reactor::{Reactor, Token};

/// So many failures in a row are told.
const REMEMBERED: usize = 3;
/// How the reason of an unhealthy container begins.
const FAILS: &str = "its health check fails: ";

/// What the checks of one run of a container have found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Health {
    settings: berth_config::Health,
    status: message::Health,
    /// Failed checks in a row.
    failures: u32,
    /// Why the last ones in the present row of failures failed, the oldest first.
    #[serde(default)]
    last_failures: VecDeque<String>,
    /// Until then failures do not count, on [`crate::clock`].
    grace: Duration,
    stage: Stage,
}

#[derive(Debug, Serialize, Deserialize)]
enum Stage {
    /// Between two checks.
    Pause { until: Duration },
    /// A program runs in the container.
    Program {
        number: u32,
        output: Handed<File>,
        deadline: Duration,
        /// What it has printed, as far as that is told.
        #[serde(default)]
        beginning: Vec<u8>,
        /// When it is looked again what it prints; none as long as that is waited for, and after its end.
        #[serde(default)]
        look: Option<Duration>,
    },
    /// The container's network is looked at.
    Network { probe: Probe, deadline: Duration },
}

impl Health {
    /// Of a container that begins to run.
    pub fn begin(settings: &berth_config::Health, now: Duration) -> Self {
        let first = settings.start_interval().duration().min(settings.interval().duration());
        Self {
            settings: settings.clone(),
            status: message::Health::Starting,
            failures: 0,
            last_failures: VecDeque::new(),
            grace: now + settings.start_period().duration(),
            stage: Stage::Pause { until: now + first },
        }
    }

    /// How many have failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// How many make it unhealthy.
    pub fn retries(&self) -> u32 {
        self.settings.retries()
    }

    /// Why the last one failed, if it did.
    pub fn last_failure(&self) -> Option<&str> {
        self.last_failures.back().map(String::as_str)
    }

    /// Why those before it failed, the newest first.
    pub fn earlier_failures(&self) -> impl Iterator<Item = &str> {
        self.last_failures.iter().rev().skip(1).map(String::as_str)
    }

    fn remember(&mut self, result: &Result<(), String>) {
        match result {
            Ok(()) => self.last_failures.clear(),
            Err(reason) => {
                if self.last_failures.len() >= REMEMBERED {
                    self.last_failures.pop_front();
                }
                self.last_failures.push_back(reason.clone());
            }
        }
    }

    /// What they have found so far.
    pub fn status(&self) -> message::Health {
        self.status
    }

    /// The look at the network, if there is one under way.
    pub fn connection(&self) -> Option<&Probe> {
        match &self.stage {
            Stage::Network { probe, .. } => Some(probe),
            _ => None,
        }
    }

    /// What its program prints, if that is waited for.
    pub fn output(&self) -> Option<BorrowedFd<'_>> {
        match &self.stage {
            Stage::Program { output, look: None, .. } => Some(output.as_fd()),
            _ => None,
        }
    }

    /// When something has to be done.
    pub fn deadline(&self) -> Duration {
        match &self.stage {
            Stage::Pause { until } => *until,
            Stage::Program { deadline, look, .. } => look.map_or(*deadline, |look| look.min(*deadline)),
            Stage::Network { deadline, .. } => *deadline,
        }
    }

    /// Counts a check; says whether the status is another one now.
    fn count(&mut self, passed: bool, now: Duration) -> bool {
        let before = self.status;
        let in_grace = self.status == message::Health::Starting && now < self.grace;
        if passed {
            self.failures = 0;
            self.status = message::Health::Healthy;
        } else if !in_grace {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.settings.retries() {
                self.status = message::Health::Unhealthy;
            }
        }
        self.pause(now);
        self.status != before
    }

    fn pause(&mut self, now: Duration) {
        let starting = self.status == message::Health::Starting && now < self.grace;
        let pause = if starting { self.settings.start_interval() } else { self.settings.interval() };
        self.stage = Stage::Pause { until: now + pause.duration() };
    }
}

impl Supervisor {
    /// Begins the checks of a container's definition; those before count no more.
    pub(super) fn begin_health_checks(&mut self, id: u32) {
        self.give_up_check(id);
        let now = self.now;
        let Some(container) = self.containers.get_mut(id) else { return };
        let runs = matches!(container.state, State::Running(_));
        let settings = container.health_settings().filter(|_| runs);
        let begun = settings.map(|settings| Health::begin(&settings, now));
        container.health = begun;
        self.tell_serving(id);
    }

    /// A container stands still or goes on: a check that is under way says nothing, and the next comes after a pause.
    pub(super) fn put_check_off(&mut self, id: u32) {
        self.give_up_check(id);
        let now = self.now;
        let health = self.containers.get_mut(id).and_then(|container| container.health.as_mut());
        if let Some(health) = health {
            health.pause(now);
        }
    }

    /// Ends a check that is under way.
    pub(super) fn give_up_check(&mut self, id: u32) {
        match self.containers.get(id).and_then(|container| Some(&container.health.as_ref()?.stage)) {
            Some(Stage::Program { number, output, .. }) => {
                self.reactor.remove(output);
                self.give_up_execution(*number);
            }
            Some(Stage::Network { probe, .. }) => self.reactor.remove(probe),
            _ => {}
        }
    }

    /// The time of a container's health check has come: to begin one, or to give it up.
    pub(super) fn check_health(&mut self, id: u32) {
        let Some(health) = self.containers.get(id).and_then(|container| container.health.as_ref()) else { return };
        match &health.stage {
            Stage::Pause { .. } => {
                if let Err(reason) = self.begin_check(id) {
                    self.checked(id, Err(reason));
                }
            }
            Stage::Program { deadline, .. } if *deadline > self.now => self.look_at_output(id),
            Stage::Program { .. } | Stage::Network { .. } => {
                let reason = format!("it took longer than {}", health.settings.timeout());
                self.give_up_check(id);
                self.checked(id, Err(reason));
            }
        }
    }

    fn begin_check(&mut self, id: u32) -> Result<(), String> {
        let Some(container) = self.containers.get(id) else { return Ok(()) };
        let (Some(health), State::Running(running)) = (&container.health, &container.state) else { return Ok(()) };
        let (settings, pid) = (health.settings.clone(), running.pid);
        let deadline = self.now + settings.timeout().duration();
        let stage = if let Some(command) = &settings.exec {
            let name = container.name.clone();
            let (number, output) = self.execute_check(id, &name, command.words())?;
            Stage::Program { number, output: output.into(), deadline, beginning: Vec::new(), look: None }
        } else {
            let target = probe::Target::of(&settings).ok_or("it says nothing to look at")?;
            let probe = Probe::begin(target, pid)?;
            watch(&self.reactor, &probe, id).map_err(|error| format!("watch it: {error}"))?;
            Stage::Network { probe, deadline }
        };
        if let Some(health) = self.containers.get_mut(id).and_then(|container| container.health.as_mut()) {
            health.stage = stage;
        }
        Ok(())
    }

    /// Runs the program of a check, and waits for what it prints.
    fn execute_check(&mut self, id: u32, name: &str, arguments: &[String]) -> Result<(u32, File), String> {
        let failed = |error: nix::Error| format!("make a pipe for its output: {error}");
        let (reader, output) = printed::pipe().map_err(failed)?;
        let wanted = Execution { container: name.to_owned(), arguments: arguments.to_vec(), ..Execution::default() };
        let streams: [Option<BorrowedFd<'_>>; 3] = [None, Some(output.as_fd()), Some(output.as_fd())];
        let number = self.execute_for_check(&wanted, streams)?;
        if let Err(error) = self.reactor.add(&reader, Token::Health(id)) {
            self.give_up_execution(number);
            return Err(format!("watch it: {error}"));
        }
        Ok((number, reader))
    }

    /// The program of a check has printed something, or it is time to look whether it has.
    fn look_at_output(&mut self, id: u32) {
        let now = self.now;
        let Some(health) = self.containers.get_mut(id).and_then(|container| container.health.as_mut()) else { return };
        let Stage::Program { output, beginning, look, .. } = &mut health.stage else { return };
        let found = printed::take(output, beginning);
        *look = (found == Found::Enough).then(|| now + printed::PAUSE);
        if found != Found::Some {
            self.reactor.remove(&*output);
        }
    }

    /// The program of a check has ended.
    pub(super) fn check_ended(&mut self, number: u32, end: &ExecutionEnd) {
        let is_waited_for = |container: &Container| match container.health.as_ref().map(|health| &health.stage) {
            Some(Stage::Program { number: waited_for, .. }) => *waited_for == number,
            _ => false,
        };
        let Some(container) = self.containers.values().find(|container| is_waited_for(container)) else { return };
        let id = container.id;
        let Some(health) = self.containers.get_mut(id).and_then(|container| container.health.as_mut()) else { return };
        let Stage::Program { output, beginning, .. } = &mut health.stage else { return };
        printed::take(output, beginning);
        self.reactor.remove(&*output);
        let result = match (end.exit_code, end.reason.as_str()) {
            (0, _) => Ok(()),
            (code, "") => Err(format!("its program exited with code {code}{}", printed::told(beginning))),
            (_, reason) => Err(reason.to_owned()),
        };
        self.checked(id, result);
    }

    /// The connection of a check can be read or written, or its program has printed something.
    pub fn health_connection(&mut self, id: u32) {
        let Some(health) = self.containers.get_mut(id).and_then(|container| container.health.as_mut()) else { return };
        let Stage::Network { probe, .. } = &mut health.stage else { return self.look_at_output(id) };
        let result = probe.advance().or_else(|| {
            let watched = self.reactor.watch_room(&*probe, Token::Health(id), probe.waits_for_room());
            watched.err().map(|error| Err(format!("watch it: {error}")))
        });
        let Some(result) = result else { return };
        self.reactor.remove(&*probe);
        self.checked(id, result);
    }

    pub(super) fn checked(&mut self, id: u32, result: Result<(), String>) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(health) = container.health.as_mut() else { return };
        let changed = health.count(result.is_ok(), self.now);
        health.remember(&result);
        let unhealthy = health.status == message::Health::Unhealthy;
        match result {
            Err(reason) if unhealthy => container.reason = format!("{FAILS}{reason}"),
            // Another reason is not the check's to take away.
            _ if container.reason.starts_with(FAILS) => container.reason.clear(),
            _ => {}
        }
        if changed {
            let name = &container.name;
            match unhealthy {
                true => log::warn!("container {name} is unhealthy: {}", container.reason),
                false => log::info!("container {name} is healthy"),
            }
            self.tell_serving(id);
            self.changed(id);
        }
    }
}

/// Waits for what the look at a container's network waits for.
pub(super) fn watch(reactor: &Reactor, probe: &Probe, id: u32) -> nix::Result<()> {
    reactor.add(probe, Token::Health(id))?;
    reactor.watch_room(probe, Token::Health(id), probe.waits_for_room())
}

#[cfg(test)]
mod tests;
