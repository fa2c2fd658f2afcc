//! From one configuration to the next: only what differs is touched.

use std::collections::BTreeSet;

use berth_config::{Action, Configuration, RestartPolicy, Role, SystemContainer};
use berth_control::message::{Kind, Notice};

use super::Supervisor;
use super::container::{Container, Definition, Goal};
use super::output::Output;

impl Supervisor {
    /// Declares a system container; it starts as soon as it can.
    pub fn declare_system(&mut self, name: &str, definition: SystemContainer) {
        self.declare(name, Definition::System(Box::new(definition)), false);
    }

    /// Makes a configuration the wanted one. User containers that it does not name end and are forgotten, changed ones
    /// end and are prepared anew, new ones are prepared; the others notice nothing.
    pub fn apply(&mut self, configuration: Configuration) {
        let networking = self.configuration.networking();
        let logs_changed = self.configuration.logs != configuration.logs;
        let wanted = configuration.instances();
        let gone: Vec<u32> = self
            .containers
            .values()
            .filter(|container| container.kind() == Kind::User && container.made.is_none())
            .filter(|container| !wanted.contains_key(&container.name))
            .map(|container| container.id)
            .collect();
        for id in &gone {
            self.note_rest(*id);
        }
        self.remove_in_order(&gone);
        for (name, container) in &wanted {
            self.declare_user(name, container);
        }
        self.configuration = configuration;
        self.notify(Role::Engine, Notice::DeclaredChanged);
        if networking != self.configuration.networking() {
            self.notify(Role::Network, Notice::NetworkConfigurationChanged);
            self.restart_on_changed_networks(&networking);
        }
        if logs_changed {
            self.notify(Role::Logs, Notice::LogLimits(self.configuration.logs.clone()));
        }
    }

    /// A container that was made by hand and would give way to one that this configuration declares.
    pub fn made_by_hand_in_the_way(&self, wanted: &Configuration) -> Option<&str> {
        let instances = wanted.instances();
        let made =
            self.containers.values().filter(|container| container.made.is_some() && container.goal != Goal::Remove);
        made.map(|container| container.name.as_str()).find(|name| instances.contains_key(*name))
    }

    /// What is in force is no longer on trial: what the engine has kept of before may go.
    pub fn end_trial(&mut self) {
        if std::mem::take(&mut self.on_trial) {
            self.notify(Role::Engine, Notice::DeclaredChanged);
        }
    }

    /// Declares what the configuration names and the last program's record has lost.
    pub fn declare_missing(&mut self) {
        if self.facts.shutting_down {
            return;
        }
        let next = self.containers.next();
        for (name, container) in &self.configuration.instances() {
            self.declare_user(name, container);
        }
        if self.containers.next() != next {
            self.notify(Role::Engine, Notice::DeclaredChanged);
        }
    }

    /// A container that is about to be removed or made anew may have been stopped by hand.
    fn note_rest(&mut self, id: u32) {
        let rested =
            self.containers.get(id).filter(|container| container.goal == Goal::Stop && container.made.is_none());
        self.facts.rested.extend(rested.map(|container| container.name.clone()));
    }

    /// Notes, or forgets, that a container was stopped by hand.
    pub(super) fn keep_stopped(&mut self, name: &str, stopped: bool) {
        if !stopped {
            self.facts.rested.remove(name);
        }
        let kept = stopped && self.find(name).is_some_and(Container::stays_stopped);
        let changed = if kept { self.facts.stopped.insert(name.to_owned()) } else { self.facts.stopped.remove(name) };
        self.facts.stopped_changed |= changed;
    }

    /// Forgets of containers that are gone, or were made anew, that they were stopped by hand: whatever has their names is new.
    /// Only once it is certain that it stays so, for a configuration that is taken back finds them as they were.
    pub fn forget_stopped(&mut self) {
        let rested = std::mem::take(&mut self.facts.rested);
        let there = self.containers.values().filter(|container| container.goal != Goal::Remove);
        let there: BTreeSet<&str> = there.map(|container| container.name.as_str()).collect();
        let before = self.facts.stopped.len();
        self.facts.stopped.retain(|name| there.contains(name.as_str()) && !rested.contains(name));
        self.facts.stopped_changed |= self.facts.stopped.len() != before;
    }

    fn declare_user(&mut self, name: &str, wanted: &berth_config::Container) {
        let known = self.containers.values().find(|container| container.name == name && container.goal != Goal::Remove);
        match known {
            Some(container) => {
                let id = container.id;
                let Some(old) = container.user() else {
                    // berth-config refuses the names of system containers; this is the second lock on that door.
                    return log::warn!("container {name} has the name of a system container and is left out");
                };
                match Action::between(old, wanted) {
                    // One that was made by hand gives way.
                    None if container.made.is_none() => {}
                    Some(Action::Update) if container.made.is_none() => self.update(id, wanted),
                    _ => {
                        log::info!("container {name} has a new definition");
                        let rests = self.facts.rested.remove(name);
                        self.note_rest(id);
                        self.stop(id, Goal::Remove);
                        self.declare(name, Definition::User(Box::new(wanted.clone())), rests);
                    }
                }
            }
            None => {
                let stays = wanted.restart == RestartPolicy::UnlessStopped && self.facts.stopped.contains(name);
                let rests = self.facts.rested.remove(name) || stays;
                self.declare(name, Definition::User(Box::new(wanted.clone())), rests);
            }
        }
    }

    /// Gives a container a definition that is another one only for the supervisor.
    fn update(&mut self, id: u32, wanted: &berth_config::Container) {
        let Some(container) = self.containers.get_mut(id) else { return };
        log::info!("container {} has a new definition and runs on", container.name);
        let old = container.user();
        let checks_change = old.is_some_and(|old| old.health != wanted.health);
        let times_change = old.is_some_and(|old| (&old.schedule, old.every) != (&wanted.schedule, wanted.every));
        let rules_change = old.is_some_and(|old| old.access() != wanted.access());
        let has_network = container.network.is_some();
        // What has given up, or is done, may not be with its new policy.
        let goes_on = container.how_it_ended().zip(old).is_some_and(|(ended, old)| ended.is_started_by(old, wanted));
        container.definition = Definition::User(Box::new(wanted.clone()));
        if rules_change && has_network {
            self.attach(id);
        }
        if checks_change {
            self.begin_health_checks(id);
        }
        if times_change {
            self.find_time(id);
        }
        if goes_on {
            self.begin_anew(id);
        }
        self.changed(id);
    }

    /// One that `rests` was stopped by hand.
    fn declare(&mut self, name: &str, definition: Definition, rests: bool) {
        let Some(id) = self.add_container(name, definition) else { return };
        if let Some(container) = self.containers.get_mut(id).filter(|_| rests) {
            container.rest(format!("was stopped by hand; `berth start {name}` starts it"));
        }
        self.offer_pipes(id);
        self.changed(id);
    }

    /// Adds a container, with pipes and a range of ids of its own.
    pub(super) fn add_container(&mut self, name: &str, definition: Definition) -> Option<u32> {
        let made = Output::new();
        let output = made.inspect_err(|error| log::error!("container {name} cannot be kept: make its pipes: {error}"));
        let id = self.containers.next();
        let slot = self.free_slot();
        Some(self.containers.add(Container::new(id, name.to_owned(), definition, output.ok()?, slot)))
    }

    /// The lowest that nobody has.
    fn free_slot(&self) -> u32 {
        // One more than there are containers: one of them is free.
        let mut used = vec![false; self.containers.count() + 1];
        for container in self.containers.values() {
            let place = usize::try_from(container.slot).ok().and_then(|slot| used.get_mut(slot));
            place.into_iter().for_each(|used| *used = true);
        }
        used.iter().position(|used| !used).and_then(|slot| u32::try_from(slot).ok()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use berth_control::message::ContainerState::{Failed, Starting, Stopped};
    use berth_control::message::{Ending, Request};

    use super::super::world::World;

    fn with(policy: &str) -> String {
        format!("[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = '{policy}'\n")
    }

    #[test]
    fn what_has_given_up_begins_again_if_another_policy_would_have_gone_on() {
        for (old, code, new, state) in [
            ("no", 1, "always", Starting),
            ("no", 0, "always", Starting),
            ("no", 1, "on-failure:1", Starting),
            ("no", 0, "on-failure", Stopped),
            ("no", 1, "no", Failed),
        ] {
            let mut world = World::new(&with(old));
            world.complete("web", code);
            assert_eq!(world.supervisor.present().ended.len(), 1, "the plan knows of it");
            world.apply(&with(new));
            assert_eq!(world.state("web"), state, "{old} {code} {new}");
        }
    }

    #[test]
    fn what_somebody_has_stopped_is_not_started_by_another_policy() {
        let mut world = World::new(&with("always"));
        world.prepare("web");
        world.run("web");
        world.ask(Request::Stop { name: "web".into(), ending: Ending::default() });
        world.end("web", 1);
        world.apply(&with("unless-stopped"));
        assert_eq!(world.state("web"), Stopped);
    }
}
