//! Images on the state partition.
//!
//! ```text
//! images/lock                    held by the one engine that may write here
//! images/catalogue.json          what is there: layers, images, archives that were imported
//! images/manifests/sha256/<hex>  as they came, for whoever wants to verify or export
//! images/configs/sha256/<hex>    the same
//! images/layers/sha256/<hex>     an unpacked layer, an image of EROFS, by chain ID
//! images/records/sha256/<hex>   what its tar stream had beside the content of files, by chain ID
//! images/logins.json             who is logged in to registries, for root alone
//! images/tmp/                    work in progress; emptied at every start
//! ```
//!
//! The catalogue is the truth. A layer that it does not name is left over from a crash and is removed. It is written
//! (aside, synced, renamed) only after one syncfs for everything that it names, so what it names is whole, whatever
//! happened to the power. Until then images are usable but would be imported again.
//!
//! Compressed blobs are not kept: a layer's image is what runs, and keeping both would nearly double the space. An
//! export makes the streams again from images and records. Where the file system has fs-verity, an image is protected by
//! it as soon as it is whole, and the catalogue has the digest that it must show ever after.
//!
//! A layer's key is its chain ID and not its diff ID because a directory that a layer does not bring takes its
//! metadata from the layers below.

mod catalogue;
mod claims;
mod collection;
mod draft;
mod held;
mod hold;
mod list;
mod lookup;
mod origin;
mod sweep;
mod users;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use berth_control::message::PreparedLayer;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use self::catalogue::Catalogue;
pub use self::catalogue::{ArchiveRecord, Identity, ImageRecord, LayerRecord, Outcome, PullRecord};
pub use self::claims::{Claim, Turn};
pub use self::collection::{Choice, Policy, Removed};
pub use self::draft::Draft;
pub use self::held::Held;
pub use self::hold::RemoveError;
pub use self::lookup::{FindError, Found};
use self::sweep::{CONFIGS, MANIFESTS};
pub(crate) use self::users::MARGIN;
pub use self::users::User;
use crate::digest::Digest;
use crate::layer::LayerError;
use crate::merged::{Merged, MergedError};
use crate::reference::Reference;
use crate::verity::{self, VerityError};

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("{operation} {path:?}{}", advice(.source))]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Its error.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("the image store {path:?} is in use by another engine")]
    Locked {
        /// The store.
        path: PathBuf,
    },
    /// The layers of an image cannot be opened.
    #[error(transparent)]
    Merged(#[from] MergedError),
    /// One of them is not as it was written.
    #[error(transparent)]
    Verity(#[from] VerityError),
    /// A document is not.
    #[error("{path:?} is not what was written there: pull the image again, or import its archive")]
    Changed {
        /// The document.
        path: PathBuf,
    },
}

impl StoreError {
    /// Whether it failed because the disk is full.
    pub fn is_for_want_of_room(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => ", which has no room for it; remove something or enlarge the disk",
        _ => "",
    }
}

/// The store, for all threads of the engine.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    directory: OwnedFd,
    /// The lock lasts as long as this is open, so a killed engine leaves none.
    _lock: OwnedFd,
    next: AtomicU64,
    catalogue: Mutex<Catalogue>,
    /// Goes with the catalogue's lock.
    layers_changed: Condvar,
    /// One thread at a time empties tmp.
    emptying: Mutex<()>,
    /// The names of drafts in tmp.
    drafts: Mutex<HashSet<String>>,
    committing: Mutex<()>,
    boot: String,
}

/// Where layers lie below the store's directory.
const LAYERS: &str = "layers/sha256";
/// Where their records do.
const RECORDS: &str = "records/sha256";
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Store {
    /// Opens the store, or makes it, and removes what a crash has left.
    ///
    /// `boot` tells this boot of the machine from all others: the kernel's boot_id.
    pub fn open(path: &Path, boot: &str) -> Result<Self, StoreError> {
        for part in ["tmp", MANIFESTS, CONFIGS, LAYERS, RECORDS] {
            make_directories(&path.join(part))?;
        }
        let failed = |operation| move |source: Errno| file_error(operation, path)(source.into());
        let directory = rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(failed("open"))?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = rustix::fs::openat(&directory, "lock", flags, Mode::RUSR | Mode::WUSR).map_err(failed("lock"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(StoreError::Locked { path: path.to_owned() }),
            Err(error) => return Err(failed("lock")(error)),
        }
        let (catalogue, damaged) = Catalogue::read(&path.join("catalogue.json"))?;
        if let Some(reason) = damaged {
            eprintln!("engine: the catalogue of images is damaged, images are imported again: {reason}");
        }
        let store = Self {
            path: path.to_owned(),
            directory,
            _lock: lock,
            next: AtomicU64::new(0),
            catalogue: Mutex::new(catalogue),
            layers_changed: Condvar::new(),
            emptying: Mutex::default(),
            drafts: Mutex::default(),
            committing: Mutex::new(()),
            boot: boot.to_owned(),
        };
        store.clean()?;
        Ok(store)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        // A thread that panicked with the lock held has ended the process (panic=abort); in tests the data is whole.
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a layer is unpacked and verified.
    pub fn has_layer(&self, chain: Digest) -> bool {
        self.catalogue().layers.contains_key(&chain)
    }

    /// The image of a layer.
    pub fn layer_path(&self, chain: Digest) -> PathBuf {
        self.path.join(LAYERS).join(chain.hex())
    }

    /// The layers of an image as one tree; the argument is the lowest first. Those that are protected are as they were
    /// written, or it fails.
    pub fn merged(&self, chain: &[Digest]) -> Result<Merged, StoreError> {
        let layers: Vec<(Digest, Option<Digest>)> = {
            let catalogue = self.catalogue();
            let verity = |layer| catalogue.layers.get(layer).and_then(|record| record.verity);
            chain.iter().rev().map(|layer| (*layer, verity(layer))).collect()
        };
        let open = |(layer, expected): (Digest, _)| Ok((self.layer_path(layer), self.open_layer(layer, expected)?));
        let files = layers.into_iter().map(open).collect::<Result<_, StoreError>>()?;
        Ok(Merged::new(files)?)
    }

    fn open_layer(&self, layer: Digest, expected: Option<Digest>) -> Result<File, StoreError> {
        let path = self.layer_path(layer);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|error| file_error("open the layer", &path)(error.into()))?;
        if let Some(expected) = expected {
            verity::check(file.as_fd(), path, expected)?;
        }
        Ok(File::from(file))
    }

    /// The layers of an image for who mounts them, the uppermost first; the argument is the lowest first.
    pub fn layers(&self, chain: &[Digest]) -> Vec<PreparedLayer> {
        let catalogue = self.catalogue();
        let prepared = |layer: &Digest| PreparedLayer {
            path: self.layer_path(*layer),
            verity: catalogue.layers.get(layer).and_then(|record| record.verity).map(|digest| digest.hex()),
        };
        chain.iter().rev().map(prepared).collect()
    }

    /// Makes an image usable whose layers are published. It lasts from the next [`Self::commit`] on.
    pub fn add_image(
        &self,
        digest: Digest,
        mut image: ImageRecord,
        manifest: Option<&[u8]>,
        config: &[u8],
    ) -> Result<(), StoreError> {
        let mut catalogue = self.catalogue();
        if let Some(manifest) = manifest {
            self.write(&format!("{MANIFESTS}/{}", digest.hex()), manifest)?;
        }
        self.write(&format!("{CONFIGS}/{}", image.config_digest.hex()), config)?;
        image.imported |= catalogue.images.get(&digest).is_some_and(|known| known.imported);
        catalogue.images.insert(digest, image);
        catalogue.touch(digest);
        Ok(())
    }

    /// A document. One that is there already is of an image that may be in use, and is not touched.
    fn write(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let path = self.path.join(name);
        if std::fs::read(&path).is_ok_and(|known| known == content) {
            return Ok(());
        }
        let mut file = self.nameless()?;
        file.write_all(content).map_err(file_error("write", &path))?;
        self.link(&file, name)
    }

    /// Remembers what an archive came to; replaces what was known of an archive of that name. Its names go before those
    /// that came from registries until now.
    pub fn record_archive(&self, name: &str, record: ArchiveRecord) {
        let mut catalogue = self.catalogue();
        for (name, _) in record.names() {
            catalogue.pulled.remove(name);
            catalogue.named.remove(name);
        }
        catalogue.archives.insert(name.to_owned(), record);
    }

    /// Remembers which image a name means since it was pulled.
    pub fn record_pull(&self, reference: &Reference, record: PullRecord) {
        let mut catalogue = self.catalogue();
        catalogue.named.remove(&reference.key());
        catalogue.pulled.insert(reference.key(), record);
    }

    /// Marks which archives are there now; those of another identity are forgotten, for their names may now mean other
    /// images. Returns the names of those that need no import.
    pub fn present_archives(&self, present: &BTreeMap<String, Identity>) -> BTreeSet<String> {
        self.catalogue().present(present)
    }

    /// What is remembered of an archive.
    pub fn archive(&self, name: &str) -> Option<ArchiveRecord> {
        self.catalogue().archives.get(name).cloned()
    }

    /// What is remembered of all archives, by name.
    pub fn archives(&self) -> BTreeMap<String, ArchiveRecord> {
        self.catalogue().archives.clone()
    }

    /// Names that several archives give to different images, with those archives; the last one counts.
    pub fn duplicates(&self) -> BTreeMap<String, Vec<String>> {
        self.catalogue().duplicates()
    }

    /// All images by name. What was pulled last counts, then of archives that give one name to different images the last
    /// in name order; archives that are no longer there count before all others.
    pub fn names(&self) -> BTreeMap<String, Digest> {
        self.catalogue().names()
    }

    /// The image that a name means now. Whether a container needs it is another matter, see [`Self::resolve_for`].
    pub fn resolve(&self, reference: &Reference) -> Option<(Digest, ImageRecord)> {
        self.catalogue().resolve(reference)
    }

    /// An image by its digest.
    pub fn image(&self, digest: Digest) -> Option<ImageRecord> {
        self.catalogue().images.get(&digest).cloned()
    }

    /// Makes everything last: one sync of the file system, then the catalogue.
    pub fn commit(&self) -> Result<(), StoreError> {
        // Two threads may want it at once, at shutdown.
        let _turn = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        let text = {
            let mut catalogue = self.catalogue();
            catalogue.touch_needed();
            catalogue.to_json()
        };
        let path = self.path.join("catalogue.json");
        rustix::fs::syncfs(&self.directory).map_err(|error| file_error("sync", &self.path)(error.into()))?;
        // Not in tmp, which another thread may be emptying.
        let aside = self.path.join("catalogue.json.new");
        let mut file = File::create(&aside).map_err(file_error("write", &aside))?;
        file.write_all(text.as_bytes()).map_err(file_error("write", &aside))?;
        file.sync_all().map_err(file_error("sync", &aside))?;
        std::fs::rename(&aside, &path).map_err(file_error("replace", &path))?;
        rustix::fs::fsync(&self.directory).map_err(|error| file_error("sync", &self.path)(error.into()))
    }
}

/// The chain IDs of an image's layers, the lowest first (OCI image specification, "Layer ChainID").
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => *diff_id,
            Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
        });
    }
    chain
}

/// Makes a directory and those above it, for root only below the first new one.
pub(crate) fn make_directories(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(file_error("make", path))
}

/// Turns an error into one that names the file.
pub(crate) fn file_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File { operation, path, source }
}

impl From<StoreError> for LayerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Merged(error) => Self::Merged(error),
            StoreError::Verity(error) => Self::Verity(error),
            StoreError::File { operation, path, source } => Self::System {
                operation,
                path: path.display().to_string(),
                source: Errno::from_io_error(&source).unwrap_or(Errno::IO),
            },
            StoreError::Changed { path } => {
                Self::System { operation: "read", path: path.display().to_string(), source: Errno::UCLEAN }
            }
            StoreError::Locked { path } => {
                Self::System { operation: "lock", path: path.display().to_string(), source: Errno::BUSY }
            }
        }
    }
}

#[cfg(test)]
mod tests;
