//! Reads tar archives as images bring them: ustar, GNU and pax, with long names, extended attributes, sub-second
//! times, large numbers and every kind of sparse file.
//!
//! It is a reader of our own because the archive is hostile and the format is small: sizes, names and maps are bounded
//! by [`crate::limits`] before anything is allocated, data is handed out of the input's buffer without copying, and
//! the sparse maps of pax (which the `tar` crate does not know) are understood. It interprets; what may be written
//! where is [`crate::layer`]'s business.

mod header;
mod pax;
mod reader;
mod sparse;

pub use header::is_header;
pub use reader::{Entry, Input, Kind, Reader, Timestamp};
pub use sparse::Segment;

use crate::limits;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The input failed.
    #[error("read the archive")]
    Read(#[from] std::io::Error),
    /// It ends inside an entry or without an end mark.
    #[error("the archive ends too early, in {place}: it is truncated")]
    Truncated {
        /// What was being read.
        place: &'static str,
    },
    /// The header's checksum does not match.
    #[error("no tar header at byte {offset}: the archive is damaged or not a tar archive")]
    Header {
        /// Where.
        offset: u64,
    },
    /// A number that is none, is negative or too large.
    #[error("the {field} at byte {offset} of the archive is not a valid number")]
    Number {
        /// Which field.
        field: &'static str,
        /// Where its header begins.
        offset: u64,
    },
    /// The records of an extended header break the format.
    #[error("the extended header at byte {offset} of the archive is malformed")]
    Extended {
        /// Where.
        offset: u64,
    },
    /// An extended header over the limit.
    #[error(
        "the extended header at byte {offset} has {bytes} bytes, at most {} are taken",
        limits::EXTENDED_HEADER_BYTES
    )]
    ExtendedTooLong {
        /// Where.
        offset: u64,
        /// Its size.
        bytes: u64,
    },
    /// More headers for one entry than [`limits::HEADERS_OF_AN_ENTRY`].
    #[error("an entry before byte {offset} has more than {} extended headers", limits::HEADERS_OF_AN_ENTRY)]
    Headers {
        /// Where the last one ends.
        offset: u64,
    },
    /// A sparse map that is out of order, overlaps or leaves its file.
    #[error("the sparse map of the entry at byte {offset} of the archive is malformed")]
    Sparse {
        /// Where.
        offset: u64,
    },
    /// A kind of entry that means nothing in an image.
    #[error("the entry at byte {offset} has the unknown type {kind:?}")]
    Kind {
        /// Where.
        offset: u64,
        /// The type flag.
        kind: char,
    },
}
