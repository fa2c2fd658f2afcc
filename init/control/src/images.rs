//! What `control` asks of the `engine` system container, and what comes back.
//!
//! `control` connects to [`SOCKET_PATH`] (SOCK_SEQPACKET, mode 0600), sends one [`Query`] with the write end of a pipe,
//! and gets one [`Answer`]; what was asked for then comes through the pipe, as JSON, one value a line. Answers
//! that have no last value of their own (list, prune, volumes) end with [`crate::ANSWER_END`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::volumes::{StoredVolume, VolumeEvent, VolumeQuery};

/// Where `engine` listens.
pub const SOCKET_PATH: &str = "/run/berth/engine.sock";

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Query {
    /// Bring an image here from its registry, also if there is one of that name. [`PullEvent`]s come, the last one is
    /// [`PullEvent::Done`] or [`PullEvent::Failed`]. Who pulls the same at the same time shares the work; it goes on if
    /// nobody listens any more.
    Pull {
        /// The image's name.
        image: String,
    },
    /// Take an image to the registry in its name. Events come as with a pull.
    Push {
        /// The name.
        image: String,
    },
    /// Keep who pulls from a registry, if that takes it. An [`End`] comes.
    Login {
        /// Host and port.
        registry: String,
        /// The user's name.
        username: String,
        /// Password or access token.
        password: String,
    },
    /// Forget who pulls from a registry. An [`End`] comes.
    Logout {
        /// Host and port.
        registry: String,
    },
    /// Write an archive with these images into the descriptor that comes behind the pipe's. An [`End`] comes.
    Save {
        /// Their names.
        images: Vec<String>,
    },
    /// Take the images of the archive in the descriptor that comes behind the pipe's, a file or a pipe. An [`End`] comes, with
    /// a name and a digest of each, or its digest alone.
    Import {
        /// What the archive is called: the name of an image that has none.
        name: String,
    },
    /// Give an image another name. An [`End`] comes.
    Tag {
        /// A name that it has.
        source: String,
        /// The other one.
        target: String,
    },
    /// Take a name away, and with the last one the image. An [`End`] comes.
    Remove {
        /// The name.
        image: String,
        /// Also if containers run from it; the image then stays as long as they do.
        force: bool,
    },
    /// Everything about an image: an [`End`] with one text, JSON.
    Inspect {
        /// Its name.
        image: String,
    },
    /// Which images are there: [`StoredImage`]s come, in the order of their names, those without a name last.
    List,
    /// Remove images that no container needs: [`PruneEvent`]s come.
    Prune(Prune),
    /// What user containers take of the disk: [`ContainerSize`]s come, in the order of their names.
    Sizes,
    /// Look at volumes, make and remove them: [`VolumeEvent`]s come.
    Volumes(VolumeQuery),
}

/// What `engine` says to a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It comes.
    Coming,
    /// It does not, for this reason.
    Refused(String),
}

/// An image that is here, by one of its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// Its complete name; empty if it has none.
    pub image: String,
    /// The digest of its manifest; of its configuration where an archive has no manifest.
    pub digest: String,
    /// How many layers it has.
    pub layers: usize,
    /// The bytes of their files. Images may share layers.
    pub bytes: u64,
    /// Who gave it, host and port; absent if it came from an archive.
    pub from: Option<String>,
    /// Whether a container needs it.
    pub in_use: bool,
    /// Free text for tools, as the image has it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What a container takes of the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSize {
    /// Its name.
    pub name: String,
    /// The bytes of what it has written to its own file system, with the directories that are there from the beginning; absent
    /// where nobody counts them.
    pub written: Option<u64>,
    /// Those of its image, as in [`StoredImage`]; absent if that is not there.
    pub image: Option<u64>,
}

/// How something ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Well; with what there is to tell, a text each.
    Done(Vec<String>),
    /// In part.
    Partly {
        /// What there is to tell, a text each.
        done: Vec<String>,
        /// What went wrong, a text each.
        problems: Vec<String>,
    },
    /// Not, for this reason.
    Failed(String),
}

/// Which images are to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prune {
    /// Also those with names, as long as no container needs them.
    pub all: bool,
    /// Only those that were not used for so many seconds.
    pub unused_s: u64,
    /// Only say which.
    pub dry_run: bool,
}

/// A line about a removal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PruneEvent {
    /// An image has gone, or would go.
    Removed(PrunedImage),
    /// It went no further, for this reason.
    Failed(String),
}

/// An image that has gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedImage {
    /// What it was called; nothing if it had lost its names.
    pub names: Vec<String>,
    /// As in [`StoredImage`].
    pub digest: String,
    /// The bytes of its files that no other image has.
    pub bytes: u64,
}

/// A line about a pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullEvent {
    /// How far it has come.
    Progress(PullProgress),
    /// The image is there and will be after a power cut.
    Done(Pulled),
    /// It is not, for this reason.
    Failed(String),
}

/// How far a pull has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullProgress {
    /// Who is asked, host and port.
    pub from: String,
    /// The lowest first; none before they are known.
    pub layers: Vec<LayerProgress>,
}

/// How far a layer has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerProgress {
    /// Its blob.
    pub digest: String,
    /// The blob's size in bytes; of a layer that is pushed 0 until it is compressed, for only then there is a blob.
    pub bytes: u64,
    /// How many of them have come, or gone out.
    pub received: u64,
    /// Whether it is unpacked and verified, or there; also if it was before.
    pub done: bool,
}

/// What a pull brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// The image's complete name.
    pub image: String,
    /// The digest of its manifest.
    pub digest: String,
    /// Who gave it, host and port.
    pub from: String,
    /// How many layers were not there before.
    pub layers: usize,
}
