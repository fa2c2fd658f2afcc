//! pause and resume, and waiting for what the container's cgroup says.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_runtime::spec::Status;

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

/// Waits until a file of the cgroup's says `wanted`.
pub fn await_event(path: &Path, wanted: &str) -> Result<(), Failure> {
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
