//! Containers that need each other, in random events and virtual time: health checks, timers and a wall clock that jumps,
//! replicas, pods, readiness, networks, images that do not come, services that end, other configurations, the next program
//! of PID 1, and the end of the machine. What must be true after each event, and where all of it comes to in the end.

mod invariants;
mod outcome;

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use berth_config::DependencyCondition;
use berth_control::channel::Channel;
use berth_control::message::{ContainerState, Ending, Health, Kind, Request, ToInit};
use proptest::prelude::*;

use super::readiness::Awaited;
use super::timer::Timer;
use super::world::World;
use super::world::reexecution::{Record, be_alone};
use super::*;

const TEXT: &str = "
[containers.db]\nimage = 'a'\nstop_grace_period = '5s'\nhealth = { tcp = 80, interval = '20s', retries = 2 }
[containers.cache]\nimage = 'a'\nnetwork_mode = 'none'\nreadiness = 'notify'\nipc = 'shareable'
[containers.job]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'on-failure:2'\ndepends_on = { db = { condition = 'healthy' } }
[containers.web]\nimage = 'a'\nreplicas = 2\ndepends_on = { db = { condition = 'started' }, job = { condition = 'completed' }, cache = {} }
[containers.side]\nimage = 'a'\nnetwork_mode = 'container:db'
[containers.helper]\nimage = 'a'\nnetwork_mode = 'none'\nipc = 'container:cache'\npid = 'container:cache'\nrestart = 'unless-stopped'
[containers.tick]\nimage = 'a'\nnetwork_mode = 'none'\nevery = '15m'\nrestart = 'no'
[containers.cron]\nimage = 'a'\nnetwork_mode = 'none'\nschedule = '*/5 * * * *'\nrestart = 'on-failure:1'
";

/// What else may be applied: a key that differs, and what it says then.
const CHANGES: [(&str, &str); 5] = [
    ("", ""),
    ("replicas = 2", "replicas = 3"),
    ("interval = '20s'", "interval = '7s'"),
    ("[containers.cache]\nimage = 'a'", "[containers.cache]\nimage = 'b'"),
    ("[containers.db]\nimage = 'a'", "[containers.db]\nimage = 'b'\nnetwork_mode = 'none'"),
];

const NAMES: [&str; 10] = ["db", "cache", "job", "web-1", "web-2", "web-3", "side", "helper", "tick", "cron"];

const EVERY: Duration = Duration::from_secs(15 * 60);

/// Between two times of the schedule.
const SCHEDULE: u64 = 300;

/// What happens, mostly to the container of this name.
#[derive(Clone, Debug)]
enum Event {
    /// What brings it on.
    Goes(&'static str),
    Prepared(&'static str),
    /// Now and then, or not at all.
    NotPrepared(&'static str, Option<Option<u64>>),
    /// `network` is asked for its addresses.
    Attaches(&'static str),
    /// `network` has none.
    NotAttached(&'static str),
    SetUp(&'static str, bool),
    Ready(&'static str),
    Checked(&'static str, bool),
    End(&'static str, i32),
    Ask(&'static str, Asked),
    Pass(u64),
    PassToDeadline,
    /// The wall clock is set, by so many seconds.
    Jump(i64),
    Apply(usize),
    /// The system container of this role ends, or is ready again.
    Service(usize, bool),
    Reexecute,
    /// A defect in the next round, which is lost.
    Crash,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Start,
    Stop,
    Restart,
    Kill,
    Pause,
    Unpause,
}

fn asked() -> impl Strategy<Value = Asked> {
    use Asked::*;
    prop::sample::select(vec![Start, Start, Stop, Restart, Kill, Pause, Unpause])
}

fn event() -> impl Strategy<Value = Event> {
    let name = || prop::sample::select(NAMES.to_vec());
    let delay = prop_oneof![Just(None), Just(Some(None)), Just(Some(Some(5)))];
    prop_oneof![
        30 => name().prop_map(Event::Goes),
        8 => name().prop_map(Event::Prepared),
        1 => (name(), delay).prop_map(|(name, delay)| Event::NotPrepared(name, delay)),
        2 => name().prop_map(Event::Attaches),
        1 => name().prop_map(Event::NotAttached),
        16 => (name(), prop::bool::weighted(0.9)).prop_map(|(name, well)| Event::SetUp(name, well)),
        6 => name().prop_map(Event::Ready),
        6 => (name(), prop::bool::weighted(0.8)).prop_map(|(name, passed)| Event::Checked(name, passed)),
        8 => (name(), prop_oneof![Just(0), Just(1), Just(137)]).prop_map(|(name, code)| Event::End(name, code)),
        4 => (name(), asked()).prop_map(|(name, asked)| Event::Ask(name, asked)),
        3 => (0..600_000_u64).prop_map(Event::Pass),
        8 => Just(Event::PassToDeadline),
        1 => prop_oneof![-20_000..20_000_i64, -200..200_i64].prop_map(Event::Jump),
        1 => (0..CHANGES.len()).prop_map(Event::Apply),
        1 => (0..2_usize, prop::bool::weighted(0.7)).prop_map(|(role, ready)| Event::Service(role, ready)),
        2 => Just(Event::Reexecute),
        1 => Just(Event::Crash),
    ]
}

/// One that waits for its time: what for, since when, and what the wall clock said when it began to wait for that.
#[derive(Clone)]
struct Rest {
    timer: Timer,
    since: Duration,
    wall: Duration,
}

struct Fleet {
    world: World,
    network: (u32, Channel),
    text: String,
    /// At the end of the last round, with those that rested then.
    record: (Record, BTreeMap<String, Rest>),
    /// Since when each rests for its time, on both clocks.
    rests: BTreeMap<String, Rest>,
    /// The present round ends in a defect.
    doomed: bool,
}

impl Fleet {
    fn new() -> Self {
        drop(berth_runtime::handover::take_dropped());
        let mut world = World::new("");
        world.supervisor.launcher = |container, _| {
            let notifies = container.user().is_some_and(|user| user.readiness == berth_config::ReadyWhen::Notify);
            let (socket, _) = UnixDatagram::pair().unwrap();
            let socket = std::os::fd::OwnedFd::from(socket).into();
            container.awaited = notifies.then_some(Awaited::Notice { socket, left: 9 });
            Ok(None)
        };
        world.supervisor.wall = Duration::from_secs(1_795_305_600);
        let network = world::service(&mut world.supervisor, "network");
        let record = (world.write_down(), BTreeMap::new());
        let mut fleet = Self { world, network, text: TEXT.to_owned(), record, rests: BTreeMap::new(), doomed: false };
        (0..2).for_each(|role| fleet.service(role, true));
        fleet.world.apply(TEXT);
        fleet
    }

    /// `network` or the engine.
    fn service(&mut self, role: usize, ready: bool) {
        let id = self.world.supervisor.find(["network", "engine"][role]).unwrap().id;
        if !ready {
            self.world.supervisor.containers.get_mut(id).unwrap().ready = false;
        } else {
            self.world.supervisor.service_ready(id);
        }
        self.world.supervisor.settle();
    }

    fn find(&self, name: &str) -> Option<&Container> {
        self.world.supervisor.find(name)
    }

    /// The first one of this name that has, or gets, a process.
    fn alive(&self, name: &str) -> Option<&Container> {
        let named = self.world.supervisor.containers.values().filter(|container| container.name == name);
        named.filter(|container| container.may_have_processes()).min_by_key(|container| container.id)
    }

    fn is_beginning(&self, name: &str) -> bool {
        let begins =
            |container: &Container| matches!(container.state, State::Creating { .. } | State::Attaching { .. });
        self.find(name).is_some_and(begins)
    }

    fn say(&mut self, from_network: Request) {
        self.network.1.send(&ToInit { id: 7, request: from_network }, &[]).unwrap();
        self.world.supervisor.message(self.network.0);
        self.world.supervisor.settle();
        while self.network.1.receive::<berth_control::message::FromInit>().is_ok() {}
    }

    fn happen(&mut self, event: &Event) {
        let now = self.world.supervisor.now;
        match *event {
            Event::Goes(name) => {
                self.help(name);
            }
            Event::Prepared(name) if self.find(name).is_some() => self.world.prepare(name),
            Event::NotPrepared(name, delay) if self.find(name).is_some() => {
                let (name, reason) = (name.to_owned(), "a test says so".to_owned());
                self.world.ask_as_engine(match delay {
                    None => Request::PrepareFailed { name, reason },
                    Some(retry_s) => Request::PrepareDelayed { name, reason, retry_s },
                });
            }
            Event::Attaches(name) if self.is_beginning(name) => {
                self.world.attach(name);
            }
            Event::NotAttached(name) if self.find(name).is_some() => {
                self.say(Request::NetworkFailed { name: name.to_owned(), reason: "a test says so".to_owned() });
            }
            Event::SetUp(name, true) if self.is_beginning(name) => self.world.run(name),
            Event::SetUp(name, false) if self.is_beginning(name) => self.world.fail(name),
            Event::Ready(name) => self.become_ready(name),
            Event::Checked(name, passed) => self.check_health(name, passed),
            Event::End(name, code) if self.alive(name).is_some_and(|container| container.pid().is_some()) => {
                self.world.end(name, code);
            }
            Event::Ask(name, asked) => self.ask(name, asked),
            Event::Pass(milliseconds) => self.world.pass(Duration::from_millis(milliseconds)),
            Event::PassToDeadline => {
                let deadline = self.world.supervisor.deadline().unwrap_or(now);
                self.world.pass(deadline - now);
            }
            Event::Jump(seconds) => {
                let wall = self.world.supervisor.wall;
                self.world.supervisor.wall = Duration::from_secs(wall.as_secs().saturating_add_signed(seconds));
                self.world.pass(Duration::ZERO);
            }
            Event::Apply(change) => {
                let (from, to) = CHANGES[change];
                self.text = if from.is_empty() { TEXT.to_owned() } else { TEXT.replace(from, to) };
                let text = self.text.clone();
                self.world.apply(&text);
            }
            Event::Service(role, ready) => self.service(role, ready),
            Event::Reexecute => {
                let before = self.world.write_down();
                self.world.resume(&before, &[self.network.1.as_raw_fd()]);
                assert_eq!(self.world.write_down(), before, "the next program knows something else");
            }
            _ => {}
        }
    }

    fn become_ready(&mut self, name: &str) {
        let waits = |container: &&Container| container.is_getting_ready();
        if let Some(id) = self.find(name).filter(waits).map(|container| container.id) {
            self.world.supervisor.is_ready(id);
            self.world.supervisor.settle();
        }
    }

    fn check_health(&mut self, name: &str, passed: bool) {
        let is_checked = |container: &&Container| container.health.is_some() && !container.frozen;
        if let Some(id) = self.find(name).filter(is_checked).map(|container| container.id) {
            let result = if passed { Ok(()) } else { Err("a test says so".to_owned()) };
            self.world.supervisor.checked(id, result);
            self.world.supervisor.settle();
        }
    }

    fn ask(&mut self, name: &str, asked: Asked) {
        let ending = Ending::default;
        let folder = tempfile::tempdir().unwrap();
        let name = name.to_owned();
        let request = match asked {
            Asked::Start => Request::Start { name: name.clone() },
            Asked::Stop => Request::Stop { name: name.clone(), ending: ending() },
            Asked::Restart => Request::Restart { name: name.clone(), ending: ending() },
            Asked::Kill => Request::Kill { name: name.clone(), signal: nix::libc::SIGKILL },
            Asked::Pause => Request::Pause { name: name.clone() },
            Asked::Unpause => Request::Unpause { name: name.clone() },
        };
        let Some(container) = self.world.supervisor.find_mut(&name) else { return };
        let cgroup = std::mem::replace(&mut container.cgroup, folder.path().to_owned());
        let id = container.id;
        self.world.send(request);
        if let Some(container) = self.world.supervisor.containers.get_mut(id) {
            container.cgroup = cgroup;
        }
        self.world.supervisor.facts.leftovers.clear();
        self.world.supervisor.settle();
        self.world.answers();
    }
}

proptest! {
    // A quarter of what is usual, or of what PROPTEST_CASES says: each case is long.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_everything_comes_to_where_it_belongs(
        events in prop::collection::vec(event(), 1..150),
        ends in prop::bool::weighted(0.2),
    ) {
        be_alone();
        let mut fleet = Fleet::new();
        events.iter().for_each(|event| fleet.round(event));
        if ends {
            fleet.go_down();
            return Ok(());
        }
        fleet.calm_down();
        fleet.check_end();
        fleet.check_everything();
    }
}
