//! How long a container's network takes: cables, addresses, routes, names and a published port, from PID 1's request to
//! the answer, for the first and the last of many containers; and netavark's time for the same without a port and names.
//!
//! `cargo bench -p berth-network`, as root. netavark and iptables are Debian's packages; without them only ours is measured.

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use support::site::{Site, container, port};
use support::{Namespace, try_run};

const COUNT: usize = 500;
/// Compared at the beginning and at the end.
const SOME: usize = 50;
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
    println!("attach: median of the first {SOME} {first:.2} ms, of the last {SOME} of {COUNT} {last:.2} ms");
    drop(namespaces);
    if Path::new(NETAVARK).exists() {
        let theirs = netavark();
        println!(
            "netavark: median of {SOME} {theirs:.2} ms, without a port and names; ours is {:.2} of it",
            first / theirs
        );
    } else {
        println!("netavark: not installed");
    }
}

fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// The same bridge network, one process a container as podman has it.
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
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), settings.to_string()).expect("it can be written");
        let line = format!(
            "ip netns exec {} env NETAVARK_FW=iptables {NETAVARK} --file {} setup /run/netns/{}",
            host.name,
            file.path().display(),
            namespace.name
        );
        let begin = Instant::now();
        let output = try_run(&line);
        times.push(begin.elapsed());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    }
    // What `ip netns exec` and the shell take is not netavark's.
    let begin = Instant::now();
    for _ in 0..SOME {
        try_run(&format!("ip netns exec {} true", host.name));
    }
    median(&times) - begin.elapsed().as_secs_f64() * 1000.0 / 50.0
}
