//! adjtimex(2), which sets the wall clock and steers it.

use nix::errno::Errno;
use nix::libc::{self, timex};

const MICROSECONDS: i64 = 1_000_000;

/// Sets the clock forward by so many microseconds, or back.
pub fn step(behind: i64) -> nix::Result<()> {
    let time = libc::timeval { tv_sec: behind.div_euclid(MICROSECONDS), tv_usec: behind.rem_euclid(MICROSECONDS) };
    adjust(libc::ADJ_SETOFFSET, |request| request.time = time)
}

/// Lets the clock run faster or slower until so many microseconds, at most half a second, are made up for, and learns from
/// them how fast it should run. `interval` is the time to the next call, in seconds.
pub fn steer(behind: i64, interval: u64) -> nix::Result<()> {
    // The loop's time constant is the interval's logarithm, less by 4 than in RFC 5905 (SHIFT_PLL of linux/timex.h).
    let constant = i64::from(interval.max(1).ilog2()).clamp(4, 14) - 4;
    adjust(libc::ADJ_OFFSET | libc::ADJ_TIMECONST, |request| {
        (request.offset, request.constant) = (behind, constant);
    })
}

/// With no error left, so that the kernel takes the clock for set and keeps the hardware's at its time.
fn adjust(modes: libc::c_uint, fill: impl FnOnce(&mut timex)) -> nix::Result<()> {
    // SAFETY: `timex` is a struct of integers, for which all zeroes are a value.
    let mut request: timex = unsafe { std::mem::zeroed() };
    request.modes = modes | libc::ADJ_MICRO | libc::ADJ_STATUS | libc::ADJ_MAXERROR;
    request.status = libc::STA_PLL;
    fill(&mut request);
    // SAFETY: adjtimex(2) reads and writes one struct timex, which is live and ours alone.
    Errno::result(unsafe { libc::adjtimex(&raw mut request) }).map(drop)
}
