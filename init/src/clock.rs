//! The one clock of PID 1: CLOCK_BOOTTIME, which no one can set and which counts from the kernel's start.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since the kernel started, suspend included. Zero if the kernel does not tell, which it always does.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// [`since_boot`] in whole microseconds, as the messages carry it.
pub fn microseconds() -> u64 {
    in_microseconds(since_boot())
}

/// A time on this clock in whole microseconds.
pub fn in_microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clock_moves_forwards_only() {
        let before = super::microseconds();
        assert!(before > 0);
        assert!(super::microseconds() >= before);
    }
}
