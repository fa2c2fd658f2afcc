//! How long a container's network takes: cables, addresses, routes, names and a published port, from PID 1's request to
//! the answer, for the first and the last of many containers; what `ip` and `nft` take longer for the last one, and the kernel
//! alone when it is asked as little as possible; and netavark's time for the same without a port and names.
//!
//! `cargo bench -p berth-network --bench attach`, as root, which fails if a figure misses its bar. netavark and iptables are Debian's packages.
//!
//! On a machine that does much else the clock says little of the last and the first: what they cost the processor is stated too.

mod by_hand;
mod fewest;
mod netavark;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use support::Namespace;
use support::bars::{self, Bar, judged};
use support::site::{Site, container, port};

const COUNT: usize = 500;
/// Compared at the beginning and at the end.
const SOME: usize = 50;
/// Of issue 6, in milliseconds.
const BAR: f64 = 3.0;
/// Of issue 6: the last as fast as the first.
const GROWTH: f64 = 1.0;
/// Of issue 6, of netavark's time.
const SHARE: f64 = 0.2;
const NETAVARK: &str = "/usr/lib/podman/netavark";

/// What one container takes.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// From the request to the answer.
    pub by_clock: Duration,
    /// Of all that works for it.
    pub of_processor: Duration,
}

fn main() -> ExitCode {
    if !support::possible(&["ip", "nft"]) {
        return ExitCode::SUCCESS;
    }
    let costs = ours();
    let (first, last) = ends(&costs, by_clock);
    judged(&format!("attach: median of the first {SOME} {first:.2} ms"), first, Bar::AtMost(BAR));
    let growth = last / first;
    let line = format!("attach: of the last {SOME} of {COUNT} {last:.2} ms, {growth:.2} of the first");
    judged(&line, growth, Bar::AtMost(GROWTH));
    let (hand_costs, fewest_costs) = (by_hand(), fewest());
    let (hand_first, hand_last) = ends(&hand_costs, by_clock);
    println!("attach: by hand {hand_first:.2} ms, the last {hand_last:.2} ms");
    for (who, costs) in [("", &costs), ("by hand, ", &hand_costs), ("with the fewest questions, ", &fewest_costs)] {
        let (first, last) = ends(costs, of_processor);
        let more = last - first;
        println!("attach: {who}of the processor {first:.2} ms, the last {last:.2} ms, {more:.2} ms more");
    }
    for (what, part) in [("by the clock", by_clock as fn(&Cost) -> Duration), ("of the processor", of_processor)] {
        let [ours, kernels] = [&costs, &fewest_costs].map(|costs| {
            let (first, last) = ends(costs, part);
            last - first
        });
        let share = ours / kernels;
        println!(
            "attach: the last takes {ours:.2} ms more {what}, the kernel alone {kernels:.2} ms more: {share:.2} of that"
        );
    }
    if Path::new(NETAVARK).exists() {
        let theirs = median(&netavark::times(NETAVARK, SOME));
        let share = first / theirs;
        let line = format!("attach: of netavark's {theirs:.2} ms, without a port and names, {share:.3}");
        judged(&line, share, Bar::AtMost(SHARE));
    } else {
        println!("netavark: not installed");
    }
    bars::verdict()
}

fn by_clock(cost: &Cost) -> Duration {
    cost.by_clock
}

fn of_processor(cost: &Cost) -> Duration {
    cost.of_processor
}

fn ours() -> Vec<Cost> {
    let site = Site::new();
    let mut service = site.start();
    let namespaces: Vec<Namespace> = (0..COUNT).map(|_| container()).collect();
    let program = Pid::from_raw(service.program.child.id().try_into().expect("it has a number"));
    let mut attach = |(number, namespace): (usize, &Namespace)| {
        let ports = [port("", 10_000 + u16::try_from(number).unwrap_or(0), 80, "tcp")];
        let (begin, used) = (Instant::now(), used_by(program));
        let attached = service.attach(&format!("c{number}"), namespace, &ports);
        let by_clock = begin.elapsed();
        assert!(attached.is_ok(), "{attached:?}");
        Cost { by_clock, of_processor: used_by(program) - used }
    };
    let costs = namespaces.iter().enumerate().map(&mut attach).collect();
    drop(namespaces);
    by_hand::wait_for_the_end(&site.machine.namespace, "berth0-");
    costs
}

fn by_hand() -> Vec<Cost> {
    let machine = by_hand::Machine::new();
    let costs = costs_of(|number, namespace| machine.attach(number, namespace));
    machine.wait_for_the_end();
    costs
}

fn fewest() -> Vec<Cost> {
    let machine = fewest::Machine::new();
    let costs = costs_of(|number, namespace| machine.attach(number, namespace));
    machine.wait_for_the_end();
    costs
}

/// Of what this program does, and those that it starts.
fn costs_of(attach: impl Fn(usize, &Namespace) -> Duration) -> Vec<Cost> {
    let namespaces: Vec<Namespace> = (0..COUNT).map(|_| container()).collect();
    let attach = |(number, namespace): (usize, &Namespace)| {
        let used = used_by_children();
        let by_clock = attach(number, namespace);
        Cost { by_clock, of_processor: used_by_children() - used }
    };
    namespaces.iter().enumerate().map(attach).collect()
}

/// The medians of the first and of the last, in milliseconds.
fn ends(costs: &[Cost], part: fn(&Cost) -> Duration) -> (f64, f64) {
    let times: Vec<Duration> = costs.iter().map(part).collect();
    (median(&times[..SOME]), median(&times[COUNT - SOME..]))
}

/// What a program has had of the processor.
fn used_by(program: Pid) -> Duration {
    clock_getcpuclockid(program).and_then(clock_gettime).expect("the program is there").into()
}

/// What the programs that have ended have had of it, and this one.
fn used_by_children() -> Duration {
    let used = [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN].map(|who| {
        let usage = getrusage(who).expect("the kernel counts");
        usage.user_time() + usage.system_time()
    });
    let microseconds: TimeVal = used[0] + used[1];
    Duration::from_micros(microseconds.num_microseconds().unsigned_abs())
}

fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}
