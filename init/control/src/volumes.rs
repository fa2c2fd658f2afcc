//! Volumes as the `engine` system container keeps them, for clients.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is wanted of volumes. [`VolumeEvent`]s come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeQuery {
    /// All of them, in the order of their names.
    List,
    /// Make one, unless there is one of that name. The first container that uses it fills it, with what its image has
    /// there.
    Create {
        /// As a configuration names it.
        name: String,
        /// Free text for tools.
        labels: BTreeMap<String, String>,
        /// The most bytes that it may hold.
        limit: Option<u64>,
    },
    /// Remove them, each only if no container uses it.
    Remove {
        /// Their names.
        names: Vec<String>,
        /// One that is not there is no mistake.
        force: bool,
    },
    /// Remove those that no container uses.
    Prune {
        /// Also those with names; otherwise only those that images have asked for.
        all: bool,
        /// Only say which.
        dry_run: bool,
    },
}

/// A line about volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeEvent {
    /// It is there.
    Volume(StoredVolume),
    /// It has gone, or would go.
    Removed {
        /// Its name.
        name: String,
    },
    /// Something is not done, for this reason.
    Failed(String),
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredVolume {
    /// Its name; that of one which an image has asked for begins with an underscore and its container's name.
    pub name: String,
    /// Where it lies on the machine.
    pub path: PathBuf,
    /// Whether an image has asked for it, and nobody has named it.
    pub anonymous: bool,
    /// The containers that use it, by name.
    pub used_by: Vec<String>,
    /// Free text for tools.
    pub labels: BTreeMap<String, String>,
    /// When it was made, in seconds since 1970; absent where the file system does not know.
    pub created: Option<u64>,
    /// What it holds, in bytes, if it has a limit.
    pub used: Option<u64>,
    /// The most that it may hold, in bytes.
    pub limit: Option<u64>,
}
