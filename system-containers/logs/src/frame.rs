//! The form in which output is kept: a chain of frames, each a header of [`HEADER`] bytes and what came of one pipe at
//! one moment.
//!
//! ```text
//! ┌ B7 4C ┬ kind ┬ 0 ┬ length (u32) ┬ microseconds since 1970 (u64) ┬ length bytes ┐ next frame …
//! ```
//!
//! A header is written before its bytes, because then nothing that was taken from a pipe is ever without one. So only
//! the last frame of a file can be short, if the program was killed between the two. Numbers are little-endian.

use berth_control::message::Stream;

/// How long a header is.
pub const HEADER: usize = 16;

/// The most bytes in one frame: a pipe's usual room.
pub const LONGEST: usize = 64 * 1024;

/// Tells a header from what a power cut may leave: zeros.
const MAGIC: [u8; 2] = [0xB7, b'L'];

/// What is in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes of a container, cut anywhere.
    Output(Stream),
    /// A whole line of the kernel's log: where it comes from ([`crate::kernel::Origin`]), then its text.
    Record(Stream),
    /// The pipe has ended: what is there of a line is a line.
    Ended(Stream),
    /// [`Dropped`] was lost here, behind whatever the frames before have.
    Dropped,
}

const KINDS: [(u8, Kind); 7] = [
    (b'o', Kind::Output(Stream::Stdout)),
    (b'e', Kind::Output(Stream::Stderr)),
    (b'r', Kind::Record(Stream::Stdout)),
    (b'R', Kind::Record(Stream::Stderr)),
    (b'x', Kind::Ended(Stream::Stdout)),
    (b'X', Kind::Ended(Stream::Stderr)),
    (b'd', Kind::Dropped),
];

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// How many bytes of it.
    pub length: usize,
    /// When they were taken, in microseconds since 1970 (UTC).
    pub time_us: u64,
}

impl Header {
    /// As it is written.
    pub fn encode(self) -> [u8; HEADER] {
        let code = KINDS.iter().find(|(_, kind)| *kind == self.kind).map_or(0, |(code, _)| *code);
        let mut bytes = [0; HEADER];
        let length = u32::try_from(self.length).unwrap_or(u32::MAX).to_le_bytes();
        let fields = MAGIC.into_iter().chain([code, 0]).chain(length).chain(self.time_us.to_le_bytes());
        bytes.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
        bytes
    }

    /// From the beginning of `bytes`; `None` if that is no header.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<2>()?;
        let ([code, 0], rest) = rest.split_first_chunk::<2>()? else { return None };
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (time, _) = rest.split_first_chunk::<8>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= LONGEST)?;
        let (_, kind) = KINDS.iter().find(|(known, _)| known == code)?;
        (*magic == MAGIC).then_some(Self { kind: *kind, length, time_us: u64::from_le_bytes(*time) })
    }
}

/// One whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its head.
    pub header: Header,
    /// Its bytes.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// With its header, in bytes.
    pub fn size(&self) -> usize {
        HEADER + self.payload.len()
    }
}

/// The whole frames at the beginning of some bytes.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Of bytes that begin with a header.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many of these bytes are whole frames.
    pub fn whole(bytes: &'a [u8]) -> usize {
        Self::of(bytes).map(|frame| frame.size()).sum()
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let header = Header::decode(self.rest)?;
        let payload = self.rest.get(HEADER..HEADER + header.length)?;
        self.rest = self.rest.get(HEADER + header.length..)?;
        Some(Frame { header, payload })
    }
}

/// What found no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Line breaks in it.
    pub lines: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl Dropped {
    /// As it is written.
    pub fn encode(self) -> Vec<u8> {
        [self.lines.to_le_bytes(), self.bytes.to_le_bytes()].concat()
    }

    /// As it was written; nothing if it was not.
    pub fn decode(payload: &[u8]) -> Self {
        let number = |at: usize| payload.get(at..).and_then(|bytes| bytes.first_chunk()).copied();
        Self { lines: number(0).map_or(0, u64::from_le_bytes), bytes: number(8).map_or(0, u64::from_le_bytes) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A frame's bytes.
    pub fn frame(kind: Kind, time_us: u64, payload: &[u8]) -> Vec<u8> {
        [&Header { kind, length: payload.len(), time_us }.encode()[..], payload].concat()
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for (_, kind) in KINDS {
            let header = Header { kind, length: 4711, time_us: 1_700_000_000_000_001 };
            assert_eq!(Header::decode(&header.encode()), Some(header));
        }
    }

    #[test]
    fn what_is_no_header_is_told_apart() {
        let good = Header { kind: Kind::Dropped, length: LONGEST, time_us: 1 }.encode();
        assert!(Header::decode(&good).is_some());
        for (at, byte) in [(0, 0), (1, 0), (2, b'?'), (3, 1), (4, 1), (7, 1)] {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(Header::decode(&bad), None, "byte {at}");
        }
        assert_eq!(Header::decode(&good[..HEADER - 1]), None);
        assert_eq!(Header::decode(&[0; HEADER]), None);
    }

    #[test]
    fn only_whole_frames_are_found() {
        let first = frame(Kind::Output(Stream::Stdout), 1, b"one");
        let second = frame(Kind::Output(Stream::Stderr), 2, b"two");
        let both = [first.clone(), second].concat();
        assert_eq!(Frames::of(&both).count(), 2);
        for cut in first.len()..both.len() {
            assert_eq!(Frames::whole(&both[..cut]), first.len(), "{cut}");
        }
    }
}
