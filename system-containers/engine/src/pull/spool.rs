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
//! the file: as long as there is something in the file, nothing is added to the window, and whoever appends waits until the reader
//! has it, but not for one that has made a registry wait in vain. While other layers of the image come faster than they are
//! unpacked, one without a reader comes slowly.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FallocateFlags, Mode, OFlags};
use tokio::sync::Notify;

use super::demand::Demand;
use crate::room::Room;

/// How much is read at once, in bytes.
const BUFFER_BYTES: usize = 128 << 10;
/// How large the window is, in bytes; the reader has as much again.
const WINDOW_BYTES: usize = 256 << 10;
/// How long a registry has to wait for the reader before the rest goes to the file.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much comes before its turn while nobody waits for it, in bytes; after each [`PATIENCE`] as much again.
const AHEAD_BYTES: u64 = 1 << 20;
/// How long a reader waits before it says so: on one processor it waits for the thread that fills the window even if the network
/// is faster than it.
const HUNGER: Duration = Duration::from_millis(5);
/// How much is given back at once, in bytes.
const PUNCH_BYTES: u64 = 4 << 20;

/// The window and the file, for the one who writes them.
#[derive(Debug)]
pub struct Spool {
    file: File,
    /// What is left free.
    room: Room,
    demand: Arc<Demand>,
    state: Mutex<State>,
    changed: Condvar,
    taken: Notify,
}

#[derive(Debug)]
struct State {
    /// Whether there is a reader.
    followed: bool,
    /// Whether somebody waits until it has read the file.
    awaited: bool,
    /// Whether it was waited for too long, until it has caught up.
    outrun: bool,
    window: Vec<u8>,
    /// How much has come.
    written: u64,
    /// How much may come before its turn while nobody waits for it.
    allowed: u64,
    /// How much of it the reader has.
    read: u64,
    /// Whether the reader sleeps.
    waiting: bool,
    /// Whether all of it is there and what it should be.
    end: Option<bool>,
}

impl State {
    fn new() -> Self {
        let (window, allowed) = (Vec::new(), AHEAD_BYTES);
        let (followed, awaited, outrun, waiting) = (false, false, false, false);
        Self { followed, awaited, outrun, window, written: 0, allowed, read: 0, waiting, end: None }
    }

    /// How much is in the file and not read.
    fn filed(&self) -> u64 {
        self.written - self.read - self.window.len() as u64
    }

    /// Where so many bytes go.
    fn place(&self, length: usize) -> Place {
        let has_room = self.filed() == 0 && self.window.len() + length <= WINDOW_BYTES;
        match (self.followed, has_room) {
            (false, _) => Place::File,
            (true, true) => Place::Window,
            (true, false) if self.outrun => Place::File,
            (true, false) => Place::Full,
        }
    }

    /// Whether there is something to read: a whole buffer, for what comes from the network in small parts is not worth
    /// waking for each; or all that comes that way, or that anybody waits for.
    fn is_ready(&self) -> bool {
        let (window, filed) = (self.window.len(), self.filed());
        let enough = window >= BUFFER_BYTES || filed >= BUFFER_BYTES as u64;
        enough || (filed > 0 && (window > 0 || self.awaited)) || self.end.is_some()
    }
}

/// Where bytes go.
#[derive(PartialEq, Eq)]
enum Place {
    /// Into the window.
    Window,
    /// Into the window, when the reader has made room.
    Full,
    /// Into the file: nobody reads, or not soon.
    File,
}

impl Spool {
    /// A new one, in a directory of the state partition. All of an image share their demand.
    pub fn new(directory: BorrowedFd<'_>, room: Room, demand: Arc<Demand>) -> io::Result<Arc<Self>> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(directory, ".", flags, Mode::RUSR | Mode::WUSR)?);
        let (state, changed, taken) = (Mutex::new(State::new()), Condvar::new(), Notify::new());
        Ok(Arc::new(Self { file, room, demand, state, changed, taken }))
    }

    /// Adds bytes. Waits for the reader, but never long.
    pub async fn append(&self, bytes: &[u8]) -> io::Result<()> {
        // No larger, so that a window without room for one is enough for the reader to take.
        for part in bytes.chunks(BUFFER_BYTES) {
            self.wait_for_room(part.len()).await;
            if !self.to_window(part) {
                self.to_file(part)?;
            }
        }
        Ok(())
    }

    /// Waits as [`Self::append`] does, before there are any bytes: who holds bytes that came keeps a connection from
    /// reading the next ones into the same memory.
    pub async fn ready(&self) {
        self.wait_for_room(BUFFER_BYTES).await;
    }

    async fn wait_for_room(&self, length: usize) {
        self.hold().await;
        if !self.is_full(length) {
            return;
        }
        let following = async {
            loop {
                self.taken.notified().await;
                if !self.is_full(length) {
                    return;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, following).await.is_err() {
            self.give_up();
        }
    }

    /// Waits while nobody waits for more.
    async fn hold(&self) {
        let held = || {
            let state = self.lock();
            !state.followed && state.written >= state.allowed
        };
        if tokio::time::timeout(PATIENCE, self.demand.wait_while(held)).await.is_err() {
            self.lock().allowed += AHEAD_BYTES;
        }
    }

    /// Whether so many bytes must wait for the reader.
    fn is_full(&self, length: usize) -> bool {
        let mut state = self.lock();
        let is_full = state.place(length) == Place::Full;
        if is_full {
            state.awaited = state.filed() > 0;
            if state.waiting && state.is_ready() {
                self.changed.notify_all();
            }
            self.demand.meet();
        }
        is_full
    }

    /// False if they belong into the file.
    fn to_window(&self, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        if state.place(bytes.len()) != Place::Window {
            return false;
        }
        (state.outrun, state.awaited) = (false, false);
        if state.window.capacity() == 0 {
            state.window.reserve_exact(WINDOW_BYTES);
        }
        state.window.extend_from_slice(bytes);
        self.came(state, bytes.len());
        true
    }

    /// The reader is not waited for any more.
    fn give_up(&self) {
        let mut state = self.lock();
        state.outrun = true;
        state.awaited = false;
    }

    fn to_file(&self, bytes: &[u8]) -> io::Result<()> {
        use std::os::fd::AsFd as _;
        // Nobody else writes.
        let written = self.lock().written;
        let checked = self.room.check(self.file.as_fd(), bytes.len() as u64);
        checked.map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
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

    /// Waits until there is something to read; for the reader.
    fn wait_for_more(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.waiting = true;
        let waited = self.changed.wait_timeout_while(state, HUNGER, |state| !state.is_ready());
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if !state.is_ready() {
            self.demand.rise();
            let waited = self.changed.wait_while(state, |state| !state.is_ready());
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting = false;
        state
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
        spool.demand.rise();
        Self { spool, buffer: Vec::new(), start: 0, punched: 0 }
    }

    fn refill(&mut self) -> io::Result<()> {
        let mut state = self.spool.wait_for_more();
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
        let mut state = self.spool.lock();
        state.read = position;
        let is_caught_up = state.filed() == 0;
        drop(state);
        if is_caught_up {
            self.spool.taken.notify_one();
        }
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
        self.spool.demand.rise();
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
mod tests;
