//! events: what a container uses, in the words of runc, once or again and again, and whether the kernel killed any of
//! it for want of memory.
//!
//! Programs read this that were written for runc, and runc wrote it for version 1 of cgroups: names and units are
//! those, and what version 2 does not have is zero.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_runtime::spec::Status;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::arguments::Events;
use crate::cgroups::cgroup_of;
use crate::container::{Failure, during};
use crate::store::Store;
use crate::{processes, signals};

/// Once with `--stats`; else again and again while the container's first process is there.
pub fn events(store: &Store, options: &Events) -> Result<u8, Failure> {
    if options.interval.is_zero() {
        return Err(Failure::Option { option: "--interval", must: "must be above zero".to_owned() });
    }
    let record = store.load(&options.id)?;
    if store.status(&record) == Status::Stopped {
        return Err(Failure::NotRunning);
    }
    let cgroup = cgroup_of(&record)?;
    if options.stats {
        print("stats", &record.id, Some(statistics(&cgroup)));
        return Ok(0);
    }
    let process = signals::open(record.pid)?;
    let mut kills = Kills::watch(&cgroup);
    while !print("stats", &record.id, Some(statistics(&cgroup))) {
        let next = Instant::now() + options.interval;
        loop {
            let event = wait(&process, kills.as_ref(), next)?;
            if kills.as_mut().is_some_and(Kills::have_come) {
                print("oom", &record.id, None);
            }
            match event {
                Event::End => return Ok(0),
                Event::Time => break,
                Event::Memory => {}
            }
        }
    }
    Ok(0)
}

/// One line. Whether there is nobody left to read it.
fn print(kind: &str, id: &str, data: Option<Value>) -> bool {
    let mut event = json!({ "type": kind, "id": id });
    if let (Some(event), Some(data)) = (event.as_object_mut(), data) {
        event.insert("data".to_owned(), data);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{event}").and_then(|()| out.flush()).is_err()
}

enum Event {
    End,
    Memory,
    Time,
}

fn wait(process: &OwnedFd, kills: Option<&Kills>, until: Instant) -> Result<Event, Failure> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut polled = vec![PollFd::new(process, PollFlags::IN)];
        polled.extend(kills.map(|kills| PollFd::new(&kills.events, PollFlags::PRI)));
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(0) => return Ok(Event::Time),
            Ok(_) if polled.first().is_some_and(|process| !process.revents().is_empty()) => return Ok(Event::End),
            Ok(_) => return Ok(Event::Memory),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(during("wait for", Path::new("events"))(errno.into())),
        }
    }
}

/// The kernel's count of processes that it killed because the cgroup had no memory left.
struct Kills {
    events: File,
    count: u64,
}

impl Kills {
    /// None without the memory controller.
    fn watch(cgroup: &Path) -> Option<Self> {
        let mut this = Self { events: File::open(cgroup.join("memory.events")).ok()?, count: 0 };
        this.have_come();
        Some(this)
    }

    /// Whether there are more than the last time.
    fn have_come(&mut self) -> bool {
        let mut text = String::new();
        // A cgroup that is gone has no more of them.
        let read = self.events.rewind().and_then(|()| self.events.read_to_string(&mut text));
        let count = read.ok().and_then(|_| pairs(&text).remove("oom_kill")).unwrap_or(self.count);
        std::mem::replace(&mut self.count, count) < count
    }
}

fn statistics(cgroup: &Path) -> Value {
    let read = |name: &str| std::fs::read_to_string(cgroup.join(name)).unwrap_or_default();
    let cpu = pairs(&read("cpu.stat"));
    let micro = |name: &str| cpu.get(name).copied().unwrap_or_default().saturating_mul(1000);
    let plain = |name: &str| cpu.get(name).copied().unwrap_or_default();
    let mut value = json!({
        "cpu": {
            "usage": { "total": micro("usage_usec"), "kernel": micro("system_usec"), "user": micro("user_usec") },
            "throttling": {
                "periods": plain("nr_periods"),
                "throttledPeriods": plain("nr_throttled"),
                "throttledTime": micro("throttled_usec"),
            },
        },
        // Version 1's file names, all zero in runc's with version 2.
        "cpuset": {
            "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0, "memory_migrate": 0, "memory_spread_page": 0,
            "memory_spread_slab": 0, "memory_pressure": 0, "sched_load_balance": 0, "sched_relax_domain_level": 0,
        },
        "memory": memory(&read),
        "pids": pids(cgroup, &read),
        "blkio": block_io(&read("io.stat")),
        "hugetlb": hugetlb(cgroup, &read),
        "intel_rdt": {},
        "network_interfaces": null,
    });
    for (topic, file) in [("cpu", "cpu.pressure"), ("memory", "memory.pressure"), ("blkio", "io.pressure")] {
        if let (Some(pressure), Some(topic)) =
            (pressure(&read(file)), value.get_mut(topic).and_then(Value::as_object_mut))
        {
            topic.insert("psi".to_owned(), pressure);
        }
    }
    value
}

fn memory(read: &impl Fn(&str) -> String) -> Value {
    let stat = pairs(&read("memory.stat"));
    let (usage, limit) = (number(&read("memory.current")), number(&read("memory.max")));
    // In version 1 the swap's numbers include the memory's.
    let swap = |name: &str, memory: u64| number(&read(name)).saturating_add(memory);
    let none = json!({ "limit": 0, "failcnt": 0 });
    json!({
        "cache": stat.get("file").copied().unwrap_or_default(),
        "usage": { "usage": usage, "max": number(&read("memory.peak")), "limit": limit, "failcnt": 0 },
        "swap": { "usage": swap("memory.swap.current", usage), "limit": swap("memory.swap.max", limit), "failcnt": 0 },
        "kernel": none,
        "kernelTCP": none,
        "raw": stat,
    })
}

/// Without the controller the processes are counted.
fn pids(cgroup: &Path, read: &impl Fn(&str) -> String) -> Value {
    let counted = || processes::of(cgroup).len().try_into().unwrap_or(u64::MAX);
    let current = read("pids.current").trim().parse().unwrap_or_else(|_| counted());
    // Here no limit is 0.
    let limit: u64 = read("pids.max").trim().parse().unwrap_or_default();
    json!({ "current": current, "limit": limit })
}

/// `io.stat` has a line a device: `8:0 rbytes=1 wbytes=2 rios=3 …`.
fn block_io(text: &str) -> Value {
    let entry = |line: &str, bytes: &str, operation: &str| {
        let (device, numbers) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let (major, minor): (u64, u64) = (major.parse().ok()?, minor.parse().ok()?);
        let value = numbers.split(' ').find_map(|pair| pair.strip_prefix(bytes)?.strip_prefix('='))?;
        let value: u64 = value.parse().ok()?;
        Some(json!({ "major": major, "minor": minor, "op": operation, "value": value }))
    };
    let both = |read: &str, write: &str| -> Vec<Value> {
        text.lines().flat_map(|line| [entry(line, read, "Read"), entry(line, write, "Write")]).flatten().collect()
    };
    json!({ "ioServiceBytesRecursive": both("rbytes", "wbytes"), "ioServicedRecursive": both("rios", "wios") })
}

/// By the size of the pages, as `hugetlb.2MB.current` has it.
fn hugetlb(cgroup: &Path, read: &impl Fn(&str) -> String) -> Value {
    let entries = std::fs::read_dir(cgroup).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let size = |name: String| Some(name.strip_prefix("hugetlb.")?.strip_suffix(".current")?.to_owned());
    let plain = |size: &String| !size.contains('.');
    names
        .filter_map(size)
        .filter(plain)
        .map(|size| {
            let failures = pairs(&read(&format!("hugetlb.{size}.events"))).remove("max").unwrap_or_default();
            let usage = number(&read(&format!("hugetlb.{size}.current")));
            (size, json!({ "usage": usage, "failcnt": failures }))
        })
        .collect()
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same of `full`.
fn pressure(text: &str) -> Option<Value> {
    let mut value = serde_json::Map::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let kind = words.next()?;
        let pairs: BTreeMap<&str, &str> = words.filter_map(|word| word.split_once('=')).collect();
        let average = |name: &str| pairs.get(name)?.parse::<f64>().ok();
        let total: u64 = pairs.get("total")?.parse().ok()?;
        let (short, middle, long) = (average("avg10")?, average("avg60")?, average("avg300")?);
        value.insert(kind.to_owned(), json!({ "avg10": short, "avg60": middle, "avg300": long, "total": total }));
    }
    (!value.is_empty()).then(|| value.into())
}

/// A file with one number; `max` is the largest there is, none is 0.
fn number(text: &str) -> u64 {
    if text.trim() == "max" { u64::MAX } else { text.trim().parse().unwrap_or_default() }
}

fn pairs(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// A time as Go writes it: `5s`, `100ms`, `1m30s`, `1.5h`.
pub fn interval(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time as 5s, 100ms or 1m30s");
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let length = after.find(|character: char| character.is_ascii_digit() || character == '.');
        let (unit, after) = after.split_at(length.unwrap_or(after.len()));
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let part = number.parse::<f64>().map_err(|_| wrong())? * seconds;
        sum += Duration::try_from_secs_f64(part).map_err(|_| wrong())?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_go_writes_them() {
        for (text, milliseconds) in [("5s", 5000), ("100ms", 100), ("1m30s", 90_000), ("1.5h", 5_400_000), ("0s", 0)] {
            assert_eq!(interval(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "5x", "-1s", "1.2.3s", "9999999999999999999999h"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }

    #[test]
    fn transfers_are_told_by_device_and_direction() {
        let value = block_io("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:16 rbytes=7 wbytes=8\n");
        let entry = |major, minor, op, value| json!({ "major": major, "minor": minor, "op": op, "value": value });
        let bytes =
            [entry(8, 0, "Read", 1), entry(8, 0, "Write", 2), entry(253, 16, "Read", 7), entry(253, 16, "Write", 8)];
        assert_eq!(value["ioServiceBytesRecursive"], json!(bytes));
        assert_eq!(value["ioServicedRecursive"], json!([entry(8, 0, "Read", 3), entry(8, 0, "Write", 4)]));
    }

    #[test]
    fn numbers_of_version_2_are_told_as_those_of_version_1() {
        let cgroup = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cpu.stat", "usage_usec 7\nuser_usec 4\nsystem_usec 3\nnr_throttled 2\n"),
            ("memory.current", "100\n"),
            ("memory.max", "1000\n"),
            ("memory.swap.current", "10\n"),
            ("memory.swap.max", "max\n"),
            ("memory.stat", "anon 1\nfile 50\n"),
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("hugetlb.2MB.current", "4096\n"),
            ("hugetlb.2MB.rsvd.current", "1\n"),
            ("hugetlb.2MB.events", "max 5\n"),
            ("io.pressure", "some avg10=0.50 avg60=0.00 avg300=0.00 total=9\n"),
        ] {
            std::fs::write(cgroup.path().join(name), text).unwrap();
        }
        let value = statistics(cgroup.path());
        let at = |pointer: &str| value.pointer(pointer).cloned().unwrap();
        assert_eq!(at("/cpu/usage"), json!({ "total": 7000, "user": 4000, "kernel": 3000 }));
        assert_eq!(at("/cpu/throttling/throttledPeriods"), 2);
        assert_eq!((at("/memory/swap/usage"), at("/memory/swap/limit")), (json!(110), json!(u64::MAX)));
        assert_eq!((at("/memory/cache"), at("/memory/raw/file")), (json!(50), json!(50)));
        assert_eq!(at("/pids"), json!({ "current": 3, "limit": 0 }));
        assert_eq!(at("/hugetlb"), json!({ "2MB": { "usage": 4096, "failcnt": 5 } }));
        assert_eq!(at("/blkio/psi/some/avg10"), 0.5);
        assert!(value.pointer("/cpu/psi").is_none());
    }
}
