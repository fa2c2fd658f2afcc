//! A blob between the network and the unpacker.
//!
//! ```text
//!            ┌─► window, in memory: what the reader follows ─────┐
//!   append ──┤                                                   ├──► reader
//!            └─► file: what comes before its turn, or too fast ──┘
//! ```
//!
//! A layer that is unpacked as it comes never sees the disk: whoever appends waits a moment for the reader. What is not read
//! yet goes to a file without a name, and what is read of that is given back to the file system at once. The window is before
//! the file: as long as there is something in the file, nothing is added to the window.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FallocateFlags, Mode, OFlags};
use tokio::sync::Notify;

use crate::room::Room;

/// How much is read at once, in bytes.
const BUFFER_BYTES: usize = 128 << 10;
/// How large the window is, in bytes; the reader has as much again.
const WINDOW_BYTES: usize = 256 << 10;
/// How long a registry has to wait for the reader before the rest goes to the file.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much is given back at once, in bytes.
const PUNCH_BYTES: u64 = 4 << 20;
/// How much is written between two looks at the free space, in bytes.
const SPACE_INTERVAL: u64 = 16 << 20;

/// The window and the file, for the one who writes them.
#[derive(Debug)]
pub struct Spool {
    file: File,
    /// What is left free.
    room: Room,
    state: Mutex<State>,
    changed: Condvar,
    taken: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Whether there is a reader.
    followed: bool,
    window: Vec<u8>,
    /// How much has come.
    written: u64,
    /// How much of it the reader has.
    read: u64,
    /// Whether the reader sleeps.
    waiting: bool,
    /// Whether all of it is there and what it should be.
    end: Option<bool>,
}

impl State {
    /// How much is in the file and not read.
    fn filed(&self) -> u64 {
        self.written - self.read - self.window.len() as u64
    }

    /// Whether there is something to read: a whole buffer, for what comes from the network in small parts is not worth
    /// waking for each; or all that comes that way.
    fn is_ready(&self) -> bool {
        let (window, filed) = (self.window.len(), self.filed());
        let enough = window >= BUFFER_BYTES || filed >= BUFFER_BYTES as u64;
        enough || (window > 0 && filed > 0) || self.end.is_some()
    }
}

/// What became of bytes for the window.
enum Window {
    /// They are in it.
    Taken,
    /// There is room for them soon.
    Full,
    /// Nobody reads it, or not soon.
    Closed,
}

impl Spool {
    /// A new one, in a directory of the state partition.
    pub fn new(directory: BorrowedFd<'_>, room: Room) -> io::Result<Arc<Self>> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(directory, ".", flags, Mode::RUSR | Mode::WUSR)?);
        let (state, changed, taken) = (Mutex::default(), Condvar::new(), Notify::new());
        Ok(Arc::new(Self { file, room, state, changed, taken }))
    }

    /// Adds bytes. Waits for the reader, but never long.
    pub async fn append(&self, bytes: &[u8]) -> io::Result<()> {
        // No larger, so that a window without room for one is enough for the reader to take.
        for part in bytes.chunks(BUFFER_BYTES) {
            self.append_part(part).await?;
        }
        Ok(())
    }

    async fn append_part(&self, bytes: &[u8]) -> io::Result<()> {
        match self.to_window(bytes) {
            Window::Taken => return Ok(()),
            Window::Closed => {}
            Window::Full => {
                let following = async {
                    loop {
                        self.taken.notified().await;
                        match self.to_window(bytes) {
                            Window::Full => {}
                            done => return done,
                        }
                    }
                };
                if let Ok(Window::Taken) = tokio::time::timeout(PATIENCE, following).await {
                    return Ok(());
                }
            }
        }
        self.to_file(bytes)
    }

    fn to_window(&self, bytes: &[u8]) -> Window {
        let mut state = self.lock();
        if !state.followed || state.filed() > 0 {
            return Window::Closed;
        }
        let next = state.window.len() + bytes.len();
        if next > WINDOW_BYTES {
            return Window::Full;
        }
        if state.window.capacity() == 0 {
            state.window.reserve_exact(WINDOW_BYTES);
        }
        state.window.extend_from_slice(bytes);
        self.came(state, bytes.len());
        Window::Taken
    }

    fn to_file(&self, bytes: &[u8]) -> io::Result<()> {
        use std::os::fd::AsFd as _;
        // Nobody else writes.
        let written = self.lock().written;
        let next = written + bytes.len() as u64;
        if written / SPACE_INTERVAL != next / SPACE_INTERVAL {
            let checked = self.room.check(self.file.as_fd(), 0);
            checked.map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
        }
        self.file.write_all_at(bytes, written)?;
        self.came(self.lock(), bytes.len());
        Ok(())
    }

    fn came(&self, mut state: MutexGuard<'_, State>, length: usize) {
        state.written += length as u64;
        if state.waiting && state.is_ready() {
            self.changed.notify_all();
        }
    }

    /// Nothing comes any more. The reader sees an end only of what is `verified`, else an error.
    pub fn finish(&self, verified: bool) {
        self.lock().end = Some(verified);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a spool from its beginning, and waits for what is not there yet.
#[derive(Debug)]
pub struct Reader {
    spool: Arc<Spool>,
    buffer: Vec<u8>,
    /// What of the buffer was read.
    start: usize,
    /// How much of the file was given back.
    punched: u64,
}

impl Reader {
    /// There may be only one: what it has read is gone.
    pub fn new(spool: Arc<Spool>) -> Self {
        spool.lock().followed = true;
        Self { spool, buffer: Vec::new(), start: 0, punched: 0 }
    }

    fn refill(&mut self) -> io::Result<()> {
        let mut state = self.spool.lock();
        while !state.is_ready() {
            state.waiting = true;
            state = self.spool.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting = false;
        self.start = 0;
        if !state.window.is_empty() {
            self.buffer.clear();
            std::mem::swap(&mut self.buffer, &mut state.window);
            state.read += self.buffer.len() as u64;
            drop(state);
            self.spool.taken.notify_one();
            return Ok(());
        }
        let (position, filed, end) = (state.read, state.filed(), state.end);
        drop(state);
        if filed == 0 {
            self.buffer.clear();
            return if end == Some(false) { Err(io::Error::other("the download failed")) } else { Ok(()) };
        }
        let length = BUFFER_BYTES.min(usize::try_from(filed).unwrap_or(usize::MAX));
        if self.buffer.len() < length {
            self.buffer = vec![0; length];
        }
        self.buffer.truncate(length);
        self.spool.file.read_exact_at(&mut self.buffer, position).inspect_err(|_| self.buffer.clear())?;
        let position = position + self.buffer.len() as u64;
        self.spool.lock().read = position;
        if position - self.punched >= PUNCH_BYTES {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Where it is not possible the room comes back with the end of the file.
            let _ = rustix::fs::fallocate(&self.spool.file, flags, self.punched, position - self.punched);
            self.punched = position;
        }
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Nobody waits for it any more; the spool itself lasts as long as its image's pull.
        let mut state = self.spool.lock();
        state.followed = false;
        state.window = Vec::new();
        drop(state);
        self.spool.taken.notify_one();
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        crate::buffered::read(self, buffer)
    }
}

impl BufRead for Reader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.buffer.len() {
            self.refill()?;
        }
        Ok(&self.buffer[self.start..])
    }

    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.buffer.len());
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::MetadataExt as _;

    fn spool() -> (tempfile::TempDir, Arc<Spool>) {
        let directory = tempfile::tempdir().unwrap();
        let handle = File::open(directory.path()).unwrap();
        let spool = Spool::new(handle.as_fd(), Room::default()).unwrap();
        (directory, spool)
    }

    /// Appends so many MiB.
    async fn fill(spool: &Spool, count: u8) {
        for number in 0..count {
            for _ in 0..16 {
                spool.append(&[number; 64 << 10]).await.unwrap();
            }
        }
        spool.finish(true);
    }

    fn wait<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    fn filled(count: u8) -> Vec<u8> {
        (0..count).flat_map(|number| vec![number; 1 << 20]).collect()
    }

    #[test]
    fn a_reader_waits_for_what_comes() {
        let (_directory, spool) = spool();
        let mut reader = Reader::new(Arc::clone(&spool));
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let mut content = Vec::new();
                reader.read_to_end(&mut content).unwrap();
                content
            });
            wait(fill(&spool, 9));
            assert_eq!(reading.join().unwrap(), filled(9));
        });
    }

    #[test]
    fn what_a_reader_follows_is_never_in_the_file() {
        let (_directory, spool) = spool();
        let mut reader = Reader::new(Arc::clone(&spool));
        for number in 0..9 {
            let part = [number; WINDOW_BYTES / 2];
            wait(spool.append(&part)).unwrap();
            wait(spool.append(&part)).unwrap();
            assert_eq!(reader.fill_buf().unwrap(), [number; WINDOW_BYTES]);
            reader.consume(WINDOW_BYTES);
        }
        assert_eq!(spool.file.metadata().unwrap().blocks(), 0);
        drop(reader);
        assert_eq!(spool.lock().window.capacity(), 0, "there may be hundreds of them");
    }

    #[test]
    fn a_part_larger_than_the_room_that_is_left_wakes_the_reader() {
        let (_directory, spool) = spool();
        let mut reader = Reader::new(Arc::clone(&spool));
        let large = vec![7; 600 << 10];
        wait(async {
            spool.append(&large[..100 << 10]).await.unwrap();
            let mut appending = pin!(spool.append(&large));
            let mut read = 0;
            while poll_fn(|context| Poll::Ready(appending.as_mut().poll(context).is_pending())).await {
                assert!(spool.lock().is_ready());
                read += reader.fill_buf().unwrap().len();
                reader.consume(WINDOW_BYTES);
            }
            assert!(read > 400 << 10);
        });
        assert_eq!(spool.file.metadata().unwrap().blocks(), 0);
    }

    #[test]
    fn what_comes_before_its_turn_is_in_the_file_and_given_back() {
        let (_directory, spool) = spool();
        wait(fill(&spool, 9));
        let mut content = Vec::new();
        Reader::new(Arc::clone(&spool)).read_to_end(&mut content).unwrap();
        assert_eq!(content, filled(9));
        assert!(spool.file.metadata().unwrap().blocks() * 512 < 5 << 20, "two pieces of 4 MiB were given back");
    }

    #[test]
    fn a_registry_does_not_wait_for_a_reader_that_stands_still() {
        let (_directory, spool) = spool();
        let mut reader = Reader::new(Arc::clone(&spool));
        wait(fill(&spool, 2));
        assert!(spool.file.metadata().unwrap().blocks() > 0);
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        assert_eq!(content, filled(2));
    }

    #[test]
    fn what_is_not_verified_has_no_end() {
        let (_directory, spool) = spool();
        wait(spool.append(b"abc")).unwrap();
        spool.finish(false);
        let mut content = Vec::new();
        let error = Reader::new(spool).read_to_end(&mut content).unwrap_err();
        assert_eq!((content.as_slice(), error.to_string().as_str()), (&b"abc"[..], "the download failed"));
    }
}
