//! From the files to the pipe of whoever asked. It reads the files again and again as its pipe takes more, so a reader
//! that is slow costs two descriptors and no memory; one that is slower than two rotations misses lines.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use crate::store::{Log, Position};

/// How much goes from a file to a pipe at once: a pipe's usual room.
const CHUNK: usize = 64 * 1024;

/// One who asked.
#[derive(Debug)]
pub struct Follower {
    /// Whose log.
    pub container: String,
    pipe: File,
    file: Option<File>,
    position: Position,
    /// Where to stop; `None` to go on.
    until: Option<Position>,
}

/// What a follower waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Room in its pipe.
    Room,
    /// More in the log.
    More,
    /// Nothing: it has everything, or nobody reads.
    Nothing,
}

impl Follower {
    /// Begins at a position. The pipe must not block.
    pub fn new(container: String, pipe: File, log: &Log, position: Position, until: Option<Position>) -> Self {
        let file = log.file(position.generation);
        Self { container, pipe, file, position, until }
    }

    /// Passes on what there is.
    pub fn pump(&mut self, log: &mut Log) -> Waits {
        let mut buffer = vec![0; CHUNK];
        loop {
            let end = log.end();
            if self.until.is_some_and(|until| self.position.generation > until.generation) {
                return Waits::Nothing;
            }
            let available = self.available(end);
            let wanted = usize::try_from(available).unwrap_or(CHUNK).min(CHUNK);
            let chunk = buffer.get_mut(..wanted).unwrap_or_default();
            let length = match &self.file {
                Some(file) if wanted > 0 => file.read_at(chunk, self.position.offset).unwrap_or(0),
                _ => 0,
            };
            if length == 0 {
                if self.until.is_some_and(|until| self.position.generation >= until.generation) {
                    return Waits::Nothing;
                }
                if self.position.generation >= end.generation {
                    // The first line may make the file.
                    self.file = self.file.take().or_else(|| log.file(end.generation));
                    return if self.file.is_some() && self.available(end) > 0 { Waits::Room } else { Waits::More };
                }
                self.next_file(log, end);
                continue;
            }
            match self.pipe.write(buffer.get(..length).unwrap_or_default()) {
                Ok(written) => self.position.offset += written as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Waits::Room,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Waits::Nothing,
            }
        }
    }

    /// How many bytes are left in the present file.
    fn available(&self, end: Position) -> u64 {
        let limit = match self.until {
            Some(until) if until.generation == self.position.generation => until.offset,
            _ if end.generation == self.position.generation => end.offset,
            _ => u64::MAX,
        };
        limit.saturating_sub(self.position.offset)
    }

    /// Goes on in the next file that is still there.
    fn next_file(&mut self, log: &Log, end: Position) {
        let oldest = end.generation.saturating_sub(1);
        let generation = (self.position.generation + 1).max(oldest);
        self.position = Position { generation, offset: 0 };
        self.file = log.file(generation);
    }
}

impl AsFd for Follower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
