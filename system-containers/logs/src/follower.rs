//! From a log to the pipe of whoever asked. It goes on as the pipe takes more, so a reader that is slow costs one block
//! and what is told of it; one that is slower than the log is shortened is told that lines are missing.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use berth_control::ANSWER_END;
use berth_control::logs::Query;

use crate::frame::{Frame, HEADER, Header};
use crate::lines::Lines;
use crate::log::{Log, Opened, Piece};
use crate::query::Part;

/// How much is made ready for a pipe at once: its usual room.
const CHUNK: usize = 64 * 1024;

/// How many chunks a reader gets before it is the containers' turn: some 0.3 ms.
const CHUNKS: usize = 4;

/// One who asked.
#[derive(Debug)]
pub struct Follower {
    /// Whose log.
    pub container: String,
    /// The container whose client asks; `None` for the machine's own.
    pub asked_by: Option<String>,
    pipe: File,
    position: u64,
    /// Where to stop, and where even for the end of a line; `None` to go on.
    until: Option<(u64, u64)>,
    /// When to stop, in microseconds since 1970; `None` to go on.
    until_us: Option<u64>,
    lines: Lines,
    opened: Opened,
    piece: Option<Piece>,
    /// What was told already of the frame at `position`.
    told: usize,
    records: Vec<u8>,
    written: usize,
    /// Whether everything has been made ready, the mark of the end too.
    ended: bool,
    /// Whether its log is no more.
    bereft: bool,
    /// When what was told last was printed, in microseconds since 1970.
    time_us: u64,
}

/// What a follower waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Room in its pipe, or its turn.
    Room,
    /// More in the log.
    More,
    /// Nothing: it has everything, or nobody reads.
    Nothing,
}

impl Follower {
    /// Passes on to whoever asks a part of a log whose end is now at `end`; what comes after it too if it is to follow. The pipe
    /// must not block.
    pub fn new(query: Query, pipe: File, part: Part, end: u64, now_us: u64) -> Self {
        let follow = query.follow && query.until_us.is_none_or(|until_us| until_us > now_us);
        Self {
            container: query.container,
            asked_by: query.asked_by,
            pipe,
            position: part.start,
            until: (!follow).then_some((part.end, end)),
            until_us: query.until_us,
            lines: Lines::new(part.wanted, part.open),
            opened: Opened::default(),
            piece: None,
            told: 0,
            records: Vec::new(),
            written: 0,
            ended: false,
            bereft: false,
            time_us: 0,
        }
    }

    /// When nothing that is wanted comes any more, in microseconds since 1970, if that is to be waited for.
    pub fn until_us(&self) -> Option<u64> {
        self.until_us.filter(|_| self.until.is_none())
    }

    /// Nothing comes after this place.
    pub fn stop_at(&mut self, end: u64) {
        self.until.get_or_insert((end, end));
    }

    /// Its log is about to be no more: what it has not read by now it will not.
    pub fn bereave(&mut self) {
        self.bereft = true;
    }

    /// Whether it is to go on without a log.
    pub fn is_bereft(&self) -> bool {
        self.bereft
    }

    /// Passes on what there is. Without a log that is what was read of it already.
    pub fn pump(&mut self, log: Option<&Log>) -> Waits {
        for _ in 0..CHUNKS {
            while let Some(rest) = self.records.get(self.written..).filter(|rest| !rest.is_empty()) {
                match self.pipe.write(rest) {
                    Ok(written) => self.written += written,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Waits::Room,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return Waits::Nothing,
                }
            }
            self.records.clear();
            self.written = 0;
            if self.tell(log) {
                continue;
            }
            if self.until.is_none() {
                // It may be long until there is more.
                self.records = Vec::new();
                return Waits::More;
            }
            if self.ended {
                return Waits::Nothing;
            }
            if self.bereft && !self.is_at_end() {
                self.lines.gap(self.time_us, &mut self.records);
            }
            self.lines.finish_all(&mut self.records);
            self.records.extend_from_slice(ANSWER_END);
            self.ended = true;
        }
        Waits::Room
    }

    /// Makes records ready. Whether there was anything to tell of.
    fn tell(&mut self, log: Option<&Log>) -> bool {
        let mut any = false;
        while self.records.len() < CHUNK && !self.is_at_end() {
            let at = self.piece.as_ref().and_then(|piece| Some((piece, self.position.checked_sub(piece.at)?)));
            let bytes = at.and_then(|(piece, at)| piece.bytes.get(usize::try_from(at).ok()?..));
            let frame = bytes.and_then(|bytes| {
                let header = Header::decode(bytes)?;
                Some(Frame { header, payload: bytes.get(HEADER..HEADER + header.length)? })
            });
            let Some(frame) = frame else {
                if !self.next_piece(log) {
                    break;
                }
                continue;
            };
            any = true;
            self.time_us = frame.header.time_us;
            match self.lines.push(&frame, self.told, CHUNK, &mut self.records) {
                Some(told) => self.told = told,
                None => {
                    self.position += frame.size() as u64;
                    self.told = 0;
                }
            }
        }
        any
    }

    fn is_at_end(&self) -> bool {
        self.until
            .is_some_and(|(end, last)| self.position >= last || (self.position >= end && !self.lines.is_unfinished()))
    }

    /// Goes on in the log. Whether there is anything.
    fn next_piece(&mut self, log: Option<&Log>) -> bool {
        self.piece = log.and_then(|log| log.piece(self.position, &mut self.opened));
        let Some(piece) = &self.piece else { return false };
        if piece.at > self.position {
            let time_us = Header::decode(&piece.bytes).map_or(0, |header| header.time_us);
            self.lines.gap(time_us, &mut self.records);
            self.position = piece.at;
            self.told = 0;
        }
        true
    }
}

impl AsFd for Follower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
