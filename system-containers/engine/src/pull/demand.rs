//! Whether the layers of an image come faster than they are unpacked.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// What the downloads of an image know of each other.
///
/// What comes before its turn is written to a file and read again. That gains time if the unpackers wait for the network, and
/// costs time if the network waits for them.
#[derive(Debug, Default)]
pub struct Demand {
    met: AtomicBool,
    changed: Notify,
}

impl Demand {
    /// A reader has more than it takes.
    pub fn meet(&self) {
        self.met.store(true, Ordering::Relaxed);
    }

    /// A reader waits, has begun or has ended.
    pub fn rise(&self) {
        self.met.store(false, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Waits until something has changed, as long as it is met and `held` says so.
    pub async fn wait_while(&self, held: impl Fn() -> bool) {
        loop {
            // From here on no change is missed.
            let changed = self.changed.notified();
            if !(self.met.load(Ordering::Relaxed) && held()) {
                return;
            }
            changed.await;
        }
    }
}
