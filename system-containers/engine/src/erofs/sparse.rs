//! Sparse files: chunks of equal size, of which only those that have content take room, and a list of where they are.

use std::io;

use super::BLOCK;
use super::format::{Kind, Layout, Metadata};
use super::writer::{Place, Writer, block_number};

/// The most chunks of a file: 1 MiB of memory for the list. Up to 1 GiB a chunk is a block.
const MOST_CHUNKS: u64 = 1 << 18;
/// The largest chunk that the format has, as a power of two in blocks.
const LARGEST: u32 = 31;
/// Where a chunk is that is a hole.
pub const HOLE: u32 = u32::MAX;

/// A sparse file that is being written.
pub struct Sparse {
    size: u64,
    /// As a power of two in blocks.
    scale: u32,
    map: Vec<u32>,
    /// The chunk that was begun last, and where it is in the image.
    current: Option<(u64, u64)>,
}

impl Sparse {
    /// None if it is larger than the format allows.
    pub fn new(size: u64) -> Option<Self> {
        let scale = (0..=LARGEST).find(|scale| size.div_ceil((BLOCK as u64) << scale) <= MOST_CHUNKS)?;
        let count = usize::try_from(size.div_ceil((BLOCK as u64) << scale)).ok()?;
        Some(Self { size, scale, map: vec![HOLE; count], current: None })
    }

    fn chunk(&self) -> u64 {
        (BLOCK as u64) << self.scale
    }

    /// How much of a chunk is in the image: the last one ends with the file.
    fn length(&self, chunk: u64) -> u64 {
        let begin = chunk * self.chunk();
        self.chunk().min(self.size.saturating_sub(begin).next_multiple_of(BLOCK as u64))
    }
}

impl Writer {
    /// Adds content to a sparse file, behind what it has.
    pub fn sparse_content(&mut self, sparse: &mut Sparse, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let chunk = offset / sparse.chunk();
            let begin = match sparse.current {
                Some((current, begin)) if current == chunk => begin,
                _ => {
                    self.end_chunk(sparse)?;
                    let begin = self.log.end();
                    let place = usize::try_from(chunk).ok().and_then(|chunk| sparse.map.get_mut(chunk));
                    *place.ok_or(io::ErrorKind::InvalidInput)? = block_number(begin)?;
                    sparse.current = Some((chunk, begin));
                    begin
                }
            };
            let within = offset % sparse.chunk();
            let gap = (begin + within).checked_sub(self.log.end()).ok_or(io::ErrorKind::InvalidInput)?;
            self.log.append_zeros(gap)?;
            let left = usize::try_from(sparse.chunk() - within).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(left));
            self.log.append(now)?;
            (offset, bytes) = (offset + now.len() as u64, later);
        }
        Ok(())
    }

    /// Where in the image content of a sparse file is going to be.
    pub fn sparse_place(&self, sparse: &Sparse, offset: u64) -> u64 {
        let within = offset % sparse.chunk();
        match sparse.current {
            Some((current, begin)) if current == offset / sparse.chunk() => begin + within,
            _ => self.sparse_end(sparse) + within,
        }
    }

    /// How long the image is when the chunk that was begun last is at its end.
    pub fn sparse_end(&self, sparse: &Sparse) -> u64 {
        sparse.current.map_or(self.log.end(), |(chunk, begin)| begin + sparse.length(chunk))
    }

    fn end_chunk(&mut self, sparse: &mut Sparse) -> io::Result<()> {
        if let Some((chunk, begin)) = sparse.current.take() {
            let end = begin + sparse.length(chunk);
            self.log.append_zeros(end.saturating_sub(self.log.end()))?;
        }
        Ok(())
    }

    /// Makes an inode of a sparse file.
    pub fn end_sparse(&mut self, mut sparse: Sparse, metadata: Metadata, attributes: &[u8]) -> io::Result<Place> {
        self.end_chunk(&mut sparse)?;
        let layout = if sparse.map.is_empty() { Layout::Plain } else { Layout::Chunks };
        let map: Vec<u8> = sparse.map.iter().flat_map(|block| block.to_le_bytes()).collect();
        let inode = self.inode(Kind::File, metadata, sparse.size, layout, sparse.scale, attributes);
        self.put(inode, attributes, &map)
    }
}
