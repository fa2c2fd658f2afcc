//! The end of a log: its container was removed.

use super::{Collector, Source};
use crate::follower::Follower;

impl Collector {
    /// Ends the log of a container that is gone for those who follow it: what comes under that name later is of another one.
    pub(super) fn end_log(&mut self, container: &str) {
        self.release(container);
        let end = self.store.log(container).end();
        self.for_readers_of(container, |follower| follower.stop_at(end));
        self.pass_on(container);
    }

    /// Removes the log of a container that is gone. Who reads it gets what its pipe takes at once, and the end.
    pub(super) fn forget(&mut self, container: &str) {
        self.end_log(container);
        self.for_readers_of(container, Follower::bereave);
        self.store.forget(container);
    }

    fn for_readers_of(&mut self, container: &str, change: impl Fn(&mut Follower)) {
        for source in self.sources.values_mut() {
            if let Source::Follower(follower) = source
                && follower.container == container
            {
                change(follower);
            }
        }
    }
}
