//! How long a container's network takes: cables, addresses, routes, names and a published port, from PID 1's request to
//! the answer, for the first and the last of many containers; and netavark's time for the same without a port and names.
//!
//! `cargo bench -p berth-network --bench attach`, as root. netavark and iptables are Debian's packages.

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
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
    let site = Site::new();
    let mut service = site.start();
    let namespaces: Vec<Namespace> = (0..COUNT).map(|_| container()).collect();
    let mut times = Vec::new();
    for (number, namespace) in namespaces.iter().enumerate() {
        let ports = [port("", 10_000 + u16::try_from(number).unwrap_or(0), 80, "tcp")];
        let begin = Instant::now();
        let attached = service.attach(&format!("c{number}"), namespace, &ports);
        times.push(begin.elapsed());
        assert!(attached.is_ok(), "{attached:?}");
    }
    let (first, last) = (median(&times[..SOME]), median(&times[COUNT - SOME..]));
    println!("attach: median of the first {SOME} {first:.2} ms   bar: {BAR} ms");
    println!("attach: of the last {SOME} of {COUNT} {last:.2} ms, {:.2} of the first", last / first);
    drop(namespaces);
    if Path::new(NETAVARK).exists() {
        let theirs = netavark();
        let share = first / theirs;
        println!("attach: of netavark's {theirs:.2} ms, without a port and names, {share:.3}   bar: {SHARE}");
    } else {
        println!("netavark: not installed");
    }
}

fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// The same bridge network, made as podman has it made: one process a container, which reads what is wanted.
fn netavark() -> f64 {
    let host = Namespace::new();
    let mut times = Vec::new();
    let namespaces: Vec<Namespace> = (0..SOME).map(|_| container()).collect();
    for (number, namespace) in namespaces.iter().enumerate() {
        let settings = serde_json::json!({
            "container_id": format!("{number:064}"),
            "container_name": format!("c{number}"),
            "networks": { "bench": {
                "interface_name": "eth0",
                "static_ips": [format!("10.99.0.{}", number + 2), format!("fd99::{:x}", number + 2)],
            } },
            "network_info": { "bench": {
                "name": "bench", "id": "b".repeat(64), "driver": "bridge", "network_interface": "bench0",
                "internal": false, "dns_enabled": false, "ipv6_enabled": true,
                "subnets": [
                    { "subnet": "10.99.0.0/24", "gateway": "10.99.0.1" },
                    { "subnet": "fd99::/64", "gateway": "fd99::1" },
                ],
                "ipam_options": { "driver": "host-local" },
            } },
        });
        times.push(host.within(|| netavark_once(&settings.to_string(), namespace)));
    }
    median(&times)
}

fn netavark_once(settings: &str, namespace: &Namespace) -> Duration {
    let begin = Instant::now();
    let mut command = Command::new(NETAVARK);
    command.arg("setup").arg(namespace.path()).env("NETAVARK_FW", "iptables");
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = piped.expect("netavark can be started");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(settings.as_bytes()).expect("netavark reads");
    drop(stdin);
    let output = child.wait_with_output().expect("netavark ends");
    let time = begin.elapsed();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    time
}
