//! One image from one place: its documents, then its layers, which come side by side; one or two are unpacked at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::PullError;
use super::demand::Demand;
use super::download::Download;
use super::order::{Forsaken, Order};
use super::progress::{LayerProgress, Progress};
use super::spool::Spool;
use crate::digest::Digest;
use crate::document::{self, DocumentError, Kind};
use crate::intake::{self, Incoming, IntakeError};
use crate::layer::LayerError;
use crate::limits;
use crate::oci::Descriptor;
use crate::platform;
use crate::reference::Reference;
use crate::registry::{Client, RegistryError};
use crate::store::{Claim, ImageRecord, Store, Turn, chain_ids, file_error};
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
    diff_ids: Vec<Digest>,
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
    let name = format!("the configuration {}", config.digest);
    let parsed = document::image_config(&name, &config.media_type, &raw_config, layers.len())?;
    Ok(Found {
        named,
        digest,
        manifest,
        config_digest: config.digest,
        raw_config,
        diff_ids: parsed.rootfs.diff_ids,
        layers,
    })
}

/// Brings the layers that are missing, and adds the image. Blocks, and must not run on the runtime's own thread. A second
/// layer is unpacked at the same time if there is a place for it in `more`. Returns how many layers were missing.
pub fn bring(
    store: &Store,
    client: &Client,
    found: Found,
    runtime: &Handle,
    progress: &Progress,
    more: Option<&Semaphore>,
) -> Result<usize, PullError> {
    let chain = chain_ids(&found.diff_ids);
    let seen = progress.begin(&found.layers);
    let claim = store.claim(&chain);
    let places = Arc::new(Semaphore::new(DOWNLOADS));
    let downloads = Downloads { store, client, runtime, places, demand: Arc::default() };
    let mut layers = Vec::with_capacity(chain.len());
    for (((blob, seen), id), diff_id) in found.layers.iter().zip(&seen).zip(&chain).zip(&found.diff_ids) {
        let download = if claim.is_ours(*id) { Some(Arc::new(downloads.start(blob, seen)?)) } else { None };
        layers.push(Layer { id: *id, diff_id: *diff_id, blob, seen, download: Mutex::new(download) });
    }
    let order = Order::new(layers.len());
    let bringing =
        Bringing { store, claim: &claim, chain: &chain, downloads, layers, order, missing: AtomicUsize::new(0) };
    std::thread::scope(|scope| {
        if let Some(places) = more.filter(|_| bringing.layers.len() > 1) {
            // One place for each layer: who waits for one gets it when that is done.
            let bringing = &bringing;
            let work = move || bringing.work(|| places.try_acquire().ok());
            let other = Builder::new().name("layers".to_owned()).spawn_scoped(scope, work);
            // Without it they come one after the other.
            drop(other);
        }
        bringing.work(|| Some(()));
    });
    let missing = bringing.missing.into_inner();
    bringing.order.finish()?;
    let Found { digest, manifest, config_digest, raw_config, .. } = found;
    let record = ImageRecord { config_digest, chain, unnamed: None, imported: false };
    store.add_image(digest, record, Some(&manifest), &raw_config)?;
    Ok(missing)
}

/// A layer of the image.
struct Layer<'a> {
    id: Digest,
    diff_id: Digest,
    blob: &'a Descriptor,
    seen: &'a Arc<LayerProgress>,
    /// If it has begun.
    download: Mutex<Option<Arc<Download>>>,
}

/// The layers of an image on their way, for one or two threads.
struct Bringing<'a> {
    store: &'a Store,
    claim: &'a Claim<'a>,
    chain: &'a [Digest],
    downloads: Downloads<'a>,
    layers: Vec<Layer<'a>>,
    order: Order<PullError>,
    missing: AtomicUsize,
}

impl Bringing<'_> {
    /// Makes one layer after the other until there is none, or no place for it.
    fn work<P>(&self, place: impl Fn() -> Option<P>) {
        while let Some(_place) = place()
            && let Some(position) = self.order.take()
        {
            let Some(layer) = self.layers.get(position) else { return };
            let made = self.make(position, layer);
            if made.is_err() {
                // Nobody is to wait for what comes for the layers above.
                for download in self.layers.iter().skip(position + 1).filter_map(Layer::begun) {
                    download.cancel();
                }
            }
            self.order.end(position, made);
        }
    }

    fn make(&self, position: usize, layer: &Layer<'_>) -> Result<(), PullError> {
        let name = layer.blob.digest.to_string();
        let below = || self.order.wait_below(position).map_err(|Forsaken| LayerError::Forsaken);
        if !self.claim.is_ours(layer.id) {
            // Who waits for others has nothing of its own left that they may wait for.
            below().map_err(|source| IntakeError::Layer { name: name.clone(), source })?;
        }
        if self.claim.turn(layer.id) == Turn::Ours {
            let download = self.download(layer)?;
            let (stream, cancel) = (download.reader(), &|| download.cancel());
            let incoming = Incoming { name: &name, stream, blob: None, diff_id: layer.diff_id, below: &below, cancel };
            let chain = self.chain.get(..=position).unwrap_or_default();
            intake::layer(self.store, incoming, chain).map_err(|error| match download.error() {
                Some(cause) => PullError::Registry(cause),
                None => PullError::Intake(error),
            })?;
            self.missing.fetch_add(1, Ordering::Relaxed);
        }
        layer.seen.done();
        Ok(())
    }

    /// Another pull may have failed to make the layer: then its download begins only now.
    fn download(&self, layer: &Layer<'_>) -> Result<Arc<Download>, PullError> {
        if let Some(begun) = layer.begun() {
            return Ok(begun);
        }
        let download = Arc::new(self.downloads.start(layer.blob, layer.seen)?);
        *layer.download.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&download));
        Ok(download)
    }
}

impl Layer<'_> {
    fn begun(&self) -> Option<Arc<Download>> {
        self.download.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Downloads<'a> {
    store: &'a Store,
    client: &'a Client,
    runtime: &'a Handle,
    places: Arc<Semaphore>,
    demand: Arc<Demand>,
}

impl Downloads<'_> {
    fn start(&self, blob: &Descriptor, seen: &Arc<LayerProgress>) -> Result<Download, PullError> {
        let directory = self.store.spool()?;
        let failed = |error| file_error("make a file in", &self.store.path().join("tmp"))(error);
        let spool = Spool::new(directory.as_fd(), self.store.room(), Arc::clone(&self.demand)).map_err(failed)?;
        let (client, blob, seen) = (self.client.clone(), blob.clone(), Arc::clone(seen));
        Ok(Download::start(self.runtime, &self.places, client, blob, spool, seen))
    }
}
