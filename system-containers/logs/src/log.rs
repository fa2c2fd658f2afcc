//! The log of one container: its segments as one sequence of frames. Places in it are counted in bytes of frames from
//! its beginning and stay what they are when a segment is compressed or the oldest one goes.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use berth_control::message::Stream;

use crate::active::Active;
use crate::frame::{Dropped, Kind};
use crate::sealed::Sealed;
use crate::segment::{Form, Segment, scan};
use crate::table::{BLOCK, Open, Table, read_block};

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// In microseconds since 1970 (UTC).
    pub wall_us: u64,
    /// Never set.
    pub monotonic: Instant,
}

/// The log of one container.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    segments: VecDeque<Segment>,
    active: Option<Active>,
    /// Behind the last frame; `None` until the last segment was looked at.
    end: Option<u64>,
    dropped: Dropped,
    full: Vec<u64>,
}

/// Whole frames that follow one another.
#[derive(Debug)]
pub struct Piece {
    /// Where in the log they begin.
    pub at: u64,
    /// The frames.
    pub bytes: Vec<u8>,
}

/// What a reader keeps open between two pieces.
#[derive(Debug, Default)]
pub struct Opened(Option<(u64, Sealed)>);

impl Log {
    /// The log that is kept in this folder, which need not be there.
    pub fn load(directory: PathBuf) -> io::Result<Self> {
        let segments = match scan(&directory) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Vec::new(),
            segments => segments?,
        };
        let last = segments.last().map(|segment| segment.start);
        let waiting = |segment: &&Segment| segment.form == Form::Frames && Some(segment.start) != last;
        let full = segments.iter().filter(waiting).map(|segment| segment.start).collect();
        Ok(Self { segments: segments.into(), full, ..Self::empty(directory) })
    }

    /// One without anything in it.
    pub fn empty(directory: PathBuf) -> Self {
        let (segments, dropped) = (VecDeque::new(), Dropped::default());
        Self { directory, segments, active: None, end: None, dropped, full: Vec::new() }
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its files, the oldest first.
    pub fn segments(&self) -> &VecDeque<Segment> {
        &self.segments
    }

    /// The segment that begins there.
    pub fn segment_mut(&mut self, start: u64) -> Option<&mut Segment> {
        let index = self.segments.binary_search_by_key(&start, |segment| segment.start).ok()?;
        self.segments.get_mut(index)
    }

    /// How many bytes its files have.
    pub fn stored(&self) -> u64 {
        self.segments.iter().map(|segment| segment.stored).sum()
    }

    /// What was lost and not told of yet.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// The segments that have become full since this was asked.
    pub fn take_full(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.full)
    }

    /// Takes what a pipe has, up to `available` bytes, into a segment of about this size. How many it took.
    pub fn take(
        &mut self,
        pipe: BorrowedFd<'_>,
        stream: Stream,
        available: usize,
        segment_size: u64,
        now: Moment,
    ) -> io::Result<usize> {
        self.write(segment_size, now, |active| active.take(pipe, stream, available, now.wall_us))
    }

    /// Appends a frame.
    pub fn append(&mut self, kind: Kind, payload: &[u8], segment_size: u64, now: Moment) -> io::Result<()> {
        self.write(segment_size, now, |active| active.append(kind, payload, now.wall_us))
    }

    /// The files that are not on the disk; they will be.
    pub fn take_unsynced(&mut self) -> Vec<Arc<File>> {
        let mut files = Vec::new();
        for segment in &mut self.segments {
            if let Some(file) = segment.unsynced.take() {
                segment.synced = true;
                files.push(file);
            }
        }
        files
    }

    /// Counts what could not be kept, and tells of it in the log as soon as there is room.
    pub fn lose(&mut self, dropped: Dropped) {
        self.dropped.lines = self.dropped.lines.saturating_add(dropped.lines);
        self.dropped.bytes = self.dropped.bytes.saturating_add(dropped.bytes);
    }

    fn write<T>(
        &mut self,
        segment_size: u64,
        now: Moment,
        write: impl FnOnce(&mut Active) -> io::Result<T>,
    ) -> io::Result<T> {
        self.open()?;
        if self.active.as_ref().is_some_and(|active| active.length() >= segment_size) {
            self.close();
        }
        let mut active = match self.active.take() {
            Some(active) => active,
            None => self.begin()?,
        };
        let before = active.length();
        let told = if self.dropped == Dropped::default() {
            Ok(())
        } else {
            active.append(Kind::Dropped, &self.dropped.encode(), now.wall_us)
        };
        if told.is_ok() {
            self.dropped = Dropped::default();
        }
        let written = told.and_then(|()| write(&mut active));
        if let Some(segment) = self.segments.back_mut().filter(|_| active.length() > before) {
            segment.grow(active.length(), now.wall_us, now.monotonic);
            segment.unsynced.get_or_insert_with(|| Arc::clone(active.file()));
            self.end = Some(segment.start + active.length());
        }
        self.active = Some(active);
        written
    }

    /// Makes the last file one that gets no more.
    pub fn close(&mut self) {
        if self.open().is_ok()
            && self.active.as_ref().is_some_and(|active| active.length() > 0)
            && let Some(segment) = self.segments.back()
        {
            self.active = None;
            self.full.push(segment.start);
        }
    }

    /// Does so if what came first into the last file is older than this: a file goes as a whole when the last that came
    /// into it is too old, and one that grows slowly would keep the first for as long as it takes to become full.
    pub fn close_older(&mut self, age_us: u64, now: Moment) {
        if self.open().is_ok()
            && self.segments.back().is_some_and(|last| last.first_age_us(now.wall_us, now.monotonic) > age_us)
        {
            self.close();
        }
    }

    /// A new last file.
    fn begin(&mut self) -> io::Result<Active> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let segment = Segment::new(self.end.unwrap_or_default());
        let active = Active::create(&segment.path(&self.directory))?;
        self.segments.push_back(segment);
        Ok(active)
    }

    /// Looks where the log ends, and goes on in its last file if that is not compressed.
    fn open(&mut self) -> io::Result<u64> {
        if let Some(end) = self.end {
            return Ok(end);
        }
        let end = loop {
            let Some(segment) = self.segments.back_mut() else { break 0 };
            let path = segment.path(&self.directory);
            let found = match segment.form {
                Form::Frames => Active::recover(&path).map(|active| {
                    segment.stored = active.length();
                    segment.first_us = active.first_us();
                    self.active.insert(active).length()
                }),
                Form::Sealed => File::open(&path).and_then(Sealed::open).map(|sealed| sealed.table().length()),
            };
            match found {
                Ok(length) => break segment.start + length,
                // Power failed before it was on the disk, in the last second.
                Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::NotFound) => {
                    fs::remove_file(&path).or_else(ignore_missing)?;
                    self.segments.pop_back();
                }
                Err(error) => return Err(error),
            }
        };
        self.end = Some(end);
        Ok(end)
    }

    /// Removes the oldest file, unless output goes into it. How many bytes it had.
    pub fn remove_oldest(&mut self) -> Option<u64> {
        if self.segments.len() == 1 && (self.active.is_some() || self.end.is_none()) {
            return None;
        }
        let oldest = self.segments.pop_front()?;
        if let Err(error) = fs::remove_file(oldest.path(&self.directory)).or_else(ignore_missing) {
            eprintln!("berth-logs: remove {}: {error}", oldest.path(&self.directory).display());
        }
        Some(oldest.stored)
    }

    /// Behind the last frame.
    pub fn end(&mut self) -> u64 {
        // What cannot be opened is empty.
        self.open().unwrap_or(0)
    }

    /// Before the first frame.
    pub fn beginning(&mut self) -> u64 {
        let end = self.end();
        self.segments.front().map_or(end, |segment| segment.start)
    }

    /// Frames from a place on; from a later one if what was there has gone. `None` at the end.
    pub fn piece(&self, position: u64, opened: &mut Opened) -> Option<Piece> {
        let mut index = self.segments.partition_point(|segment| segment.start <= position).saturating_sub(1);
        loop {
            let segment = self.segments.get(index)?;
            let offset = position.saturating_sub(segment.start);
            // What cannot be read is left out; a reader sees the gap.
            if let Ok(Some((at, bytes))) = self.frames(index, offset, opened) {
                return Some(Piece { at: segment.start + at, bytes });
            }
            index += 1;
        }
    }

    fn frames(&self, index: usize, offset: u64, opened: &mut Opened) -> io::Result<Option<(u64, Vec<u8>)>> {
        let segment = self.segments.get(index).ok_or(ErrorKind::NotFound)?;
        if segment.form == Form::Frames {
            let mut bytes =
                vec![0; usize::try_from(segment.stored - offset.min(segment.stored)).unwrap_or(BLOCK).min(BLOCK)];
            let length = read_block(&*self.frames_file(index)?, offset, segment.stored, &mut bytes)?.len();
            bytes.truncate(length);
            return Ok((length > 0).then_some((offset, bytes)));
        }
        let sealed = match opened.0.take() {
            Some((start, sealed)) if start == segment.start => sealed,
            _ => Sealed::open(File::open(segment.path(&self.directory))?)?,
        };
        let mut offset = offset;
        let mut found = None;
        while let Some(block) = sealed.table().block_at(offset) {
            if let Ok(mut bytes) = sealed.block(block) {
                bytes.drain(..usize::try_from(offset - block.offset).unwrap_or(usize::MAX).min(bytes.len()));
                found = Some((offset, bytes));
                break;
            }
            offset = block.offset + block.length;
        }
        opened.0 = Some((segment.start, sealed));
        Ok(found)
    }

    /// The table of a segment at whose beginning these lines are in progress.
    pub fn table(&self, index: usize, open: Open) -> io::Result<Table> {
        let segment = self.segments.get(index).ok_or(ErrorKind::NotFound)?;
        match segment.form {
            Form::Frames => Table::of_frames(&*self.frames_file(index)?, segment.stored, open),
            Form::Sealed => {
                Sealed::open(File::open(segment.path(&self.directory))?).map(|sealed| sealed.table().clone())
            }
        }
    }

    /// Which lines are in progress where a segment begins.
    pub fn open_before(&self, index: usize) -> Open {
        let form = |index: usize| self.segments.get(index).map(|segment| segment.form);
        let compressed = (0..index).rev().find(|before| form(*before) == Some(Form::Sealed));
        (compressed.unwrap_or(0)..index).fold([false; 2], |open, before| {
            // What cannot be read ends in whole lines, for all that is known.
            self.table(before, open).map_or([false; 2], |table| table.open)
        })
    }

    fn frames_file(&self, index: usize) -> io::Result<Arc<File>> {
        let segment = self.segments.get(index).ok_or(ErrorKind::NotFound)?;
        match &self.active {
            Some(active) if index + 1 == self.segments.len() => Ok(Arc::clone(active.file())),
            _ => Ok(Arc::new(File::open(segment.path(&self.directory))?)),
        }
    }
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
pub(crate) mod tests;
