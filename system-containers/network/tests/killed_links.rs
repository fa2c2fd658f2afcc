//! The service is killed before each step of making the machine's links and of taking them back. What the next one makes of
//! it is compared with what a service has made that nobody disturbed.

use berth_control::message::{Notice, Request};
use berth_tests::steps;

use crate::support::seen::{self, Seen};
use crate::support::{Machine, Namespace, Running, eventually, networking, possible};

/// Cards alone.
const CARDS: &str = "\
[network.links.cards]
match = { name = 'card*' }
dhcp = false
ipv6 = 'static'
[network.links.uplink]
match = { name = 'card2' }
rename = 'up0'
dhcp = false
ipv6 = 'static'
";
/// With a bridge of two of them, a link that leads nowhere, addresses, routes and a rule.
const LINKS: &str = "\
[network]
rules = [{ from = '10.20.0.0/24', table = 77, priority = 500 }]
[network.links.lan]
bridge = { ports = ['card0', 'card1'], ageing_time = '1m' }
mac = '02:00:00:00:55:01'
addresses = ['10.10.0.1/24', 'fd10::1/64']
ipv6 = 'static'
[network.links.uplink]
match = { name = 'card2' }
rename = 'up0'
addresses = ['10.20.0.1/24', 'fd20::1/64']
gateways = ['10.20.0.9', 'fd20::9']
routes = [{ destination = '10.30.0.0/24', gateway = '10.20.0.8', table = 77 }]
ipv6 = 'static'
";
/// No step is searched for beyond it.
const MOST_STEPS: u32 = 300;
/// How many machines share the steps, each of which waits for the kernel for most of its time.
const STAGES: u32 = 4;

struct Stage {
    machine: Machine,
    _other: Namespace,
    cards: Seen,
    links: Seen,
}

impl Stage {
    fn new() -> Self {
        let (machine, other) = (Machine::new(CARDS), Namespace::new());
        // What takes seconds each time and nothing here is about: looking whether others have an address.
        machine.namespace.run("sysctl -qw net.ipv6.conf.default.dad_transmits=0");
        for (card, far) in [("card0", "far0"), ("card1", "far1"), ("card2", "far2")] {
            machine.namespace.connect(card, &other, far);
            other.ip(&format!("link set {far} up"));
        }
        let mut this = Self { machine, _other: other, cards: Seen::new(), links: Seen::new() };
        let mut service = this.machine.start();
        service.wait_ready();
        // The kernel says a little later whether there is carrier, and whether addresses are usable.
        let settled = |this: &Self| {
            let questions = ["address", "-4 route show table all", "-6 route show table all"];
            let text = questions.map(|each| this.machine.namespace.ip(each)).concat();
            let unsettled = ["tentative", "NO-CARRIER", "LOWERLAYERDOWN", "linkdown", "state DOWN"];
            (!unsettled.iter().any(|word| text.contains(word))).then(|| this.look())
        };
        // The name stays that a card was given once.
        apply(&mut service, LINKS).unwrap();
        this.links = eventually("all links are up", || settled(&this));
        apply(&mut service, CARDS).unwrap();
        this.cards = eventually("the cards alone are up", || settled(&this));
        this
    }

    fn look(&self) -> Seen {
        seen::of_namespace("machine", &self.machine.namespace)
    }

    /// Kills a service before some of the steps from one configuration to another, until it has done all of them.
    fn at_steps(&mut self, steps: impl Iterator<Item = u32>, (from, to): (&str, &str), at_least: u32) {
        for step in steps {
            let mut service = self.take_up(from, &format!("before step {step}"));
            let killed = steps::end_at(service.program.child.id(), step);
            let done = apply(&mut service, to).is_some();
            drop(service);
            killed.join().unwrap();
            drop(self.take_up(to, &format!("killed before step {step}")));
            if done {
                assert!(step > at_least, "{step} steps are not all of them");
                return;
            }
        }
        panic!("it does not end");
    }

    /// The next service with a configuration, once all is as that says.
    fn take_up(&mut self, configuration: &str, what: &str) -> Running {
        self.machine.network = networking(configuration);
        let mut service = self.machine.start();
        service.wait_ready();
        seen::wait_for(what, if configuration == LINKS { &self.links } else { &self.cards }, || self.look());
        service
    }
}

/// Kills a service before each step from one configuration to another.
fn at_every_step(way: (&str, &str), at_least: u32) {
    if possible(&["ip"]) {
        std::thread::scope(|scope| {
            for first in 1..=STAGES {
                let steps = (first..MOST_STEPS).step_by(STAGES as usize);
                scope.spawn(move || Stage::new().at_steps(steps, way, at_least));
            }
        });
    }
}

/// Nothing if the service has ended before all was done.
fn apply(service: &mut Running, configuration: &str) -> Option<()> {
    service.network = networking(configuration);
    // It asks for the second when it has dealt with the first.
    for _ in 0..2 {
        service.notify(Notice::NetworkConfigurationChanged, &[]);
    }
    let mut questions = 0;
    service.wait_or_end("a second question", |request| {
        questions += u32::from(matches!(request, Request::NetworkConfiguration));
        (questions == 2).then_some(())
    })
}

#[test]
fn links_that_are_made_at_that_moment_are_made_by_the_next_service() {
    at_every_step((CARDS, LINKS), 20);
}

#[test]
fn links_that_are_taken_back_at_that_moment_are_gone_with_the_next_service() {
    at_every_step((LINKS, CARDS), 10);
}
