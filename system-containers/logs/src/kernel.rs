//! The kernel's log, and PID 1's, which writes into it: /dev/kmsg as a source of lines.
//!
//! Reading takes nothing out of it, so each line is kept with its number: a restarted `logs` reads from the beginning
//! and leaves out what it has.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use berth_control::logs::{INIT, KERNEL};
use berth_control::message::Stream;
use nix::time::{ClockId, clock_gettime};

/// The longest record in bytes: the kernel's own (kernel/printk, PRINTK_MESSAGE_MAX).
const LONGEST: usize = 2048;

/// What PID 1's lines begin with.
const PREFIX: &str = "berth: ";

/// A step of the machine's clock is taken over; smaller differences come from reading two clocks one after the other.
const STEP_US: u64 = 1_000_000;

/// Which line of the kernel's it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The first half of the boot's own number (random(4), `boot_id`).
    pub boot: u64,
    /// The line's number in it.
    pub number: u64,
}

impl Origin {
    /// How long it is before the text in a frame.
    pub const LENGTH: usize = 16;

    /// From the bytes of a frame.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (boot, rest) = payload.split_first_chunk()?;
        let (number, _) = rest.split_first_chunk()?;
        Some(Self { boot: u64::from_le_bytes(*boot), number: u64::from_le_bytes(*number) })
    }

    /// The bytes of a frame with this text.
    fn encode(self, text: &[u8]) -> Vec<u8> {
        [&self.boot.to_le_bytes()[..], &self.number.to_le_bytes(), text].concat()
    }
}

/// A line of the kernel's.
#[derive(Debug)]
pub struct Record {
    /// The log that it belongs to.
    pub log: &'static str,
    /// Standard error for errors and worse.
    pub stream: Stream,
    /// When it was printed, in microseconds since 1970.
    pub time_us: u64,
    /// For a frame: its [`Origin`], then its text.
    pub payload: Vec<u8>,
    /// So many lines before it were overwritten before they were read.
    pub lost: u64,
}

/// The kernel's log.
#[derive(Debug)]
pub struct Kernel {
    kmsg: File,
    /// When the kernel began to count, in microseconds since 1970.
    boot_us: u64,
    boot: u64,
    /// The first line that is not kept yet.
    next: u64,
}

impl AsFd for Kernel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kmsg.as_fd()
    }
}

impl Kernel {
    /// Of /dev/kmsg in this boot; what came until one of these is kept already.
    pub fn new(mut kmsg: File, boot: u64, kept: impl IntoIterator<Item = Origin>) -> io::Result<Self> {
        kmsg.seek(SeekFrom::Start(0))?;
        let known = kept.into_iter().filter(|origin| origin.boot == boot).map(|origin| origin.number).max();
        Ok(Self { kmsg, boot_us: 0, boot, next: known.map_or(0, |number| number.saturating_add(1)) })
    }

    /// Reads the next line that is not kept; `None` if there is none now.
    pub fn read(&mut self, now_us: u64) -> io::Result<Option<Record>> {
        let boot_us = boot_us(now_us)?;
        if self.boot_us.abs_diff(boot_us) > STEP_US {
            self.boot_us = boot_us;
        }
        let mut buffer = [0; LONGEST * 4];
        loop {
            match self.kmsg.read(&mut buffer) {
                Ok(length) => {
                    let record = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
                    let Some(Parsed { number, stamp_us, stream, text }) = parse(&record) else { continue };
                    if number < self.next {
                        continue;
                    }
                    let lost = number - self.next;
                    self.next = number.saturating_add(1);
                    let (log, text) = text.strip_prefix(PREFIX).map_or((KERNEL, text), |text| (INIT, text));
                    let time_us = self.boot_us.saturating_add(stamp_us);
                    let payload = Origin { boot: self.boot, number }.encode(&unescaped(text));
                    return Ok(Some(Record { log, stream, time_us, payload, lost }));
                }
                // EPIPE: records were overwritten before they were read; the next read goes on behind them, and its number
                // says how many.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::Interrupted) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The number of this boot; 0 if it cannot be told.
pub fn boot() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
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

#[derive(Debug, PartialEq, Eq)]
struct Parsed<'a> {
    number: u64,
    stamp_us: u64,
    stream: Stream,
    text: &'a str,
}

/// `priority,number,microseconds,flags[,…];text`, then lines of variables (Documentation/ABI/testing/dev-kmsg). Errors
/// and worse (level 3 and below) go to standard error.
fn parse(record: &str) -> Option<Parsed<'_>> {
    let (prefix, rest) = record.split_once(';')?;
    let mut fields = prefix.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let number = fields.next()?.parse().ok()?;
    let stamp_us = fields.next()?.parse().ok()?;
    let stream = if priority & 7 <= 3 { Stream::Stderr } else { Stream::Stdout };
    Some(Parsed { number, stamp_us, stream, text: rest.lines().next().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_record_has_its_number_time_level_and_text() {
        let record = "6,339,5140900,-;NET: Registered PF_VSOCK\n SUBSYSTEM=net\n";
        let parsed = |number, stamp_us, stream, text| Some(Parsed { number, stamp_us, stream, text });
        assert_eq!(parse(record), parsed(339, 5_140_900, Stream::Stdout, "NET: Registered PF_VSOCK"));
        assert_eq!(parse("3,1,2,-;bad; worse\n"), parsed(1, 2, Stream::Stderr, "bad; worse"));
        assert_eq!(parse("30,1,2,-,caller=T1;berth: ready\n"), parsed(1, 2, Stream::Stdout, "berth: ready"));
        for nonsense in ["", ";", "x,1,2,-;y", "6,1"] {
            assert_eq!(parse(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn what_the_kernel_escaped_is_as_it_was_written() {
        assert_eq!(unescaped("3.0\\xc2\\xb5s"), "3.0µs".as_bytes());
        assert_eq!(unescaped("a\\x5cb \\x0a \\xzz \\x"), b"a\\b \\x0a \\xzz \\x");
    }

    /// The first line that is read of a log with only this one.
    fn first(line: &str, boot: u64, kept: &[Origin]) -> Option<u64> {
        let mut kmsg = tempfile::tempfile().unwrap();
        // A file has no record boundaries; its end is no end to the kernel's log, so it is one that would block.
        kmsg.write_all(line.as_bytes()).unwrap();
        let mut kernel = Kernel::new(kmsg, boot, kept.iter().copied()).unwrap();
        if kernel.next > 7 {
            return None;
        }
        let record = kernel.read(1).unwrap().unwrap();
        assert_eq!((record.log, &record.payload[Origin::LENGTH..]), (INIT, &b"ready"[..]));
        Origin::decode(&record.payload).map(|origin| origin.number)
    }

    #[test]
    fn lines_that_were_overwritten_are_counted() {
        let mut kmsg = tempfile::tempfile().unwrap();
        kmsg.write_all(b"6,7,2,-;berth: ready\n").unwrap();
        let mut kernel = Kernel::new(kmsg, 1, [Origin { boot: 1, number: 3 }]).unwrap();
        assert_eq!(kernel.read(1).unwrap().unwrap().lost, 3);
        assert_eq!(kernel.next, 8);
    }

    #[test]
    fn a_line_is_read_again_unless_it_is_kept_of_this_boot() {
        let line = "6,7,2,-;berth: ready\n";
        assert_eq!(first(line, 1, &[]), Some(7));
        assert_eq!(first(line, 1, &[Origin { boot: 1, number: 6 }]), Some(7));
        assert_eq!(first(line, 1, &[Origin { boot: 1, number: 6 }, Origin { boot: 1, number: 7 }]), None);
        assert_eq!(first(line, 1, &[Origin { boot: 2, number: 9 }]), Some(7));
    }
}
