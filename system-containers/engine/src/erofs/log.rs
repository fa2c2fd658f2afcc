//! A file that grows at its end, through a buffer, and in which what was written can be changed and read.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt as _;

use super::BLOCK;

/// How much is written at once, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// From how many bytes on a piece goes to the file without the buffer.
const DIRECT_BYTES: usize = 64 << 10;

const ZEROS: &[u8; BLOCK] = &[0; BLOCK];

/// From how many bytes on zeros at the end are a hole.
const HOLE_BYTES: u64 = 64 << 10;

pub struct Log {
    file: File,
    /// Where the buffer belongs in the file.
    start: u64,
    buffer: Vec<u8>,
}

impl Log {
    /// At the beginning of an empty file.
    pub fn new(file: File) -> Self {
        Self { file, start: 0, buffer: Vec::with_capacity(BUFFER_BYTES + BLOCK) }
    }

    /// How long it is.
    pub fn end(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    /// Adds to the end. What does not fill a block stays in the buffer.
    pub fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if bytes.len() >= DIRECT_BYTES {
            bytes = self.append_blocks(bytes)?;
        }
        while !bytes.is_empty() {
            if self.buffer.len() >= BUFFER_BYTES {
                self.flush()?;
            }
            let (now, later) =
                bytes.split_at(bytes.len().min((BUFFER_BYTES + BLOCK).saturating_sub(self.buffer.len())));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Writes what is in the buffer and the whole blocks of this. Returns the rest.
    fn append_blocks<'a>(&mut self, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
        let missing = self.end().next_multiple_of(BLOCK as u64) - self.end();
        let (begin, bytes) = bytes.split_at(bytes.len().min(usize::try_from(missing).unwrap_or_default()));
        self.buffer.extend_from_slice(begin);
        let (blocks, rest) = bytes.split_at(bytes.len() / BLOCK * BLOCK);
        let parts = [IoSlice::new(&self.buffer), IoSlice::new(blocks)];
        let written = rustix::io::retry_on_intr(|| rustix::io::pwritev(&self.file, &parts, self.start))?;
        // All of it, but where the disk is full or a limit is reached: the rest is then an error of its own.
        let of_blocks = written.saturating_sub(self.buffer.len());
        let of_buffer = written.min(self.buffer.len());
        self.start += of_buffer as u64;
        self.buffer.drain(..of_buffer);
        self.write_out(self.buffer.len())?;
        self.file.write_all_at(&blocks[of_blocks..], self.start + of_blocks as u64)?;
        self.start += blocks.len() as u64;
        Ok(rest)
    }

    /// Adds zeros to the end.
    pub fn append_zeros(&mut self, count: u64) -> io::Result<()> {
        if count >= HOLE_BYTES {
            self.write_out(self.buffer.len())?;
            self.start += count;
            return Ok(());
        }
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        let mut left = usize::try_from(count).unwrap_or_default();
        // Not `resize`, which goes byte by byte in a build for size.
        while left > 0 {
            let zeros = &ZEROS[..left.min(BLOCK)];
            self.buffer.extend_from_slice(zeros);
            left -= zeros.len();
        }
        Ok(())
    }

    /// Adds zeros until the end is that of a block.
    pub fn align(&mut self) -> io::Result<()> {
        self.append_zeros(self.end().next_multiple_of(BLOCK as u64) - self.end())
    }

    /// Takes back what is over the last whole block, all of which was appended since.
    pub fn take_rest(&mut self, rest: &mut Vec<u8>) {
        let length = usize::try_from(self.end() % BLOCK as u64).unwrap_or_default();
        rest.clear();
        rest.extend_from_slice(&self.buffer[self.buffer.len().saturating_sub(length)..]);
        self.buffer.truncate(self.buffer.len() - rest.len());
    }

    /// Changes what was written.
    pub fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let in_file = self.start.saturating_sub(at).min(bytes.len() as u64);
        let (before, after) = bytes.split_at(usize::try_from(in_file).unwrap_or_default());
        if !before.is_empty() {
            self.file.write_all_at(before, at)?;
        }
        let at = usize::try_from((at + in_file).saturating_sub(self.start)).unwrap_or(usize::MAX);
        match self.buffer.get_mut(at..at.saturating_add(after.len())) {
            Some(place) => place.copy_from_slice(after),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    /// Reads what was written.
    pub fn read_at(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let in_file = usize::try_from(self.start.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
        let (before, after) = bytes.split_at_mut(in_file);
        if !before.is_empty() {
            self.file.read_exact_at(before, at)?;
        }
        let at = usize::try_from((at + in_file as u64).saturating_sub(self.start)).unwrap_or(usize::MAX);
        match self.buffer.get(at..at.saturating_add(after.len())) {
            Some(place) => after.copy_from_slice(place),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    /// Writes all out. The file is then as long as the log.
    pub fn finish(mut self) -> io::Result<File> {
        self.write_out(self.buffer.len())?;
        self.file.set_len(self.start)?;
        Ok(self.file)
    }

    /// Writes whole blocks out.
    fn flush(&mut self) -> io::Result<()> {
        let rest = usize::try_from(self.end() % BLOCK as u64).unwrap_or_default();
        self.write_out(self.buffer.len().saturating_sub(rest))
    }

    fn write_out(&mut self, length: usize) -> io::Result<()> {
        self.file.write_all_at(&self.buffer[..length], self.start)?;
        self.start += length as u64;
        self.buffer.drain(..length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_wherever_it_is() {
        let mut log = Log::new(tempfile::tempfile().unwrap());
        let content: Vec<u8> = (0..3_000_001_u32).map(|number| (number % 251) as u8).collect();
        // Through the buffer and past it, from wherever a block has got to.
        let (mut left, mut lengths) = (&*content, [70_001, 9, 65_536, 300_000, 4096, 30_000].into_iter().cycle());
        while !left.is_empty() {
            let (piece, rest) = left.split_at(left.len().min(lengths.next().unwrap()));
            log.append(piece).unwrap();
            left = rest;
        }
        let mut read = vec![0; content.len()];
        log.read_at(0, &mut read).unwrap();
        assert_eq!(read, content);
        let mut rest = Vec::new();
        log.take_rest(&mut rest);
        assert_eq!(rest, content[content.len() - content.len() % BLOCK..]);
        let end = log.end();
        log.append_zeros(1 << 20).unwrap();
        log.append(b"end").unwrap();
        // From the file into the buffer.
        log.write_at(log.end() - 5, b"ab").unwrap();
        log.write_at(1_000_000, &[7; 3]).unwrap();
        assert!(log.write_at(log.end(), b"x").is_err());
        let length = log.end();
        let file = log.finish().unwrap();
        assert_eq!(file.metadata().unwrap().len(), length);
        let mut read = vec![0; 5];
        file.read_exact_at(&mut read, length - 5).unwrap();
        assert_eq!(read, b"abend");
        file.read_exact_at(&mut read, 999_999).unwrap();
        assert_eq!(read[1..4], [7; 3]);
        file.read_exact_at(&mut read, end).unwrap();
        assert_eq!(read, [0; 5]);
    }
}
