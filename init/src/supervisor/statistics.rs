//! What containers use, read from their cgroups and their networks.

use std::fs;

use berth_control::message::Statistics;

use super::container::{Container, State};

/// Of a container that runs; `None` of another.
pub fn of(container: &Container) -> Option<Statistics> {
    if !matches!(container.state, State::Running(_) | State::Stopping { .. }) {
        return None;
    }
    // A file of a controller that this kernel does not have counts as empty.
    let read = |file: &str| fs::read_to_string(container.cgroup.join(file)).unwrap_or_default();
    let (read_bytes, written_bytes) = transferred(&read("io.stat"));
    // Without a network of its own it would be the machine's.
    let network = container.pid().filter(|_| container.network.is_some());
    let network = network.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/net/dev")).ok());
    let (received_bytes, sent_bytes) = network.map(|text| passed(&text)).unwrap_or_default();
    Some(Statistics {
        name: container.name.clone(),
        cpu_us: value(&read("cpu.stat"), "usage_usec"),
        memory_bytes: number(&read("memory.current")).unwrap_or_default(),
        memory_reclaimable_bytes: value(&read("memory.stat"), "inactive_file"),
        memory_limit_bytes: number(&read("memory.max")),
        tasks: number(&read("pids.current")).unwrap_or_default(),
        read_bytes,
        written_bytes,
        received_bytes,
        sent_bytes,
    })
}

/// A file with one number; `max` is none.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A line `key number`.
pub(super) fn value(text: &str, key: &str) -> u64 {
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    found.and_then(number).unwrap_or_default()
}

/// Read and written bytes over all devices of io.stat: `8:0 rbytes=4096 wbytes=0 rios=1 …`.
fn transferred(text: &str) -> (u64, u64) {
    let sum = |key: &str| text.split_ascii_whitespace().filter_map(|word| number(word.strip_prefix(key)?)).sum();
    (sum("rbytes="), sum("wbytes="))
}

/// Received and sent bytes over all links of /proc/PID/net/dev but the loopback, under two lines of headings.
fn passed(text: &str) -> (u64, u64) {
    let links = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    let counts = links.filter(|(name, _)| name.trim() != "lo").map(|(_, counts)| {
        let count = |index| counts.split_ascii_whitespace().nth(index).and_then(number).unwrap_or_default();
        (count(0), count(8))
    });
    counts.fold((0, 0), |(received, sent), (more, out)| (received + more, sent + out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_forms_are_read() {
        assert_eq!(number("4096\n"), Some(4096));
        assert_eq!(number("max\n"), None);
        let text = "usage_usec_x 1\nusage_usec 250\nuser_usec 200\n";
        assert_eq!(value(text, "usage_usec"), 250);
        assert_eq!(value(text, "nice_usec"), 0);
        let io = "8:0 rbytes=4096 wbytes=10 rios=1 wios=1 dbytes=7\n259:0 rbytes=4 wbytes=0 rios=1 wios=0\n";
        assert_eq!(transferred(io), (4100, 10));
        let net = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 7 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n  eth0: 100 2 0 0 0 0 0 0 30 1 0 0 0 0 0 0\n  eth1:1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n";
        assert_eq!(passed(net), (101, 32));
    }
}
