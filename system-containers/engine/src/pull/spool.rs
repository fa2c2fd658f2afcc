//! A blob between the network and the unpacker: a file without a name that is read while it grows.
//!
//! What has been read is given back to the file system at once, so a layer that is unpacked as fast as it comes takes
//! no room and is not written to the disk; one that comes earlier than its turn waits on the disk and not in memory.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::fs::{FallocateFlags, Mode, OFlags};

use crate::room::Room;

/// How much is read at once, in bytes.
const BUFFER_BYTES: usize = 128 << 10;
/// How much is given back at once, in bytes.
const PUNCH_BYTES: u64 = 4 << 20;
/// How much is written between two looks at the free space, in bytes.
const SPACE_INTERVAL: u64 = 16 << 20;

/// The file, for the one who writes it.
#[derive(Debug)]
pub struct Spool {
    file: File,
    /// What is left free.
    room: Room,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    written: u64,
    /// How much must have been written for the reader to go on.
    wanted: u64,
    /// Whether all of it is there and what it should be.
    end: Option<bool>,
}

impl Spool {
    /// A new one, in a directory of the state partition.
    pub fn new(directory: BorrowedFd<'_>, room: Room) -> io::Result<Arc<Self>> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(directory, ".", flags, Mode::RUSR | Mode::WUSR)?);
        Ok(Arc::new(Self { file, room, state: Mutex::default(), changed: Condvar::new() }))
    }

    /// Adds bytes.
    pub fn append(&self, bytes: &[u8]) -> io::Result<()> {
        use std::os::fd::AsFd as _;
        let written = self.lock().written;
        let next = written + bytes.len() as u64;
        if written / SPACE_INTERVAL != next / SPACE_INTERVAL {
            let checked = self.room.check(self.file.as_fd(), 0);
            checked.map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
        }
        self.file.write_all_at(bytes, written)?;
        let mut state = self.lock();
        state.written = next;
        if next >= state.wanted {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Nothing comes any more. The reader sees an end only of what is `verified`, else an error.
    pub fn finish(&self, verified: bool) {
        self.lock().end = Some(verified);
        self.changed.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a spool from its beginning, and waits for what is not there yet.
#[derive(Debug)]
pub struct Reader {
    spool: Arc<Spool>,
    buffer: Vec<u8>,
    /// Of the buffer: what is still to be read.
    start: usize,
    end: usize,
    /// Of the file: where the buffer ends.
    position: u64,
    punched: u64,
}

impl Reader {
    /// There may be only one: what it has read is gone.
    pub fn new(spool: Arc<Spool>) -> Self {
        Self { spool, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, position: 0, punched: 0 }
    }

    fn refill(&mut self) -> io::Result<()> {
        let available = {
            let mut state = self.spool.lock();
            // A whole buffer at once: what comes from the network in small parts wakes nobody for each.
            state.wanted = self.position + self.buffer.len() as u64;
            while state.written < state.wanted && state.end.is_none() {
                state = self.spool.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.written == self.position && state.end == Some(false) {
                return Err(io::Error::other("the download failed"));
            }
            state.written - self.position
        };
        let length = self.buffer.len().min(usize::try_from(available).unwrap_or(usize::MAX));
        self.spool.file.read_exact_at(&mut self.buffer[..length], self.position)?;
        self.position += length as u64;
        (self.start, self.end) = (0, length);
        if self.position - self.punched >= PUNCH_BYTES {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Where it is not possible the room comes back with the end of the file.
            let _ = rustix::fs::fallocate(&self.spool.file, flags, self.punched, self.position - self.punched);
            self.punched = self.position;
        }
        Ok(())
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        crate::buffered::read(self, buffer)
    }
}

impl BufRead for Reader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.refill()?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::MetadataExt as _;

    fn spool() -> (tempfile::TempDir, Arc<Spool>) {
        let directory = tempfile::tempdir().unwrap();
        let handle = File::open(directory.path()).unwrap();
        let spool = Spool::new(handle.as_fd(), Room::default()).unwrap();
        (directory, spool)
    }

    #[test]
    fn a_reader_waits_for_what_is_written_and_gives_room_back() {
        let (_directory, spool) = spool();
        let mut reader = Reader::new(Arc::clone(&spool));
        let piece = vec![7_u8; 1 << 20];
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let mut content = Vec::new();
                reader.read_to_end(&mut content).unwrap();
                content
            });
            for _ in 0..9 {
                spool.append(&piece).unwrap();
            }
            spool.finish(true);
            assert_eq!(reading.join().unwrap(), vec![7; 9 << 20]);
        });
        assert!(spool.file.metadata().unwrap().blocks() * 512 < 5 << 20, "two pieces of 4 MiB were given back");
    }

    #[test]
    fn what_is_not_verified_has_no_end() {
        let (_directory, spool) = spool();
        spool.append(b"abc").unwrap();
        spool.finish(false);
        let mut content = Vec::new();
        let error = Reader::new(spool).read_to_end(&mut content).unwrap_err();
        assert_eq!((content.as_slice(), error.to_string().as_str()), (&b"abc"[..], "the download failed"));
    }
}
