//! One image from one place: its documents, then its layers, which come side by side and are unpacked in order.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::PullError;
use super::download::Download;
use super::progress::{LayerProgress, Progress};
use super::spool::Spool;
use crate::digest::Digest;
use crate::document::{self, DocumentError, Kind};
use crate::intake::{self, Incoming};
use crate::limits;
use crate::oci::{Descriptor, ImageConfig};
use crate::platform;
use crate::reference::Reference;
use crate::registry::{Client, RegistryError};
use crate::store::{ImageRecord, Store, Turn, chain_ids, file_error};
use std::os::fd::AsFd as _;

/// How many layers of an image come at once, as with Docker.
const DOWNLOADS: usize = 3;

/// An image whose documents are there and verified.
#[derive(Clone)]
pub struct Found {
    /// The digest of what its name leads to: of its manifest, or of an index that has it.
    pub named: Digest,
    /// The digest of its manifest.
    pub digest: Digest,
    manifest: Vec<u8>,
    config_digest: Digest,
    raw_config: Vec<u8>,
    config: ImageConfig,
    layers: Vec<Descriptor>,
}

/// Looks an image up, through indexes to the one for this machine.
pub async fn find(client: &Client, reference: &Reference) -> Result<Found, PullError> {
    let wanted = reference.digest();
    let name = wanted.map_or_else(|| reference.tag().unwrap_or("latest").to_owned(), |digest| digest.to_string());
    let (mut manifest, mut digest) = client.manifest(&name, wanted).await?;
    let (named, mut depth) = (digest, 0);
    let (config, layers) = loop {
        let name = format!("the manifest {digest}");
        match document::manifest(&name, &manifest)? {
            Kind::Image { config, layers } => break (config, layers),
            Kind::Index(_) if depth == limits::INDEX_DEPTH => return Err(DocumentError::Nested.into()),
            Kind::Index(manifests) => {
                let chosen =
                    platform::choose(&manifests).map_err(|offered| DocumentError::Platform { offered })?.clone();
                (manifest, digest) = client.manifest(&chosen.digest.to_string(), Some(chosen.digest)).await?;
                let (expected, found) = (chosen.size, manifest.len() as u64);
                if expected != found {
                    let what = format!("the manifest {digest}");
                    return Err(RegistryError::Length { to: client.place(), what, expected, found }.into());
                }
                depth += 1;
            }
        }
    };
    let raw_config = client.document(&config).await?;
    let parsed = document::image_config(&format!("the configuration {}", config.digest), &raw_config, layers.len())?;
    Ok(Found { named, digest, manifest, config_digest: config.digest, raw_config, config: parsed, layers })
}

/// Brings the layers that are missing, and adds the image. Blocks, and must not run on the runtime's own thread.
/// Returns how many layers were missing.
pub fn bring(
    store: &Store,
    client: &Client,
    found: Found,
    runtime: &Handle,
    progress: &Progress,
) -> Result<usize, PullError> {
    let chain = chain_ids(&found.config.rootfs.diff_ids);
    let seen = progress.begin(&found.layers);
    let claim = store.claim(&chain);
    let downloads = Downloads { store, client, runtime, places: Arc::new(Semaphore::new(DOWNLOADS)) };
    let layers = found.layers.iter().zip(&seen);
    let mut begun = Vec::with_capacity(chain.len());
    for ((blob, seen), id) in layers.clone().zip(&chain) {
        begun.push(if claim.is_ours(*id) { Some(downloads.start(blob, seen)?) } else { None });
    }
    let mut missing = 0;
    let work = layers.zip(&found.config.rootfs.diff_ids).zip(begun).enumerate();
    for (position, (((blob, seen), diff_id), begun)) in work {
        let chain = chain.get(..=position).unwrap_or_default();
        if chain.last().is_none_or(|id| claim.turn(*id) == Turn::Ours) {
            // Another pull may have failed to make it: then it begins only now.
            let download = begun.map_or_else(|| downloads.start(blob, seen), Ok)?;
            let name = blob.digest.to_string();
            let (stream, cancel) = (download.reader(), &|| download.cancel());
            let incoming = Incoming { name: &name, stream, blob: None, diff_id: *diff_id, cancel };
            intake::layer(store, incoming, chain).map_err(|error| match download.error() {
                Some(cause) => PullError::Registry(cause),
                None => PullError::Intake(error),
            })?;
            missing += 1;
        }
        seen.done();
    }
    let Found { digest, manifest, config_digest, raw_config, config, .. } = found;
    let record = ImageRecord { config_digest, chain, config, unnamed: None };
    store.add_image(digest, record, Some(&manifest), &raw_config)?;
    Ok(missing)
}

struct Downloads<'a> {
    store: &'a Store,
    client: &'a Client,
    runtime: &'a Handle,
    places: Arc<Semaphore>,
}

impl Downloads<'_> {
    fn start(&self, blob: &Descriptor, seen: &Arc<LayerProgress>) -> Result<Download, PullError> {
        let directory = self.store.spool()?;
        let failed = |error| file_error("make a file in", &self.store.path().join("tmp"))(error);
        let spool = Spool::new(directory.as_fd(), self.store.room()).map_err(failed)?;
        let (client, blob, seen) = (self.client.clone(), blob.clone(), Arc::clone(seen));
        Ok(Download::start(self.runtime, &self.places, client, blob, spool, seen))
    }
}
