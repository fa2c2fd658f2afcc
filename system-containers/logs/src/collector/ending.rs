//! The orderly end: what was printed before it is kept.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{Collector, Source, now};

/// The longest that is read for at the end. When the machine goes down nobody prints any more and this takes as long as it
/// takes to read what the pipes hold; at a restart of this program alone the rest waits in them.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Fetches SIGTERM from a descriptor from now on, in this thread and those that it starts.
pub(super) fn signals() -> nix::Result<SignalFd> {
    let mask: SigSet = [Signal::SIGTERM].into_iter().collect();
    mask.thread_block()?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

impl Collector {
    /// Takes what is there and brings all of it onto the disk.
    pub(super) fn end(mut self) {
        let until = Instant::now() + LAST_WORDS;
        // Followers, questions and messages have nothing that could be lost.
        while self.take_from_all() && Instant::now() < until {}
        self.store.sync_now(now());
    }

    /// Reads once from each source that has something; whether there was one.
    fn take_from_all(&mut self) -> bool {
        let mut events = [EpollEvent::empty(); 64];
        let Ok(count) = self.epoll.wait(&mut events, EpollTimeout::ZERO) else { return false };
        let mut took = false;
        for event in events.iter().take(count) {
            let prints = |source: &Source| matches!(source, Source::Pipe(_) | Source::Kernel(_));
            if self.sources.get(&event.data()).is_some_and(prints) {
                self.advance(event.data(), event.events());
                took |= event.events().contains(EpollFlags::EPOLLIN);
            } else if let Some(other) = self.sources.remove(&event.data()) {
                // It must not take the place of one that prints.
                self.unwatch(other.as_fd());
            }
        }
        took
    }
}
