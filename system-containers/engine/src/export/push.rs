//! `berth push`: an image to the registry in its name.
//!
//! The manifest that it came with goes out again if the registry has all its layers, or takes them over from the repository
//! that they came from: then its digest stays. Else each layer that it has not is made again, compressed into a file without
//! a name, and uploaded if the registry has no such blob; the configuration stays the same, the manifest is a new one, which
//! names the others as they came.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{Mode, OFlags};

use super::documents::{self, GZIP_LAYER, MANIFEST, Pointer};
use super::{ExportError, layer};
use crate::digest::{Digest, Hasher};
use crate::document::{self, Kind};
use crate::oci::Descriptor;
use crate::pull::progress::Progress;
use crate::reference::Reference;
use crate::registry::{Client, RegistryError};
use crate::room::Room;
use crate::store::{Found, Store, StoreError, file_error};

/// What came of it.
#[derive(Debug)]
pub struct Pushed {
    /// The digest of the manifest that is there now.
    pub digest: Digest,
    /// How many blobs had to be uploaded.
    pub uploaded: usize,
}

/// Why an image was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// It cannot be made.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The registry does not take it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store cannot hold a layer for it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Where an image goes is a tag.
    #[error("{name} has a digest: an image is pushed under a tag")]
    Pinned {
        /// As asked for.
        name: String,
    },
    /// The thread that compresses is gone.
    #[error("the engine ends")]
    Ends,
}

/// Pushes.
pub async fn push(
    store: &Arc<Store>,
    client: &Client,
    name: &Reference,
    progress: &Progress,
) -> Result<Pushed, PushError> {
    let tag = match (name.tag(), name.digest()) {
        (Some(tag), None) => tag.to_owned(),
        _ => return Err(PushError::Pinned { name: name.to_string() }),
    };
    let client = &client.writing();
    progress.ask(&client.place());
    let sources = store.repositories(name);
    // Nobody gives up its layers meanwhile.
    let _held = store.hold(store.find_named(name).map_err(ExportError::from)?.digest);
    let original = original(store, name)?;
    let mut there = Vec::new();
    for layer in original.iter().flat_map(|original| &original.layers) {
        there.push(is_there(client, layer.digest, &sources).await?);
    }
    if let Some(Original { manifest, kind, config, .. }) = original.as_ref().filter(|_| !there.contains(&false)) {
        let mut uploaded = 0;
        if !is_there(client, *config, &sources).await? {
            let Found { record, .. } = store.find_named(name).map_err(ExportError::from)?;
            upload_config(store, client, &store.config(&record)?).await?;
            uploaded = 1;
        }
        client.put_manifest(&tag, kind, manifest).await?;
        return Ok(Pushed { digest: Digest::of(manifest), uploaded });
    }
    let mut as_it_came = original.into_iter().flat_map(|original| original.layers).zip(there);
    let (from, wanted) = (Arc::clone(store), name.clone());
    let image = tokio::task::spawn_blocking(move || documents::of(&from, from.find_named(&wanted)?))
        .await
        .map_err(|_| PushError::Ends)??;
    let mut uploaded = 0;
    let seen = progress.begin(&image.layers.iter().map(as_descriptor).collect::<Vec<_>>());
    let mut pointers = Vec::with_capacity(image.layers.len());
    for (one, seen) in image.layers.iter().zip(&seen) {
        let came = as_it_came.next().filter(|(_, there)| *there);
        if let Some(pointer) = came.and_then(|(layer, _)| documents::pointer(&layer)) {
            seen.done();
            pointers.push(pointer);
            continue;
        }
        let (from, one) = (Arc::clone(store), one.clone());
        let (file, digest, size) =
            tokio::task::spawn_blocking(move || compress(&from, &one)).await.map_err(|_| PushError::Ends)??;
        seen.comes_to(size);
        if !client.has_blob(digest).await? {
            let watched = Arc::clone(seen);
            client.upload(&Arc::new(file), digest, size, move |sent| watched.received(sent)).await?;
            uploaded += 1;
        }
        seen.done();
        pointers.push(Pointer { media_type: GZIP_LAYER, digest, size });
    }
    let digest = Digest::of(&image.config);
    if !client.has_blob(digest).await? {
        upload_config(store, client, &image.config).await?;
        uploaded += 1;
    }
    let manifest = documents::manifest(&image.config, &pointers)?;
    client.put_manifest(&tag, MANIFEST, &manifest).await?;
    Ok(Pushed { digest: Digest::of(&manifest), uploaded })
}

async fn upload_config(store: &Store, client: &Client, config: &[u8]) -> Result<(), PushError> {
    let file = spool(store)?;
    (&file).write_all(config).map_err(file_error("write to", store.path()))?;
    Ok(client.upload(&Arc::new(file), Digest::of(config), config.len() as u64, |_| {}).await?)
}

/// The manifest that an image came with.
struct Original {
    manifest: Vec<u8>,
    /// Its media type.
    kind: String,
    config: Digest,
    layers: Vec<Descriptor>,
}

fn original(store: &Store, name: &Reference) -> Result<Option<Original>, PushError> {
    let Found { digest, .. } = store.find_named(name).map_err(ExportError::from)?;
    let Some(manifest) = store.manifest(digest)? else { return Ok(None) };
    // What does not say its kind is OCI's, which need not.
    let value: Option<serde_json::Value> = serde_json::from_slice(&manifest).ok();
    let kind = value.and_then(|value| Some(value.get("mediaType")?.as_str()?.to_owned()));
    let kind = kind.unwrap_or_else(|| MANIFEST.to_owned());
    Ok(match document::manifest("the manifest", &manifest) {
        Ok(Kind::Image { config, layers }) => Some(Original { manifest, kind, config: config.digest, layers }),
        _ => None,
    })
}

/// Whether the registry has a blob, or gets it from these repositories of its own.
async fn is_there(client: &Client, blob: Digest, sources: &[String]) -> Result<bool, RegistryError> {
    if client.has_blob(blob).await? {
        return Ok(true);
    }
    for source in sources {
        if client.mount(blob, source).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How much there is to send shows when the layer is compressed.
fn as_descriptor(layer: &documents::Layer) -> Descriptor {
    Descriptor { media_type: String::new(), digest: layer.diff_id, size: 0, platform: None, annotations: None }
}

/// Compresses a layer into a file without a name; its digest and size. The same every time.
fn compress(store: &Store, one: &documents::Layer) -> Result<(File, Digest, u64), PushError> {
    let file = spool(store)?;
    let counted = Counted {
        file: file.try_clone().map_err(ExportError::Write)?,
        room: store.room(),
        hasher: Hasher::default(),
        size: 0,
    };
    let mut encoder = GzEncoder::new(io::BufWriter::with_capacity(128 << 10, counted), Compression::default());
    layer::write(store, &one.chain, one.diff_id, &mut encoder)?;
    let counted = encoder.finish().and_then(|writer| writer.into_inner().map_err(io::IntoInnerError::into_error));
    let Counted { hasher, size, .. } = counted.map_err(ExportError::Write)?;
    Ok((file, hasher.finish(), size))
}

fn spool(store: &Store) -> Result<File, StoreError> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(store.spool()?, ".", flags, Mode::RUSR | Mode::WUSR);
    file.map(File::from).map_err(|error| file_error("make a file in", store.path())(error.into()))
}

/// A file, and what was written to it.
struct Counted {
    file: File,
    room: Room,
    hasher: Hasher,
    size: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full disk must not stop the machine.
        self.room
            .check(self.file.as_fd(), bytes.len() as u64)
            .map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
