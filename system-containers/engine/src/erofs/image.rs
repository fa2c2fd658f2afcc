//! Reads an image. Whatever its bytes are, nothing is read beyond it, and nothing is allocated that is larger than what
//! it says can be read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::BLOCK;
use super::attributes::{self, Attributes};
use super::directory::{self, Entry};
use super::format::{INODE_BYTES, Inode, Kind, Layout, ROOT_AT, SLOT, Superblock};
use super::sparse::HOLE;
use super::writer::Place;

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file cannot.
    #[error("read the layer's image")]
    Read(#[from] io::Error),
    /// It is not as it was written.
    #[error("the layer's image is damaged: {what} cannot be")]
    Damaged {
        /// What makes no sense.
        what: &'static str,
    },
}

const fn damaged(what: &'static str) -> ImageError {
    ImageError::Damaged { what }
}

/// An open image.
#[derive(Debug)]
pub struct Image {
    file: File,
}

impl Image {
    /// Believes a file to be an image if its superblock says so.
    pub fn open(file: File) -> Result<Self, ImageError> {
        let mut first = [0; BLOCK];
        match file.read_exact_at(&mut first, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(damaged("a file that is so short"));
            }
            read => read?,
        }
        Superblock::parse(&first).ok_or(damaged("its superblock"))?;
        Ok(Self { file })
    }

    /// Where the root directory is.
    pub fn root(&self) -> Place {
        Place(ROOT_AT / SLOT)
    }

    fn bytes(&self, at: u64, length: usize) -> Result<Vec<u8>, ImageError> {
        let mut bytes = vec![0; length];
        self.exact(at, &mut bytes)?;
        Ok(bytes)
    }

    fn exact(&self, at: u64, bytes: &mut [u8]) -> Result<(), ImageError> {
        match self.file.read_exact_at(bytes, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(damaged("a place behind its end")),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(damaged("a place so far away")),
            read => Ok(read?),
        }
    }

    /// An inode.
    pub fn inode(&self, place: Place) -> Result<Inode, ImageError> {
        let at = place.0.checked_mul(SLOT).ok_or(damaged("the number of an inode"))?;
        let mut bytes = [0; INODE_BYTES];
        self.exact(at, &mut bytes)?;
        Inode::parse(&bytes).ok_or(damaged("an inode"))
    }

    /// The extended attributes of an inode.
    pub fn attributes(&self, place: Place, inode: &Inode) -> Result<Attributes, ImageError> {
        if inode.attributes == 0 {
            return Ok(Vec::new());
        }
        let area = self.bytes(place.offset() + INODE_BYTES as u64, inode.attributes)?;
        attributes::parse(&area).ok_or(damaged("an attribute"))
    }

    /// Reads content from `offset` on; 0 bytes at its end, else at least 1.
    pub fn read_at(&self, place: Place, inode: &Inode, offset: u64, bytes: &mut [u8]) -> Result<usize, ImageError> {
        let left = usize::try_from(inode.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = bytes.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        let (at, run) = self.find(place, inode, offset)?;
        let length = wanted.min(usize::try_from(run).unwrap_or(usize::MAX));
        let bytes = bytes.get_mut(..length).unwrap_or_default();
        match at {
            Some(at) => self.exact(at, bytes)?,
            None => bytes.fill(0),
        }
        Ok(length)
    }

    /// How long the hole is that begins at `offset`; 0 where there is none.
    pub fn hole(&self, place: Place, inode: &Inode, offset: u64) -> Result<u64, ImageError> {
        let left = inode.size.saturating_sub(offset);
        if left == 0 {
            return Ok(0);
        }
        let (at, run) = self.find(place, inode, offset)?;
        Ok(if at.is_none() { run.min(left) } else { 0 })
    }

    /// Where a place of the content is, none for a hole, and how many bytes follow each other from there.
    fn find(&self, place: Place, inode: &Inode, offset: u64) -> Result<(Option<u64>, u64), ImageError> {
        let block = BLOCK as u64;
        let start = u64::from(inode.start) * block;
        let whole = inode.size / block * block;
        match inode.layout {
            Layout::Inline if offset >= whole => {
                Ok((Some(inode.behind(place.offset()) + (offset - whole)), inode.size - offset))
            }
            Layout::Inline => Ok((start.checked_add(offset), whole - offset)),
            Layout::Plain => Ok((start.checked_add(offset), inode.size - offset)),
            Layout::Chunks => {
                if inode.start > 31 {
                    return Err(damaged("the size of a chunk"));
                }
                let chunk = block << inode.start;
                let (number, within) = (offset / chunk, offset % chunk);
                let mut entry = [0; 4];
                self.exact(inode.behind(place.offset()) + number * 4, &mut entry)?;
                let found = u32::from_le_bytes(entry);
                let at = u64::from(found) * block + within;
                Ok(((found != HOLE).then_some(at), chunk - within))
            }
        }
    }

    /// All content of an inode that has at most `limit` bytes; none if it has more.
    pub fn content(&self, place: Place, inode: &Inode, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
        let mut content = Vec::new();
        if inode.size > limit {
            return Ok(None);
        }
        let mut buffer = [0; BLOCK];
        loop {
            match self.read_at(place, inode, content.len() as u64, &mut buffer)? {
                0 => return Ok(Some(content)),
                length => content.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            }
        }
    }

    /// What a name of a directory is.
    pub fn child(&self, place: Place, inode: &Inode, name: &[u8]) -> Result<Option<Place>, ImageError> {
        let count = self.blocks(inode)?;
        let (mut from, mut to) = (0, count);
        // The last block that does not begin behind the name.
        while from < to {
            let middle = from + (to - from) / 2;
            let block = self.block(place, inode, middle)?;
            let entries = directory::parse(&block).ok_or(damaged("a directory"))?;
            match entries.iter().find(|entry| entry.name == name) {
                Some(entry) => return Ok(Some(entry.place)),
                None if entries.first().is_some_and(|first| first.name < name) => from = middle + 1,
                None => to = middle,
            }
        }
        Ok(None)
    }

    /// Calls for every entry of a directory but itself and the one above.
    pub fn each(
        &self,
        place: Place,
        inode: &Inode,
        mut each: impl FnMut(&[u8], Place, Kind),
    ) -> Result<(), ImageError> {
        for number in 0..self.blocks(inode)? {
            let block = self.block(place, inode, number)?;
            let entries = directory::parse(&block).ok_or(damaged("a directory"))?;
            for Entry { name, place, kind } in entries {
                if name.contains(&b'/') {
                    return Err(damaged("a name"));
                }
                if name != b"." && name != b".." {
                    each(name, place, kind);
                }
            }
        }
        Ok(())
    }

    /// Some names of a directory behind this one, in order: those of a block. None behind the last.
    pub fn names_after(&self, place: Place, inode: &Inode, after: &[u8]) -> Result<Vec<Vec<u8>>, ImageError> {
        let count = self.blocks(inode)?;
        // The first block that begins behind the name; the one before may have others behind it.
        let (mut from, mut to) = (0, count);
        while from < to {
            let middle = from + (to - from) / 2;
            let block = self.block(place, inode, middle)?;
            let entries = directory::parse(&block).ok_or(damaged("a directory"))?;
            match entries.first() {
                Some(first) if first.name <= after => from = middle + 1,
                _ => to = middle,
            }
        }
        for number in from.saturating_sub(1)..count {
            let block = self.block(place, inode, number)?;
            let mut names = Vec::new();
            for Entry { name, .. } in directory::parse(&block).ok_or(damaged("a directory"))? {
                if name.contains(&b'/') {
                    return Err(damaged("a name"));
                }
                if name > after && name != b"." && name != b".." {
                    names.push(name.to_vec());
                }
            }
            if !names.is_empty() {
                return Ok(names);
            }
        }
        Ok(Vec::new())
    }

    fn blocks(&self, inode: &Inode) -> Result<u64, ImageError> {
        match (inode.kind, inode.layout) {
            (Kind::Directory, Layout::Plain | Layout::Inline) => Ok(inode.size.div_ceil(BLOCK as u64)),
            _ => Err(damaged("a directory")),
        }
    }

    fn block(&self, place: Place, inode: &Inode, number: u64) -> Result<Vec<u8>, ImageError> {
        let mut block = vec![0; BLOCK];
        let offset = number.checked_mul(BLOCK as u64).ok_or(damaged("a directory"))?;
        let length = self.read_at(place, inode, offset, &mut block)?;
        block.truncate(length);
        Ok(block)
    }
}
