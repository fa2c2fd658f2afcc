//! Walks the entries of an archive.

use std::io::{self, BufRead, Read};

use super::TarError;
use super::header::{self, BLOCK, Header};
use super::pax::{Extended, SparseHeader};
use super::sparse::{self, Segment};
use crate::limits;

/// What an archive is read from.
pub trait Input: BufRead {
    /// Passes over bytes; an input that can seek does so, and may then run past its end unnoticed.
    fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        while bytes > 0 {
            let available = self.fill_buf()?.len();
            if available == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let step = available.min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.consume(step);
            bytes -= step as u64;
        }
        Ok(())
    }

    /// So many bytes that are read next are the content of a file, and are kept as such. For an input that remembers what
    /// is not.
    fn content(&mut self, _length: u64) {}

    /// That content is kept: it is these parts, one after the other, of the inode of this number.
    fn kept(&mut self, _inode: u64, _parts: &[Segment]) {}
}

/// A point in time since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file with data.
    File,
    /// Another name of an entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
}

/// An entry without its data.
#[derive(Debug)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its name, as written.
    pub path: Vec<u8>,
    /// A link's target, as written.
    pub link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky: 0 to 0o7777.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was modified.
    pub modified: Timestamp,
    /// A device's major and minor number.
    pub device: (u32, u32),
    /// Extended attributes.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// The file's size in bytes, with its holes.
    pub size: u64,
    /// How many bytes of data are stored.
    pub stored: u64,
    /// Which parts of a sparse file the data is; none for a file without holes.
    pub segments: Option<Vec<Segment>>,
    /// Where the data begins in the archive, in bytes.
    pub offset: u64,
}

/// The names that GNU's long headers and pax gave to the entry that follows them.
#[derive(Default)]
struct Announced {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    extended: Extended,
}

/// Reads one entry after the other.
pub struct Reader<R> {
    input: R,
    position: u64,
    /// Data of the present entry that nobody has read.
    unread: u64,
    padding: u64,
}

impl<R: Input> Reader<R> {
    /// Starts at the first header.
    pub fn new(input: R) -> Self {
        Self { input, position: 0, unread: 0, padding: 0 }
    }

    /// The input, after the last entry.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next entry, or none after the last one. Data of the entry before that was not read is passed over.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut announced = Announced::default();
        for _ in 0..limits::HEADERS_OF_AN_ENTRY {
            self.pass(self.unread + self.padding)?;
            (self.unread, self.padding) = (0, 0);
            let offset = self.position;
            let Some(header) = self.header()? else { return Ok(None) };
            let number = |field, name| -> Result<i64, TarError> {
                header.number(field).ok_or(TarError::Number { field: name, offset })
            };
            let size = u64::try_from(number(header::SIZE, "size")?);
            let size = size.map_err(|_| TarError::Number { field: "size", offset })?;
            match header.kind() {
                b'x' | b'X' => announced.extended = Extended::parse(&self.metadata(size, offset)?, offset)?,
                // Comments of the archive as a whole, as `git archive` writes them.
                b'g' => drop(self.metadata(size, offset)?),
                b'L' => announced.long_name = Some(name_of(self.metadata(size, offset)?)),
                b'K' => announced.long_link = Some(name_of(self.metadata(size, offset)?)),
                _ => return self.entry(&header, announced, size, offset).map(Some),
            }
        }
        Err(TarError::Headers { offset: self.position })
    }

    /// Tells the input that the data of this entry becomes a file.
    pub fn keep_content(&mut self, entry: &Entry) {
        self.input.content(entry.stored);
    }

    /// Tells the input which one it has become, when all of it is read.
    pub fn kept(&mut self, entry: &Entry, inode: u64) {
        let whole = [Segment { offset: 0, length: entry.stored }];
        self.input.kept(inode, entry.segments.as_deref().unwrap_or(&whole));
    }

    /// The data of the present entry.
    pub fn data(&mut self) -> Data<'_, R> {
        Data { reader: self }
    }

    fn entry(
        &mut self,
        header: &Header,
        announced: Announced,
        header_size: u64,
        offset: u64,
    ) -> Result<Entry, TarError> {
        let extended = announced.extended;
        let path = extended.path.or(announced.long_name).unwrap_or_else(|| header.name());
        let kind = kind_of(header, &path, offset)?;
        let owner = |given: Option<u32>, field, name| -> Result<u32, TarError> {
            let from_header = || header.number(field).and_then(|number| u32::try_from(number).ok());
            given.or_else(from_header).ok_or(TarError::Number { field: name, offset })
        };
        let device = |field| header.number(field).and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
        let modified = header.number(header::MTIME).unwrap_or(0);
        let mode = header.number(header::MODE).ok_or(TarError::Number { field: "mode", offset })?;
        let mut entry = Entry {
            kind,
            path,
            link: extended.link.or(announced.long_link).unwrap_or_else(|| header.text(header::LINK).to_vec()),
            mode: (mode & 0o7777) as u32,
            uid: owner(extended.uid, header::UID, "owner")?,
            gid: owner(extended.gid, header::GID, "group")?,
            modified: extended.modified.unwrap_or(Timestamp { seconds: modified, nanoseconds: 0 }),
            device: (device(header::DEVICE_MAJOR), device(header::DEVICE_MINOR)),
            attributes: extended.attributes,
            size: 0,
            stored: 0,
            segments: None,
            offset: self.position,
        };
        let stored = extended.size.unwrap_or(header_size);
        if kind == Kind::File {
            self.file(header, extended.sparse, stored, offset, &mut entry)?;
        } else if is_regular(header) {
            // A directory by its name alone has no data, but what a writer gave it all the same is in the archive.
            (self.unread, self.padding) = (stored, stored.wrapping_neg() % BLOCK as u64);
        }
        Ok(entry)
    }

    /// The size and the map of a file.
    fn file(
        &mut self,
        header: &Header,
        sparse_header: Option<SparseHeader>,
        stored: u64,
        offset: u64,
        entry: &mut Entry,
    ) -> Result<(), TarError> {
        self.padding = stored.wrapping_neg() % BLOCK as u64;
        self.unread = stored;
        entry.size = stored;
        let has_map = |found: &SparseHeader| found.map_in_data || !found.map.is_empty();
        let found = if header.kind() == b'S' {
            let (map, blocks) = sparse::old_format(header, &mut self.input, offset)?;
            self.position += blocks * BLOCK as u64;
            let real = header.number(header::SPARSE_REAL_SIZE).and_then(|number| u64::try_from(number).ok());
            Some((map, real))
        } else if let Some(sparse_header) = sparse_header.filter(has_map) {
            if let Some(name) = sparse_header.name {
                entry.path = name;
            }
            let mut map = sparse_header.map;
            if sparse_header.map_in_data {
                let length;
                (map, length) = sparse::data_format(&mut self.input, stored, offset)?;
                self.position += length;
                self.unread -= length;
            }
            Some((map, sparse_header.real_size))
        } else {
            None
        };
        if let Some((map, real_size)) = found {
            entry.size = real_size.ok_or(TarError::Sparse { offset })?;
            sparse::check(&map, self.unread, entry.size, offset)?;
            entry.segments = Some(map);
        }
        (entry.stored, entry.offset) = (self.unread, self.position);
        Ok(())
    }

    /// The next header; none at the end mark.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        // The mark is two zero blocks; one, or none with the input at its end, is what some writers leave. One with something
        // behind it is no end: who reads on there has another tree than who does not. An input without a byte is an archive
        // without an entry.
        let Some(block) = read_block(&mut self.input)? else { return Ok(None) };
        let offset = self.position;
        self.position += BLOCK as u64;
        let header = Header(block);
        if header.is_zero() {
            let next = read_block(&mut self.input)?;
            self.position += next.map_or(0, |_| BLOCK as u64);
            let is_end = next.is_none_or(|block| Header(block).is_zero());
            return if is_end { Ok(None) } else { Err(TarError::Header { offset }) };
        }
        if header.checksum_matches() { Ok(Some(header)) } else { Err(TarError::Header { offset }) }
    }

    /// The data of a header that describes the next entry.
    fn metadata(&mut self, size: u64, offset: u64) -> Result<Vec<u8>, TarError> {
        if size > limits::EXTENDED_HEADER_BYTES {
            return Err(TarError::ExtendedTooLong { offset, bytes: size });
        }
        self.unread = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        let truncated = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated { place: "an extended header" },
            _ => TarError::Read(error),
        };
        self.data().read_exact(&mut bytes).map_err(truncated)?;
        Ok(bytes)
    }

    fn pass(&mut self, bytes: u64) -> Result<(), TarError> {
        if bytes > 0 {
            self.input.skip(bytes).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => TarError::Truncated { place: "an entry's data" },
                _ => TarError::Read(error),
            })?;
            self.position += bytes;
        }
        Ok(())
    }
}

/// The data of an entry; ends with it.
pub struct Data<'a, R> {
    reader: &'a mut Reader<R>,
}

impl<R: Input> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        crate::buffered::read(self, buffer)
    }
}

impl<R: Input> BufRead for Data<'_, R> {
    /// An input that ends before the entry is an error, so that a short file is never taken for a whole one.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let wanted = usize::try_from(self.reader.unread).unwrap_or(usize::MAX);
        if wanted == 0 {
            return Ok(&[]);
        }
        let available = self.reader.input.fill_buf()?;
        if available.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(&available[..available.len().min(wanted)])
    }

    fn consume(&mut self, count: usize) {
        self.reader.input.consume(count);
        self.reader.unread -= count as u64;
        self.reader.position += count as u64;
    }
}

fn is_regular(header: &Header) -> bool {
    matches!(header.kind(), b'0' | 0)
}

/// `path` is the whole one: where another header has it, the one in this header may be cut off behind a slash.
fn kind_of(header: &Header, path: &[u8], offset: u64) -> Result<Kind, TarError> {
    Ok(match header.kind() {
        // Before POSIX a directory was a file whose name ends in a slash.
        b'0' | 0 if path.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharacterDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        kind => return Err(TarError::Kind { offset, kind: char::from(kind) }),
    })
}

/// GNU's long names end with a NUL.
fn name_of(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// A whole block; none if the input ends before its first byte.
pub fn read_block<R: BufRead>(input: &mut R) -> Result<Option<[u8; BLOCK]>, TarError> {
    let mut block = [0; BLOCK];
    let mut filled = 0;
    while filled < BLOCK {
        match input.read(&mut block[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(TarError::Truncated { place: "a header" }),
            Ok(count) => filled += count,
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::UnexpectedEof => return Err(TarError::Truncated { place: "a header" }),
                _ => return Err(error.into()),
            },
        }
    }
    Ok(Some(block))
}

#[cfg(test)]
mod tests;
