//! What a container's packets pass: throughput and request rate between two containers, from a container to the outside
//! and from there to a published port, each in turns with the same topology made by hand with `ip` and `nft`.
//!
//! `cargo bench -p berth-network --bench traffic [-- --turns=N --path=outside]`, as root; iperf3 measures the throughput. A turn
//! asks one topology after the other, the next turn begins with the next; what is stated is the median of the turns' ratios.
//! The one by hand is there twice, and what it is of itself is stated too.
//!
//! Everything has one processor, where cables and rules are work of whoever sends. So a rate is told twice: by the clock, and in a
//! second of the processor's time, which is free of what others on the machine had of it. The bar is for the latter, and the bench fails if it is missed.

#[path = "../../tests/support/mod.rs"]
mod support;

mod requests;
mod throughput;
mod topology;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::Pid;
use support::bars::{self, Bar, judged};
use topology::{PATHS, Path, Topology};

/// Of issue 6: both rates, of those by hand.
const BAR: f64 = 0.97;
const TURNS: usize = 21;

/// How a path's rate is measured.
struct Measure {
    name: &'static str,
    unit: &'static str,
    rate: fn(&Topology, Path) -> Rate,
}

/// How much in a second.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    by_clock: f64,
    of_processor: f64,
}

impl Rate {
    /// Of an amount since then.
    fn since((begin, used): (Instant, Duration), amount: f64) -> Self {
        let (_, now_used) = now();
        Self {
            by_clock: amount / begin.elapsed().as_secs_f64(),
            of_processor: amount / (now_used - used).as_secs_f64(),
        }
    }
}

/// The clock, and what this program and those that it has waited for have had of the processor.
fn now() -> (Instant, Duration) {
    let used = [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN].map(|who| {
        let usage = getrusage(who).expect("the kernel counts");
        usage.user_time() + usage.system_time()
    });
    let microseconds: TimeVal = used[0] + used[1];
    (Instant::now(), Duration::from_micros(microseconds.num_microseconds().unsigned_abs()))
}

const MEASURES: [Measure; 2] = [
    Measure { name: "throughput", unit: "Gbit/s", rate: throughput::rate },
    Measure { name: "requests", unit: "connections/s", rate: requests::rate },
];

fn main() -> ExitCode {
    if !support::possible(&["ip", "nft", "iperf3"]) {
        return ExitCode::SUCCESS;
    }
    let given = |name: &str| std::env::args().find_map(|argument| argument.strip_prefix(name).map(str::to_owned));
    let turns = given("--turns=").and_then(|turns| turns.parse().ok()).unwrap_or(TURNS);
    let path = given("--path=").unwrap_or_default();
    stay_on_one_processor();
    let topologies = [Topology::ours(), Topology::by_hand(), Topology::by_hand()];
    for path in PATHS.into_iter().filter(|each| each.name().contains(&path)) {
        for measure in MEASURES {
            compare(&topologies, path, &measure, turns);
        }
    }
    bars::verdict()
}

/// Ours, by hand, and by hand again: what the last two differ by is what the measurement is worth.
fn compare(topologies: &[Topology; 3], path: Path, measure: &Measure, turns: usize) {
    let mut all = Vec::new();
    for turn in 0..=turns {
        let mut rates = [Rate::default(); 3];
        // Each is the first, the second and the last as often as the others.
        for place in 0..rates.len() {
            let index = (turn + place) % rates.len();
            rates[index] = (measure.rate)(&topologies[index], path);
        }
        // The first turn finds no neighbours and no code in the caches.
        if turn > 0 {
            all.push(rates);
        }
    }
    let middle = |of: fn(&[Rate; 3]) -> f64| median(all.iter().map(of).collect());
    let (name, unit) = (measure.name, measure.unit);
    let (mine, theirs) = (middle(|[mine, ..]| mine.of_processor), middle(|[_, theirs, _]| theirs.of_processor));
    let line = format!("{}, {name}: {mine:.1} {unit}, by hand {theirs:.1}", path.name());
    let ratio = middle(|[mine, theirs, _]| mine.of_processor / theirs.of_processor);
    let by_clock = middle(|[mine, theirs, _]| mine.by_clock / theirs.by_clock);
    let same = middle(|[_, theirs, again]| again.of_processor / theirs.of_processor);
    let line = format!("{line:<76} {ratio:.3} (by the clock {by_clock:.2}; by hand again {same:.3})");
    judged(&line, ratio, Bar::AtLeast(BAR));
}

fn stay_on_one_processor() {
    let mut one = CpuSet::new();
    one.set(sched_getcpu().expect("there is one")).expect("it has a number");
    sched_setaffinity(Pid::from_raw(0), &one).expect("it is allowed");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
