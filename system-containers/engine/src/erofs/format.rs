//! What is where in a superblock and in an inode. Numbers are little-endian.

use super::BLOCK;
use crate::tar::Timestamp;

/// Inodes lie at multiples of this; their numbers count these from the image's beginning.
pub const SLOT: u64 = 32;
/// The bytes of an inode.
pub const INODE_BYTES: usize = 64;
/// Where the superblock is.
pub const SUPERBLOCK_AT: usize = 1024;
/// Where the root directory's inode is: behind the superblock, for its number must fit into 16 bits.
pub const ROOT_AT: u64 = 1152;
/// Where an inode has its count of links.
pub const LINKS_AT: u64 = 44;

const MAGIC: u32 = 0xE0F5_E1E2;
/// The superblock has a checksum.
const WITH_CHECKSUM: u32 = 1;
/// Inodes have times of their own.
const WITH_TIMES: u32 = 2;
/// Files may be made of chunks.
const WITH_CHUNKS: u32 = 4;

/// How the content of an inode is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In whole blocks, one after the other.
    Plain = 0,
    /// The same, but what is left over is behind the inode.
    Inline = 2,
    /// In chunks, whose blocks are listed behind the inode.
    Chunks = 4,
}

/// What an inode is; the numbers are those of directories' entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File = 1,
    /// A directory.
    Directory = 2,
    /// A character device.
    CharacterDevice = 3,
    /// A block device.
    BlockDevice = 4,
    /// A named pipe.
    Fifo = 5,
    /// A socket: no layer has one, but a mode can say so.
    Socket = 6,
    /// A symbolic link.
    Symlink = 7,
}

impl Kind {
    const ALL: [(Self, u32); 7] = [
        (Self::File, 0o10),
        (Self::Directory, 0o4),
        (Self::CharacterDevice, 0o2),
        (Self::BlockDevice, 0o6),
        (Self::Fifo, 0o1),
        (Self::Socket, 0o14),
        (Self::Symlink, 0o12),
    ];

    fn of_mode(mode: u32) -> Option<Self> {
        Self::ALL.iter().find(|(_, bits)| *bits == mode >> 12).map(|(kind, _)| *kind)
    }

    fn mode(self) -> u32 {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, bits)| bits << 12)
    }

    /// By its number in a directory's entry.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.iter().find(|(kind, _)| *kind as u8 == number).map(|(kind, _)| *kind)
    }
}

/// What is said of every inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky: 0 to 0o7777.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was modified.
    pub modified: Timestamp,
}

/// An inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    /// What it is.
    pub kind: Kind,
    /// Whose.
    pub metadata: Metadata,
    /// How many names it has.
    pub links: u32,
    /// The size of its content in bytes, with holes.
    pub size: u64,
    /// How that is found.
    pub layout: Layout,
    /// The first block; of devices their number; of chunks their size, as a power of two in blocks.
    pub start: u32,
    /// The bytes of attributes behind it.
    pub attributes: usize,
    /// The number that 32-bit programs see.
    pub number: u32,
}

impl Inode {
    /// As it lies in an image.
    pub fn to_bytes(self) -> [u8; INODE_BYTES] {
        let mut bytes = [0; INODE_BYTES];
        let mut put = |at: usize, value: &[u8]| {
            if let Some(field) = bytes.get_mut(at..at + value.len()) {
                field.copy_from_slice(value);
            }
        };
        let mode = self.kind.mode() | (self.metadata.mode & 0o7777);
        put(0, &(1 | (self.layout as u16) << 1).to_le_bytes());
        put(2, &attribute_count(self.attributes).to_le_bytes());
        put(4, &u16::try_from(mode).unwrap_or_default().to_le_bytes());
        put(8, &self.size.to_le_bytes());
        put(16, &self.start.to_le_bytes());
        put(20, &self.number.to_le_bytes());
        put(24, &self.metadata.uid.to_le_bytes());
        put(28, &self.metadata.gid.to_le_bytes());
        put(32, &self.metadata.modified.seconds.to_le_bytes());
        put(40, &self.metadata.modified.nanoseconds.to_le_bytes());
        put(44, &self.links.to_le_bytes());
        bytes
    }

    /// None if it is not one that this program writes.
    pub fn parse(bytes: &[u8; INODE_BYTES]) -> Option<Self> {
        let format = u16::from_le_bytes(field(bytes, 0)?);
        let layout = match (format & 1, format >> 1) {
            (1, 0) => Layout::Plain,
            (1, 2) => Layout::Inline,
            (1, 4) => Layout::Chunks,
            _ => return None,
        };
        let attributes = match usize::from(u16::from_le_bytes(field(bytes, 2)?)) {
            0 => 0,
            count => 12 + 4 * (count - 1),
        };
        let mode = u32::from(u16::from_le_bytes(field(bytes, 4)?));
        let nanoseconds = u32::from_le_bytes(field(bytes, 40)?);
        let modified = Timestamp { seconds: i64::from_le_bytes(field(bytes, 32)?), nanoseconds };
        let [uid, gid] = [u32::from_le_bytes(field(bytes, 24)?), u32::from_le_bytes(field(bytes, 28)?)];
        Some(Self {
            kind: Kind::of_mode(mode)?,
            metadata: Metadata { mode: mode & 0o7777, uid, gid, modified },
            links: u32::from_le_bytes(field(bytes, 44)?),
            size: u64::from_le_bytes(field(bytes, 8)?),
            layout,
            start: u32::from_le_bytes(field(bytes, 16)?),
            attributes,
            number: u32::from_le_bytes(field(bytes, 20)?),
        })
    }

    /// Where what is behind the inode and its attributes begins.
    pub fn behind(&self, at: u64) -> u64 {
        at + (INODE_BYTES + self.attributes) as u64
    }
}

/// The count that stands for an area of attributes: its header of 12 bytes is 1, every 4 bytes more are another.
fn attribute_count(bytes: usize) -> u16 {
    if bytes == 0 { 0 } else { u16::try_from(bytes.saturating_sub(12) / 4 + 1).unwrap_or(u16::MAX) }
}

/// A field of so many bytes.
pub fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The number that a device has in an inode.
pub fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)
}

/// What of a superblock differs from image to image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// How many inodes there are.
    pub inodes: u64,
    /// How many blocks.
    pub blocks: u32,
    /// overlayfs tells layers by it.
    pub uuid: [u8; 16],
}

impl Superblock {
    /// Writes it into the first block of an image, which has all else that it is to have: the checksum is over that too.
    pub fn write(self, block: &mut [u8; BLOCK]) {
        let root = u16::try_from(ROOT_AT / SLOT).unwrap_or_default();
        let fields: [(usize, &[u8]); 8] = [
            (0, &MAGIC.to_le_bytes()),
            (8, &(WITH_CHECKSUM | WITH_TIMES).to_le_bytes()),
            (12, &[BLOCK.ilog2() as u8, 0]),
            (14, &root.to_le_bytes()),
            (16, &self.inodes.to_le_bytes()),
            (36, &self.blocks.to_le_bytes()),
            (48, &self.uuid),
            (80, &WITH_CHUNKS.to_le_bytes()),
        ];
        for (at, value) in fields {
            block[SUPERBLOCK_AT + at..][..value.len()].copy_from_slice(value);
        }
        let checksum = checksum(&block[SUPERBLOCK_AT..]);
        block[SUPERBLOCK_AT + 4..][..4].copy_from_slice(&checksum.to_le_bytes());
    }

    /// None if it is not one that this program writes, or damaged.
    pub fn parse(block: &[u8; BLOCK]) -> Option<Self> {
        let superblock = &block[SUPERBLOCK_AT..];
        let number = |at| field(superblock, at).map(u32::from_le_bytes);
        let root = u16::from_le_bytes(field(superblock, 14)?);
        let ours = number(0)? == MAGIC
            && number(8)? & WITH_CHECKSUM != 0
            && superblock.get(12..14)? == [BLOCK.ilog2() as u8, 0]
            && u64::from(root) * SLOT == ROOT_AT
            && number(40)? == 0
            && number(80)? & !WITH_CHUNKS == 0;
        let mut plain = superblock.to_vec();
        plain.get_mut(4..8)?.fill(0);
        if !ours || checksum(&plain) != number(4)? {
            return None;
        }
        let inodes = u64::from_le_bytes(field(superblock, 16)?);
        Some(Self { inodes, blocks: number(36)?, uuid: field(superblock, 48)? })
    }
}

/// CRC-32C as Linux begins and leaves it, over a superblock whose own field is 0. One image has one, so it needs no table.
fn checksum(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (POLYNOMIAL & (sum & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, appendix B.4: 32 bytes of zeros; there the result is inverted at the end.
        assert_eq!(!checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(!checksum(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn an_inode_is_read_as_it_was_written() {
        for kind in Kind::ALL.map(|(kind, _)| kind) {
            let metadata = Metadata {
                mode: 0o7654,
                uid: 3_000_000,
                gid: 4_000_000_000,
                modified: Timestamp { seconds: -5, nanoseconds: 999_999_999 },
            };
            let inode = Inode {
                kind,
                metadata,
                links: 70_000,
                size: 1 << 40,
                layout: Layout::Inline,
                start: 77,
                attributes: 40,
                number: 3,
            };
            assert_eq!(Inode::parse(&inode.to_bytes()), Some(inode));
        }
        assert_eq!(Inode::parse(&[0; INODE_BYTES]), None);
    }

    #[test]
    fn a_changed_superblock_is_none() {
        let mut block = [0; BLOCK];
        let superblock = Superblock { inodes: 5, blocks: 9, uuid: [3; 16] };
        superblock.write(&mut block);
        assert_eq!(Superblock::parse(&block), Some(superblock));
        block[3000] ^= 1;
        assert_eq!(Superblock::parse(&block), None);
    }
}
