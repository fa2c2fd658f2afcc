//! From frames to the records of lines that a reader gets.

use berth_control::logs::Line;
use berth_control::message::Stream;

use crate::frame::{Dropped, Frame, Kind};
use crate::kernel::Origin;
use crate::table::{Open, place};

/// The most that is told of a line in one record, in bytes; docker's number, so that what reads docker's logs fits. A
/// longer line becomes several records.
pub const LONGEST: usize = 16 * 1024;

/// Which lines are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only those of this stream.
    pub stream: Option<Stream>,
    /// Only those that began until then, in microseconds since 1970.
    pub until_us: Option<u64>,
    /// Leave out so many.
    pub skip: u64,
}

/// What is there of a line.
#[derive(Debug, Default)]
struct Unfinished {
    text: Vec<u8>,
    began_us: u64,
    /// Some of it was told already, or left out because it began before the first frame.
    started: bool,
}

/// Puts lines together. Memory does not grow with what comes: at most [`LONGEST`] of each stream waits.
#[derive(Debug)]
pub struct Lines {
    wanted: Wanted,
    unfinished: [Unfinished; 2],
    /// The rest of a line that began before the first frame is not wanted.
    left_out: Open,
    /// What the last record began with, and what that was made of.
    prefix: (u64, Stream, bool, Vec<u8>),
}

impl Lines {
    /// Of frames at whose beginning these lines are in progress.
    pub fn new(wanted: Wanted, left_out: Open) -> Self {
        let prefix = (0, Stream::Stdout, false, Vec::new());
        Self { wanted, unfinished: Default::default(), left_out, prefix }
    }

    /// Whether a line is in progress that is wanted.
    pub fn is_unfinished(&self) -> bool {
        self.unfinished.iter().any(|line| line.started || !line.text.is_empty())
    }

    /// Appends records from a place in a frame's bytes on, until there are `limit` bytes of them. Where it stopped;
    /// `None` at the frame's end.
    pub fn push(&mut self, frame: &Frame<'_>, from: usize, limit: usize, records: &mut Vec<u8>) -> Option<usize> {
        let time_us = frame.header.time_us;
        match frame.header.kind {
            Kind::Output(stream) if self.is_wanted(stream) => {
                return self.output(stream, time_us, frame.payload, from, limit, records);
            }
            Kind::Output(_) => {}
            Kind::Record(stream) => {
                self.write(stream, time_us, false, frame.payload.get(Origin::LENGTH..).unwrap_or_default(), records);
            }
            Kind::Ended(stream) => self.finish(stream, records),
            Kind::Dropped => {
                self.finish_all(records);
                let Dropped { lines, bytes } = Dropped::decode(frame.payload);
                let text = match bytes {
                    // Nobody has seen them: see `kernel`.
                    0 => format!("berth: {lines} lines were dropped here, they were overwritten before they were read"),
                    _ => format!("berth: {lines} lines were dropped here ({bytes} bytes), the disk had no room"),
                };
                self.write(Stream::Stderr, time_us, false, text.as_bytes(), records);
            }
        }
        None
    }

    /// Something is missing here.
    pub fn gap(&mut self, time_us: u64, records: &mut Vec<u8>) {
        self.finish_all(records);
        self.write(
            Stream::Stderr,
            time_us,
            false,
            b"berth: lines are missing here, the log had to be shortened",
            records,
        );
    }

    /// There is no more: what is left of lines are lines too.
    pub fn finish_all(&mut self, records: &mut Vec<u8>) {
        self.finish(Stream::Stdout, records);
        self.finish(Stream::Stderr, records);
    }

    fn is_wanted(&self, stream: Stream) -> bool {
        self.wanted.stream.is_none_or(|wanted| wanted == stream)
    }

    fn output(
        &mut self,
        stream: Stream,
        time_us: u64,
        payload: &[u8],
        from: usize,
        limit: usize,
        records: &mut Vec<u8>,
    ) -> Option<usize> {
        let mut at = from;
        while let Some(bytes) = payload.get(at..).filter(|bytes| !bytes.is_empty()) {
            if records.len() >= limit {
                return Some(at);
            }
            let place = place(stream);
            if self.left_out.get(place).is_some_and(|left_out| *left_out) {
                let end = memchr::memchr(b'\n', bytes);
                at += end.map_or(bytes.len(), |end| end + 1);
                self.left_out = set(self.left_out, place, end.is_none());
                continue;
            }
            at += self.piece(stream, time_us, bytes, records);
        }
        None
    }

    /// Takes one line, or what is there of it. How many bytes that were.
    fn piece(&mut self, stream: Stream, time_us: u64, bytes: &[u8], records: &mut Vec<u8>) -> usize {
        let Some(unfinished) = self.unfinished.get_mut(place(stream)) else { return bytes.len() };
        let room = LONGEST - unfinished.text.len();
        let window = bytes.get(..room).unwrap_or(bytes);
        let (taken, used, partial) = match memchr::memchr(b'\n', window) {
            Some(end) => (window.get(..end).unwrap_or_default(), end + 1, false),
            None if window.len() == room => (window, room, true),
            None => {
                if unfinished.text.is_empty() && !unfinished.started {
                    unfinished.began_us = time_us;
                }
                unfinished.text.extend_from_slice(window);
                return window.len();
            }
        };
        // The common case: the whole line at once, without a copy.
        if unfinished.text.is_empty() && !unfinished.started && !partial {
            self.write(stream, time_us, false, taken, records);
            return used;
        }
        let began_us = if unfinished.text.is_empty() && !unfinished.started { time_us } else { unfinished.began_us };
        let mut text = std::mem::take(&mut unfinished.text);
        text.extend_from_slice(taken);
        unfinished.started = partial;
        unfinished.began_us = began_us;
        self.write(stream, began_us, partial, &text, records);
        used
    }

    /// What is there of a line is a line.
    fn finish(&mut self, stream: Stream, records: &mut Vec<u8>) {
        self.left_out = set(self.left_out, place(stream), false);
        let Some(unfinished) = self.unfinished.get_mut(place(stream)).map(std::mem::take) else { return };
        if unfinished.started || !unfinished.text.is_empty() {
            self.write(stream, unfinished.began_us, false, &unfinished.text, records);
        }
    }

    fn write(&mut self, stream: Stream, time_us: u64, partial: bool, text: &[u8], records: &mut Vec<u8>) {
        if !self.is_wanted(stream) || self.wanted.until_us.is_some_and(|until| time_us > until) {
            return;
        }
        if self.wanted.skip > 0 {
            // Its pieces are not lines of their own.
            self.wanted.skip -= u64::from(!partial);
            return;
        }
        let (last_us, last_stream, last_partial, prefix) = &mut self.prefix;
        if prefix.is_empty() || (*last_us, *last_stream, *last_partial) != (time_us, stream, partial) {
            (*last_us, *last_stream, *last_partial) = (time_us, stream, partial);
            prefix.clear();
            Line { time_us, stream, partial, text: b"" }.write(prefix);
            prefix.pop();
        }
        records.extend_from_slice(prefix);
        records.extend_from_slice(text);
        records.push(b'\n');
    }
}

fn set(mut open: Open, place: usize, value: bool) -> Open {
    if let Some(open) = open.get_mut(place) {
        *open = value;
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frames;
    use crate::frame::tests::frame;

    const OUT: Kind = Kind::Output(Stream::Stdout);
    const ERR: Kind = Kind::Output(Stream::Stderr);

    fn told(lines: &mut Lines, frames: &[(Kind, &str)], limit: usize) -> String {
        let mut all = Vec::new();
        for (time, (kind, text)) in frames.iter().enumerate() {
            let bytes = frame(*kind, time as u64, text.as_bytes());
            let frame = Frames::of(&bytes).next().unwrap();
            let mut from = Some(0);
            while let Some(at) = from {
                let mut records = Vec::new();
                from = lines.push(&frame, at, limit, &mut records);
                all.extend(records);
            }
        }
        lines.finish_all(&mut all);
        String::from_utf8(all).unwrap()
    }

    fn records(frames: &[(Kind, &str)]) -> String {
        let [whole, cut] =
            [usize::MAX, 1].map(|limit| told(&mut Lines::new(Wanted::default(), [false; 2]), frames, limit));
        assert_eq!(whole, cut);
        whole
    }

    #[test]
    fn a_line_is_a_record_however_it_was_cut() {
        assert_eq!(records(&[(OUT, "a\nb\n")]), "0 o a\n0 o b\n");
        assert_eq!(records(&[(OUT, "a"), (OUT, "b"), (OUT, "\n")]), "0 o ab\n");
        assert_eq!(records(&[(OUT, "a\nb"), (OUT, "c\n")]), "0 o a\n0 o bc\n");
        assert_eq!(records(&[(OUT, "\n\n")]), "0 o \n0 o \n");
        assert_eq!(records(&[(OUT, "a")]), "0 o a\n", "a line without an end");
    }

    #[test]
    fn streams_do_not_mix_in_a_line() {
        assert_eq!(records(&[(OUT, "a"), (ERR, "x\n"), (OUT, "b\n")]), "1 e x\n0 o ab\n");
    }

    #[test]
    fn a_pipe_that_ended_ends_its_line() {
        assert_eq!(records(&[(OUT, "a"), (Kind::Ended(Stream::Stdout), ""), (OUT, "b\n")]), "0 o a\n2 o b\n");
    }

    #[test]
    fn a_long_line_goes_on_in_the_next_record() {
        let long = "x".repeat(LONGEST + 1);
        let text = records(&[(OUT, &long[..10]), (OUT, &long[10..]), (OUT, "\n")]);
        let (first, second) = text.split_once('\n').unwrap();
        assert_eq!(first, format!("0 O {}", "x".repeat(LONGEST)));
        assert_eq!(second, "0 o x\n");
    }

    #[test]
    fn a_line_of_less_than_the_longest_is_whole() {
        let text = records(&[(OUT, &format!("{}\nb\n", "x".repeat(LONGEST - 1)))]);
        assert!(text.starts_with("0 o x") && text.ends_with("\n0 o b\n"), "{}", text.len());
    }

    #[test]
    fn what_was_dropped_is_told_between_whole_lines() {
        let dropped = String::from_utf8(Dropped { lines: 3, bytes: 40 }.encode()).unwrap();
        let text = records(&[(OUT, "ha"), (Kind::Dropped, &dropped), (OUT, "lf\n")]);
        assert_eq!(text, "0 o ha\n1 e berth: 3 lines were dropped here (40 bytes), the disk had no room\n2 o lf\n");
        let dropped = String::from_utf8(Dropped { lines: 3, bytes: 0 }.encode()).unwrap();
        let text = records(&[(Kind::Dropped, &dropped)]);
        assert_eq!(text, "0 e berth: 3 lines were dropped here, they were overwritten before they were read\n");
    }

    #[test]
    fn only_wanted_lines_are_told() {
        let frames = [(OUT, "rest\na\nb"), (ERR, "x\n"), (OUT, "c\nd\n")];
        let told = |wanted, left_out| told(&mut Lines::new(wanted, left_out), &frames, usize::MAX);
        let out = Wanted { stream: Some(Stream::Stdout), ..Wanted::default() };
        assert_eq!(told(out, [false; 2]), "0 o rest\n0 o a\n0 o bc\n2 o d\n");
        assert_eq!(told(out, [true, false]), "0 o a\n0 o bc\n2 o d\n");
        assert_eq!(told(Wanted { skip: 2, ..out }, [true, false]), "2 o d\n");
        let early = Wanted { until_us: Some(1), ..Wanted::default() };
        assert_eq!(told(early, [true, false]), "0 o a\n1 e x\n0 o bc\n", "a line that began in time is whole");
    }
}
