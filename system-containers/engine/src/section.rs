//! A run of bytes of a file, read through a buffer without moving the file's own offset.
//!
//! Several readers can work on one descriptor, and passing over bytes costs nothing.

use std::borrow::Borrow;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;

use crate::tar::Input;

/// What is read at once. Large enough that a FAT partition on a slow stick is read at its full speed.
const BUFFER_BYTES: usize = 128 << 10;

/// From how many bytes on what is wanted does not go through the buffer.
const DIRECT_BYTES: usize = 64 << 10;

/// Reads `length` bytes from `offset` on.
pub struct Section<F> {
    file: F,
    position: u64,
    remaining: u64,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<F: Borrow<File>> Section<F> {
    /// A part of the file; a part that the file does not have reads as an unexpected end.
    pub fn new(file: F, offset: u64, length: u64) -> Self {
        Self { file, position: offset, remaining: length, buffer: Vec::new(), start: 0, end: 0 }
    }

    /// The file from its beginning to its present end.
    pub fn whole(file: F) -> io::Result<Self> {
        let length = file.borrow().metadata()?.len();
        Ok(Self::new(file, 0, length))
    }

    /// How many bytes are left, those in the buffer included.
    pub fn remaining(&self) -> u64 {
        self.remaining + (self.end - self.start) as u64
    }

    /// Reads from the file; an error if it has nothing there.
    fn read_file(file: &F, target: &mut [u8], position: u64) -> io::Result<usize> {
        loop {
            match file.borrow().read_at(target, position) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

impl<F: Borrow<File>> Read for Section<F> {
    /// Past the buffer, if it is empty and much is wanted.
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if self.start < self.end || target.len() < DIRECT_BYTES || self.remaining == 0 {
            return crate::buffered::read(self, target);
        }
        let wanted = target.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        let count = Self::read_file(&self.file, &mut target[..wanted], self.position)?;
        self.position += count as u64;
        self.remaining -= count as u64;
        Ok(count)
    }
}

impl<F: Borrow<File>> BufRead for Section<F> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end && self.remaining > 0 {
            self.buffer.resize(BUFFER_BYTES, 0);
            let wanted = BUFFER_BYTES.min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
            let count = Self::read_file(&self.file, &mut self.buffer[..wanted], self.position)?;
            (self.start, self.end) = (0, count);
            self.position += count as u64;
            self.remaining -= count as u64;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }
}

impl<F: Borrow<File>> Input for Section<F> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let buffered = (self.end - self.start) as u64;
        if bytes <= buffered {
            self.consume(usize::try_from(bytes).unwrap_or(usize::MAX));
            return Ok(());
        }
        let beyond = bytes - buffered;
        if beyond > self.remaining {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.start = self.end;
        self.position += beyond;
        self.remaining -= beyond;
        Ok(())
    }
}

impl Input for io::Cursor<Vec<u8>> {}
impl Input for &[u8] {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_section_ends_where_it_was_told_to() {
        let file = file(b"0123456789");
        let mut text = String::new();
        Section::new(&file, 2, 5).read_to_string(&mut text).unwrap();
        assert_eq!(text, "23456");
    }

    #[test]
    fn what_goes_past_the_buffer_is_in_order() {
        let content: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
        let file = file(&content);
        let mut section = Section::new(&file, 10, 999_980);
        let mut read = Vec::new();
        for length in [3, DIRECT_BYTES, 2 * BUFFER_BYTES, 1, BUFFER_BYTES - 1, BUFFER_BYTES].into_iter().cycle() {
            let mut piece = vec![0; length];
            match section.read(&mut piece).unwrap() {
                0 => break,
                count => read.extend_from_slice(&piece[..count]),
            }
        }
        assert_eq!(read, content[10..999_990]);
        let error = Section::new(&file, 999_999, 10).read(&mut vec![0; DIRECT_BYTES]);
        assert_eq!(error.unwrap(), 1);
    }

    #[test]
    fn a_section_beyond_the_file_is_an_error_and_not_an_end() {
        let file = file(b"0123456789");
        let error = Section::new(&file, 5, 10).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn skipping_does_not_leave_the_section() {
        let file = file(&[7; 300_000]);
        let mut section = Section::new(&file, 0, 300_000);
        section.read_exact(&mut [0; 3]).unwrap();
        section.skip(200_000).unwrap();
        assert_eq!(section.remaining(), 99_997);
        assert!(section.skip(99_998).is_err());
    }
}
