//! The state of a container, as hooks and `state` get it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A container's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The version of the specification.
    pub oci_version: String,
    /// The container.
    pub id: String,
    /// Where it is in its life.
    pub status: Status,
    /// Its first process in the host's ids; 0 if there is none.
    #[serde(default)]
    pub pid: i32,
    /// Absolute.
    pub bundle: PathBuf,
    /// From config.json.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What is told to who answers SCMP_ACT_NOTIFY, with the descriptors that it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerProcessState {
    /// The version of the specification.
    pub oci_version: String,
    /// Names of the descriptors, in their order.
    #[serde(default)]
    pub fds: Vec<String>,
    /// The process that the filter is of, in the host's ids.
    pub pid: i32,
    /// `linux.seccomp.listenerMetadata`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    /// The container.
    pub state: State,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Not all is there.
    Creating,
    /// Waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its first process has ended.
    Stopped,
    /// Frozen (not of the specification; as runc has it).
    Paused,
}
