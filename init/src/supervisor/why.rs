//! `berth why`: the chain of causes that has led to a container's state.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_config::{DependencyCondition, RestartPolicy};
use berth_control::message::{Cause, Health};
use serde::{Deserialize, Serialize};

use super::container::{Container, Definition, Goal, State};
use super::end::QUIET_TIME;
use super::{Supervisor, health};
use crate::printable::printable;

/// How many ends of a container are remembered.
const REMEMBERED: usize = 8;

/// The longest chain: what is deeper has causes enough above it.
const LONGEST: usize = 64;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When, on [`crate::clock`].
    at: Duration,
    /// How long the program had run; `None` if it had not come to that.
    ran: Option<Duration>,
    how: String,
    /// Whether `network` was to give it its addresses.
    #[serde(default)]
    attaching: bool,
}

impl End {
    /// Whether its program had run.
    pub(super) fn has_run(&self) -> bool {
        self.ran.is_some()
    }

    /// Whether it came to nothing because of its networks.
    pub(super) fn is_of_networks(&self) -> bool {
        self.attaching
    }

    /// In one sentence.
    pub(super) fn how(&self) -> &str {
        &self.how
    }
}

impl Container {
    /// Remembers how the present run ended.
    pub(super) fn remember_end(&mut self, now: Duration) {
        let runs = matches!(self.state, State::Running(_) | State::Stopping { .. });
        let ran = runs.then(|| now.saturating_sub(Duration::from_micros(self.started_us)));
        if self.ends.len() >= REMEMBERED {
            self.ends.pop_front();
        }
        let attaching = matches!(self.state, State::Attaching { .. });
        self.ends.push_back(End { at: now, ran, how: self.reason.clone(), attaching });
    }
}

impl Supervisor {
    /// What has led to the container's state, itself first; `None` if there is no such container.
    pub(super) fn why(&self, name: &str) -> Option<Vec<Cause>> {
        let container = self.find(name)?;
        let mut causes = Vec::new();
        self.explain(container, 0, &mut BTreeSet::new(), &mut causes);
        causes.truncate(LONGEST);
        Some(causes)
    }

    /// The same of all that hold up the boot or are not as they should be, as causes of something else.
    pub fn why_not_up(&self) -> Vec<Cause> {
        let (mut seen, mut causes) = (BTreeSet::new(), Vec::new());
        for container in self.list() {
            let ends = container.keeps_ending() || matches!(container.state, State::Failed | State::Backoff { .. });
            let wrong = ends || container.is_unhealthy();
            if (wrong || !container.tried) && !seen.contains(&container.id) {
                self.explain(container, 1, &mut seen, &mut causes);
            }
        }
        causes.truncate(LONGEST);
        causes
    }

    fn explain(&self, container: &Container, depth: u32, seen: &mut BTreeSet<u32>, causes: &mut Vec<Cause>) {
        let cause = |depth, text: String, at_us| {
            let text = printable(&text).into_owned();
            Cause { depth, subject: container.name.clone(), text, at_us }
        };
        let separator = if container.reason.is_empty() { "" } else { ": " };
        let state = format!("{:?}", container.describe().state).to_lowercase();
        causes.push(cause(depth, format!("is {state}{separator}{}", container.reason), 0));
        if !seen.insert(container.id) {
            return;
        }
        causes.extend(self.decision(container).map(|text| cause(depth + 1, text, 0)));
        causes.extend(self.settings(container).into_iter().map(|text| cause(depth + 1, text, 0)));
        causes.extend(self.checks(container).into_iter().map(|text| cause(depth + 1, text, 0)));
        for end in container.ends.iter().rev() {
            let at_us = u64::try_from(end.at.as_micros()).unwrap_or(u64::MAX);
            let ran = end.ran.map(|ran| format!("ran for {ran:.1?} and ")).unwrap_or_default();
            causes.push(cause(depth + 1, format!("{ran}{}", end.how), at_us));
        }
        for name in self.unmet_dependencies(container) {
            match self.find(&name) {
                Some(dependency) => self.explain(dependency, depth + 1, seen, causes),
                None => {
                    let text = "does not exist".to_owned();
                    causes.push(Cause { depth: depth + 1, subject: name, text, at_us: 0 });
                }
            }
        }
    }

    /// What in the configuration, or who, has decided that a container does not run, or runs again.
    fn decision(&self, container: &Container) -> Option<String> {
        let policy = container.user().map(|user| {
            let is_known = self.declared_name(container).is_some_and(|name| self.locations.has(name.as_str()));
            let is_default = is_known && user.restart == RestartPolicy::default();
            let unset = || if is_default { " (by default)".to_owned() } else { String::new() };
            format!("restart = \"{}\"{}", user.restart, self.place(container, "restart").unwrap_or_else(unset))
        });
        let policy = policy.unwrap_or_else(|| "a system container is always started again".to_owned());
        match (&container.state, container.goal) {
            (State::Backoff { until }, _) => {
                let pause = until.saturating_sub(self.now);
                let series = match container.attempt {
                    0 => String::new(),
                    ends => format!(": {ends} ended in a row, each within {QUIET_TIME:?}"),
                };
                Some(format!("{policy}, and the next start is in {pause:.1?}{series}"))
            }
            (State::Failed | State::Stopped, Goal::Run) if !container.ends.is_empty() => {
                Some(format!("{policy}: it is not started again"))
            }
            (State::Stopped, Goal::Stop) => Some(format!("was stopped; `berth start {}` starts it", container.name)),
            _ => None,
        }
    }

    /// What the health check says, if that is not good, and what it has said before in the same row.
    fn checks(&self, container: &Container) -> Vec<String> {
        let earlier = container.health.iter().flat_map(health::Health::earlier_failures);
        let earlier = earlier.map(|reason| format!("failed before that: {reason}"));
        self.check(container).into_iter().chain(earlier).collect()
    }

    fn check(&self, container: &Container) -> Option<String> {
        let health = container.health.as_ref()?;
        let place = self.place(container, "health").unwrap_or_else(|| match container.user() {
            Some(user) if user.health.as_ref().is_some_and(berth_config::Health::is_complete) => String::new(),
            _ => " (of its image)".to_owned(),
        });
        let last = health.last_failure().map(|reason| format!(": {reason}")).unwrap_or_default();
        Some(match (health.status(), health.failures()) {
            (Health::Starting, 0) => format!("its health check has not passed yet{place}{last}"),
            (Health::Unhealthy, failures) => {
                format!("its health check{place} has failed {failures} times in a row")
            }
            (_, 0) => return None,
            (_, failures) => {
                let retries = health.retries();
                format!("its health check{place} has failed {failures} of {retries} times that make it unhealthy{last}")
            }
        })
    }

    /// The containers that a waiting one waits for.
    pub(super) fn unmet_dependencies(&self, container: &Container) -> Vec<String> {
        if !matches!(container.state, State::Waiting) {
            return Vec::new();
        }
        let unmet = |name: &str, condition| self.unmet(name, condition).map(|_| name.to_owned());
        match &container.definition {
            Definition::System(system) => {
                let names = system.depends_on.iter();
                names.filter_map(|name| unmet(name.as_str(), DependencyCondition::Ready)).collect()
            }
            Definition::User(user) => {
                let each = user.depends_on.iter().flat_map(|(name, condition)| {
                    self.instances_of(name.as_str()).into_iter().map(move |name| (name, condition))
                });
                let each = each.filter_map(|(name, condition)| unmet(&name, condition));
                let targets = user.targets().map(|(_, name)| name.as_str());
                each.chain(targets.filter_map(|name| unmet(name, DependencyCondition::Started))).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_control::message::{Reply, Request};

    use super::super::made_tests::{self, WEB};
    use super::super::world::World;
    use super::*;

    #[test]
    fn the_chain_leads_through_the_dependencies_to_the_last_ends() {
        let mut world = World::new(
            "[containers.db]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'no'\n\
             [containers.web]\nimage = 'a'\nnetwork_mode = 'none'\ndepends_on = ['db']\n",
        );
        for name in ["db", "web"] {
            world.prepare(name);
        }
        world.fail("db");
        let texts: Vec<String> = world
            .supervisor
            .why("web")
            .unwrap()
            .into_iter()
            .map(|cause| format!("{} {} {}", cause.depth, cause.subject, cause.text))
            .collect();
        assert_eq!(texts[0], "0 web is waiting: waits for db, which failed");
        assert_eq!(texts[1], "1 web depends_on = [\"db\"] (test.toml:8)");
        assert_eq!(texts[2], "1 db is failed: a test says so");
        assert_eq!(texts[3], "2 db restart = \"no\" (test.toml:4): it is not started again");
        assert_eq!(texts[4], "2 db a test says so");
        assert_eq!(texts.len(), 5);
        assert!(world.supervisor.why("wep").is_none());
        let causes = world.supervisor.why_not_up().into_iter().map(|cause| (cause.depth, cause.subject));
        let first: Vec<(u32, String)> = causes.filter(|(_, subject)| subject == "db").take(2).collect();
        assert_eq!(first, [(1, "db".to_owned()), (2, "db".to_owned())]);
    }

    #[test]
    fn only_the_last_ends_are_remembered() {
        let mut world = World::new("[containers.a]\nimage = 'a'\nnetwork_mode = 'none'\n");
        world.prepare("a");
        for code in 0..20 {
            world.run("a");
            world.end("a", code);
            world.pass(Duration::from_secs(120));
        }
        let last = world.supervisor.why("a").unwrap().remove(1);
        assert_eq!((last.text.as_str(), last.at_us > 0), ("ran for 0.0ns and exited with code 19", true));
        let ends: Vec<_> = world.supervisor.find("a").unwrap().ends.iter().map(|end| end.how.clone()).collect();
        assert_eq!((ends.len(), ends[7].as_str()), (REMEMBERED, "exited with code 19"));
    }

    fn texts(world: &World, name: &str) -> Vec<String> {
        world.supervisor.why(name).unwrap().into_iter().map(|cause| cause.text).collect()
    }

    #[test]
    fn a_policy_that_somebody_has_set_is_none_by_default() {
        let mut world = made_tests::world(WEB);
        assert_eq!(made_tests::make(&mut world, made_tests::creation("job", "restart = 'no'")), Reply::Done);
        world.ask(Request::Start { name: "job".into() });
        for name in ["web", "job"] {
            world.complete(name, 1);
        }
        assert!(texts(&world, "web")[1].starts_with("restart = \"always\" (by default), and "));
        assert_eq!(texts(&world, "job")[1], "restart = \"no\": it is not started again");
        // The configuration before is in force again, and nobody knows its lines.
        world.supervisor.locations = berth_config::Locations::default();
        assert!(texts(&world, "web")[1].starts_with("restart = \"always\", and "));
    }

    #[test]
    fn an_end_after_a_long_run_is_no_series() {
        let mut world = World::new(WEB);
        world.complete("web", 1);
        assert!(texts(&world, "web")[1].ends_with(": 1 ended in a row, each within 10s"));
        world.pass(Duration::from_secs(1));
        world.run("web");
        world.pass(QUIET_TIME);
        world.end("web", 1);
        assert_eq!(texts(&world, "web")[1], "restart = \"always\" (by default), and the next start is in 100.0ms");
    }

    #[test]
    fn the_line_of_an_image_that_does_not_come_is_named() {
        let world = World::new("[containers.web]\nnetwork_mode = 'none'\nimage = 'a'\n");
        assert_eq!(texts(&world, "web")[1], "image = \"a\" (test.toml:3)");
    }

    #[test]
    fn checks_that_fail_are_told_before_there_are_too_many() {
        let mut world = World::new(
            "[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\n[containers.web.health]\nexec = 'x'\nretries = 3\n",
        );
        world.prepare("web");
        world.run("web");
        assert_eq!(texts(&world, "web")[1], "its health check has not passed yet (test.toml:4)");
        let id = world.supervisor.id_of("web").unwrap();
        world.supervisor.checked(id, Err("its program exited with code 1: no database".to_owned()));
        let failed = "its health check (test.toml:4) has failed 1 of 3 times that make it unhealthy: its program exited with \
            code 1: no database";
        assert_eq!(texts(&world, "web")[1], failed);
        for number in 2..6 {
            world.supervisor.checked(id, Err(format!("no database for {number} s")));
        }
        let expected = [
            "is unhealthy: its health check fails: no database for 5 s",
            "its health check (test.toml:4) has failed 5 times in a row",
            "failed before that: no database for 4 s",
            "failed before that: no database for 3 s",
        ];
        assert_eq!(texts(&world, "web"), expected);
        world.supervisor.checked(id, Ok(()));
        assert_eq!(texts(&world, "web").len(), 1);
    }
}
