//! Turns the tar stream of a layer into an image of a file system, which overlayfs takes, mounted, as a lower directory.
//!
//! Invariants: nothing is written but the image's file, whatever the names and links in the stream say; they only mean
//! something inside it. Owners are kept as the image has them: user namespaces map them at mount time. What a hostile
//! layer can cost is bounded by [`crate::limits`].
//!
//! A deletion (`.wh.name`) becomes a character device 0:0, overlayfs's own mark, and an emptied directory
//! (`.wh..wh..opq`) the attribute `trusted.overlay.opaque`. Layer trees are only ever merged by mounts made with full
//! privilege, so the marks for unprivileged overlayfs (`user.overlay.*`) are not needed.

pub(crate) mod attributes;
mod copied;
mod lower;
mod path;
mod record;
mod tree;
mod unpack;

use rustix::io::Errno;

pub use lower::Lower;
pub use path::{EntryPath, PathError};
pub use record::{Kept, Piece, Pieces, Recorder};
pub(crate) use tree::{failed, file_failed};
pub use unpack::{Limits, Summary, Target, unpack, unpack_within};

use crate::limits;
use crate::tar::TarError;

/// overlayfs's attribute of a directory that hides what is below it.
pub const OPAQUE: &str = "trusted.overlay.opaque";

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The stream is not a sound tar archive.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A name is refused.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A hard link's target is missing, a directory, or outside.
    #[error("the hard link {path} has no target {target:?} in the image")]
    LinkTarget {
        /// The entry.
        path: String,
        /// As written.
        target: String,
    },
    /// A mark of a deletion without the name of what is deleted.
    #[error("the whiteout {path} names nothing")]
    Whiteout {
        /// The entry.
        path: String,
    },
    /// More entries than [`limits::LAYER_ENTRIES`].
    #[error("the layer has more than {} entries", limits::LAYER_ENTRIES)]
    Entries,
    /// More names than there is memory for.
    #[error("the names of the layer take more memory than there is for them")]
    Names,
    /// The same with the window that it was compressed with.
    #[error("the names of the layer and the window of its compression take more memory than there is for them")]
    Memory,
    /// An extended attribute that cannot be kept.
    #[error("the extended attributes of {path} are too large or have names that mean nothing")]
    Attributes {
        /// The entry.
        path: String,
    },
    /// More data than [`limits::LAYER_BYTES`].
    #[error("the layer has more than {} bytes of data", limits::LAYER_BYTES)]
    Bytes,
    /// The state partition has to keep some room.
    #[error(
        "the state partition has no room for it: {free} bytes and {inodes} inodes are free; remove something or enlarge the disk"
    )]
    NoSpace {
        /// What is left, in bytes.
        free: u64,
        /// What is left.
        inodes: u64,
    },
    /// A system call failed on an entry.
    #[error("{operation} {path}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// The entry.
        path: String,
        /// Its error.
        #[source]
        source: Errno,
    },
    /// The layers below cannot be read.
    #[error(transparent)]
    Merged(#[from] crate::merged::MergedError),
    /// One of them is not as it was written.
    #[error(transparent)]
    Verity(#[from] crate::verity::VerityError),
    /// One of them is not going to be there: its own error says why.
    #[error("a layer below it is missing")]
    Forsaken,
}

impl LayerError {
    /// Whether it failed because the disk is full, or nearly.
    pub fn is_for_want_of_room(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::System { source: Errno::NOSPC | Errno::DQUOT, .. })
    }

    /// Whether the archive is to blame, and not this machine: then another try with the same archive is useless.
    pub fn is_of_the_image(&self) -> bool {
        match self {
            Self::Tar(error) => !matches!(error, TarError::Read(_)),
            Self::NoSpace { .. } | Self::System { .. } | Self::Merged(_) | Self::Verity(_) | Self::Forsaken => false,
            _ => true,
        }
    }
}
