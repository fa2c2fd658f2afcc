//! The time that leases run on, and the one that is there after a reboot too.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Since power-on, with the time spent asleep (CLOCK_BOOTTIME).
pub fn now() -> Duration {
    // clock_gettime(2) fails only for clocks that do not exist; this one does since Linux 2.6.39.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// In seconds since 1970, as far as the machine knows.
pub fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
