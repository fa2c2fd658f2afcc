//! What a layer's tar stream has beside the content of its files, kept so that the same stream can be made again from the
//! unpacked layer, byte by byte: with it go the diff ID, the image's configuration and so its ID.
//!
//! ```text
//! record := gzip(piece*)
//! piece  := 0 length:u32 bytes                                as they were in the stream
//!         | 1 offset:u64 length:u64 length-of-path:u16 path   a part of a file of the layer; read, but not written
//!         | 2 offset:u64 length:u64 inode:u64                 a part of an inode of the layer's image
//! ```
//!
//! An inode stays in the image whatever becomes of its name: a later entry of the stream may have that, and a link on the way
//! to it may lead elsewhere at the end. Numbers are little-endian. A record is some per cent of its layer at most, mostly far
//! less.

use std::fs::File;
use std::io::{self, BufRead, BufWriter, Read, Write as _};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use crate::tar::{Input, Segment};

/// How much of the stream is gathered into one piece, in bytes.
const PIECE_BYTES: usize = 64 << 10;
/// The longest piece and path that are believed when a record is read.
const LONGEST_PIECE: u32 = 16 << 20;

/// Passes a stream on and writes the record of it.
pub struct Recorder<R> {
    inner: R,
    /// What is recorded comes in small parts, each of which would be a run of the encoder and a write.
    record: BufWriter<GzEncoder<File>>,
    gathered: Vec<u8>,
    /// How much of the stream is content that the layer has.
    content: u64,
    failure: Option<io::Error>,
}

/// A piece of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes as they were.
    Bytes(Vec<u8>),
    /// A part of a file.
    Part {
        /// Which one.
        file: Kept,
        /// Where the part begins and how long it is.
        part: Segment,
    },
}

/// Where a file is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In the inode of this number of the layer's image.
    Inode(u64),
    /// At this path of the layer.
    Path(Vec<u8>),
}

impl<R: BufRead> Recorder<R> {
    /// Writes to this file.
    pub fn new(inner: R, record: File) -> Self {
        let record = BufWriter::with_capacity(PIECE_BYTES, GzEncoder::new(record, Compression::fast()));
        Self { inner, record, gathered: Vec::new(), content: 0, failure: None }
    }

    /// Reads the stream to its end, which must come within `limit` bytes.
    pub fn read_rest(&mut self, limit: u64) -> io::Result<()> {
        let mut read = 0;
        loop {
            let length = self.fill_buf()?.len();
            read += length as u64;
            match length {
                0 => return Ok(()),
                _ if read > limit => return Err(io::Error::other("too much follows the end of the archive")),
                _ => self.consume(length),
            }
        }
    }

    /// The stream; the error is that of the record.
    pub fn finish(mut self) -> io::Result<R> {
        self.gather(&[], true);
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.record.into_inner().map_err(io::IntoInnerError::into_error)?.finish()?;
        Ok(self.inner)
    }

    fn gather(&mut self, bytes: &[u8], end: bool) {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.is_empty() || !(end || self.gathered.len() >= PIECE_BYTES) {
            return;
        }
        let length = u32::try_from(self.gathered.len()).unwrap_or(u32::MAX).to_le_bytes();
        let gathered = std::mem::take(&mut self.gathered);
        self.write(&[&[0], &length, &gathered]);
        self.gathered = gathered;
        self.gathered.clear();
    }

    fn write(&mut self, parts: &[&[u8]]) {
        for part in parts {
            if self.failure.is_none() {
                self.failure = self.record.write_all(part).err();
            }
        }
    }
}

impl<R: BufRead> Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        crate::buffered::read(self, buffer)
    }
}

impl<R: BufRead> BufRead for Recorder<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        let passed = count.min(usize::try_from(self.content).unwrap_or(usize::MAX));
        self.content -= passed as u64;
        if count > passed {
            // The same bytes as before, without reading again; a piece is small, so is the copy.
            let bytes = self.inner.fill_buf().map(|buffer| buffer[passed..count.min(buffer.len())].to_vec());
            self.gather(&bytes.unwrap_or_default(), false);
        }
        self.inner.consume(count);
    }
}

impl<R: BufRead> Input for Recorder<R> {
    fn content(&mut self, length: u64) {
        self.content = length;
    }

    fn kept(&mut self, inode: u64, parts: &[Segment]) {
        for part in parts.iter().filter(|part| part.length > 0) {
            self.gather(&[], true);
            self.write(&[&[2], &part.offset.to_le_bytes(), &part.length.to_le_bytes(), &inode.to_le_bytes()]);
        }
    }
}

/// Reads a record.
pub struct Pieces<R> {
    record: R,
}

impl Pieces<io::BufReader<GzDecoder<io::BufReader<File>>>> {
    /// From its beginning.
    pub fn new(record: File) -> Self {
        Self { record: io::BufReader::new(GzDecoder::new(io::BufReader::new(record))) }
    }
}

impl<R: BufRead> Pieces<R> {
    /// The next piece; none after the last.
    pub fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        if self.record.fill_buf()?.is_empty() {
            return Ok(None);
        }
        match self.number::<1>()?[0] {
            0 => {
                let length = u32::from_le_bytes(self.number()?);
                Ok(Some(Piece::Bytes(self.bytes(length)?)))
            }
            kind @ (1 | 2) => {
                let (offset, length) = (u64::from_le_bytes(self.number()?), u64::from_le_bytes(self.number()?));
                let file = match kind {
                    1 => {
                        let length = u16::from_le_bytes(self.number()?);
                        Kept::Path(self.bytes(length.into())?)
                    }
                    _ => Kept::Inode(u64::from_le_bytes(self.number()?)),
                };
                Ok(Some(Piece::Part { file, part: Segment { offset, length } }))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn number<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.record.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, length: u32) -> io::Result<Vec<u8>> {
        if length > LONGEST_PIECE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.record.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek as _;

    #[test]
    fn a_record_has_everything_but_the_content() {
        let mut file = tempfile::tempfile().unwrap();
        let stream: Vec<u8> = (0..200_u8).collect();
        let mut recorder = Recorder::new(&stream[..], file.try_clone().unwrap());
        recorder.read_exact(&mut [0; 10]).unwrap();
        recorder.content(100);
        recorder.read_exact(&mut [0; 60]).unwrap();
        recorder.read_exact(&mut [0; 40]).unwrap();
        recorder.kept(7, &[(0, 90), (512, 10), (600, 0)].map(|(offset, length)| Segment { offset, length }));
        recorder.read_exact(&mut [0; 20]).unwrap();
        assert!(recorder.read_rest(69).is_err());
        assert!(recorder.finish().is_ok());

        file.rewind().unwrap();
        let mut pieces = Pieces::new(file);
        let part = |offset, length| Piece::Part { file: Kept::Inode(7), part: Segment { offset, length } };
        assert_eq!(pieces.next_piece().unwrap(), Some(Piece::Bytes(stream[..10].to_vec())));
        assert_eq!(pieces.next_piece().unwrap(), Some(part(0, 90)));
        assert_eq!(pieces.next_piece().unwrap(), Some(part(512, 10)));
        assert_eq!(pieces.next_piece().unwrap(), Some(Piece::Bytes(stream[110..130].to_vec())));
        assert_eq!(pieces.next_piece().unwrap(), None);
    }
}
