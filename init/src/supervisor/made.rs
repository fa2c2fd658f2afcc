//! Containers that no configuration declares: `berth run`, `berth create`, `berth rm`.
//!
//! They live until somebody removes them, or, made to be removed, until they have ended. The others are kept on the
//! state partition ([`crate::made`]) and are there again after a reboot.

use std::os::fd::OwnedFd;

use berth_config::{ContainerName, Present, RestartPolicy, Role};
use berth_control::message::{Creation, Interest, Kind, Notice, Reply, TerminalSize};
use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::applicant::Applicant;
use super::container::{Container, Definition, Goal, State};
use super::requests::{Outcome, unknown};

/// So many containers there may be, declared ones among them, for one more to be made by hand: each costs PID 1 memory and
/// descriptors.
pub(super) const MOST: usize = 4096;

/// What a container was made with, beside its definition.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Made {
    /// Forgotten when it has ended.
    pub remove: bool,
    /// It was told to start at least once.
    pub begun: bool,
    /// With it go the volumes that only its image asked for.
    pub(super) volumes: bool,
    /// Who waits until it is gone.
    #[serde(default)]
    pub(super) waiting: Vec<Applicant>,
}

impl Supervisor {
    /// Makes a container, and the client's end of a session if one is wanted.
    pub(super) fn create(&mut self, creation: Creation, session: Option<Interest>) -> Result<Option<OwnedFd>, String> {
        self.may_create(&creation)?;
        self.pod_conflict(&creation).map_or(Ok(()), Err)?;
        let Creation { name, container, remove, start, size } = creation;
        let id = self.add_made(name, container, remove, size).ok_or("its pipes could not be made")?;
        let session = session.map(|interest| self.open_session(id, interest)).transpose();
        if session.is_err() {
            self.containers.remove(id);
            return session;
        }
        self.offer_pipes(id);
        if start {
            self.begin_made(id);
        } else {
            self.changed(id);
        }
        self.facts.made_changed |= !remove;
        session
    }

    /// The same for somebody, who is answered when the next boot has it too.
    pub(super) fn create_for(
        &mut self,
        applicant: Applicant,
        creation: Creation,
        session: Option<Interest>,
    ) -> Option<Outcome> {
        match self.create(creation, session) {
            Ok(descriptor) if self.facts.made_changed => Some(Outcome::Kept { applicant, descriptor }),
            created => {
                self.hand_over(applicant, created);
                None
            }
        }
    }

    /// Whether there may be one more.
    pub(super) fn has_room(&self) -> Result<(), String> {
        let count = self.containers.count();
        if count < self.most {
            return Ok(());
        }
        Err(format!("there are {count} containers already; `berth rm` removes those that are not needed"))
    }

    fn may_create(&self, creation: &Creation) -> Result<(), String> {
        let name = creation.name.as_str();
        if self.facts.shutting_down {
            return Err("the machine goes down".to_owned());
        }
        if !self.facts.made_known {
            return Err("the configuration has not been read yet; try again in a moment".to_owned());
        }
        self.has_room()?;
        self.name_conflict(name).map_or(Ok(()), Err)?;
        self.port_conflict(creation).map_or(Ok(()), Err)
    }

    /// Who has the name already.
    pub(super) fn name_conflict(&self, name: &str) -> Option<String> {
        // One that is still ending too: its files have the same name.
        let taken = self.containers.values().any(|container| container.name == name);
        if !taken && !self.configuration.containers.contains_key(name) {
            return None;
        }
        let remedy = match self.find(name) {
            Some(container) if container.made.is_some() => format!("`berth rm {name}` removes it"),
            _ => "choose another name".to_owned(),
        };
        Some(format!("there is a container {name} already; {remedy}"))
    }

    /// Why it cannot run in the namespaces that it names of others, which may be made by hand as well.
    fn pod_conflict(&self, creation: &Creation) -> Option<String> {
        creation.container.targets().next()?;
        let made = self.containers.values().filter(|container| container.made.is_some());
        let made = made.filter_map(|container| Some((container.name.parse().ok()?, container.user()?.clone())));
        let mut all = self.configuration.containers.clone();
        all.extend(made);
        let name: ContainerName = creation.name.parse().ok()?;
        all.insert(name.clone(), creation.container.clone());
        berth_config::pod_obstacle(&all, &name, &creation.container)
    }

    /// Who has one of the ports already.
    pub(super) fn port_conflict(&self, creation: &Creation) -> Option<String> {
        let users = self.containers.values().filter(|container| container.goal != Goal::Remove);
        let all = users.filter_map(|container| Some((container, container.user()?)));
        let mut published = all.flat_map(|(container, user)| user.ports.iter().map(move |ports| (container, ports)));
        published.find_map(|(container, ports)| {
            let number = creation.container.ports.iter().find_map(|wanted| wanted.common_host_port(ports))?;
            let name = &container.name;
            Some(format!("port {number} of the machine leads to container {name} already; choose another one"))
        })
    }

    /// Adds one that waits for its start.
    pub(super) fn add_made(
        &mut self,
        name: String,
        mut wanted: berth_config::Container,
        remove: bool,
        size: Option<TerminalSize>,
    ) -> Option<u32> {
        wanted.replicas = None;
        let id = self.add_container(&name, Definition::User(Box::new(wanted)))?;
        let container = self.containers.get_mut(id)?;
        container.rest(format!("was not started yet; `berth start {name}` starts it"));
        container.made = Some(Made { remove, ..Made::default() });
        container.interaction.size = size;
        Some(id)
    }

    /// Its first start.
    pub(super) fn begin_made(&mut self, id: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.goal = Goal::Run;
        self.note_begun(id);
        self.begin_anew(id);
    }

    /// It is told to start, which the next boot is to know of one that stays.
    pub(super) fn note_begun(&mut self, id: u32) {
        let made = self.containers.get_mut(id).and_then(|container| container.made.as_mut());
        let Some(made) = made.filter(|made| !made.begun) else { return };
        made.begun = true;
        self.facts.made_changed |= !made.remove;
    }

    /// Asks the engine for one container.
    pub(super) fn prepare(&mut self, id: u32) {
        let Some(container) = self.containers.get(id) else { return };
        let Some(user) = container.user() else { return };
        let declaration = container.declaration(user, self.on_trial);
        // One that is not ready asks for all of them when it is.
        if self.service(Role::Engine).is_some() {
            self.notify(Role::Engine, Notice::Prepare(Box::new(declaration)));
            self.engine_knows(id);
        }
    }

    /// Forgets a container, at once or when it has ended; who asked is answered then.
    pub(super) fn remove_made(
        &mut self,
        applicant: Applicant,
        name: &str,
        force: bool,
        volumes: bool,
    ) -> Result<(), String> {
        if self.find(name).is_none() && self.remove_unread(name) {
            self.reply_to(applicant, Reply::Done);
            return Ok(());
        }
        let container = self.find_mut(name).ok_or_else(|| unknown(name))?;
        let (alive, kind) = (container.may_have_processes(), container.kind());
        let Some(made) = container.made.as_mut() else {
            return Err(match kind {
                Kind::System => format!("{name} is a system container, which cannot be removed"),
                Kind::User => format!(
                    "container {name} is in the configuration; take it out of there with `berth apply`, or `berth stop {name}`"
                ),
            });
        };
        if alive && !force {
            return Err(format!("container {name} is running; stop it first, or use `berth rm -f {name}`"));
        }
        made.volumes |= volumes;
        made.waiting.push(applicant);
        let id = container.id;
        self.keep_stopped(name, false);
        self.stop(id, Goal::Remove);
        self.kill_now(id);
        Ok(())
    }

    /// What has ended tells its client, or goes if it was made to go: then the client hears of it by [`super::farewell`].
    /// Whether anything has changed.
    pub(super) fn come_to_rest(&mut self, id: u32) -> bool {
        let Some(container) = self.containers.get(id).filter(|container| container.goal != Goal::Remove) else {
            return false;
        };
        let leaves = container.made.as_ref().is_some_and(|made| made.remove && made.begun);
        let has_session = container.session.is_some() && !leaves;
        if has_session {
            self.end_session(id);
        }
        if leaves && let Some(container) = self.containers.get_mut(id) {
            container.goal = Goal::Remove;
            // As docker's: what was made for this run alone goes with it.
            container.made.iter_mut().for_each(|made| made.volumes = true);
        }
        leaves || has_session
    }

    /// What another configuration may end or start beside what it does not declare any more or anew: those made by hand, those
    /// that run, and those that have ended.
    pub fn present(&self) -> Present {
        let there = || self.containers.values().filter(|container| container.goal != Goal::Remove);
        let made = there().filter(|container| container.made.is_some());
        let running = there().filter(|container| container.may_have_processes() && container.goal.goes_on());
        let ended = there().filter_map(|container| Some((container.name.clone(), container.how_it_ended()?)));
        Present {
            ended: ended.collect(),
            made: made.filter_map(|container| Some((container.name.clone(), container.user()?.clone()))).collect(),
            running: running.map(|container| container.name.clone()).collect(),
        }
    }

    /// What the configuration and the containers made beside it loosen.
    pub(super) fn audit(&self) -> Result<String, String> {
        let made = self.containers.values().filter(|container| container.made.is_some());
        let mut made: Vec<_> =
            made.filter_map(|container| Some((container.name.as_str(), container.user()?))).collect();
        made.sort_unstable_by_key(|(name, _)| *name);
        let audit = serde_json::to_string(&self.configuration.audit(made));
        audit.map_err(|error| format!("the audit has no JSON form: {error}"))
    }

    /// The containers that a name stands for: itself, or all replicas of what is declared under it.
    pub(super) fn instances(&self, name: &str) -> Result<Vec<String>, String> {
        let names = self.instances_of(name);
        let there: Vec<String> = names.into_iter().filter(|name| self.find(name).is_some()).collect();
        if there.is_empty() { Err(unknown(name)) } else { Ok(there) }
    }
}

impl Container {
    /// Whether its failure is the machine's problem. One that was made to run once is its maker's.
    pub(super) fn is_of_the_machine(&self) -> bool {
        let once = || self.user().is_some_and(|user| user.restart == RestartPolicy::No);
        !(self.made.is_some() && matches!(self.state, State::Failed) && once())
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_tests::{WEB, creation, make, once, world};
    use berth_control::message::Reply;

    /// With Berth's own, which the world has two of.
    #[test]
    fn who_makes_one_container_too_many_is_told_so_and_room_that_is_made_is_used() {
        let mut world = world(WEB);
        assert_eq!(world.supervisor.most, 4096, "what the documentation says");
        world.supervisor.most = world.supervisor.containers.count() + 2;
        for name in ["one", "two"] {
            assert_eq!(make(&mut world, creation(name, "")), Reply::Done);
        }
        let reason = "there are 5 containers already; `berth rm` removes those that are not needed".to_owned();
        for creation in [creation("three", ""), once("three")] {
            assert_eq!(make(&mut world, creation), Reply::Refused { reason: reason.clone() });
            assert!(world.supervisor.find("three").is_none());
        }
        let two = world.supervisor.id_of("two").unwrap();
        world.supervisor.containers.remove(two);
        assert_eq!(make(&mut world, creation("three", "")), Reply::Done);
    }

    #[test]
    fn a_range_of_ids_that_is_free_again_is_the_next_one_s() {
        let mut world = world(WEB);
        for name in ["one", "two", "three"] {
            assert_eq!(make(&mut world, creation(name, "")), Reply::Done);
        }
        let slot = |world: &super::super::world::World, name: &str| world.supervisor.find(name).unwrap().slot;
        let free = slot(&world, "two");
        let two = world.supervisor.id_of("two").unwrap();
        world.supervisor.containers.remove(two);
        assert_eq!(make(&mut world, creation("four", "")), Reply::Done);
        assert_eq!(make(&mut world, creation("five", "")), Reply::Done);
        assert_eq!(slot(&world, "four"), free);
        assert_eq!(slot(&world, "five"), slot(&world, "three") + 1);
    }
}
