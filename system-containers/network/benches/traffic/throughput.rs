//! How fast one stream of bytes is: iperf3.

use crate::support::eventually;
use crate::topology::{Path, Topology};
use crate::{Rate, now};

pub const PORT: u16 = 5201;

/// Enough for a second or two: of 256, the programs' beginning and end are as much as what is looked for, and two topologies that
/// are the same differ by five hundredths.
const MEBIBYTES: u32 = 2048;

/// Gigabits in a second, the two programs' beginning and end included.
pub fn rate(topology: &Topology, path: Path) -> Rate {
    let ends = topology.ends(path);
    let port = PORT.to_string();
    let mut server = ends.server.start(&["iperf3", "--server", "--one-off", "--port", &port, "--logfile", "/dev/null"]);
    // State 10 of /proc/net/tcp6 is that of a listening socket; earlier connections may be there, too.
    let wanted = format!(":{PORT:04X} {:032}:0000 0A", 0);
    eventually("iperf3 listens", || ends.server.run("cat /proc/net/tcp6").contains(&wanted).then_some(()));
    let (address, port) = (ends.address, PORT + ends.offset);
    let begin = now();
    ends.client.run(&format!("iperf3 --client {address} --port {port} --bytes {MEBIBYTES}M"));
    let ended = server.child.wait().expect("it can be waited for");
    assert!(ended.success(), "iperf3 has not received everything");
    Rate::since(begin, f64::from(MEBIBYTES) * 1024.0 * 1024.0 * 8.0 / 1e9)
}
