//! The documents of an image that goes out with plain layers.

use serde::Serialize;

use super::{ExportError, layer};
use crate::digest::Digest;
use crate::document::{self, Kind};
use crate::oci::{Descriptor, ImageConfig};
use crate::reference::Reference;
use crate::store::{Found, ImageRecord, Store};

/// The media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The media type of a layer that is compressed.
pub const GZIP_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// What layers are called that an image came with, and what OCI's manifests call them.
const LAYERS: [(&str, &str); 6] = [
    (LAYER, LAYER),
    (GZIP_LAYER, GZIP_LAYER),
    (ZSTD_LAYER, ZSTD_LAYER),
    ("application/vnd.docker.image.rootfs.diff.tar", LAYER),
    ("application/vnd.docker.image.rootfs.diff.tar.gzip", GZIP_LAYER),
    ("application/vnd.docker.image.rootfs.diff.tar.zstd", ZSTD_LAYER),
];

/// A pointer to a blob, as it is written.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pointer {
    /// What the blob is.
    pub media_type: &'static str,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: &'a Pointer,
    layers: &'a [Pointer],
}

/// A layer to be written.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The chain IDs up to and with it.
    pub chain: Vec<Digest>,
    /// Its digest as a plain stream.
    pub diff_id: Digest,
    /// Its length as one, in bytes.
    pub length: u64,
}

/// An image to be written.
#[derive(Debug)]
pub struct Outgoing {
    /// Its name, if it was asked for by one.
    pub name: Option<Reference>,
    /// What is stored of it.
    pub record: ImageRecord,
    /// Its configuration.
    pub config: Vec<u8>,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
    /// The manifest, with plain layers.
    pub manifest: Vec<u8>,
}

/// Everything about an image but its layers' content.
pub fn of(store: &Store, image: Found) -> Result<Outgoing, ExportError> {
    let Found { name, digest, record } = image;
    let config = store.config(&record)?;
    let mut layers = Vec::with_capacity(record.chain.len());
    let parsed: ImageConfig =
        serde_json::from_slice(&config).map_err(|source| ExportError::Document { what: "configuration", source })?;
    for (position, (id, diff_id)) in record.chain.iter().zip(&parsed.rootfs.diff_ids).enumerate() {
        let chain = record.chain.iter().take(position + 1).copied().collect();
        layers.push(Layer { chain, diff_id: *diff_id, length: layer::length(store, *id, *diff_id)? });
    }
    let pointers: Vec<Pointer> =
        layers.iter().map(|layer| Pointer { media_type: LAYER, digest: layer.diff_id, size: layer.length }).collect();
    let manifest = match store.manifest(digest)?.filter(|manifest| has_plain_layers(manifest, &layers)) {
        // It came with plain layers, so it can go as it is.
        Some(manifest) => manifest,
        None => manifest(&config, &pointers)?,
    };
    Ok(Outgoing { name, record, config, layers, manifest })
}

/// A pointer to a layer as it came; none if it came as something that has no name among OCI's.
pub fn pointer(layer: &Descriptor) -> Option<Pointer> {
    let (_, media_type) = LAYERS.iter().find(|(known, _)| *known == layer.media_type)?;
    Some(Pointer { media_type, digest: layer.digest, size: layer.size })
}

/// A manifest for this configuration and these layers.
pub fn manifest(config: &[u8], layers: &[Pointer]) -> Result<Vec<u8>, ExportError> {
    let config = Pointer { media_type: CONFIG, digest: Digest::of(config), size: config.len() as u64 };
    let manifest = Manifest { schema_version: 2, media_type: MANIFEST, config: &config, layers };
    serde_json::to_vec(&manifest).map_err(|source| ExportError::Document { what: "manifest", source })
}

fn has_plain_layers(manifest: &[u8], layers: &[Layer]) -> bool {
    match document::manifest("the manifest", manifest) {
        Ok(Kind::Image { layers: found, .. }) => {
            found.iter().map(|layer| layer.digest).eq(layers.iter().map(|layer| layer.diff_id))
        }
        _ => false,
    }
}
