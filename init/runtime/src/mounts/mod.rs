//! The mounts of a container: made as detached trees, attached by descriptor.
//!
//! A mount is made in two halves. What comes from the host (bind sources, id-mapped volumes, an overlay root) is
//! opened as a detached tree by [`Sources::open`], in a process that has the host's privileges. The container's own
//! process makes the kernel's file systems itself, and attaches everything at descriptors that it looked up inside
//! the container's root ([`crate::rootfs::Root`]): no path is ever walked by string after it was checked.

pub(crate) mod attach;
pub(crate) mod container;
mod copy_up;
pub(crate) mod filesystem;
pub(crate) mod layers;
pub(crate) mod options;
pub(crate) mod overlay;
mod remount;
pub(crate) mod sources;

use std::path::PathBuf;

use crate::error::SystemError;
use crate::idmap::IdMapError;

pub use options::known_options;
pub(crate) use sources::{Sources, need_launcher};

/// Why a mount failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// One of the configuration's mounts.
    #[error("mount {source_name} on {destination}")]
    Mount {
        /// What.
        source_name: String,
        /// Where, in the container.
        destination: String,
        /// Why.
        #[source]
        source: Box<MountError>,
    },
    /// An option that cannot be had.
    #[error("the option {option} {reason}")]
    Option {
        /// The option.
        option: String,
        /// Why not.
        reason: &'static str,
    },
    /// What the kernel said of a file system's options, in its own words.
    #[error("configure {kind}: {message}")]
    Filesystem {
        /// The type.
        kind: String,
        /// The kernel's messages.
        message: String,
        /// The call.
        #[source]
        source: SystemError,
    },
    /// An overlay's directories.
    #[error("overlay: {reason}")]
    Overlay {
        /// What is wrong.
        reason: &'static str,
    },
    /// A layer is not the file that was written.
    #[error(
        "the layer {layer:?} was changed on disk: its fs-verity digest is {found}, not {expected}; pull or import the image \
         again"
    )]
    Changed {
        /// Its file.
        layer: PathBuf,
        /// As measured.
        found: String,
        /// As it was.
        expected: String,
    },
    /// Ids cannot be mapped.
    #[error(transparent)]
    IdMap(#[from] IdMapError),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SystemError),
}
