//! What is true after every event.

use super::*;

impl Fleet {
    /// Of those that are being set up: until when they may be, which is another moment for each.
    pub(super) fn beginnings(&self) -> BTreeMap<u32, Duration> {
        let beginning = |container: &Container| match container.state {
            State::Creating { deadline, .. } => Some((container.id, deadline)),
            _ => None,
        };
        self.world.supervisor.containers.values().filter_map(beginning).collect()
    }

    pub(super) fn round(&mut self, event: &Event) {
        let before = self.beginnings();
        self.happen(event);
        let begun = self.beginnings().into_iter().filter(|(id, deadline)| before.get(id) != Some(deadline));
        for (id, _) in begun {
            self.check_conditions(self.world.supervisor.containers.get(id).unwrap());
        }
        self.check(!matches!(event, Event::Ask(..) | Event::Apply(_)));
        if self.doomed {
            self.world.resume(&self.record.0, &[self.network.1.as_raw_fd()]);
            self.rests.clone_from(&self.record.1);
            self.world.supervisor.put_right();
            self.world.supervisor.declare_missing();
            self.world.supervisor.settle();
            self.check(false);
        }
        self.doomed = matches!(event, Event::Crash);
        if !self.doomed {
            self.record = (self.world.write_down(), self.rests.clone());
        }
    }

    /// `by_itself`: nobody has told one to start.
    pub(super) fn check(&mut self, by_itself: bool) {
        let supervisor = &self.world.supervisor;
        // A deadline that has passed and still stands would keep PID 1 busy.
        assert!(supervisor.deadline().is_none_or(|deadline| deadline > supervisor.now), "{:?}", supervisor.deadline());
        let told = (supervisor.problems(), supervisor.why_not_up());
        for container in supervisor.containers.values() {
            let told = (&told, supervisor.why(&container.name), container.describe());
            assert!(!(container.is_at_rest() && container.ready) || container.system().is_some(), "{told:?}");
            assert!(!container.completed || !container.may_have_processes(), "{told:?}");
            self.check_pod(container);
        }
        self.check_timers(by_itself);
    }

    /// One that is being set up has what it waits for.
    fn check_conditions(&self, container: &Container) {
        let Some(user) = container.user() else { return };
        for (name, condition) in user.depends_on.iter() {
            assert!(self.is_met(name.as_str(), condition), "{} has not waited for {name}", container.name);
        }
        for (_, name) in user.targets() {
            let runs = self.find(name.as_str()).is_some_and(|owner| matches!(owner.state, State::Running(_)));
            assert!(runs, "{} has not waited for {name}", container.name);
        }
    }

    pub(super) fn is_met(&self, name: &str, condition: DependencyCondition) -> bool {
        let Some(container) = self.find(name) else { return false };
        let runs = matches!(container.state, State::Running(_));
        let health = container.health.as_ref().map(super::health::Health::status);
        match condition {
            DependencyCondition::Started => runs || container.completed,
            DependencyCondition::Completed => container.completed,
            DependencyCondition::Healthy => runs && health == Some(Health::Healthy),
            DependencyCondition::Ready => {
                let ready = container.awaited.is_none() && health.is_none_or(|health| health == Health::Healthy);
                container.completed || runs && ready
            }
        }
    }

    /// Who is in the namespaces of another one goes when that one does.
    fn check_pod(&self, container: &Container) {
        let Some(user) = container.user() else { return };
        if !container.may_have_processes() || matches!(container.state, State::Stopping { .. }) {
            return;
        }
        for (_, owner) in user.targets() {
            let named = self.world.supervisor.containers.values().filter(|other| other.name == owner.as_str());
            let pids: Vec<String> = named.filter_map(Container::pid).map(|pid| pid.to_string()).collect();
            let namespaces = format!("{:?} {:?}", container.shared, container.pod);
            let is_there = pids.iter().any(|pid| namespaces.contains(pid));
            assert!(is_there, "{} is in {namespaces}, and {owner} is {pids:?}", container.name);
        }
    }

    fn check_timers(&mut self, by_itself: bool) {
        let (now, wall) = (self.world.supervisor.now, self.world.supervisor.wall);
        for name in ["tick", "cron"] {
            let timer = match self.find(name).map(|container| &container.state) {
                Some(State::Scheduled(timer)) => Some(timer.clone()),
                _ => None,
            };
            match (timer, self.rests.remove(name)) {
                (Some(timer), Some(rest)) => {
                    let wall = if timer == rest.timer { rest.wall } else { wall };
                    self.rests.insert(name.to_owned(), Rest { timer, wall, ..rest });
                }
                (Some(timer), None) => drop(self.rests.insert(name.to_owned(), Rest { timer, since: now, wall })),
                (None, Some(rest)) if by_itself => {
                    let last = wall.as_secs() / SCHEDULE * SCHEDULE;
                    let due = if name == "tick" { now >= rest.since + EVERY } else { last > rest.wall.as_secs() };
                    assert!(due, "{name} has not waited for its time: {:?}", rest.timer);
                }
                (None, _) => {}
            }
        }
    }
}
