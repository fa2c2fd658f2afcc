//! Whether the layers of an image come faster than they are unpacked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long a reader that had more than it takes counts. The network may have become the slower one since.
const LAPSE: Duration = Duration::from_secs(1);

/// What the downloads of an image know of each other.
///
/// What comes before its turn is written to a file and read again. That gains time if the unpackers wait for the network, and
/// costs time if the network waits for them.
#[derive(Debug)]
pub struct Demand {
    begun: Instant,
    /// Until when it is met, in milliseconds since the beginning.
    met: AtomicU64,
    changed: Notify,
}

impl Default for Demand {
    fn default() -> Self {
        Self { begun: Instant::now(), met: AtomicU64::new(0), changed: Notify::new() }
    }
}

impl Demand {
    /// A reader has more than it takes.
    pub fn meet(&self) {
        self.met.store(milliseconds(self.begun.elapsed() + LAPSE), Ordering::Relaxed);
    }

    /// A reader waits, has begun or has ended.
    pub fn rise(&self) {
        self.met.store(0, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Waits until something has changed, as long as it is met and `held` says so. That it is not met any more only because of
    /// the time is seen with the next call.
    pub async fn wait_while(&self, held: impl Fn() -> bool) {
        loop {
            // From here on no change is missed.
            let changed = self.changed.notified();
            let is_met = milliseconds(self.begun.elapsed()) < self.met.load(Ordering::Relaxed);
            if !(is_met && held()) {
                return;
            }
            changed.await;
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
