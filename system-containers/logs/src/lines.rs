//! From the bytes of a pipe to records.

use berth_control::logs::Line;
use berth_control::message::Stream;

/// The most that is kept of a line in one record, in bytes; docker's number, so that what reads docker's logs fits. A
/// longer line becomes several records.
pub const LONGEST: usize = 16 * 1024;

/// Puts together what came of one pipe.
#[derive(Debug)]
pub struct Lines {
    stream: Stream,
    unfinished: Vec<u8>,
    began_us: u64,
}

impl Lines {
    /// Of a pipe that nothing was read from.
    pub fn new(stream: Stream) -> Self {
        Self { stream, unfinished: Vec::new(), began_us: 0 }
    }

    /// Appends the records that these bytes complete; what is left waits for the end of its line.
    pub fn push(&mut self, mut bytes: &[u8], now_us: u64, records: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.unfinished.is_empty() {
                self.began_us = now_us;
            }
            let room = LONGEST - self.unfinished.len();
            let window = bytes.get(..room.min(bytes.len())).unwrap_or(bytes);
            let (taken, rest, end) = match window.iter().position(|byte| *byte == b'\n') {
                Some(at) => (&window[..at], &bytes[at + 1..], Some(false)),
                None if window.len() == room => (window, &bytes[room..], Some(true)),
                None => (window, &bytes[window.len()..], None),
            };
            bytes = rest;
            match end {
                // The common case: the whole line at once, without a copy.
                Some(partial) if self.unfinished.is_empty() => self.write(taken, partial, records),
                Some(partial) => {
                    self.unfinished.extend_from_slice(taken);
                    let text = std::mem::take(&mut self.unfinished);
                    self.write(&text, partial, records);
                }
                None => self.unfinished.extend_from_slice(taken),
            }
        }
    }

    /// The pipe has ended: what is left is a line too.
    pub fn finish(&mut self, records: &mut Vec<u8>) {
        if !self.unfinished.is_empty() {
            let text = std::mem::take(&mut self.unfinished);
            self.write(&text, false, records);
        }
    }

    fn write(&self, text: &[u8], partial: bool, records: &mut Vec<u8>) {
        Line { time_us: self.began_us, stream: self.stream, partial, text }.write(records);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(pieces: &[&str]) -> String {
        let mut lines = Lines::new(Stream::Stdout);
        let mut records = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            lines.push(piece.as_bytes(), number as u64, &mut records);
        }
        lines.finish(&mut records);
        String::from_utf8(records).unwrap()
    }

    #[test]
    fn a_line_is_a_record_however_it_was_cut() {
        assert_eq!(records(&["a\nb\n"]), "0 o a\n0 o b\n");
        assert_eq!(records(&["a", "b", "\n"]), "0 o ab\n");
        assert_eq!(records(&["a\nb", "c\n"]), "0 o a\n0 o bc\n");
    }

    #[test]
    fn an_empty_line_is_kept() {
        assert_eq!(records(&["\n\n"]), "0 o \n0 o \n");
    }

    #[test]
    fn a_line_without_end_is_kept_when_the_pipe_ends() {
        assert_eq!(records(&["a"]), "0 o a\n");
    }

    #[test]
    fn a_long_line_goes_on_in_the_next_record() {
        let long = "x".repeat(LONGEST + 1);
        let text = records(&[&long[..10], &long[10..], "\n"]);
        let (first, second) = text.split_once('\n').unwrap();
        assert_eq!(first, format!("0 O {}", "x".repeat(LONGEST)));
        assert_eq!(second, "1 o x\n");
    }

    #[test]
    fn a_line_of_exactly_the_longest_is_whole() {
        let text = records(&[&format!("{}\nb\n", "x".repeat(LONGEST - 1))]);
        assert!(text.starts_with("0 o x") && text.ends_with("\n0 o b\n"), "{}", text.len());
    }
}
