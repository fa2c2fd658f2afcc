//! The machine's time: chrony as a server, and what PID 1 is told.

use std::fs;
use std::path::Path;

use berth_control::message::Request;

use super::{Namespace, Program, Running, eventually};

/// In microseconds.
pub const SECOND: i64 = 1_000_000;

/// How far the clock is behind, as PID 1 is told.
pub fn wait_correction(service: &mut Running) -> i64 {
    service.wait("a correction of the clock", |request| match request {
        Request::Clock { behind, next } => {
            assert_eq!(*next, 64);
            Some(*behind)
        }
        _ => None,
    })
}

/// chrony with its machine's time, at an address of the namespace.
pub fn serve(namespace: &Namespace, folder: &Path, address: &str) -> Program {
    let path = folder.join("chrony.conf");
    let place = folder.display();
    let text = format!(
        "local stratum 3\nallow\nbindaddress {address}\ncmdport 0\nbindcmdaddress {place}/socket\npidfile {place}/pid\n"
    );
    fs::write(&path, text).unwrap();
    // -x: it lets the clock be.
    let running = namespace.start(&["chronyd", "-x", "-d", "-u", "root", "-f", &path.display().to_string()]);
    eventually("chrony is up", || namespace.run("cat /proc/net/udp /proc/net/udp6").contains(":007B ").then_some(()));
    running
}
