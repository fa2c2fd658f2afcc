//! The kernel's log, and PID 1's, which writes into it: /dev/kmsg as a source of lines.
//!
//! PID 1 opens it and keeps it open, so that a restarted `logs` goes on where its predecessor stopped.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use berth_control::logs::{INIT, KERNEL, Line};
use berth_control::message::Stream;
use nix::time::{ClockId, clock_gettime};

/// The longest record in bytes: the kernel's own (kernel/printk, PRINTK_MESSAGE_MAX).
const LONGEST: usize = 2048;

/// What PID 1's lines begin with.
const PREFIX: &str = "berth: ";

/// A step of the machine's clock is taken over; smaller differences come from reading two clocks one after the other.
const STEP_US: u64 = 1_000_000;

/// The kernel's log.
#[derive(Debug)]
pub struct Kernel {
    kmsg: File,
    /// When the kernel began to count, in microseconds since 1970.
    boot_us: u64,
}

impl AsFd for Kernel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kmsg.as_fd()
    }
}

impl Kernel {
    /// Of /dev/kmsg.
    pub fn new(kmsg: File) -> Self {
        Self { kmsg, boot_us: 0 }
    }

    /// Reads one record and appends it to `records`; the name of the log that it belongs to, or `None` if there is no
    /// record now. One at a time, because what was read and not yet kept is lost if this program is killed.
    pub fn read(&mut self, now_us: u64, records: &mut Vec<u8>) -> io::Result<Option<&'static str>> {
        let boot_us = boot_us(now_us)?;
        if self.boot_us.abs_diff(boot_us) > STEP_US {
            self.boot_us = boot_us;
        }
        let mut buffer = [0; LONGEST * 4];
        loop {
            match self.kmsg.read(&mut buffer) {
                Ok(length) => {
                    let record = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
                    let Some((stamp_us, stream, text)) = parse(&record) else { continue };
                    let (log, text) = text.strip_prefix(PREFIX).map_or((KERNEL, text), |text| (INIT, text));
                    let time_us = self.boot_us.saturating_add(stamp_us);
                    Line { time_us, stream, partial: false, text: &unescaped(text) }.write(records);
                    return Ok(Some(log));
                }
                // EPIPE: records were overwritten before they were read; the next read goes on behind them.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::Interrupted) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// When the kernel began to count, as the clocks say now.
fn boot_us(now_us: u64) -> io::Result<u64> {
    let since_boot = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(io::Error::from)?);
    Ok(now_us.saturating_sub(u64::try_from(since_boot.as_micros()).unwrap_or(u64::MAX)))
}

/// The kernel writes bytes that are not printable ASCII, and the backslash, as `\xHH`.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        let code = escape.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        // A line break would begin another record.
        match code.filter(|code| *code != b'\n') {
            Some(code) => {
                bytes.push(code);
                rest = escape.get(2..).unwrap_or_default();
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                rest = escape;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// `priority,number,microseconds,flags[,…];text`, then lines of variables (Documentation/ABI/testing/dev-kmsg). Errors
/// and worse (level 3 and below) go to standard error.
fn parse(record: &str) -> Option<(u64, Stream, &str)> {
    let (prefix, rest) = record.split_once(';')?;
    let mut fields = prefix.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let stamp = fields.nth(1)?.parse().ok()?;
    let stream = if priority & 7 <= 3 { Stream::Stderr } else { Stream::Stdout };
    Some((stamp, stream, rest.lines().next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_its_time_level_and_text() {
        let record = "6,339,5140900,-;NET: Registered PF_VSOCK\n SUBSYSTEM=net\n";
        assert_eq!(parse(record), Some((5_140_900, Stream::Stdout, "NET: Registered PF_VSOCK")));
        assert_eq!(parse("3,1,2,-;bad; worse\n"), Some((2, Stream::Stderr, "bad; worse")));
        assert_eq!(parse("30,1,2,-,caller=T1;berth: ready\n"), Some((2, Stream::Stdout, "berth: ready")));
        for nonsense in ["", ";", "x,1,2,-;y", "6,1"] {
            assert_eq!(parse(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn what_the_kernel_escaped_is_as_it_was_written() {
        assert_eq!(unescaped("3.0\\xc2\\xb5s"), "3.0µs".as_bytes());
        assert_eq!(unescaped("a\\x5cb \\x0a \\xzz \\x"), b"a\\b \\x0a \\xzz \\x");
    }
}
