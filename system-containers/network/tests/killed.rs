//! The service is killed before each step of attaching a container, of detaching it and of its own start. What the next one
//! makes of it is compared with what a service has made that nobody disturbed: nothing may be missing, or left over.

use berth_control::message::{Attachment, Notice, Request};
use berth_tests::steps;

use crate::support::seen::{self, Seen};
use crate::support::site::{container, port, ruled};
use crate::support::{Machine, Namespace, Running, eventually, on, possible, wanted};

const TOOLS: &[&str] = &["ip", "nft", "dig"];
const NETWORKS: &str = "[networks.front]\nsubnets = ['10.88.0.0/24', 'fd00:88::/64']\n\
    [networks.back]\nsubnets = ['10.89.0.0/24', 'fd00:89::/64']\ninternal = true\nisolated = true\n";
const RESOLVER: &str = "10.88.0.1";
const QUESTIONS: &str = "base A base AAAA web-1 A web-1 AAAA web A web AAAA tasks.web A";
/// No step is searched for beyond it.
const MOST_STEPS: u32 = 300;
/// How many machines share the steps, each of which waits for the kernel for most of its time.
const STAGES: u32 = 4;

/// A container that is always there, and one that comes and goes.
struct Stage {
    machine: Machine,
    base: Namespace,
    web: Namespace,
    /// With the first alone.
    without: Seen,
    /// With both.
    with: Seen,
}

/// Who is there when the service is started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The container has ended meanwhile.
    Gone,
    /// It still runs.
    Runs,
}

/// The container has its own port and lets nobody in who comes and goes.
fn base() -> Attachment {
    // On all networks: the kernel takes up to a second to see that a bridge has lost its last cable.
    let networks = [("front", ""), ("back", "")];
    ruled(on(wanted("base", &[port("", 9000, 80, "tcp")]), &networks), "deny = [{ container = 'web' }]")
}

/// A replica with all that a container can have.
fn web() -> Attachment {
    let rules = "allow = [{ container = 'base', ports = [80] }]\nbandwidth = { ingress = '10M', egress = '10M' }";
    let networks = [("front", "aliases = ['shop']"), ("back", "")];
    let mut web = ruled(on(wanted("web-1", &[port("", 8080, 80, "tcp")]), &networks), rules);
    (web.service, web.service_address) = ("web".to_owned(), true);
    web
}

impl Stage {
    fn new() -> Self {
        let (machine, base, web) = (Machine::new(NETWORKS), container(), container());
        // As it stays when the container has been there.
        web.ip("link set lo up");
        let mut this = Self { machine, base, web, without: Seen::new(), with: Seen::new() };
        // The kernel says a little later whether there is carrier, and whether addresses of its own are usable.
        let unsettled = ["tentative", "NO-CARRIER", "LOWERLAYERDOWN", "linkdown"];
        let is_settled = |text: &str| !unsettled.iter().any(|word| text.contains(word));
        let look = |this: &Self| is_settled(&this.kernel_text()).then(|| this.look());
        let mut service = this.start();
        this.attach_base(&mut service);
        let without = eventually("everything is up", || look(&this));
        this.attach_web(&mut service);
        let with = eventually("everything is up", || look(&this));
        (this.with, this.without) = (with, without);
        this
    }

    fn start(&self) -> Running {
        let mut service = self.machine.start();
        service.wait_ready();
        service
    }

    fn kernel_text(&self) -> String {
        ["address", "-4 route show table all", "-6 route show table all"]
            .map(|each| self.machine.namespace.ip(each))
            .concat()
    }

    fn look(&self) -> Seen {
        let namespaces = [("machine", &self.machine.namespace), ("base", &self.base), ("web", &self.web)];
        let mut all: Seen = namespaces.iter().flat_map(|(name, each)| seen::of_namespace(name, each)).collect();
        all.extend(seen::filter(&self.machine.namespace));
        all.extend(seen::names(&self.base, RESOLVER, QUESTIONS));
        for folder in ["run", "run/network", "state"] {
            all.extend(seen::files(folder, &self.machine.state.path().join(folder)));
        }
        all
    }

    fn attach_base(&self, service: &mut Running) {
        service.attach_as(base(), &self.base).unwrap();
    }

    fn attach_web(&self, service: &mut Running) {
        service.attach_as(web(), &self.web).unwrap();
    }

    fn detach_web(&self, service: &mut Running) {
        service.notify(Notice::DetachNetwork { name: web().name }, &[]);
        // An answered request comes after the notice.
        self.attach_base(service);
    }

    /// The next service, told who runs; what it leaves is without the container that comes and goes.
    fn recover(&self, what: &str, then: Then) -> Running {
        let mut service = self.start();
        self.attach_base(&mut service);
        if then == Then::Runs {
            self.attach_web(&mut service);
            service.notify(Notice::AllAttached, &[]);
            self.attach_base(&mut service);
            seen::wait_for(&format!("{what}, it runs"), &self.with, || self.look());
            self.detach_web(&mut service);
        }
        service.notify(Notice::AllAttached, &[]);
        self.attach_base(&mut service);
        seen::wait_for(&format!("{what}, {then:?}"), &self.without, || self.look());
        service
    }

    /// Kills a service before some of the steps of what it is asked to do, until it has done all of it.
    fn at_steps(&self, steps: impl Iterator<Item = u32>, task: &Task, then: Then) {
        let mut service = self.recover("at the beginning", Then::Gone);
        for step in steps {
            service = (task.prepare)(self, service);
            let killed = steps::end_at(service.program.child.id(), step);
            let done = (task.ask)(self, &mut service).is_some();
            drop(service);
            killed.join().unwrap();
            service = self.recover(&format!("{}, killed before step {step}", task.name), then);
            if done {
                assert!(step > task.at_least, "{step} steps are not all of them");
                return;
            }
        }
        panic!("{} does not end", task.name);
    }
}

/// What a service is killed at.
struct Task {
    name: &'static str,
    /// What comes before.
    prepare: fn(&Stage, Running) -> Running,
    /// The value is there when all is done, and not if it has ended before.
    ask: fn(&Stage, &mut Running) -> Option<()>,
    /// Steps that there are for certain.
    at_least: u32,
}

const ATTACHING: Task = Task {
    name: "attaching",
    prepare: |_, service| service,
    ask: |stage, service| {
        service.begin_to_attach(web(), &stage.web);
        service.wait_or_end("the addresses of web", |request| is_attached(request, "web-1"))
    },
    at_least: 25,
};

const DETACHING: Task = Task {
    name: "detaching",
    prepare: |stage, mut service| {
        stage.attach_web(&mut service);
        service
    },
    ask: |stage, service| {
        service.notify(Notice::DetachNetwork { name: web().name }, &[]);
        service.begin_to_attach(base(), &stage.base);
        service.wait_or_end("the addresses of base", |request| is_attached(request, "base"))
    },
    at_least: 8,
};

/// With both containers there, as if it had been killed before.
const STARTING: Task = Task {
    name: "starting",
    prepare: |stage, mut service| {
        stage.attach_web(&mut service);
        drop(service);
        let service = stage.machine.start();
        let program = format!("/proc/{}/exe", service.program.child.id());
        eventually("the shell before it is gone", || {
            std::fs::read_link(&program).ok()?.ends_with("berth-network").then_some(())
        });
        service
    },
    ask: |_, service| service.wait_or_end("ready", |request| matches!(request, Request::Ready).then_some(())),
    at_least: 20,
};

fn is_attached(request: &Request, container: &str) -> Option<()> {
    matches!(request, Request::NetworkAttached { name, .. } if name == container).then_some(())
}

#[test]
fn a_container_that_is_attached_at_that_moment_is_forgotten_if_it_ends() {
    at_every_step(&ATTACHING, Then::Gone);
}

#[test]
fn a_container_that_is_attached_at_that_moment_gets_all_of_it_if_it_runs_on() {
    at_every_step(&ATTACHING, Then::Runs);
}

#[test]
fn a_container_that_is_detached_at_that_moment_is_forgotten() {
    at_every_step(&DETACHING, Then::Gone);
}

#[test]
fn a_container_whose_end_was_nearly_forgotten_can_be_there_again() {
    at_every_step(&DETACHING, Then::Runs);
}

#[test]
fn a_start_may_end_at_any_moment_and_containers_run_on() {
    at_every_step(&STARTING, Then::Runs);
}

fn at_every_step(task: &Task, then: Then) {
    if possible(TOOLS) {
        std::thread::scope(|scope| {
            for first in 1..=STAGES {
                let steps = (first..MOST_STEPS).step_by(STAGES as usize);
                scope.spawn(move || Stage::new().at_steps(steps, task, then));
            }
        });
    }
}
