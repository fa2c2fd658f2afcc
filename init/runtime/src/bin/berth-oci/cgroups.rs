//! pause, resume, events: the container's cgroup at work.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_runtime::spec::Status;
use serde_json::{Value, json};

use crate::arguments::Events;
use crate::container::{Failure, during, status_name};
use crate::store::{Record, Store};

/// How long freezing may take.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

pub fn pause(store: &Store, id: &str) -> Result<u8, Failure> {
    freeze(store, id, true)
}

pub fn resume(store: &Store, id: &str) -> Result<u8, Failure> {
    freeze(store, id, false)
}

pub fn cgroup_of(record: &Record) -> Result<PathBuf, Failure> {
    record.cgroup.clone().ok_or(Failure::NoCgroup)
}

fn freeze(store: &Store, id: &str, frozen: bool) -> Result<u8, Failure> {
    let record = store.load(id)?;
    match (store.status(&record), frozen) {
        (Status::Running | Status::Created, true) | (Status::Paused, false) => {}
        (status, true) => return Err(Failure::State { action: "pause", status: status_name(status) }),
        (status, false) => return Err(Failure::State { action: "resume", status: status_name(status) }),
    }
    let cgroup = cgroup_of(&record)?;
    let file = cgroup.join("cgroup.freeze");
    std::fs::write(&file, if frozen { "1" } else { "0" }).map_err(during("write", &file))?;
    let wanted = if frozen { "frozen 1" } else { "frozen 0" };
    await_event(&cgroup.join("cgroup.events"), wanted)?;
    Ok(0)
}

fn await_event(path: &Path, wanted: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + FREEZE_LIMIT;
    loop {
        let mut file = std::fs::File::open(path).map_err(during("open", path))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(during("read", path))?;
        if text.contains(wanted) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::Survivors);
        }
        let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let polled = rustix::event::PollFd::new(&file, rustix::event::PollFlags::PRI);
        // Event or not, the file tells.
        let _ = rustix::event::poll(&mut [polled], Some(&moment));
    }
}

/// Once with `--stats`; else again and again while the container runs.
pub fn events(store: &Store, options: &Events) -> Result<u8, Failure> {
    let record = store.load(&options.id)?;
    if store.status(&record) == Status::Stopped {
        return Err(Failure::NotRunning);
    }
    let cgroup = cgroup_of(&record)?;
    let interval = options.interval.trim_end_matches('s').parse().ok().filter(|seconds| *seconds > 0);
    let interval = interval.map(Duration::from_secs).ok_or_else(|| Failure::Option {
        option: "--interval",
        must: "must be in whole seconds, above zero".to_owned(),
    })?;
    loop {
        println!("{}", json!({ "type": "stats", "id": record.id, "data": statistics(&cgroup) }));
        if options.stats {
            return Ok(0);
        }
        std::thread::sleep(interval);
        if store.status(&record) == Status::Stopped {
            return Ok(0);
        }
    }
}

/// In the shape of runc's, as far as cgroup v2 has the numbers.
fn statistics(cgroup: &Path) -> Value {
    let cpu = pairs(cgroup, "cpu.stat");
    let micro = |name: &str| cpu.get(name).copied().unwrap_or_default().saturating_mul(1000);
    let plain = |name: &str| cpu.get(name).copied().unwrap_or_default();
    json!({
        "cpu": {
            "usage": { "total": micro("usage_usec"), "kernel": micro("system_usec"), "user": micro("user_usec") },
            "throttling": {
                "periods": plain("nr_periods"),
                "throttledPeriods": plain("nr_throttled"),
                "throttledTime": micro("throttled_usec"),
            },
        },
        "memory": {
            "usage": {
                "usage": number(cgroup, "memory.current"),
                "max": number(cgroup, "memory.peak"),
                "limit": number(cgroup, "memory.max"),
            },
            "raw": pairs(cgroup, "memory.stat"),
        },
        "pids": { "current": number(cgroup, "pids.current"), "limit": number(cgroup, "pids.max") },
    })
}

/// A file with one number; `max` is the largest there is, none is 0.
fn number(cgroup: &Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(cgroup.join(name)).unwrap_or_default();
    if text.trim() == "max" { u64::MAX } else { text.trim().parse().unwrap_or_default() }
}

fn pairs(cgroup: &Path, name: &str) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(cgroup.join(name)).unwrap_or_default();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}
