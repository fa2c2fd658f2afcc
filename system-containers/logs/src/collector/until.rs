//! Readers that follow a log until a moment that is still to come.

use std::time::Duration;

use nix::sys::epoll::EpollFlags;

use super::{Collector, Source};

impl Collector {
    /// How long it is until the first of them has everything.
    pub(super) fn readers_end_in(&self, now_us: u64) -> Option<Duration> {
        let readers = self.followers.iter().filter_map(|number| match self.sources.get(number) {
            Some(Source::Follower(follower)) => follower.until_us(),
            _ => None,
        });
        readers.min().map(|until_us| Duration::from_micros(until_us.saturating_sub(now_us)))
    }

    /// Gives those whose moment has come their ends.
    pub(super) fn end_those_due(&mut self, now_us: u64) {
        let is_due = |number: &u64| {
            let Some(Source::Follower(follower)) = self.sources.get(number) else { return false };
            follower.until_us().is_some_and(|until_us| until_us < now_us)
        };
        let due: Vec<u64> = self.followers.iter().copied().filter(is_due).collect();
        for number in due {
            let Some(Source::Follower(follower)) = self.sources.get_mut(&number) else { continue };
            let end = self.store.log(&follower.container).end();
            follower.stop_at(end);
            self.advance(number, EpollFlags::empty());
        }
    }
}
