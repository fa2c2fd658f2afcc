//! Full segments are compressed one after the other, a block a step, between the rounds of the loop.
//!
//! A compressed file takes its segment's place by rename. If nothing of the segment can be on the disk yet, this
//! happens at once, and the frames never get there; otherwise when the compressed file is on the disk.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::log::Log;
use crate::sealed::{Sealing, Step};
use crate::segment::{Form, unfinished_path};
use crate::table::BLOCK;

/// How long it waits when the disk has no room for a compressed file.
const PAUSE: Duration = Duration::from_secs(10);

/// A segment: the name of its log and where it begins.
type Key = (String, u64);

/// What is to be done, and is being done.
#[derive(Debug, Default)]
pub struct Compaction {
    queue: VecDeque<Key>,
    current: Option<(Key, Sealing)>,
    finished: Vec<(Key, Arc<File>, u64)>,
    syncing: Vec<(Key, Arc<File>, u64)>,
    paused_until: Option<Instant>,
    buffer: Vec<u8>,
}

impl Compaction {
    /// This segment is full.
    pub fn add(&mut self, name: &str, start: u64) {
        self.queue.push_back((name.to_owned(), start));
    }

    /// Whether anything waits to be compressed.
    pub fn is_pending(&self) -> bool {
        self.current.is_some() || !self.queue.is_empty()
    }

    /// Whether there is a step to take now.
    pub fn is_wanted(&self, now: Instant) -> bool {
        self.is_pending() && self.paused_until.is_none_or(|until| until <= now)
    }

    /// When there is a step to take again.
    pub fn resumes_at(&self) -> Option<Instant> {
        self.paused_until.filter(|_| !self.queue.is_empty())
    }

    /// Takes a step. Whether a segment became smaller.
    pub fn step(&mut self, logs: &mut BTreeMap<String, Log>, now: Instant) -> bool {
        self.paused_until = None;
        let Some((key, mut sealing)) = self.current.take().or_else(|| self.next(logs, now)) else { return false };
        let Some(log) = logs.get_mut(&key.0).filter(|log| is_there(log, key.1)) else {
            self.give_up(logs, &key, None, now);
            return false;
        };
        self.buffer.resize(BLOCK, 0);
        match sealing.step(&mut self.buffer) {
            Ok(Step::More) => {
                self.current = Some((key, sealing));
                false
            }
            Ok(Step::Done(size)) => {
                let file = Arc::new(sealing.into_target());
                if log.segment_mut(key.1).is_some_and(|segment| segment.synced) {
                    self.finished.push((key, file, size));
                    return false;
                }
                exchange(log, key.1, size, Some(file));
                true
            }
            Err(error) => {
                self.give_up(logs, &key, Some(error), now);
                false
            }
        }
    }

    /// The next segment that is there and has frames.
    fn next(&mut self, logs: &mut BTreeMap<String, Log>, now: Instant) -> Option<(Key, Sealing)> {
        while let Some(key) = self.queue.pop_front() {
            let Some(log) = logs.get(&key.0).filter(|log| is_there(log, key.1)) else { continue };
            match begin(log, key.1) {
                Ok(sealing) => return Some((key, sealing)),
                Err(error) => {
                    self.give_up(logs, &key, Some(error), now);
                    return None;
                }
            }
        }
        // A buffer is not kept while there is nothing to do.
        self.buffer = Vec::new();
        None
    }

    /// Leaves a segment as it is, and comes back to it if only room was missing.
    fn give_up(&mut self, logs: &BTreeMap<String, Log>, key: &Key, error: Option<io::Error>, now: Instant) {
        if let Some(log) = logs.get(&key.0) {
            // It may not be there.
            let _ = fs::remove_file(unfinished_path(log.directory(), key.1));
        }
        match error {
            Some(error) if is_full(&error) => {
                self.queue.push_front(key.clone());
                self.paused_until = Some(now + PAUSE);
            }
            Some(error) => eprintln!("berth-logs: compress the log of {}: {error}", key.0),
            None => {}
        }
    }

    /// Files that must be on the disk before they take their segments' places; [`Self::synced`] is to follow.
    pub fn begin_sync(&mut self) -> Vec<Arc<File>> {
        self.syncing.append(&mut self.finished);
        self.syncing.iter().map(|(_, file, _)| Arc::clone(file)).collect()
    }

    /// Whether a finished file waits to be on the disk.
    pub fn wants_sync(&self) -> bool {
        !self.finished.is_empty()
    }

    /// They are on the disk.
    pub fn synced(&mut self, logs: &mut BTreeMap<String, Log>) {
        for ((name, start), _, size) in std::mem::take(&mut self.syncing) {
            let Some(log) = logs.get_mut(&name) else { continue };
            if is_there(log, start) {
                exchange(log, start, size, None);
            } else {
                // The segment was removed in the meantime; so is this.
                let _ = fs::remove_file(unfinished_path(log.directory(), start));
            }
        }
    }
}

/// Whether the disk, or the log's share of it, has no room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

fn is_there(log: &Log, start: u64) -> bool {
    log.segments().iter().any(|segment| segment.start == start && segment.form == Form::Frames)
}

fn begin(log: &Log, start: u64) -> io::Result<Sealing> {
    let index = log.segments().partition_point(|segment| segment.start < start);
    let segment = log.segments().get(index).ok_or(io::ErrorKind::NotFound)?;
    let source = File::open(segment.path(log.directory()))?;
    let target = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(unfinished_path(log.directory(), start))?;
    Sealing::new(source, segment.stored, log.open_before(index), target)
}

/// Puts a compressed file in the place of its segment.
fn exchange(log: &mut Log, start: u64, size: u64, unsynced: Option<Arc<File>>) {
    let directory = log.directory().to_owned();
    let Some(segment) = log.segment_mut(start) else { return };
    let frames = segment.path(&directory);
    let unfinished = unfinished_path(&directory, start);
    segment.form = Form::Sealed;
    // The time of the last line is the file's, for the next start of this program.
    let times =
        unsynced.as_ref().map_or_else(|| File::options().write(true).open(&unfinished), |file| file.try_clone());
    let exchanged = times
        .and_then(|file| file.set_modified(UNIX_EPOCH + Duration::from_micros(segment.last_us)))
        .and_then(|()| fs::rename(&unfinished, segment.path(&directory)));
    match exchanged {
        Ok(()) => {
            segment.stored = size;
            segment.unsynced = unsynced;
            if let Err(error) = fs::remove_file(&frames) {
                eprintln!("berth-logs: remove {}: {error}", frames.display());
            }
        }
        Err(error) => {
            segment.form = Form::Frames;
            eprintln!("berth-logs: replace {}: {error}", frames.display());
        }
    }
}
