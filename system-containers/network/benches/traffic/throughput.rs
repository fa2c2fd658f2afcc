//! How fast one stream of bytes is: iperf3.

use crate::support::eventually;
use crate::topology::{Path, Topology};

pub const PORT: u16 = 5201;

/// Enough for some tenths of a second.
const MEBIBYTES: u32 = 512;

/// Gigabits in a second, as the receiver counts them.
pub fn rate(topology: &Topology, path: Path) -> f64 {
    let ends = topology.ends(path);
    let port = PORT.to_string();
    let _server = ends.server.start(&["iperf3", "--server", "--one-off", "--port", &port, "--logfile", "/dev/null"]);
    // State 10 of /proc/net/tcp6 is that of a listening socket; earlier connections may be there, too.
    let wanted = format!(":{PORT:04X} {:032}:0000 0A", 0);
    eventually("iperf3 listens", || ends.server.run("cat /proc/net/tcp6").contains(&wanted).then_some(()));
    let (address, port) = (ends.address, PORT + ends.offset);
    let text = ends.client.run(&format!("iperf3 --client {address} --port {port} --bytes {MEBIBYTES}M --json"));
    let report: serde_json::Value = serde_json::from_str(&text).expect("iperf3 reports in JSON");
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().expect("iperf3 has received something");
    bits / 1e9
}
