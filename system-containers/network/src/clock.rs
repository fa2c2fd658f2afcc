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

/// Times of day that a machine with this program can have, in seconds since 1970: from 2025 to 2055, as PID 1 has it too.
const PLAUSIBLE: std::ops::Range<u64> = 1_735_689_600..2_713_910_400;

/// Whether a machine's clock may be right. Before it is set, that of a machine without a battery begins anew with each boot,
/// and what was written down then seems to be of now.
pub fn is_plausible(wall: u64) -> bool {
    PLAUSIBLE.contains(&wall)
}
