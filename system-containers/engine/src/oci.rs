//! The parts of the image formats that the engine reads: OCI image specification 1.1 and Docker's manifests.
//!
//! Types of our own, for the subset: the `oci-spec` crate costs 1.6 MB. Unknown fields are ignored, as the
//! specification asks.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::digest::Digest;

/// containerd's annotation: always a whole name.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The image specification's: a whole name or a part of it.
pub const REFERENCE_NAME: &str = "org.opencontainers.image.ref.name";
/// cosign's: a signature of the layer.
pub const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// What kind of statement a bundle of cosign's has, where the registry repeats annotations.
pub const PREDICATE: &str = "dev.sigstore.bundle.predicateType";

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
    /// Those of the ones above that it has.
    #[serde(default, deserialize_with = "known_annotations")]
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
    /// As Go's GOARCH; empty if nothing is said of it.
    #[serde(default)]
    pub architecture: String,
    /// As Go's GOOS; empty if nothing is said of it.
    #[serde(default)]
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
    pub manifests: Option<Entries>,
    /// A manifest has this.
    #[serde(default)]
    pub config: Option<Descriptor>,
    /// A manifest's layers, the lowest first.
    #[serde(default)]
    pub layers: Option<Vec<Descriptor>>,
}

/// The entries of an index.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// Those that can be used, in order.
    pub known: Vec<Descriptor>,
    /// How many cannot, for one because their digest is of another kind: that is no fault of the others.
    pub odd: usize,
}

impl<'de> Deserialize<'de> for Entries {
    /// From bytes only, not from a stream.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ReadEntries)
    }
}

struct ReadEntries;

impl<'de> Visitor<'de> for ReadEntries {
    type Value = Entries;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    /// One after the other: a few bytes of an entry that is none must not become many in memory.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
        let mut entries = Entries::default();
        while let Some(entry) = list.next_element::<&RawValue>()? {
            match serde_json::from_str(entry.get()) {
                Ok(descriptor) => entries.known.push(descriptor),
                Err(_) => entries.odd += 1,
            }
        }
        Ok(entries)
    }
}

fn known_annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    deserializer.deserialize_option(ReadAnnotations)
}

struct ReadAnnotations;

impl<'de> Visitor<'de> for ReadAnnotations {
    type Value = Option<BTreeMap<String, String>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("annotations")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut annotations = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            if [CONTAINERD_NAME, REFERENCE_NAME, SIGNATURE, PREDICATE].contains(&key.as_str()) {
                annotations.insert(key, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Some(annotations))
    }
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
    #[serde(default, deserialize_with = "or_nothing")]
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

/// Go writes `null` for a list that is empty.
fn or_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Whether an architecture is this machine's, also by the name that Linux has for it: some tools write that.
pub fn is_our_architecture(name: &str) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match ARCHITECTURE {
        "amd64" => ["amd64", "x86_64", "x86-64"].into_iter().any(is),
        "arm64" => ["arm64", "aarch64"].into_iter().any(is),
        ours => is(ours),
    }
}

/// This machine's architecture as images name it.
pub const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "unsupported"
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_entry_does_not_spoil_an_index() {
        let digest = Digest::of(b"");
        let odd = format!("sha512:{}", "0".repeat(128));
        let text = format!(
            r#"{{"manifests":[
                {{"digest":"{odd}","size":1}},
                {{"digest":"{digest}","size":2,"platform":{{}},"new":[{{}}]}},
                {{"digest":"{digest}"}}, 7, null,
                {{"digest":"{digest}","size":3,"platform":{{"os":"linux"}}}}
            ]}}"#
        );
        let manifest: Manifest = serde_json::from_str(&text).unwrap();
        let entries = manifest.manifests.unwrap();
        assert_eq!(entries.known.iter().map(|entry| entry.size).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(entries.odd, 4);
        assert!(serde_json::from_str::<Manifest>(r#"{"manifests":null}"#).unwrap().manifests.is_none());
    }

    #[test]
    fn a_list_of_nothing_may_be_null() {
        let config: ImageConfig = serde_json::from_str(r#"{"rootfs":{"type":"layers","diff_ids":null}}"#).unwrap();
        assert!(config.rootfs.diff_ids.is_empty());
    }

    #[test]
    fn an_architecture_may_have_linuxs_name() {
        let linux = std::env::consts::ARCH;
        assert!([ARCHITECTURE, linux, &linux.to_uppercase()].into_iter().all(is_our_architecture));
        assert!(!["", "s390x", "386"].into_iter().any(is_our_architecture));
    }
}
