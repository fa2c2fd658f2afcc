//! Images of the file system EROFS, as far as layers need it: uncompressed, blocks of 4 KiB, inodes of 64 bytes.
//!
//! The format is described in Linux's Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h. An image of ours is
//! written in one pass, in the order in which a layer's stream brings its entries:
//!
//! ```text
//! block 0    superblock, root directory           written last, so that an unfinished image is none
//! block 1…   content of files, in whole blocks
//!            blocks of inodes in between, each with its attributes and the end of its content
//! at last    directories
//! ```
//!
//! - [`Writer`] puts content and inodes into a file; it knows nothing of names
//! - [`Tree`] has the names, in memory, and writes the directories
//! - [`Image`] reads what they have written, and takes nothing for granted: what is on a disk may have changed
//!
//! Never here: what a layer may contain, mounting.

mod attributes;
mod directory;
mod format;
mod image;
mod log;
mod sparse;
mod tree;
mod writer;

pub use self::attributes::{Attributes, encode as encode_attributes};
pub use self::format::{Inode, Kind, Layout, Metadata, Superblock};
pub use self::image::{Image, ImageError};
pub use self::sparse::Sparse;
pub use self::tree::{Directory, DirectoryId, Node, Tree, TreeFull};
pub use self::writer::{Place, Writer};

/// The size of a block in bytes.
pub const BLOCK: usize = 4096;

#[cfg(test)]
mod tests;
