//! The time that leases run on.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Since power-on, with the time spent asleep (CLOCK_BOOTTIME).
pub fn now() -> Duration {
    // clock_gettime(2) fails only for clocks that do not exist; this one does since Linux 2.6.39.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}
