//! What is wrong with containers, for the machine to tell.
//!
//! A container that ends and is started again, over and over, is one problem from its first end until it has run for
//! [`QUIET_TIME`]: what it does in between changes neither the problem nor its words, so that the machine does not go to and
//! fro between ready and degraded. Likewise one that waits for what has failed: how many others are being set up meanwhile is
//! nothing to it.

use super::Supervisor;
use super::container::{Container, State};
use super::end::QUIET_TIME;
use crate::printable::printable;

/// A series of so many short runs is told as a crash loop.
const LOOP: u32 = 3;

impl Supervisor {
    /// What is wrong with containers, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        // In every round, and mostly of nobody: sorted is what is left.
        let of_the_machine = self.containers.values().filter(|container| container.is_of_the_machine());
        let mut wrong: Vec<(&Container, String)> =
            of_the_machine.filter_map(|container| Some((container, self.problem(container)?))).collect();
        wrong.sort_by_key(|(container, _)| (container.kind(), &container.name));
        let told =
            |(container, text): (&Container, String)| format!("container {}: {}", container.name, printable(&text));
        wrong.into_iter().map(told).collect()
    }

    fn problem(&self, container: &Container) -> Option<String> {
        if container.keeps_ending() {
            return Some(container.last_end());
        }
        if container.late && !container.tried {
            let separator = if container.reason.is_empty() { "" } else { ": " };
            return Some(format!("has not become ready since the boot{separator}{}", container.reason));
        }
        if container.is_late_for_work() {
            return Some(container.what_is_overdue());
        }
        let wrong = match &container.state {
            State::Failed => true,
            State::Scheduled(timer) => timer.failure().is_some(),
            State::Waiting => container.held,
            State::Declared | State::Preparing => container.troubled && !container.reason.is_empty(),
            State::Running(_) => container.is_unhealthy(),
            _ => false,
        };
        wrong.then(|| container.reason.clone())
    }

    /// The time for the boot is up, for those too that have not come as far as they will by themselves.
    pub fn give_up_boot(&mut self) {
        for id in self.containers.numbers() {
            if let Some(container) = self.containers.get_mut(id).filter(|container| !container.tried) {
                container.late = true;
            }
        }
    }

    /// A container has run so long that its last ends do not count any more.
    pub(super) fn quiet(&mut self, id: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.attempt >= LOOP {
            log::info!("container {} has run for {QUIET_TIME:?}: its crash loop is over", container.name);
        }
        container.attempt = 0;
    }
}

impl Container {
    /// Whether its last run ended soon, it was started again or is going to be, and that has not lasted either.
    pub(super) fn keeps_ending(&self) -> bool {
        self.attempt > 0 && !self.is_at_rest()
    }

    /// When its last ends do not count any more, if they still do; on [`crate::clock`].
    pub(super) fn quiet_at(&self) -> Option<std::time::Duration> {
        let counts = self.attempt > 0 && matches!(self.state, State::Running(_));
        counts.then(|| std::time::Duration::from_micros(self.started_us).saturating_add(QUIET_TIME))
    }

    /// Tells a series of short runs when it has become one.
    pub(super) fn tell_of_crash_loop(&self) {
        if self.attempt == LOOP {
            let (name, reason) = (&self.name, &self.reason);
            log::warn!("container {name} is in a crash loop, {LOOP} runs in a row ended soon: the last {reason}");
        }
    }

    fn last_end(&self) -> String {
        let how = self.ends.back().map_or(self.reason.as_str(), super::why::End::how);
        if self.attempt < LOOP {
            return how.to_owned();
        }
        format!("is in a crash loop: {how}; `berth why {0}` and `berth logs {0}` tell more", self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use berth_control::message::{Ending, Request};

    use super::super::dependencies::AT_ONCE;
    use super::super::made_tests;
    use super::super::world::{World, service};

    const WEB: &str = "[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\n";

    #[test]
    fn a_crash_loop_is_one_problem_until_it_has_been_quiet() {
        let mut world = World::new(WEB);
        world.prepare("web");
        world.run("web");
        assert!(world.supervisor.problems().is_empty());
        let mut told = Vec::new();
        for _ in 0..8 {
            world.end("web", 1);
            told.push(world.supervisor.problems());
            let due = world.supervisor.deadline().unwrap();
            world.pass(due - world.supervisor.now);
            told.push(world.supervisor.problems());
            world.run("web");
            told.push(world.supervisor.problems());
        }
        assert!(told.iter().all(|problems| problems.len() == 1), "{told:?}");
        assert_eq!(told[0], ["container web: exited with code 1"]);
        told.dedup();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1][0].starts_with("container web: is in a crash loop: exited with code 1; `berth why web`"));
        assert_eq!(world.supervisor.deadline().map(|due| due - world.supervisor.now), Some(Duration::from_secs(10)));
        world.pass(Duration::from_secs(10));
        assert!(world.supervisor.problems().is_empty());
        assert_eq!(world.supervisor.deadline(), None);
    }

    #[test]
    fn what_never_got_ready_is_a_problem_once_the_boot_is_given_up() {
        let mut world = World::new(&format!("{WEB}readiness = 'notify'\n"));
        assert!(world.supervisor.problems().is_empty());
        let of_web = |world: &World| {
            world.supervisor.problems().into_iter().find(|problem| problem.starts_with("container web"))
        };
        world.supervisor.give_up_boot();
        assert_eq!(of_web(&world).as_deref(), Some("container web: has not become ready since the boot"));
        world.supervisor.find_mut("web").unwrap().tried = true;
        assert_eq!(of_web(&world), None);
    }

    /// So many others that all of them cannot be set up at once.
    fn others() -> (Vec<String>, String) {
        let names: Vec<String> = (0..AT_ONCE + 4).map(|number| format!("other-{number:02}")).collect();
        let text = names.iter().map(|name| WEB.replace("web", name)).collect();
        (names, text)
    }

    #[test]
    fn who_waits_for_what_has_failed_is_a_problem_while_others_are_set_up_too() {
        let text = WEB.replace("web", "job") + "restart = 'no'\n" + WEB + "depends_on = { job = { condition = 'completed' } }\n"
            // Before the one that it waits for, and moved on before it.
            + &WEB.replace("web", "last") + "depends_on = ['web']\n";
        let mut world = World::new(&text);
        world.prepare("last");
        world.prepare("web");
        world.complete("job", 3);
        let expected = [
            "container job: exited with code 3",
            "container last: waits for web",
            "container web: waits for job, which failed",
        ];
        assert_eq!(world.supervisor.problems(), expected);
        let (names, more) = others();
        world.apply(&(text + &more));
        for name in &names {
            world.prepare(name);
            assert_eq!(world.supervisor.problems(), expected, "when {name} is prepared");
        }
        for name in &names {
            world.run(name);
            assert_eq!(world.supervisor.problems(), expected, "when {name} runs");
        }
        world.ask(Request::Start { name: "job".into() });
        assert_eq!(world.supervisor.problems(), [""; 0], "what they wait for is on its way");
        world.run("job");
        world.end("job", 3);
        assert_eq!(world.supervisor.problems(), expected);
    }

    #[test]
    fn who_waits_for_one_that_is_about_to_start_is_no_problem() {
        let text =
            "[containers.web]\nimage = 'a'\n".to_owned() + &WEB.replace("web", "front") + "depends_on = ['web']\n";
        let mut world = World::new(&text);
        let (network, _channel) = service(&mut world.supervisor, "network");
        let is_there = |world: &mut World, ready| world.supervisor.containers.get_mut(network).unwrap().ready = ready;
        is_there(&mut world, true);
        for name in ["web", "front"] {
            world.prepare(name);
            world.run(name);
        }
        world.pass(Duration::from_secs(60));
        is_there(&mut world, false);
        for name in ["web", "front"] {
            world.ask(Request::Restart { name: name.into(), ending: Ending::default() });
            world.end(name, 0);
        }
        let reasons = ["web", "front"].map(|name| world.reason(name));
        assert_eq!(reasons, ["waits for the system container network", "waits for web"]);
        assert_eq!(world.supervisor.problems(), [""; 0]);
    }

    #[test]
    fn who_is_prepared_once_more_is_no_problem_until_that_fails_too() {
        let mut world = made_tests::world(WEB);
        made_tests::make(&mut world, made_tests::creation("job", "restart = 'always'"));
        let failed = |name: &str| Request::PrepareFailed { name: name.into(), reason: "no registry has it".into() };
        world.ask_as_engine(failed("web"));
        assert_eq!(world.supervisor.problems(), ["container web: no registry has it"]);
        for name in ["web", "job"] {
            world.ask(Request::Start { name: name.into() });
            assert_eq!(world.supervisor.problems(), [""; 0], "{name} has only been asked for");
            let underway = Request::PrepareDelayed { name: name.into(), reason: "pulling it".into(), retry_s: None };
            world.ask_as_engine(underway);
            assert_eq!((world.reason(name), world.supervisor.problems()), ("pulling it", Vec::new()));
            assert!(world.supervisor.find(name).unwrap().tried, "a start by hand makes the boot no longer");
        }
        world.ask_as_engine(failed("web"));
        assert_eq!(world.supervisor.problems(), ["container web: no registry has it"]);
    }

    #[test]
    fn who_only_waits_for_its_turn_is_no_problem() {
        let mut world = World::new(WEB);
        world.prepare("web");
        world.run("web");
        world.pass(Duration::from_secs(60));
        world.end("web", 0);
        let cgroup = world.supervisor.find("web").unwrap().cgroup.clone();
        world.pass(Duration::from_millis(50));
        assert!(world.supervisor.problems().is_empty(), "a restart after a long run");
        world.supervisor.facts.leftovers.push(cgroup);
        let id = world.supervisor.find("web").unwrap().id;
        world.supervisor.begin_anew(id);
        assert!(!world.supervisor.start_if_possible(id));
        assert!(world.reason("web").contains("its previous run"), "{}", world.reason("web"));
        assert!(world.supervisor.problems().is_empty(), "{:?}", world.supervisor.problems());
    }
}
