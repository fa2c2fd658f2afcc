//! How long a container's network takes: cables, addresses, routes, names and a published port, from PID 1's request to
//! the answer, for the first and the last of many containers; what `ip` and `nft` take longer for the last one; and netavark's
//! time for the same without a port and names.
//!
//! `cargo bench -p berth-network --bench attach`, as root. netavark and iptables are Debian's packages.

mod by_hand;
mod netavark;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use support::Namespace;
use support::site::{Site, container, port};

const COUNT: usize = 500;
/// Compared at the beginning and at the end.
const SOME: usize = 50;
/// Of issue 6, in milliseconds.
const BAR: f64 = 3.0;
/// Of issue 6, of netavark's time.
const SHARE: f64 = 0.2;
const NETAVARK: &str = "/usr/lib/podman/netavark";

fn main() {
    if !support::possible(&["ip", "nft"]) {
        return;
    }
    let (first, last) = ends(&ours());
    println!("attach: median of the first {SOME} {first:.2} ms   bar: {BAR} ms");
    println!("attach: of the last {SOME} of {COUNT} {last:.2} ms, {:.2} of the first   bar: 1", last / first);
    let more = last - first;
    let (hand_first, hand_last) = ends(&by_hand());
    let hand_more = hand_last - hand_first;
    println!("attach: by hand {hand_first:.2} ms, the last {hand_last:.2} ms");
    println!("attach: the last takes {more:.2} ms more than the first, by hand {hand_more:.2} ms");
    if Path::new(NETAVARK).exists() {
        let theirs = median(&netavark::times(NETAVARK, SOME));
        let share = first / theirs;
        println!("attach: of netavark's {theirs:.2} ms, without a port and names, {share:.3}   bar: {SHARE}");
    } else {
        println!("netavark: not installed");
    }
}

fn ours() -> Vec<Duration> {
    let site = Site::new();
    let mut service = site.start();
    let namespaces: Vec<Namespace> = (0..COUNT).map(|_| container()).collect();
    let mut attach = |(number, namespace): (usize, &Namespace)| {
        let ports = [port("", 10_000 + u16::try_from(number).unwrap_or(0), 80, "tcp")];
        let begin = Instant::now();
        let attached = service.attach(&format!("c{number}"), namespace, &ports);
        let time = begin.elapsed();
        assert!(attached.is_ok(), "{attached:?}");
        time
    };
    let times = namespaces.iter().enumerate().map(&mut attach).collect();
    drop(namespaces);
    by_hand::wait_for_the_end(&site.machine.namespace, "berth0-");
    times
}

fn by_hand() -> Vec<Duration> {
    let machine = by_hand::Machine::new();
    let namespaces: Vec<Namespace> = (0..COUNT).map(|_| container()).collect();
    let times = namespaces.iter().enumerate().map(|(number, namespace)| machine.attach(number, namespace)).collect();
    drop(namespaces);
    machine.wait_for_the_end();
    times
}

/// The medians of the first and of the last, in milliseconds.
fn ends(times: &[Duration]) -> (f64, f64) {
    (median(&times[..SOME]), median(&times[COUNT - SOME..]))
}

fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}
