//! The end of a log: its container was removed.

use super::{Collector, Source};
use crate::follower::Follower;

impl Collector {
    /// Removes the log of a container that is gone. Who reads it gets what its pipe takes at once, and the end: what comes
    /// under that name later is of another container.
    pub(super) fn forget(&mut self, container: &str) {
        self.release(container);
        let end = self.store.log(container).end();
        self.for_readers_of(container, |follower| follower.stop_at(end));
        self.pass_on(container);
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
