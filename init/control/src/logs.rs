//! What `control` asks of the `logs` system container, and the form in which a line of output travels and is kept.
//!
//! `control` connects to [`SOCKET_PATH`] (SOCK_SEQPACKET, mode 0600), sends one [`Query`] with the write end of a pipe,
//! and gets one [`Answer`]; the lines then come through the pipe, each in the form of [`Line`], and behind the last one
//! [`crate::ANSWER_END`]. Who follows gets that when the container is removed, or nothing
//! that is wanted comes any more.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::message::Stream;

/// Where `logs` listens.
pub const SOCKET_PATH: &str = "/run/berth/logs.sock";

/// The name of the kernel's log beside those of containers.
pub const KERNEL: &str = "kernel";

/// The name of PID 1's.
pub const INIT: &str = "init";

/// The most readers at once. Each costs `logs` two descriptors and some 200 KiB; `control` alone can ask.
pub const READERS: usize = 128;

/// Which lines are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The container whose output is asked for.
    pub container: String,
    /// Only the last so many lines; all if `None`.
    pub tail: Option<u64>,
    /// Only lines not older than this, in microseconds since 1970 (UTC).
    pub since_us: Option<u64>,
    /// Only lines that began until then, in microseconds since 1970 (UTC).
    pub until_us: Option<u64>,
    /// Only what went to this output.
    pub stream: Option<Stream>,
    /// Go on with new lines until the reader closes the pipe, the container is removed or `until_us` has come.
    pub follow: bool,
    /// The container whose client asks; `None` for the machine's own.
    #[serde(default)]
    pub asked_by: Option<String>,
}

/// What `logs` says to a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The lines come.
    Coming,
    /// They do not, for this reason.
    Refused(String),
}

/// One line of output. Written as `MICROSECONDS o TEXT` or `MICROSECONDS e TEXT`, the time since 1970 (UTC) in
/// decimal; `O` and `E` instead where the line goes on in the next record of the same stream, because it is longer than
/// what one record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When its first byte was read, in microseconds since 1970 (UTC).
    pub time_us: u64,
    /// Which output it came from.
    pub stream: Stream,
    /// Whether it goes on in the next record of this stream.
    pub partial: bool,
    /// Without the line break; any bytes but that.
    pub text: &'a [u8],
}

/// Not in the form of [`Line`]; a file of logs that was cut off can end like that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a line of a log")]
pub struct Malformed;

impl<'a> Line<'a> {
    /// Reads one record, without its line break.
    pub fn parse(record: &'a [u8]) -> Result<Self, Malformed> {
        let mut parts = record.splitn(3, |byte| *byte == b' ');
        let (Some(time), Some(mark), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Malformed);
        };
        let time_us = std::str::from_utf8(time).ok().and_then(|time| time.parse().ok()).ok_or(Malformed)?;
        let (stream, partial) = match mark {
            b"o" => (Stream::Stdout, false),
            b"O" => (Stream::Stdout, true),
            b"e" => (Stream::Stderr, false),
            b"E" => (Stream::Stderr, true),
            _ => return Err(Malformed),
        };
        Ok(Self { time_us, stream, partial, text })
    }

    /// Appends the record, with its line break.
    pub fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.time_us.to_string().as_bytes());
        to.extend_from_slice(match (self.stream, self.partial) {
            (Stream::Stdout, false) => b" o ",
            (Stream::Stdout, true) => b" O ",
            (Stream::Stderr, false) => b" e ",
            (Stream::Stderr, true) => b" E ",
        });
        to.extend_from_slice(self.text);
        to.push(b'\n');
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        for (stream, partial) in [(Stream::Stdout, false), (Stream::Stderr, true)] {
            let line = Line { time_us: 1_700_000_000_000_001, stream, partial, text: b" two  spaces \xff" };
            let mut record = Vec::new();
            line.write(&mut record);
            assert_eq!(record.pop(), Some(b'\n'));
            assert_eq!(Line::parse(&record), Ok(line));
        }
    }

    #[test]
    fn half_a_record_is_malformed() {
        for record in [&b""[..], b"17", b"17 o", b"x o text", b"17 z text", b"-1 o text"] {
            assert_eq!(Line::parse(record), Err(Malformed), "{record:?}");
        }
    }
}
