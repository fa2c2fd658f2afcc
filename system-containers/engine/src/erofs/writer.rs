//! Content and inodes into a file, in the order in which they come.

use std::fs::File;
use std::io;

use super::BLOCK;
use super::format::{INODE_BYTES, Inode, Kind, Layout, Metadata, SLOT, Superblock, device_number};
use super::log::Log;

/// Where an inode is: its number in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub(super) u64);

impl Place {
    /// As it is written down elsewhere.
    pub fn number(self) -> u64 {
        self.0
    }

    /// What was written down.
    pub fn of_number(number: u64) -> Self {
        Self(number)
    }

    /// In bytes from the image's beginning.
    pub(super) fn offset(self) -> u64 {
        self.0 * SLOT
    }
}

/// An image that is being written.
pub struct Writer {
    pub(super) log: Log,
    /// The block that inodes go to, and how much of it is taken; full at first.
    block: u64,
    taken: usize,
    inodes: u32,
    /// What is to be behind an inode, to spare the memory's allocation.
    rest: Vec<u8>,
}

impl Writer {
    /// Into an empty file, which is open for reading too.
    pub fn new(file: File) -> io::Result<Self> {
        let mut log = Log::new(file);
        log.append(&[0; BLOCK])?;
        Ok(Self { log, block: 0, taken: BLOCK, inodes: 0, rest: Vec::new() })
    }

    /// How large the image is so far, in bytes.
    pub fn bytes(&self) -> u64 {
        self.log.end()
    }

    /// Adds to the content that the next [`Self::end`] makes an inode of.
    pub fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.log.append(bytes)
    }

    /// Makes a file or symbolic link of the content since the last inode. `attributes` are encoded.
    pub fn end(&mut self, kind: Kind, metadata: Metadata, attributes: &[u8], begin: u64) -> io::Result<Place> {
        let size = self.log.end() - begin;
        let mut rest = std::mem::take(&mut self.rest);
        self.log.take_rest(&mut rest);
        let inline = !rest.is_empty() && INODE_BYTES + attributes.len() + rest.len() <= BLOCK;
        let (layout, behind) = if inline { (Layout::Inline, &*rest) } else { (Layout::Plain, &[][..]) };
        if !inline && !rest.is_empty() {
            self.log.append(&rest)?;
            self.log.align()?;
        }
        let in_blocks = size >= BLOCK as u64 || (size > 0 && !inline);
        let start = if in_blocks { block_number(begin)? } else { 0 };
        let inode = self.inode(kind, metadata, size, layout, start, attributes);
        let place = self.put(inode, attributes, behind);
        self.rest = rest;
        place
    }

    /// A device or named pipe.
    pub fn node(
        &mut self,
        kind: Kind,
        metadata: Metadata,
        attributes: &[u8],
        (major, minor): (u32, u32),
    ) -> io::Result<Place> {
        let device = if kind == Kind::Fifo { 0 } else { device_number(major, minor) };
        self.node_of(kind, metadata, attributes, device)
    }

    /// The same with the number that the device has in another image.
    pub fn node_of(&mut self, kind: Kind, metadata: Metadata, attributes: &[u8], device: u32) -> io::Result<Place> {
        let inode = self.inode(kind, metadata, 0, Layout::Plain, device, attributes);
        self.put(inode, attributes, &[])
    }

    pub(super) fn inode(
        &mut self,
        kind: Kind,
        metadata: Metadata,
        size: u64,
        layout: Layout,
        start: u32,
        attributes: &[u8],
    ) -> Inode {
        self.inodes += 1;
        let number = self.inodes;
        Inode { kind, metadata, links: 1, size, layout, start, attributes: attributes.len(), number }
    }

    /// Writes an inode and what is behind it. The content before it is at its end.
    pub(super) fn put(&mut self, inode: Inode, attributes: &[u8], behind: &[u8]) -> io::Result<Place> {
        let inode = inode.to_bytes();
        let place = self.reserve(inode.len() + attributes.len() + behind.len())?;
        let mut at = place.offset();
        for part in [&inode[..], attributes, behind] {
            self.log.write_at(at, part)?;
            at += part.len() as u64;
        }
        Ok(place)
    }

    /// Room for an inode and what is behind it. What fits into one block is in one.
    pub(super) fn reserve(&mut self, length: usize) -> io::Result<Place> {
        let begin = self.taken.next_multiple_of(SLOT as usize);
        if begin + length <= BLOCK {
            self.taken = begin + length;
            return Ok(Place((self.block + begin as u64) / SLOT));
        }
        let block = self.log.end();
        block_number(block)?;
        self.log.append_zeros(length.next_multiple_of(BLOCK) as u64)?;
        // A block with less room than the other one has is not worth the change.
        if length < BLOCK && length < self.taken {
            (self.block, self.taken) = (block, length);
        }
        Ok(Place(block / SLOT))
    }

    /// Changes what was written.
    pub(super) fn change(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.log.write_at(at, bytes)
    }

    /// An inode that was written.
    pub fn written(&self, place: Place) -> io::Result<Inode> {
        let mut bytes = [0; INODE_BYTES];
        self.log.read_at(place.offset(), &mut bytes)?;
        Inode::parse(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Reads the content of a symbolic link.
    pub fn target(&self, place: Place) -> io::Result<Vec<u8>> {
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        let inode = self.written(place)?;
        let mut target = vec![0; usize::try_from(inode.size).ok().filter(|size| *size <= BLOCK).ok_or_else(damaged)?];
        let at = match inode.layout {
            Layout::Inline => inode.behind(place.offset()),
            Layout::Plain => u64::from(inode.start) * BLOCK as u64,
            Layout::Chunks => return Err(damaged()),
        };
        self.log.read_at(at, &mut target)?;
        Ok(target)
    }

    /// Writes the superblock and all that is still in memory.
    pub(super) fn finish(mut self, uuid: [u8; 16]) -> io::Result<File> {
        self.log.align()?;
        let mut first = [0; BLOCK];
        self.log.read_at(0, &mut first)?;
        let blocks = block_number(self.log.end())?;
        Superblock { inodes: self.inodes.into(), blocks, uuid }.write(&mut first);
        self.log.write_at(0, &first)?;
        self.log.finish()
    }
}

/// Which block is at a place. An image has at most 16 TiB.
pub(super) fn block_number(at: u64) -> io::Result<u32> {
    u32::try_from(at / BLOCK as u64).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
