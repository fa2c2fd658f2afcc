//! Where what is in a segment: its blocks, with the times and lines of each, so that a question about a time or about
//! the last lines opens one block and not all.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use berth_control::message::Stream;

use crate::frame::{Frame, Frames, Kind};

/// The most bytes of frames in one block, which is what one decompression gives and one step of the compressor takes:
/// some 0.3 ms.
pub const BLOCK: usize = 128 * 1024;

/// Of each stream, whether a line is in progress.
pub type Open = [bool; 2];

/// A stream's place in [`Open`] and [`Block::lines`].
pub fn place(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// Some whole frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Where it begins among the segment's frames, in bytes.
    pub offset: u64,
    /// How many bytes of frames it has.
    pub length: u64,
    /// Where it is in the file.
    pub stored: u64,
    /// How many bytes it has there.
    pub stored_length: u64,
    /// The earliest time in it, in microseconds since 1970.
    pub earliest_us: u64,
    /// The latest.
    pub latest_us: u64,
    /// How many lines end in it, of each stream.
    pub lines: [u64; 2],
    /// Whether a line is in progress where it begins, of each stream.
    pub open: Open,
}

/// All blocks of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// In their order.
    pub blocks: Vec<Block>,
    /// Whether a line is in progress at the end, of each stream.
    pub open: Open,
}

/// What passes over frames learns of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Lines that ended, of each stream.
    pub lines: [u64; 2],
    /// Whether a line is in progress, of each stream.
    pub open: Open,
}

impl Passed {
    /// Goes past a frame.
    pub fn pass(&mut self, frame: &Frame<'_>) {
        let [stdout, stderr] = self.open.map(u64::from);
        match frame.header.kind {
            Kind::Output(stream) => {
                let Some(last) = frame.payload.last() else { return };
                let count = memchr::memchr_iter(b'\n', frame.payload).count();
                self.end(stream, count as u64, *last != b'\n');
            }
            Kind::Record(stream) => self.end(stream, 1, false),
            Kind::Ended(Stream::Stdout) => self.end(Stream::Stdout, stdout, false),
            Kind::Ended(Stream::Stderr) => self.end(Stream::Stderr, stderr, false),
            Kind::Dropped => {
                self.end(Stream::Stdout, stdout, false);
                // The notice is a line itself.
                self.end(Stream::Stderr, stderr + 1, false);
            }
        }
    }

    fn end(&mut self, stream: Stream, count: u64, goes_on: bool) {
        if let (Some(lines), Some(open)) = (self.lines.get_mut(place(stream)), self.open.get_mut(place(stream))) {
            *lines += count;
            *open = goes_on;
        }
    }
}

impl Table {
    /// Of a segment at whose beginning these lines are in progress.
    pub fn new(open: Open) -> Self {
        Self { blocks: Vec::new(), open }
    }

    /// Of a file with frames, up to `length` bytes.
    pub fn of_frames(file: &File, length: u64, open: Open) -> io::Result<Self> {
        let mut table = Self::new(open);
        let mut buffer = vec![0; BLOCK];
        loop {
            let offset = table.length();
            let block = read_block(file, offset, length, &mut buffer)?;
            if block.is_empty() {
                return Ok(table);
            }
            table.add(block, offset, block.len() as u64);
        }
    }

    /// Adds a block that has these frames and lies at these bytes of the file.
    pub fn add(&mut self, frames: &[u8], stored: u64, stored_length: u64) {
        let mut passed = Passed { lines: [0, 0], open: self.open };
        let (mut earliest_us, mut latest_us) = (u64::MAX, 0);
        for frame in Frames::of(frames) {
            passed.pass(&frame);
            earliest_us = earliest_us.min(frame.header.time_us);
            latest_us = latest_us.max(frame.header.time_us);
        }
        let (offset, length) = (self.length(), frames.len() as u64);
        let lines = passed.lines;
        let open = std::mem::replace(&mut self.open, passed.open);
        self.blocks.push(Block { offset, length, stored, stored_length, earliest_us, latest_us, lines, open });
    }

    /// How many bytes of frames there are.
    pub fn length(&self) -> u64 {
        self.blocks.last().map_or(0, |block| block.offset + block.length)
    }

    /// The block that has the byte at this offset.
    pub fn block_at(&self, offset: u64) -> Option<&Block> {
        let after = self.blocks.partition_point(|block| block.offset <= offset);
        self.blocks.get(after.checked_sub(1)?).filter(|block| offset < block.offset + block.length)
    }
}

/// Reads whole frames from an offset of a file that has frames up to `length`: as many as fit into the buffer. None if
/// the rest is not a whole frame.
pub fn read_block<'a>(file: &File, offset: u64, length: u64, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let wanted = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
    let bytes = buffer.get_mut(..wanted).unwrap_or_default();
    let mut filled = 0;
    while let Some(free) = bytes.get_mut(filled..).filter(|free| !free.is_empty()) {
        match file.read_at(free, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let read = bytes.get(..filled).unwrap_or_default();
    Ok(read.get(..Frames::whole(read)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::LONGEST;
    use crate::frame::tests::frame;
    use std::io::Write;

    const OUT: Kind = Kind::Output(Stream::Stdout);
    const ERR: Kind = Kind::Output(Stream::Stderr);

    #[test]
    fn lines_are_counted_where_they_end() {
        let mut table = Table::new([false, true]);
        let first = [frame(OUT, 5, b"a\nb"), frame(ERR, 6, b"end\n")].concat();
        table.add(&first, 0, 1);
        table.add(&frame(OUT, 4, b"b\n"), 1, 1);
        let [one, two] = table.blocks[..] else { panic!() };
        assert_eq!((one.lines, one.open, one.earliest_us, one.latest_us), ([1, 1], [false, true], 5, 6));
        assert_eq!((two.lines, two.open, two.offset), ([1, 0], [true, false], first.len() as u64));
        assert_eq!(table.open, [false, false]);
    }

    #[test]
    fn the_end_of_a_pipe_and_a_loss_end_lines() {
        let mut passed = Passed { lines: [0, 0], open: [true, true] };
        for (kind, lines, open) in [
            (Kind::Ended(Stream::Stdout), [1, 0], [false, true]),
            (Kind::Ended(Stream::Stdout), [1, 0], [false, true]),
            (Kind::Dropped, [1, 2], [false, false]),
            (Kind::Record(Stream::Stdout), [2, 2], [false, false]),
        ] {
            let bytes = frame(kind, 0, b"");
            passed.pass(&Frames::of(&bytes).next().unwrap());
            assert_eq!((passed.lines, passed.open), (lines, open), "{kind:?}");
        }
    }

    #[test]
    fn a_file_of_frames_is_cut_into_blocks_that_are_found_again() {
        let mut file = tempfile::tempfile().unwrap();
        let big = frame(OUT, 1, &vec![b'x'; LONGEST]);
        for _ in 0..5 {
            file.write_all(&big).unwrap();
        }
        file.write_all(&big[..100]).unwrap();
        let length = big.len() as u64 * 5;
        let table = Table::of_frames(&file, length + 100, [false; 2]).unwrap();
        assert_eq!(table.length(), length);
        assert!(table.blocks.iter().all(|block| block.length == big.len() as u64), "{table:?}");
        assert_eq!(table.block_at(length - 1), table.blocks.last());
        assert_eq!(table.block_at(big.len() as u64).unwrap().offset, big.len() as u64);
        assert_eq!(table.block_at(length), None);
    }
}
