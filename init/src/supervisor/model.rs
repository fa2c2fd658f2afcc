//! The life of containers against a model of it: random events, virtual time, every restart policy.

use berth_control::message::ContainerState::{Declared, Starting, Waiting};
use berth_control::message::{ContainerState, Ending, Request};
use proptest::prelude::*;

use super::world::World;
use super::*;

/// A container for each policy, one that waits for a job, and one that takes its time to end.
const TEXT: &str = "
[containers.no]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'no'
[containers.limited]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'on-failure:2'
[containers.failing]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'on-failure'
[containers.always]\nimage = 'a'\nnetwork_mode = 'none'\nstop_grace_period = '30s'
[containers.unless]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'unless-stopped'
[containers.waiting]\nimage = 'a'\nnetwork_mode = 'none'\ndepends_on = { no = { condition = 'completed' } }
";
const NAMES: [&str; 6] = ["no", "limited", "failing", "always", "unless", "waiting"];

/// What happens to the container of this number.
#[derive(Clone, Debug)]
enum Event {
    Prepared(usize),
    /// The runtime is done, well or not.
    SetUp(usize, bool),
    End(usize, i32),
    Pass(u64),
    /// As far as the next deadline.
    PassToDeadline,
    Stop(usize),
    Start(usize),
    Restart(usize),
    /// The same configuration again.
    Apply,
}

fn event() -> impl Strategy<Value = Event> {
    let which = 0..NAMES.len();
    prop_oneof![
        2 => which.clone().prop_map(Event::Prepared),
        8 => (which.clone(), prop::bool::weighted(0.9)).prop_map(|(which, well)| Event::SetUp(which, well)),
        8 => (which.clone(), prop_oneof![Just(0), Just(1), Just(137)]).prop_map(|(which, code)| Event::End(which, code)),
        3 => (0..20_000_u64).prop_map(Event::Pass),
        6 => Just(Event::PassToDeadline),
        1 => which.clone().prop_map(Event::Stop),
        1 => which.clone().prop_map(Event::Start),
        1 => which.prop_map(Event::Restart),
        1 => Just(Event::Apply),
    ]
}

/// What the model knows of a container: the documentation's words, in the plainest code.
#[derive(Clone, Debug, Default)]
struct Model {
    began: Duration,
    /// Failures in a row, and ends without a long run in between after which it was started again.
    failures: u32,
    series: u32,
    told_to_stop: bool,
    told_to_restart: bool,
}

impl Model {
    /// Where the container goes from the end of a run, and when it is started again.
    fn end(
        &mut self,
        name: &str,
        ran: Option<Duration>,
        success: bool,
        now: Duration,
    ) -> (ContainerState, Option<Duration>) {
        if !(self.told_to_stop || self.told_to_restart) {
            self.failures = if success { 0 } else { self.failures + 1 };
        }
        self.series = match ran {
            Some(ran) if ran >= Duration::from_secs(10) => 0,
            _ => self.series + 1,
        };
        if std::mem::take(&mut self.told_to_restart) {
            self.series = 0;
            return (ContainerState::Starting, None);
        }
        let again = match name {
            _ if self.told_to_stop => false,
            "no" => false,
            "limited" => !success && self.failures <= 2,
            "failing" => !success,
            _ => true,
        };
        if !again {
            self.series = 0;
            let intended = success || self.told_to_stop;
            return (if intended { ContainerState::Stopped } else { ContainerState::Failed }, None);
        }
        let pause = [100, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200].get(self.series as usize);
        (ContainerState::Backoff, Some(now + Duration::from_millis(pause.copied().unwrap_or(60_000))))
    }
}

struct Run {
    world: World,
    models: [Model; NAMES.len()],
}

impl Run {
    fn new() -> Self {
        Self { world: World::new(TEXT), models: Default::default() }
    }

    fn container(&self, which: usize) -> &Container {
        self.world.supervisor.find(NAMES[which]).unwrap()
    }

    /// Lets it happen, if it can, and compares where it leads.
    fn happen(&mut self, event: &Event) {
        let now = self.world.supervisor.now;
        match *event {
            Event::Prepared(which) => self.world.prepare(NAMES[which]),
            Event::SetUp(which, well) if matches!(self.container(which).state, State::Creating { .. }) => {
                if well {
                    self.models[which].began = now;
                    self.world.run(NAMES[which]);
                    assert_eq!(self.world.state(NAMES[which]), ContainerState::Running);
                } else {
                    self.world.fail(NAMES[which]);
                    self.expect_end(which, None, false);
                }
            }
            Event::End(which, code) if self.container(which).pid().is_some() => {
                let stopping = matches!(self.container(which).state, State::Stopping { .. });
                let ran = now - self.models[which].began;
                self.world.end(NAMES[which], code);
                // Who was told to end had no quiet time to speak of.
                self.expect_end(which, (!stopping).then_some(ran), code == 0);
            }
            Event::Pass(milliseconds) => self.pass(Duration::from_millis(milliseconds)),
            Event::PassToDeadline => {
                let deadline = self.world.supervisor.deadline().unwrap_or(now);
                self.pass(deadline - now);
            }
            Event::Stop(which) => self.stop(which, false),
            Event::Restart(which) => self.stop(which, true),
            Event::Start(which) => self.start(which),
            Event::Apply => self.world.apply(TEXT),
            Event::SetUp(..) | Event::End(..) => {}
        }
    }

    /// The set-ups whose time is up by then have failed.
    fn pass(&mut self, time: Duration) {
        let then = self.world.supervisor.now + time;
        let late = |which: &usize| {
            let container = self.container(*which);
            matches!(container.state, State::Creating { .. }) && container.deadline(then, then) <= Some(then)
        };
        let late: Vec<usize> = (0..NAMES.len()).filter(late).collect();
        self.world.pass(time);
        late.into_iter().for_each(|which| self.expect_end(which, None, false));
    }

    fn expect_end(&mut self, which: usize, ran: Option<Duration>, success: bool) {
        let now = self.world.supervisor.now;
        let (state, until) = self.models[which].end(NAMES[which], ran, success, now);
        let container = self.container(which);
        let found = container.describe().state;
        let waits = found == ContainerState::Waiting && NAMES[which] == "waiting" && state == ContainerState::Starting;
        assert!(found == state || waits, "{}: {found:?} instead of {state:?}", NAMES[which]);
        assert_eq!(until, until.and(container.deadline(now, now)), "{}", NAMES[which]);
    }

    fn stop(&mut self, which: usize, again: bool) {
        let name = NAMES[which].to_owned();
        let before = self.world.state(&name);
        let stopping = self.container(which).pid().is_some();
        self.world.ask(if again {
            Request::Restart { name, ending: Ending::default() }
        } else {
            Request::Stop { name, ending: Ending::default() }
        });
        (self.models[which].told_to_stop, self.models[which].told_to_restart) = (!again, false);
        if again {
            self.models[which].failures = 0;
        }
        let state = self.world.state(NAMES[which]);
        if stopping {
            self.models[which].told_to_restart = again;
            assert_eq!(state, ContainerState::Stopping);
            if before == ContainerState::Running && NAMES[which] == "always" {
                let grace = self.world.supervisor.now + Duration::from_secs(30);
                assert_eq!(self.container(which).deadline(grace, grace), Some(grace));
            }
        } else if before == ContainerState::Starting {
            self.models[which].told_to_restart = again;
            self.expect_end(which, None, false);
        } else {
            self.models[which].series = 0;
            let expected: &[_] = if again { &[Declared, Waiting, Starting] } else { &[ContainerState::Stopped] };
            assert!(expected.contains(&state), "{state:?}");
        }
    }

    fn start(&mut self, which: usize) {
        let runs = self.container(which).may_have_processes();
        if matches!(self.container(which).state, State::Stopping { .. }) {
            (self.models[which].told_to_stop, self.models[which].told_to_restart) = (false, true);
            self.models[which].failures = 0;
        }
        self.world.ask(Request::Start { name: NAMES[which].to_owned() });
        if !runs {
            (self.models[which].failures, self.models[which].series) = (0, 0);
            self.models[which].told_to_stop = false;
            let state = self.world.state(NAMES[which]);
            assert!(matches!(state, Declared | Waiting | Starting));
        }
    }

    /// What is true after every event.
    fn check(&mut self, was_starting: bool) {
        let now = self.world.supervisor.now;
        for which in 0..NAMES.len() {
            let quiet = now - self.models[which].began >= Duration::from_secs(10);
            if quiet && matches!(self.container(which).state, State::Running(_)) {
                self.models[which].series = 0;
            }
        }
        let supervisor = &self.world.supervisor;
        // A deadline that has passed and still stands would keep PID 1 busy.
        assert!(supervisor.deadline().is_none_or(|deadline| deadline > supervisor.now), "{:?}", supervisor.deadline());
        for container in supervisor.containers.values() {
            assert!(!(container.is_at_rest() && container.ready), "{} is at rest and ready", container.name);
            let which = NAMES.iter().position(|name| *name == container.name);
            let series = which.and_then(|which| self.models.get(which)).map_or(0, |model| model.series);
            assert_eq!(container.attempt, series, "{}", container.name);
            assert!(
                !container.completed || !container.may_have_processes(),
                "{} runs and has completed",
                container.name
            );
        }
        let starts = self.world.state("waiting") == ContainerState::Starting;
        assert!(was_starting || !starts || self.container(0).completed, "waiting has not waited");
        let stopped_for_good = supervisor.facts.stopped.iter().map(String::as_str).collect::<Vec<_>>();
        let wanted: &[&str] = if self.models[4].told_to_stop { &["unless"] } else { &[] };
        assert_eq!(stopped_for_good, wanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn containers_live_as_the_documentation_says(events in prop::collection::vec(event(), 1..120)) {
        let mut run = Run::new();
        NAMES.iter().for_each(|name| run.world.prepare(name));
        for event in &events {
            let was_starting = run.world.state("waiting") == ContainerState::Starting;
            run.happen(event);
            run.check(was_starting);
        }
    }
}
