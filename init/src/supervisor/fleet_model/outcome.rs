//! Where all of it comes to, once nothing goes wrong any more.

use super::*;

impl Fleet {
    fn names(&self) -> Vec<String> {
        let users = self.world.supervisor.list().into_iter().filter(|container| container.kind() == Kind::User);
        users.map(|container| container.name.clone()).collect()
    }

    pub(super) fn calm_down(&mut self) {
        (0..2).for_each(|role| self.service(role, true));
        for _ in 0..500 {
            let mut moved = false;
            for name in self.names() {
                moved |= self.help(&name);
                self.check(true);
            }
            if !moved {
                let until = |container: &Container| match container.state {
                    State::Backoff { until } => Some(until),
                    _ => None,
                };
                let Some(next) = self.world.supervisor.containers.values().filter_map(until).min() else { return };
                self.world.pass(next - self.world.supervisor.now);
            }
        }
        panic!("it never comes to an end: {:#?}", self.world.supervisor.list());
    }

    /// Does for one what the world does; whether there was anything.
    pub(super) fn help(&mut self, name: &str) -> bool {
        if self.alive(name).is_some_and(|container| matches!(container.state, State::Stopping { .. })) {
            self.world.end(name, 0);
            return true;
        }
        let Some(container) = self.find(name) else { return false };
        let health = container.health.as_ref().map(super::health::Health::status);
        match container.state {
            State::Declared | State::Preparing => self.world.prepare(name),
            State::Creating { .. } | State::Attaching { .. } => self.world.run(name),
            State::Running(_) if container.frozen => self.ask(name, Asked::Unpause),
            State::Running(_) if container.is_getting_ready() => self.become_ready(name),
            State::Running(_) if health.is_some_and(|health| health != Health::Healthy) => {
                self.check_health(name, true);
            }
            State::Running(_) if ["job", "tick", "cron"].contains(&name) => self.world.end(name, 0),
            _ => return false,
        }
        true
    }

    /// Nobody stands still without a reason.
    pub(super) fn check_end(&self) {
        for container in self.world.supervisor.containers.values() {
            let Some(user) = container.user() else { continue };
            let is_fine = match container.state {
                State::Running(_) | State::Scheduled(_) | State::Failed => true,
                State::Stopped => container.goal == Goal::Stop || container.completed,
                State::Waiting => {
                    let unmet = user.depends_on.iter().any(|(name, condition)| !self.is_met(name.as_str(), condition));
                    let runs = |name: &str| self.is_met(name, DependencyCondition::Started);
                    container.held && (unmet || user.targets().any(|(_, name)| !runs(name.as_str())))
                }
                _ => false,
            };
            assert!(is_fine, "{}: {:?}", container.name, self.world.supervisor.why(&container.name));
        }
    }

    /// Everything has what it needs, and does what is declared.
    pub(super) fn check_everything(&mut self) {
        self.names().iter().for_each(|name| self.world.send(Request::Start { name: name.clone() }));
        self.world.answers();
        self.check(false);
        self.calm_down();
        for name in self.names() {
            let container = self.find(&name).unwrap();
            let is_fine = match name.as_str() {
                "job" => container.completed,
                "tick" | "cron" => matches!(container.state, State::Scheduled(_)),
                _ => container.describe().state == ContainerState::Running,
            };
            assert!(is_fine, "{name}: {:?}", self.world.supervisor.why(&name));
        }
    }

    /// The machine goes down: nothing begins, and everything ends.
    pub(super) fn go_down(&mut self) {
        let before = self.beginnings();
        self.world.supervisor.begin_shutdown();
        for _ in 0..100 {
            self.world.supervisor.stop_unneeded(Kind::User);
            self.world.supervisor.settle();
            // Who is needed by others that run is set up to its end.
            assert!(self.beginnings().iter().all(|(id, deadline)| before.get(id) == Some(deadline)));
            self.check(false);
            let alive: Vec<String> = self.names().into_iter().filter(|name| self.alive(name).is_some()).collect();
            if alive.is_empty() {
                return;
            }
            for name in &alive {
                // Of one name there may be two, one after the other.
                match self.alive(name).map(|container| container.pid().is_some()) {
                    Some(true) => self.world.end(name, 0),
                    Some(false) => self.world.run(name),
                    None => {}
                }
            }
        }
        panic!("it never comes to an end: {:#?}", self.world.supervisor.list());
    }
}
