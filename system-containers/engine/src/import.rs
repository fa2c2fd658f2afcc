//! Brings the images of an archive into the store.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::archive::{Archive, ArchiveError, ArchivedImage, ArchivedLayer, Contents};
use crate::digest::Digest;
use crate::intake::{self, Incoming, IntakeError};
use crate::reference::Reference;
use crate::store::{ArchiveRecord, Held, Identity, ImageRecord, Outcome, Store, StoreError, Turn, chain_ids};

/// Why an archive, or an image of it, was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("read the archive")]
    Open(#[source] io::Error),
    /// The archive is unsound.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer is.
    #[error(transparent)]
    Intake(#[from] IntakeError),
}

impl ImportError {
    /// Whether it failed because the disk is full, or nearly.
    fn is_for_want_of_room(&self) -> bool {
        match self {
            Self::Archive(error) => error.is_for_want_of_room(),
            Self::Store(error) => error.is_for_want_of_room(),
            Self::Intake(error) => error.is_for_want_of_room(),
            Self::Open(_) => false,
        }
    }

    /// Whether the archive is to blame, and not this machine: then another try with the same archive is useless.
    pub fn is_of_the_archive(&self) -> bool {
        match self {
            Self::Archive(error) => error.is_of_the_archive(),
            Self::Intake(error) => error.is_of_the_image(),
            Self::Open(_) | Self::Store(_) => false,
        }
    }
}

/// An error with all its causes, in one line.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What an import did.
#[derive(Debug)]
pub struct Report<'a> {
    /// What to remember of the archive.
    pub record: ArchiveRecord,
    /// For the log: what went wrong, a line each.
    pub problems: Vec<String>,
    /// How many layers were unpacked.
    pub unpacked: usize,
    /// Keeps its images until the record is with the store.
    pub held: Vec<Held<'a>>,
}

/// Imports one archive. An image that cannot be used does not stop the others of the archive.
pub fn archive<'a>(store: &'a Store, path: &Path, name: &str, identity: Identity) -> Report<'a> {
    let (mut unpacked, mut held) = (0, Vec::new());
    let opened = with_room(store, ImportError::is_for_want_of_room, || open(store, path, name));
    let (outcome, is_final) = match opened.and_then(|archive| Ok((archive.contents()?, archive))) {
        Err(error) => (Outcome::Rejected(describe(&error)), error.is_of_the_archive()),
        Ok((contents, archive)) => {
            let brought = images(store, &archive, contents);
            (unpacked, held) = (brought.unpacked, brought.held);
            let Brought { names, nameless, rejected, is_final, .. } = brought;
            let names = names.into_iter().filter_map(|(name, digest)| Some((name.tagged()?, digest))).collect();
            (Outcome::Images { names, nameless, rejected }, is_final)
        }
    };
    // What failed for a reason of this machine, such as a full disk, is tried again: no file has that time.
    let identity = if is_final { identity } else { Identity { modified_ns: i128::MIN, ..identity } };
    let record = ArchiveRecord { identity, outcome, present: true };
    let problems = record.problems().into_iter().map(|problem| format!("{name}: {problem}")).collect();
    Report { record, problems, unpacked, held }
}

/// What the images of an archive came to.
#[derive(Debug, Default)]
pub struct Brought<'a> {
    /// Names with their images.
    pub names: Vec<(Reference, Digest)>,
    /// Images without a name.
    pub nameless: Vec<Digest>,
    /// What was not taken, and why.
    pub rejected: Vec<String>,
    /// Whether another try with the same archive is useless.
    pub is_final: bool,
    /// How many layers were unpacked.
    pub unpacked: usize,
    /// Keeps the images until they are named, so that none has to go for another one of the same archive.
    pub held: Vec<Held<'a>>,
}

/// Imports the images of an archive that is open.
pub fn images<'a>(store: &'a Store, archive: &Archive, contents: Contents) -> Brought<'a> {
    let mut brought = Brought { is_final: true, ..Brought::default() };
    for (what, error) in contents.rejected {
        brought.is_final &= error.is_of_the_archive();
        brought.rejected.push(format!("{what}: {}", describe(&error)));
    }
    for found in contents.images {
        let held = store.hold(found.digest);
        match with_room(store, ImportError::is_for_want_of_room, || image(store, archive, &found)) {
            Ok(count) => {
                brought.unpacked += count;
                brought.held.push(held);
                if found.names.is_empty() {
                    brought.nameless.push(found.digest);
                }
                brought.names.extend(found.names.into_iter().map(|name| (name, found.digest)));
            }
            Err(error) => {
                brought.is_final &= error.is_of_the_archive();
                let what = found.names.first().map_or_else(|| found.digest.to_string(), ToString::to_string);
                brought.rejected.push(format!("{what}: {}", describe(&error)));
            }
        }
    }
    brought
}

/// Does something that needs room on the disk. If there is none, images that nothing needs go, one after the other, and
/// it is tried again each time: what is done by then need not be done again.
pub fn with_room<T, E>(
    store: &Store,
    wants_room: impl Fn(&E) -> bool,
    work: impl Fn() -> Result<T, E>,
) -> Result<T, E> {
    loop {
        match work() {
            Err(error) if wants_room(&error) => match store.give_up_one() {
                Ok(true) => {}
                Ok(false) => return Err(error),
                Err(other) => {
                    eprintln!("engine: make room for images: {}", describe(&other));
                    return Err(error);
                }
            },
            done => return done,
        }
    }
}

fn open(store: &Store, path: &Path, name: &str) -> Result<Archive, ImportError> {
    let file = File::open(path).map_err(ImportError::Open)?;
    let spool = store.spool()?;
    Ok(Archive::open(file, name, spool.as_fd(), store.room())?)
}

/// Unpacks the layers that are missing and adds the image. Returns how many layers were unpacked.
pub fn image(store: &Store, archive: &Archive, image: &ArchivedImage) -> Result<usize, ImportError> {
    // Layers of several would take memory side by side.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let diff_ids: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id).collect();
    let chain = chain_ids(&diff_ids);
    let claim = store.claim(&chain);
    let mut unpacked = 0;
    for (position, (layer, id)) in image.layers.iter().zip(&chain).enumerate() {
        if claim.turn(*id) == Turn::Present {
            continue;
        }
        let ArchivedLayer { name, blob, diff_id, .. } = layer;
        let (stream, cancel) = (archive.stream(layer)?, &|| ());
        let incoming = Incoming { name, stream, blob: *blob, diff_id: *diff_id, below: &|| Ok(()), cancel };
        intake::layer(store, incoming, chain.get(..=position).unwrap_or_default())?;
        unpacked += 1;
    }
    let record = ImageRecord { config_digest: image.config_digest, chain, unnamed: None, imported: true };
    let (manifest, config) = (archive.manifest(image)?, archive.config(image)?);
    store.add_image(image.digest, record, manifest.as_deref(), &config)?;
    Ok(unpacked)
}
