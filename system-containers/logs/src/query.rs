//! From a question to the part of a log that answers it: by the tables of its segments, so that what is not wanted is
//! neither decompressed nor read.

use std::collections::BTreeMap;
use std::rc::Rc;

use berth_control::logs::Query;
use berth_control::message::Stream;

use crate::frame::{Frame, Frames, Kind};
use crate::kernel::Origin;
use crate::lines::Wanted;
use crate::log::{Log, Opened};
use crate::table::{Block, Open, Passed, Table};

/// A part of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The first frame.
    pub start: u64,
    /// Lines that are in progress there, and not wanted.
    pub open: Open,
    /// Behind the last frame; lines that are in progress there are wanted to their ends.
    pub end: u64,
    /// What of it.
    pub wanted: Wanted,
}

/// A place between two frames, and the lines that are in progress there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    position: u64,
    open: Open,
}

/// Finds the part that a query asks for.
pub fn find(log: &mut Log, query: &Query) -> Part {
    let (beginning, end) = (log.beginning(), log.end());
    let mut tables = Tables { log, known: BTreeMap::new() };
    let mut start = Place { position: beginning, open: [false; 2] };
    if let Some(since_us) = query.since_us {
        start = tables.behind_older(since_us).unwrap_or(start);
    }
    let mut end = Place { position: end, open: [false; 2] };
    if let Some(after_us) = query.until_us.and_then(|until_us| until_us.checked_add(1)) {
        end = tables.behind_older(after_us).unwrap_or(Place { position: beginning, open: [false; 2] });
    } else if query.tail.is_some() {
        end.open = tables.open_at_end();
    }
    let mut wanted = Wanted { stream: query.stream, until_us: query.until_us, skip: 0 };
    if let Some(tail) = query.tail {
        // A line in progress is one of the last, unless the reader is to see its end.
        let unfinished = if query.follow { 0 } else { selected(end.open.map(u64::from), query.stream) };
        (start, wanted.skip) = tables.tail(tail, unfinished, start, end, query.stream);
    }
    Part { start: start.position, open: start.open, end: end.position.max(start.position), wanted }
}

/// Which line of the kernel's log was kept last.
pub fn last_origin(log: &mut Log) -> Option<Origin> {
    // Looks where the log ends.
    log.end();
    let mut tables = Tables { log, known: BTreeMap::new() };
    (0..tables.log.segments().len()).rev().find_map(|index| {
        let (start, table) = (tables.start_of(index), tables.get(index));
        table.blocks.iter().rev().find_map(|block| {
            let (begin, mut last) = (start + block.offset, None);
            tables.frames(begin, begin + block.length, |_, frame| {
                if matches!(frame.header.kind, Kind::Record(_)) {
                    last = Origin::decode(frame.payload);
                }
            });
            last
        })
    })
}

/// Of numbers for each stream, what counts.
fn selected([stdout, stderr]: [u64; 2], stream: Option<Stream>) -> u64 {
    match stream {
        Some(Stream::Stdout) => stdout,
        Some(Stream::Stderr) => stderr,
        None => stdout + stderr,
    }
}

struct Tables<'a> {
    log: &'a Log,
    known: BTreeMap<usize, Rc<Table>>,
}

impl Tables<'_> {
    fn get(&mut self, index: usize) -> Rc<Table> {
        if let Some(table) = self.known.get(&index) {
            return Rc::clone(table);
        }
        // A segment that cannot be read has no lines.
        let table = Rc::new(self.log.table(index, self.log.open_before(index)).unwrap_or_default());
        self.known.insert(index, Rc::clone(&table));
        table
    }

    fn start_of(&self, index: usize) -> u64 {
        self.log.segments().get(index).map_or(0, |segment| segment.start)
    }

    /// Behind the last frame that is older than this, by whatever the clock was when it came; `None` if there is none.
    fn behind_older(&mut self, time_us: u64) -> Option<Place> {
        let (start, block) = (0..self.log.segments().len()).rev().find_map(|index| {
            let table = self.get(index);
            let block = table.blocks.iter().rfind(|block| block.earliest_us < time_us)?;
            Some((self.start_of(index) + block.offset, *block))
        })?;
        let mut passed = Passed { lines: [0, 0], open: block.open };
        let mut place = None;
        self.frames(start, start + block.length, |position, frame| {
            passed.pass(frame);
            if frame.header.time_us < time_us {
                place = Some(Place { position: position + frame.size() as u64, open: passed.open });
            }
        });
        place
    }

    /// Which lines are in progress at the end.
    fn open_at_end(&mut self) -> Open {
        self.log.segments().len().checked_sub(1).map_or([false; 2], |last| self.get(last).open)
    }

    /// Calls for each frame between two places, with where it begins.
    fn frames(&self, from: u64, to: u64, mut call: impl FnMut(u64, &Frame<'_>)) {
        let mut position = from;
        let mut opened = Opened::default();
        while position < to
            && let Some(piece) = self.log.piece(position, &mut opened)
        {
            position = piece.at;
            for frame in Frames::of(&piece.bytes) {
                if position >= to {
                    return;
                }
                call(position, &frame);
                position += frame.size() as u64;
            }
        }
    }

    /// Where to begin so that at most so many lines come between two places, and how many to leave out from there. As
    /// a line is counted where it ends, it begins a block earlier than it needs to, and earlier yet while a line that
    /// is in progress there does not end in that block.
    fn tail(&mut self, tail: u64, unfinished: u64, from: Place, to: Place, stream: Option<Stream>) -> (Place, u64) {
        if tail == 0 {
            return (to, 0);
        }
        let (mut start, mut lines) = (from, unfinished);
        'blocks: for index in (0..self.log.segments().len()).rev() {
            let (first, table) = (self.start_of(index), self.get(index));
            for block in table.blocks.iter().rev() {
                let position = first + block.offset;
                if position >= to.position {
                    continue;
                }
                let begin = if position < from.position { from } else { Place { position, open: block.open } };
                let ended = self.lines_in(block, begin, (position + block.length).min(to.position));
                let enough = lines >= tail && all_end(begin.open, ended);
                lines += selected(ended, stream);
                start = begin;
                if enough || position <= from.position {
                    break 'blocks;
                }
            }
        }
        // The rest of a line that began before is counted where it ends, but does not come.
        let rests = selected(start.open.map(u64::from), stream);
        (start, lines.saturating_sub(rests).saturating_sub(tail))
    }

    /// How many lines end between two places in a block, of each stream.
    fn lines_in(&self, block: &Block, from: Place, to: u64) -> [u64; 2] {
        let mut passed = Passed { lines: block.lines, open: from.open };
        if to.saturating_sub(from.position) < block.length {
            passed.lines = [0, 0];
            self.frames(from.position, to, |_, frame| passed.pass(frame));
        }
        passed.lines
    }
}

/// Whether each line that is in progress is among those that end.
fn all_end(open: Open, ended: [u64; 2]) -> bool {
    open.iter().zip(ended).all(|(open, lines)| !open || lines > 0)
}

#[cfg(test)]
mod tests;
