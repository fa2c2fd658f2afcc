//! What was written goes to the disk: a thread of its own waits for it, so that no container does.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// The thread, asleep unless it has something to do. It ends with this value.
#[derive(Debug)]
pub struct Syncer {
    jobs: Sender<Vec<Arc<File>>>,
    done: Arc<EventFd>,
    busy: bool,
}

impl Syncer {
    /// Starts it.
    pub fn new() -> io::Result<Self> {
        let done = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let (jobs, work) = channel();
        let theirs = Arc::clone(&done);
        std::thread::Builder::new().name("sync".to_owned()).spawn(move || run(&work, &theirs))?;
        Ok(Self { jobs, done, busy: false })
    }

    /// Whether it has not finished what it was given.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Writes these files to the disk; its descriptor becomes readable when they are there, or cannot be.
    pub fn start(&mut self, files: Vec<Arc<File>>) {
        self.busy = self.jobs.send(files).is_ok();
    }

    /// Waits until its descriptor is readable.
    pub fn wait(&self) {
        self.wait_for(PollTimeout::NONE);
    }

    /// The same, but not longer.
    pub fn wait_for(&self, longest: PollTimeout) {
        // Interrupted or not, whoever waits looks again.
        let _ = poll(&mut [PollFd::new(self.done.as_fd(), PollFlags::POLLIN)], longest);
    }

    /// Its descriptor may be readable; whether it has finished what it was given.
    pub fn finish(&mut self) -> bool {
        let finished = self.busy && self.done.read().is_ok();
        self.busy &= !finished;
        finished
    }
}

impl AsFd for Syncer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }
}

fn run(work: &Receiver<Vec<Arc<File>>>, done: &EventFd) {
    let mut failed = false;
    for files in work {
        let synced = files.iter().try_for_each(|file| file.sync_data());
        // Told once: a disk that is broken stays so.
        if let Err(error) = &synced
            && !failed
        {
            eprintln!("berth-logs: write to the disk: {error}");
        }
        failed = synced.is_err();
        drop(files);
        // It cannot overflow: nobody adds before the last was read.
        let _ = done.write(1);
    }
}
