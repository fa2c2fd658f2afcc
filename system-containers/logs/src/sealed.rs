//! A segment that gets no more: its blocks as zstd frames one behind the other, then its [`Table`].
//!
//! ```text
//! zstd frame │ … │ zstd frame │ skippable frame: blocks, open, then crc32 (u32), length (u32), "berthlog"
//! ```
//!
//! `zstd -dc` gives the frames as they were. The table is found from the end of the file; its checksum says whether
//! the file was written to its end. zstd's own checksums stand for the blocks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use crate::table::{BLOCK, Block, Open, Table, read_block};

/// zstd's fastest: level 3 takes twice the time and gains a tenth.
const LEVEL: i32 = 1;

/// One of zstd's magic numbers of frames that decompressors skip (RFC 8878, 3.1.2).
const SKIPPABLE: u32 = 0x184D_2A5B;

const MAGIC: [u8; 8] = *b"berthlog";

/// What the file ends with: checksum, length and magic.
const TRAILER: usize = 16;

/// The numbers of a block in a table.
const FIELDS: usize = 8;

/// The largest table that is read: a segment of some gigabytes.
const LARGEST_TABLE: usize = 4 * 1024 * 1024;

/// Compresses one segment, a block a step.
pub struct Sealing {
    source: File,
    length: u64,
    target: File,
    table: Table,
    written: u64,
    compressor: Compressor<'static>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There are more blocks.
    More,
    /// The file is whole, with so many bytes.
    Done(u64),
}

impl Sealing {
    /// From a file with frames up to `length`, at whose beginning these lines are in progress.
    pub fn new(source: File, length: u64, open: Open, target: File) -> io::Result<Self> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self { source, length, target, table: Table::new(open), written: 0, compressor })
    }

    /// Compresses a block. What it wrote is taken off again if it fails.
    pub fn step(&mut self, buffer: &mut [u8]) -> io::Result<Step> {
        let buffer = buffer.get_mut(..BLOCK).unwrap_or_default();
        let block = read_block(&self.source, self.table.length(), self.length, buffer)?;
        if block.is_empty() {
            let end = encode(&self.table);
            self.target.write_all_at(&end, self.written)?;
            return Ok(Step::Done(self.written + end.len() as u64));
        }
        let compressed = self.compressor.compress(block)?;
        self.target.write_all_at(&compressed, self.written)?;
        self.table.add(block, self.written, compressed.len() as u64);
        self.written += compressed.len() as u64;
        Ok(Step::More)
    }

    /// The file that was written.
    pub fn into_target(self) -> File {
        self.target
    }
}

/// Reads a segment.
#[derive(Debug)]
pub struct Sealed {
    file: File,
    table: Table,
}

impl Sealed {
    /// Reads the table; an error of kind `InvalidData` if the file is not whole.
    pub fn open(file: File) -> io::Result<Self> {
        let table = read_table(&file)?;
        Ok(Self { file, table })
    }

    /// Where what is.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The frames of a block.
    pub fn block(&self, block: &Block) -> io::Result<Vec<u8>> {
        let stored = usize::try_from(block.stored_length).ok().filter(|length| *length <= 2 * BLOCK);
        let mut compressed = vec![0; stored.ok_or(io::ErrorKind::InvalidData)?];
        self.file.read_exact_at(&mut compressed, block.stored)?;
        Decompressor::new()?.decompress(&compressed, BLOCK)
    }
}

fn encode(table: &Table) -> Vec<u8> {
    let mut payload = Vec::with_capacity(table.blocks.len() * FIELDS * 8 + 32);
    for block in &table.blocks {
        let [stdout, stderr] = block.lines;
        let fields = [
            block.length,
            block.stored,
            block.stored_length,
            block.earliest_us,
            block.latest_us,
            stdout,
            stderr,
            marks(block.open),
        ];
        fields.iter().for_each(|field| payload.extend_from_slice(&field.to_le_bytes()));
    }
    payload.extend_from_slice(&marks(table.open).to_le_bytes());
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(payload.len() + 24);
    bytes.extend_from_slice(&SKIPPABLE.to_le_bytes());
    bytes.extend_from_slice(&length.saturating_add(TRAILER as u32).to_le_bytes());
    bytes.extend_from_slice(&payload);
    bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&MAGIC);
    bytes
}

fn read_table(file: &File) -> io::Result<Table> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let end = file.metadata()?.len();
    let mut trailer = [0; TRAILER];
    file.read_exact_at(&mut trailer, end.checked_sub(TRAILER as u64).ok_or_else(invalid)?)?;
    let [a, b, c, d, e, f, g, h, magic @ ..] = trailer;
    let checksum = u32::from_le_bytes([a, b, c, d]);
    let length = usize::try_from(u32::from_le_bytes([e, f, g, h])).unwrap_or(usize::MAX);
    if magic != MAGIC || length > LARGEST_TABLE {
        return Err(invalid());
    }
    let mut payload = vec![0; length];
    let at = end.checked_sub((TRAILER + length) as u64).ok_or_else(invalid)?;
    file.read_exact_at(&mut payload, at)?;
    if crc32fast::hash(&payload) != checksum {
        return Err(invalid());
    }
    let fields: Vec<u64> = payload.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let (blocks, rest) = fields.as_chunks::<FIELDS>();
    let [open] = rest else { return Err(invalid()) };
    let mut table = Table::new(opened(*open));
    for [length, stored, stored_length, earliest_us, latest_us, stdout, stderr, open] in blocks.iter().copied() {
        let (offset, lines, open) = (table.length(), [stdout, stderr], opened(open));
        table.blocks.push(Block { offset, length, stored, stored_length, earliest_us, latest_us, lines, open });
    }
    Ok(table)
}

fn marks([stdout, stderr]: Open) -> u64 {
    u64::from(stdout) | u64::from(stderr) << 1
}

fn opened(marks: u64) -> Open {
    [marks & 1 != 0, marks & 2 != 0]
}

impl std::fmt::Debug for Sealing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sealing").field("written", &self.written).finish_non_exhaustive()
    }
}

/// A compressed file of these frames.
#[cfg(test)]
pub fn seal(frames: &[u8], open: Open) -> File {
    use std::io::Write;
    let (mut source, target) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    source.write_all(frames).unwrap();
    let mut sealing = Sealing::new(source, frames.len() as u64, open, target).unwrap();
    while sealing.step(&mut vec![0; BLOCK]).unwrap() == Step::More {}
    sealing.into_target()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;
    use crate::frame::tests::frame;
    use berth_control::message::Stream;
    use std::io::Write;

    fn frames() -> Vec<u8> {
        (0..4000).flat_map(|time| frame(Kind::Output(Stream::Stdout), time, b"a line, and half of anoth")).collect()
    }

    #[test]
    fn what_was_sealed_is_read_back() {
        let frames = frames();
        let file = seal(&frames, [false, true]);
        let size = file.metadata().unwrap().len();
        assert!(size * 4 < frames.len() as u64, "{size} of {}", frames.len());
        let sealed = Sealed::open(file).unwrap();
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(&frames).unwrap();
        let expected = Table::of_frames(&source, frames.len() as u64, [false, true]).unwrap();
        assert_eq!(sealed.table().open, expected.open);
        assert_eq!(sealed.table().blocks.len(), expected.blocks.len());
        let read: Vec<u8> = sealed.table().blocks.iter().flat_map(|block| sealed.block(block).unwrap()).collect();
        assert!(read == frames);
    }

    #[test]
    fn any_cut_of_the_file_is_noticed() {
        let file = seal(&frames(), [false, false]);
        let size = file.metadata().unwrap().len();
        for length in (0..size).rev().step_by(7) {
            file.set_len(length).unwrap();
            assert!(Sealed::open(file.try_clone().unwrap()).is_err(), "{length}");
        }
    }

    #[test]
    fn a_flipped_bit_in_table_or_block_is_noticed() {
        let file = seal(&frames(), [false, false]);
        let size = file.metadata().unwrap().len();
        file.write_all_at(&[0xff], size - 40).unwrap();
        assert!(Sealed::open(file).is_err());

        let file = seal(&frames(), [false, false]);
        let sealed = Sealed::open(file.try_clone().unwrap()).unwrap();
        let block = sealed.table().blocks[0];
        let mut byte = [0];
        file.read_exact_at(&mut byte, block.stored_length / 2).unwrap();
        file.write_all_at(&[byte[0] ^ 1], block.stored_length / 2).unwrap();
        assert!(sealed.block(&block).is_err());
    }
}
