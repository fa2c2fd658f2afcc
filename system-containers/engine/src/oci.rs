//! The parts of the image formats that the engine reads: OCI image specification 1.1 and Docker's manifests.
//!
//! Types of our own, for the subset: the `oci-spec` crate costs 1.6 MB. Unknown fields are ignored, as the
//! specification asks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// A pointer to a blob.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is; empty in some old manifests.
    #[serde(default)]
    pub media_type: String,
    /// The blob's digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it is for, in an index.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// Names among them.
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// A machine that an image runs on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// As Go's GOARCH.
    pub architecture: String,
    /// As Go's GOOS.
    pub os: String,
    /// Of the architecture: `v7` and `v8` for ARM, `v2` to `v4` for amd64.
    #[serde(default)]
    pub variant: Option<String>,
}

/// An index or a manifest: what they are is told by their fields, for media types are missing in the wild.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// What it is, if it is no image and its configuration does not tell.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// 2, or 1 for Docker's first format.
    #[serde(default)]
    pub schema_version: u32,
    /// An index has these.
    #[serde(default)]
    pub manifests: Option<Vec<Descriptor>>,
    /// A manifest has this.
    #[serde(default)]
    pub config: Option<Descriptor>,
    /// A manifest's layers, the lowest first.
    #[serde(default)]
    pub layers: Option<Vec<Descriptor>>,
}

/// An entry of docker-save's manifest.json.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SavedImage {
    /// The path of the configuration in the archive.
    pub config: String,
    /// The image's names.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// The paths of the layers in the archive, the lowest first.
    #[serde(default)]
    pub layers: Option<Vec<String>>,
}

/// An image configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// As Go's GOARCH.
    #[serde(default)]
    pub architecture: String,
    /// As Go's GOOS.
    #[serde(default)]
    pub os: String,
    /// How to run it.
    #[serde(default)]
    pub config: Option<Process>,
    /// What its layers are.
    pub rootfs: RootFs,
}

/// The layers of an image as its configuration names them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RootFs {
    /// The digests of the uncompressed layers, the lowest first.
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

/// How an image wants to be run. Go writes `null` for what is empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Process {
    /// `name`, `uid`, `name:group`, …
    #[serde(default)]
    pub user: Option<String>,
    /// `KEY=value`.
    #[serde(default)]
    pub env: Option<Vec<String>>,
    /// The program.
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, or program and arguments without an entry point.
    #[serde(default)]
    pub cmd: Option<Vec<String>>,
    /// Where it starts.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// What asks it to end.
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// Ports that the program listens on: `80/tcp`, or `80` for the same.
    #[serde(default)]
    pub exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    /// What `CMD-SHELL` of its health check goes to (Docker's image format); `/bin/sh -c` if there is nothing.
    #[serde(default)]
    pub shell: Option<Vec<String>>,
    /// Directories that want a volume.
    #[serde(default)]
    pub volumes: Option<BTreeMap<String, serde_json::Value>>,
    /// Notes.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
    /// How to find out whether it does its work (Docker's image format; OCI reserves the name).
    #[serde(default)]
    pub healthcheck: Option<HealthCheck>,
}

/// A health check of an image. Times are in nanoseconds; 0 is the default.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthCheck {
    /// `NONE`, or `CMD` and words, or `CMD-SHELL` and text; nothing inherits that of the image below.
    pub test: Option<Vec<String>>,
    /// From the end of a check to the next.
    pub interval: u64,
    /// How long a check may take.
    pub timeout: u64,
    /// How long failures do not count.
    pub start_period: u64,
    /// From check to check within that time.
    pub start_interval: u64,
    /// How many failures in a row make it unhealthy.
    pub retries: u32,
}

/// This machine's architecture as images name it.
pub const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "unsupported"
};
