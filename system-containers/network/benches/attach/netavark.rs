//! podman's way to the same: netavark, with iptables and without a port and names.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::Namespace;
use crate::support::site::container;

/// The same bridge network, made as podman has it made: one process a container, which reads what is wanted.
pub fn times(path: &str, count: usize) -> Vec<Duration> {
    let host = Namespace::new();
    let mut times = Vec::new();
    let namespaces: Vec<Namespace> = (0..count).map(|_| container()).collect();
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
        times.push(host.within(|| once(path, &settings.to_string(), namespace)));
    }
    times
}

fn once(path: &str, settings: &str, namespace: &Namespace) -> Duration {
    let begin = Instant::now();
    let mut command = Command::new(path);
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
