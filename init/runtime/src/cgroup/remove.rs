//! The end of a cgroup.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, SystemError};

/// How far removing got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone, or was not there.
    Done,
    /// Processes are still in it: kill them, or try again when they have ended (`cgroup.events` tells).
    Busy,
}

/// Sends SIGKILL to every process in the cgroup and below: `cgroup.kill`. A cgroup that is gone is fine.
pub fn kill(path: &Path) -> Result<(), SystemError> {
    match crate::idmap::write_file(&path.join("cgroup.kill").display().to_string(), b"1") {
        Err(error) if matches!(error.source, Errno::NOENT | Errno::NODEV) => Ok(()),
        result => result,
    }
}

/// Removes a cgroup and those below it. Does not wait.
pub fn remove(path: &Path) -> Result<Removal, SystemError> {
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => return Ok(Removal::Done),
        Err(Errno::BUSY) => {}
        failed => failed.context("rmdir", || path.display().to_string())?,
    }
    let mut inner = Vec::new();
    match std::fs::read_dir(path) {
        Ok(entries) => {
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    inner.push(entry.path());
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Removal::Done),
        failed => drop(failed.context("read", || path.display().to_string())?),
    }
    for directory in inner {
        if remove(&directory)? == Removal::Busy {
            return Ok(Removal::Busy);
        }
    }
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(Removal::Done),
        Err(Errno::BUSY) => Ok(Removal::Busy),
        failed => failed.context("rmdir", || path.display().to_string()).map(|()| Removal::Done),
    }
}

/// Kills what is in the cgroup and removes it, waiting for the processes' ends. Not for an event loop.
pub fn remove_blocking(path: &Path, limit: Duration) -> Result<Removal, SystemError> {
    if remove(path)? == Removal::Done {
        return Ok(Removal::Done);
    }
    kill(path)?;
    let deadline = Instant::now() + limit;
    let events = path.join("cgroup.events");
    loop {
        let file = match rustix::fs::open(&events, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Removal::Done),
            result => result.context("open", || events.display().to_string())?,
        };
        // Reading arms the notification; the removal comes after it, so that no event is missed.
        let mut buffer = [0; 128];
        match rustix::io::read(&file, &mut buffer) {
            // Somebody else has removed it since it was opened.
            Err(Errno::NODEV) => return Ok(Removal::Done),
            result => result.context("read", || events.display().to_string())?,
        };
        if remove(path)? == Removal::Done {
            return Ok(Removal::Done);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Removal::Busy);
        }
        // Events are per cgroup and come up to 10 ms late (CGROUP_FILE_NOTIFY_MIN_INTV), and one below this one may
        // be the last to empty; so not longer than that in one go.
        let short = left.min(Duration::from_millis(10));
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(short.subsec_nanos()) };
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::PRI)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            failed => drop(failed.context("poll", || events.display().to_string())?),
        }
    }
}
