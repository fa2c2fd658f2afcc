//! What containers use, read from their cgroups.

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
    Some(Statistics {
        name: container.name.clone(),
        cpu_us: value(&read("cpu.stat"), "usage_usec"),
        memory_bytes: number(&read("memory.current")).unwrap_or_default(),
        memory_reclaimable_bytes: value(&read("memory.stat"), "inactive_file"),
        memory_limit_bytes: number(&read("memory.max")),
        tasks: number(&read("pids.current")).unwrap_or_default(),
        read_bytes,
        written_bytes,
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
    }
}
