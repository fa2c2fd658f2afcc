//! The one clock of PID 1: CLOCK_BOOTTIME, which no one can set and which counts from the kernel's start.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// Times of day that a machine with this program can have, in seconds since 1970: from 2025 to 2055.
const PLAUSIBLE: std::ops::Range<u64> = 1_735_689_600..2_713_910_400;

/// What is wrong with the time of day, if anything is. Nothing here depends on it, but certificates and logs do.
pub fn problem() -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    implausible(now)
}

fn implausible(now: u64) -> Option<String> {
    let year = 1970 + now / 31_556_952; // the Gregorian calendar's mean year
    (!PLAUSIBLE.contains(&now)).then(|| {
        format!("the clock is wrong, it says {year}: set the machine's clock, `date -s` on the console does it until power-off")
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_that_cannot_be_is_told() {
        assert!(super::implausible(60).is_some_and(|problem| problem.contains("1970")));
        assert!(super::implausible(4_102_531_200).is_some_and(|problem| problem.contains("2100")));
        assert_eq!(super::implausible(1_795_000_000), None);
    }

    #[test]
    fn the_clock_moves_forwards_only() {
        let before = super::microseconds();
        assert!(before > 0);
        assert!(super::microseconds() >= before);
    }
}
