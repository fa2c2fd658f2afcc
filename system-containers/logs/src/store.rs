//! All logs: what is kept, for how long, and what goes when there is no room.
//!
//! What is written is on the disk within [`SYNC_DELAY`] and the time the disk takes. What does not fit goes oldest
//! first: beyond the size of one log or its age from that log, beyond the size of all from the largest, so that a
//! container that prints much does not push out what others have said.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_config::{Logs, Size};
use berth_control::message::Stream;
use nix::sys::statvfs::statvfs;

use crate::compaction::{Compaction, is_full};
use crate::frame::{Dropped, Kind};
use crate::log::{Log, Moment};
use crate::sync::Syncer;

/// How long what was written may wait before it goes to the disk: with what the disk takes, at most the last second is
/// lost when power fails.
const SYNC_DELAY: Duration = Duration::from_millis(500);

/// How long is waited for the disk where it holds what has been removed, in milliseconds: containers that print wait with it.
const SYNC_WAIT: u16 = 200;

/// The largest segment in bytes: what goes at once when a log is too large, some thousand lines once compressed.
const LARGEST_SEGMENT: u64 = 1024 * 1024;

/// The smallest, so that files do not become more than their worth.
const SMALLEST_SEGMENT: u64 = 64 * 1024;

/// The share of the file system that all logs may have if the configuration does not say.
const SHARE: u64 = 10;

/// And the most.
const LARGEST_SHARE: u64 = 1 << 30;

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes on the disk of one log.
    pub size: u64,
    /// How long a line is kept, in microseconds.
    pub age_us: u64,
    /// The most bytes on the disk of all logs.
    pub total: u64,
}

impl Limits {
    /// As it is configured, on the file system of this folder.
    pub fn new(configured: &Logs, directory: &Path) -> Self {
        // The folder is made with the first log.
        let found = directory.ancestors().find_map(|path| statvfs(path).ok());
        let bytes = found.map_or(u64::MAX, |found| found.blocks().saturating_mul(found.fragment_size()));
        Self {
            size: configured.size.bytes(),
            age_us: u64::try_from(configured.age.duration().as_micros()).unwrap_or(u64::MAX),
            total: configured.total.map_or((bytes / SHARE).min(LARGEST_SHARE), Size::bytes),
        }
    }

    /// How long a segment gets more: a line stays for so much longer than it should.
    fn segment_age_us(self) -> u64 {
        self.age_us / 8
    }

    fn segment_size(self) -> u64 {
        (self.size / 8).clamp(SMALLEST_SEGMENT, LARGEST_SEGMENT)
    }
}

/// All logs.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    limits: Option<Limits>,
    logs: BTreeMap<String, Log>,
    compaction: Compaction,
    syncer: Syncer,
    sync_at: Option<Instant>,
    expires_at: Option<Instant>,
}

impl Store {
    /// Finds what is in a folder, which need not be there.
    /// Nothing is removed before its limits are told: those of the configuration may be wider than any default.
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        let mut store = Self {
            directory,
            limits: None,
            logs: BTreeMap::new(),
            compaction: Compaction::default(),
            syncer: Syncer::new()?,
            sync_at: None,
            expires_at: None,
        };
        for entry in fs::read_dir(&store.directory).into_iter().flatten().flatten() {
            if let Ok(name) = entry.file_name().into_string() {
                store.log(&name);
            }
        }
        Ok(store)
    }

    /// The log of a container, also of one that has printed nothing.
    pub fn log(&mut self, name: &str) -> &mut Log {
        if !self.logs.contains_key(name) {
            let directory = self.directory.join(name);
            let mut log = Log::load(directory.clone()).unwrap_or_else(|error| {
                eprintln!("berth-logs: read {}: {error}", directory.display());
                Log::empty(directory)
            });
            log.take_full().into_iter().for_each(|start| self.compaction.add(name, start));
            self.logs.insert(name.to_owned(), log);
        }
        self.logs.entry(name.to_owned()).or_insert_with(|| Log::empty(PathBuf::new()))
    }

    /// Other limits from now on.
    pub fn set_limits(&mut self, configured: &Logs, now: Moment) {
        self.limits = Some(Limits::new(configured, &self.directory));
        self.enforce(now);
    }

    /// Takes up to `available` bytes from a pipe. What was taken, if anything, is kept; the oldest goes if there is no
    /// room for it.
    pub fn take(
        &mut self,
        name: &str,
        stream: Stream,
        pipe: BorrowedFd<'_>,
        available: usize,
        now: Moment,
    ) -> io::Result<()> {
        self.write(name, now, |log, size| log.take(pipe, stream, available, size, now).map(drop))
    }

    /// Appends a frame, also if the oldest must go for it.
    pub fn append(&mut self, name: &str, kind: Kind, payload: &[u8], now: Moment) -> io::Result<()> {
        self.write(name, now, |log, size| log.append(kind, payload, size, now))
    }

    /// Removes the log of a container that is gone.
    pub fn forget(&mut self, name: &str) {
        let log = self.log(name);
        log.close();
        log.take_full();
        while log.remove_oldest().is_some() {}
        if !log.segments().is_empty() {
            return;
        }
        // ENOENT: it has never printed anything.
        let _ = fs::remove_dir(log.directory());
        self.logs.remove(name);
    }

    /// Something of this log could not be kept.
    pub fn lose(&mut self, name: &str, dropped: Dropped) {
        self.log(name).lose(dropped);
    }

    fn write(&mut self, name: &str, now: Moment, write: impl Fn(&mut Log, u64) -> io::Result<()>) -> io::Result<()> {
        let size = self.limits.map_or(LARGEST_SEGMENT, Limits::segment_size);
        let age_us = self.limits.map_or(u64::MAX, Limits::segment_age_us);
        let log = self.log(name);
        log.close_older(age_us, now);
        let mut written = write(log, size);
        // Once only: whoever fills the disk may take what becomes free.
        let is_no_room = |written: &io::Result<()>| written.as_ref().is_err_and(is_full);
        if is_no_room(&written) && self.remove_oldest() {
            written = write(self.log(name), size);
            if is_no_room(&written) && self.syncer.is_busy() {
                // It has what was removed still open.
                self.syncer.wait_for(SYNC_WAIT.into());
                self.synced(now);
                written = write(self.log(name), size);
            }
        }
        self.sync_at.get_or_insert(now.monotonic + SYNC_DELAY);
        self.collect_full(name, now);
        written
    }

    /// Segments that are full are to be compressed.
    fn collect_full(&mut self, name: &str, now: Moment) {
        let full = self.log(name).take_full();
        if !full.is_empty() {
            full.into_iter().for_each(|start| self.compaction.add(name, start));
            self.enforce(now);
        }
    }

    /// When there is something to do without anybody printing; at once if there is something to compress.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.compaction.is_wanted(now) {
            return Some(now);
        }
        let sync_at = self.sync_at.filter(|_| !self.syncer.is_busy());
        [sync_at, self.compaction.resumes_at(), self.expires_at].into_iter().flatten().min()
    }

    /// Takes a step of compression if there is one to take.
    pub fn compress(&mut self, now: Moment) {
        if !self.compaction.is_wanted(now.monotonic) {
            return;
        }
        let smaller = self.compaction.step(&mut self.logs, now.monotonic);
        if smaller || self.compaction.wants_sync() {
            self.sync_at.get_or_insert(now.monotonic + SYNC_DELAY);
        }
        if smaller {
            self.enforce(now);
        }
    }

    /// Does what the clock says.
    pub fn work(&mut self, now: Moment) {
        if self.sync_at.is_some_and(|at| at <= now.monotonic) && !self.syncer.is_busy() {
            self.sync();
        }
        if self.expires_at.is_some_and(|at| at <= now.monotonic) {
            self.enforce(now);
        }
    }

    fn sync(&mut self) {
        self.sync_at = None;
        let mut files = self.compaction.begin_sync();
        for log in self.logs.values_mut() {
            files.extend(log.take_unsynced());
        }
        if !files.is_empty() {
            self.syncer.start(files);
        }
    }

    /// Writes what is not on the disk yet, and waits for it: for the program's end.
    pub fn sync_now(&mut self, now: Moment) {
        while self.syncer.is_busy() {
            // What it has was written before; interrupted it is waited for again.
            self.syncer.wait();
            self.synced(now);
        }
        self.sync();
        if self.syncer.is_busy() {
            self.syncer.wait();
        }
    }

    /// Becomes readable when [`Self::synced`] is to be called.
    pub fn syncer(&self) -> &Syncer {
        &self.syncer
    }

    /// What was to be on the disk may be there.
    pub fn synced(&mut self, now: Moment) {
        if !self.syncer.finish() {
            return;
        }
        self.compaction.synced(&mut self.logs);
        self.enforce(now);
    }

    /// Removes what is too old or too much.
    fn enforce(&mut self, now: Moment) {
        let Some(Limits { size, age_us, total }) = self.limits else { return };
        let mut next_us = u64::MAX;
        for log in self.logs.values_mut() {
            while log.stored() > size && log.remove_oldest().is_some() {}
            while let Some(oldest) = log.segments().front() {
                let age = oldest.age_us(now.wall_us, now.monotonic);
                if age < age_us {
                    next_us = next_us.min(age_us - age);
                    break;
                }
                if log.segments().len() == 1 {
                    log.close();
                }
                if log.remove_oldest().is_none() {
                    break;
                }
            }
        }
        while let Some(excess) = self.logs.values().map(Log::stored).sum::<u64>().checked_sub(total)
            && excess > 0
        {
            // What is about to be compressed may be enough.
            let waits = self.compaction.is_pending() && excess <= total / 4;
            if waits || self.close_largest() || !self.remove_oldest() {
                break;
            }
        }
        self.expires_at =
            (next_us != u64::MAX).then(|| now.monotonic.checked_add(Duration::from_micros(next_us))).flatten();
    }

    /// The largest log, if it has only the file that it grows by: that is compressed before anything is removed.
    fn close_largest(&mut self) -> bool {
        let Some((name, log)) = self.logs.iter_mut().max_by_key(|(_, log)| log.stored()) else { return false };
        if log.segments().len() > 1 {
            return false;
        }
        log.close();
        let full = log.take_full();
        full.iter().for_each(|start| self.compaction.add(name, *start));
        !full.is_empty()
    }

    /// Removes the oldest of the largest log. Whether there was anything to remove.
    fn remove_oldest(&mut self) -> bool {
        let mut logs: Vec<&mut Log> = self.logs.values_mut().collect();
        logs.sort_by_key(|log| std::cmp::Reverse(log.stored()));
        logs.into_iter().any(|log| {
            if log.segments().len() == 1 && log.stored() >= SMALLEST_SEGMENT {
                log.close();
            }
            log.remove_oldest().is_some()
        })
    }
}

#[cfg(test)]
mod tests;
