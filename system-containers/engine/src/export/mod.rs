//! Images on their way out: to archives and to registries.
//!
//! - [`layer`]: a layer as the tar stream that it was, [`documents`]: an image's manifest and configuration
//! - [`archive`]: `berth save`, [`push`]: `berth push`
//!
//! The store keeps layers unpacked. Their streams are made again from that, the same to the byte, which the diff ID proves
//! each time: an image that goes out has the configuration, and so the ID, that it came with. What cannot be made again is a
//! blob's compression, so the digest of a manifest with compressed layers changes unless all its blobs are where it goes.

pub mod archive;
pub mod documents;
pub mod layer;
pub mod push;

use crate::digest::Digest;
use crate::merged::MergedError;
use crate::store::{FindError, StoreError};

/// Why an image does not go out.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is none of that name.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nor can a layer.
    #[error(transparent)]
    Merged(#[from] MergedError),
    /// It was stored without its record, or the record is damaged.
    #[error("the record of the layer {diff_id} cannot be read; pull or import the image again")]
    Record {
        /// The layer.
        diff_id: Digest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of the layer is gone or shorter than it was.
    #[error("a file of the layer {diff_id} is not as it was unpacked; remove the image and pull or import it again")]
    Content {
        /// The layer.
        diff_id: Digest,
    },
    /// The stream is another one.
    #[error(
        "the layer {diff_id} is not as it was unpacked (it makes {found}); remove the image and pull or import it again"
    )]
    Digest {
        /// As it was.
        diff_id: Digest,
        /// As it is.
        found: Digest,
    },
    /// A stored document is of no use.
    #[error("read the stored {what}")]
    Document {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Nobody takes it.
    #[error("write it")]
    Write(#[source] std::io::Error),
}
