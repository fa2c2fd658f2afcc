//! `berth why`: the chain of causes that has led to a container's state.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_config::DependencyCondition;
use berth_control::message::{Cause, Health};
use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::container::{Container, Definition, Goal, State};
use super::end::QUIET_TIME;
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
}

impl End {
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
        self.ends.push_back(End { at: now, ran, how: self.reason.clone() });
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
        causes.extend(check(container).map(|text| cause(depth + 1, text, 0)));
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
        let policy = container.user().map(|user| format!("restart = \"{}\"", user.restart));
        let policy = policy.unwrap_or_else(|| "a system container is always started again".to_owned());
        match (&container.state, container.goal) {
            (State::Backoff { until }, _) => {
                let pause = until.saturating_sub(self.now);
                Some(format!(
                    "{policy}, and the next start is in {pause:.1?}: {} ended in a row, each within {QUIET_TIME:?}",
                    container.attempt
                ))
            }
            (State::Failed | State::Stopped, Goal::Run) if !container.ends.is_empty() => {
                Some(format!("{policy}: it is not started again"))
            }
            (State::Stopped, Goal::Stop) => Some(format!("was stopped; `berth start {}` starts it", container.name)),
            _ => None,
        }
    }

    /// The containers that a waiting one waits for.
    fn unmet_dependencies(&self, container: &Container) -> Vec<String> {
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

/// What the health check says, if that is not good.
fn check(container: &Container) -> Option<String> {
    let health = container.health.as_ref()?;
    match health.status() {
        Health::Starting => Some("its health check has not passed yet".to_owned()),
        Health::Unhealthy => Some(format!("its health check has failed {} times in a row", health.failures())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(texts[1], "1 db is failed: a test says so");
        assert_eq!(texts[2], "2 db restart = \"no\": it is not started again");
        assert_eq!(texts[3], "2 db a test says so");
        assert_eq!(texts.len(), 4);
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
}
