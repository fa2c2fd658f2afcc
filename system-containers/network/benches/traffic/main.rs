//! What a container's packets pass: throughput and request rate between two containers, from a container to the outside
//! and from there to a published port, each in turns with the same topology made by hand with `ip` and `nft`.
//!
//! `cargo bench -p berth-network --bench traffic [-- --turns=N]`, as root; iperf3 measures the throughput. A turn asks
//! one topology and then the other, the next turn the other way round; what is stated is the median of the turns' ratios,
//! so that what else the machine does meanwhile meets both.

#[path = "../../tests/support/mod.rs"]
mod support;

mod requests;
mod throughput;
mod topology;

use std::cmp::Ordering;

use topology::{PATHS, Path, Topology};

/// Of issue 6: both rates, of those by hand.
const BAR: f64 = 0.97;
const TURNS: usize = 21;

/// How a path's rate is measured.
struct Measure {
    name: &'static str,
    unit: &'static str,
    rate: fn(&Topology, Path) -> f64,
}

const MEASURES: [Measure; 2] = [
    Measure { name: "throughput", unit: "Gbit/s", rate: throughput::rate },
    Measure { name: "requests", unit: "connections/s", rate: requests::rate },
];

fn main() {
    if !support::possible(&["ip", "nft", "iperf3"]) {
        return;
    }
    let turns = std::env::args().find_map(|argument| argument.strip_prefix("--turns=")?.parse().ok()).unwrap_or(TURNS);
    let (ours, by_hand) = (Topology::ours(), Topology::by_hand());
    for path in PATHS {
        for measure in MEASURES {
            compare(&ours, &by_hand, path, &measure, turns);
        }
    }
}

fn compare(ours: &Topology, by_hand: &Topology, path: Path, measure: &Measure, turns: usize) {
    let mut rates = (Vec::new(), Vec::new());
    for turn in 0..=turns {
        let first = if turn % 2 == 0 { ours } else { by_hand };
        let second = if turn % 2 == 0 { by_hand } else { ours };
        let (one, two) = ((measure.rate)(first, path), (measure.rate)(second, path));
        // The first turn finds no neighbours and no code in the caches.
        if turn > 0 {
            let (mine, theirs) = if turn % 2 == 0 { (one, two) } else { (two, one) };
            rates.0.push(mine);
            rates.1.push(theirs);
        }
    }
    let ratios = rates.0.iter().zip(&rates.1).map(|(mine, theirs)| mine / theirs).collect();
    let (name, unit) = (measure.name, measure.unit);
    let line = format!("{}, {name}: {:.1} {unit}, by hand {:.1}", path.name(), median(rates.0), median(rates.1));
    println!("{line:<84} {:.2}   bar: {BAR}", median(ratios));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(|one, two| one.partial_cmp(two).unwrap_or(Ordering::Equal));
    values[values.len() / 2]
}
