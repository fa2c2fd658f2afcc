//! catalogue.json: what the store holds, in one small document that is read once at start.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::claims::Claims;
use super::collection::Policy;
use super::users::Users;
use super::{StoreError, file_error};
use crate::digest::Digest;
use crate::reference::Reference;

/// A layer's facts, for humans and for accounting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The digest of its uncompressed tar stream.
    pub diff_id: Digest,
    /// Its entries.
    pub entries: u64,
    /// The bytes of its files.
    pub bytes: u64,
    /// The fs-verity digest of its image; none if the file system of the state could not protect it.
    #[serde(default)]
    pub verity: Option<Digest>,
}

/// An image that is ready to run. Not what its configuration says: that may be megabytes, and all of this is in memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The digest of its configuration: Docker's image ID.
    pub config_digest: Digest,
    /// The chain IDs of its layers, the lowest first.
    pub chain: Vec<Digest>,
    /// The boot in which no name led to it any more.
    #[serde(default)]
    pub unnamed: Option<String>,
    /// Whether an archive has brought it.
    #[serde(default)]
    pub imported: bool,
}

/// How an archive is known again without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its size in bytes.
    pub size: u64,
    /// When it was modified, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// The digest of its first and last 64 KiB: FAT keeps times to two seconds only.
    pub ends: Digest,
}

/// What an archive came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its images, with their names.
    Images {
        /// Name and image, in the archive's order.
        names: Vec<(String, Digest)>,
        /// Images without a name.
        nameless: Vec<Digest>,
        /// Images that cannot be used: what, and why.
        rejected: Vec<String>,
    },
    /// Nothing; why.
    Rejected(String),
}

/// An archive that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRecord {
    /// How it is known again.
    pub identity: Identity,
    /// What it came to.
    pub outcome: Outcome,
    /// Whether it was there when the engine last looked.
    pub present: bool,
}

/// Where the image of a name came from, if it was pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRecord {
    /// The image.
    pub digest: Digest,
    /// Who gave it: the registry or a mirror, host and port.
    pub from: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// The policy by which it was found to be signed, if one asked for that.
    #[serde(default)]
    pub policy: Option<Digest>,
}

impl ArchiveRecord {
    /// What was wrong with it, a line each.
    pub fn problems(&self) -> Vec<String> {
        match &self.outcome {
            Outcome::Images { rejected, .. } => rejected.clone(),
            Outcome::Rejected(reason) => vec![reason.clone()],
        }
    }

    /// Its images by name.
    pub fn names(&self) -> &[(String, Digest)] {
        match &self.outcome {
            Outcome::Images { names, .. } => names,
            Outcome::Rejected(_) => &[],
        }
    }

    /// One of its names means nothing more.
    pub fn forget_name(&mut self, name: &str) {
        if let Outcome::Images { names, .. } = &mut self.outcome {
            names.retain(|(other, _)| other != name);
        }
    }

    /// One of its images is not its own any more, whatever it is called.
    pub fn forget_image(&mut self, digest: Digest) {
        if let Outcome::Images { names, nameless, .. } = &mut self.outcome {
            names.retain(|(_, other)| *other != digest);
            nameless.retain(|other| *other != digest);
        }
    }

    /// Its images without a name.
    pub(super) fn nameless(&self) -> &[Digest] {
        match &self.outcome {
            Outcome::Images { nameless, .. } => nameless,
            Outcome::Rejected(_) => &[],
        }
    }
}

/// The document.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Catalogue {
    pub layers: BTreeMap<Digest, LayerRecord>,
    pub images: BTreeMap<Digest, ImageRecord>,
    pub archives: BTreeMap<String, ArchiveRecord>,
    #[serde(default)]
    pub pulled: BTreeMap<String, PullRecord>,
    /// Names that were given by hand: of archives that were imported so, and other names of images.
    #[serde(default)]
    pub named: BTreeMap<String, Digest>,
    /// When an image was used or came last, in seconds since 1970.
    #[serde(default)]
    pub used: BTreeMap<Digest, u64>,
    #[serde(skip)]
    pub claims: Claims,
    /// Images that somebody holds, and how many do.
    #[serde(skip)]
    pub held: HashMap<Digest, usize>,
    #[serde(skip)]
    pub users: Users,
    #[serde(skip)]
    pub policy: Policy,
}

/// What [`Catalogue::collect`] took out.
pub struct Collected {
    /// Whether the catalogue has changed at all.
    pub changed: bool,
    pub images: BTreeMap<Digest, ImageRecord>,
    pub layers: Vec<Digest>,
}

impl Catalogue {
    /// Reads it; a damaged one counts as empty, and says why.
    pub fn read(path: &Path) -> Result<(Self, Option<String>), StoreError> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Self::default(), None)),
            Err(error) => return Err(file_error("read", path)(error)),
        };
        Ok(match serde_json::from_slice(&text) {
            Ok(catalogue) => (catalogue, None),
            Err(error) => (Self::default(), Some(error.to_string())),
        })
    }

    pub fn to_json(&self) -> String {
        // Every key is text and no value can fail: this is serde_json's only other error, running out of memory.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Forgets layers that are not there, images that need them, and what archives said of those.
    pub fn forget_without(&mut self, present: &HashSet<Digest>) {
        self.layers.retain(|layer, _| present.contains(layer));
        let layers = &self.layers;
        self.images.retain(|_, image| image.chain.iter().all(|layer| layers.contains_key(layer)));
        let images = &self.images;
        self.archives.retain(|_, archive| {
            let digests = archive.names().iter().map(|(_, digest)| digest).chain(archive.nameless());
            digests.into_iter().all(|digest| images.contains_key(digest))
        });
        self.pulled.retain(|_, record| images.contains_key(&record.digest));
        self.named.retain(|_, digest| images.contains_key(digest));
    }

    pub fn present(&mut self, present: &BTreeMap<String, super::Identity>) -> BTreeSet<String> {
        self.archives.retain(|name, record| match present.get(name) {
            Some(identity) => {
                record.present = true;
                record.identity == *identity
            }
            None => {
                record.present = false;
                !record.names().is_empty() || !record.nameless().is_empty()
            }
        });
        self.archives.iter().filter(|(_, record)| record.present).map(|(name, _)| name.clone()).collect()
    }

    pub fn names(&self) -> BTreeMap<String, Digest> {
        let gone = self.archives.values().filter(|record| !record.present);
        let there = self.archives.values().filter(|record| record.present);
        let pulled = self.pulled.iter().map(|(name, record)| (name.clone(), record.digest));
        let named = self.named.iter().map(|(name, digest)| (name.clone(), *digest));
        gone.chain(there).flat_map(ArchiveRecord::names).cloned().chain(pulled).chain(named).collect()
    }

    /// The image that a name means now.
    pub fn resolve(&self, reference: &Reference) -> Option<(Digest, ImageRecord)> {
        let known = reference.digest().filter(|digest| self.images.contains_key(digest));
        let digest = match known {
            Some(digest) => digest,
            // A digest may also be that of an index that the image was chosen from.
            None => *self.names().get(&reference.key())?,
        };
        self.images.get(&digest).map(|image| (digest, image.clone()))
    }

    /// Names that archives which are there give to different images, with those archives in order.
    pub fn duplicates(&self) -> BTreeMap<String, Vec<String>> {
        let mut seen: BTreeMap<&str, Vec<(&String, Digest)>> = BTreeMap::new();
        for (archive, record) in self.archives.iter().filter(|(_, record)| record.present) {
            for (name, digest) in record.names() {
                seen.entry(name).or_default().push((archive, *digest));
            }
        }
        let differs = |found: &[(&String, Digest)]| found.windows(2).any(|pair| pair[0].1 != pair[1].1);
        let duplicates = seen.into_iter().filter(|(_, found)| differs(found));
        duplicates
            .map(|(name, found)| (name.to_owned(), found.into_iter().map(|(archive, _)| archive.clone()).collect()))
            .collect()
    }

    /// Takes out what nothing leads to since an earlier boot, and marks what has lost its last name in this one.
    pub fn collect(&mut self, boot: &str) -> Collected {
        let mut wanted: HashSet<Digest> = self.names().into_values().collect();
        wanted.extend(self.archives.values().flat_map(ArchiveRecord::nameless));
        wanted.extend(self.users.needed(&self.names()));
        wanted.extend(self.held.keys());
        let mut changed = false;
        for (digest, image) in &mut self.images {
            let unnamed = if wanted.contains(digest) {
                None
            } else {
                Some(image.unnamed.clone().unwrap_or_else(|| boot.to_owned()))
            };
            changed |= image.unnamed != unnamed;
            image.unnamed = unnamed;
        }
        let images: BTreeMap<Digest, ImageRecord> = self
            .images
            .extract_if(.., |_, image| image.unnamed.as_deref().is_some_and(|unnamed| unnamed != boot))
            .collect();
        let mut used = self.claims.wanted();
        used.extend(self.images.values().flat_map(|image| image.chain.iter().copied()));
        let layers: Vec<Digest> =
            self.layers.extract_if(.., |layer, _| !used.contains(layer)).map(|(layer, _)| layer).collect();
        changed |= !images.is_empty() || !layers.is_empty();
        Collected { changed, images, layers }
    }
}
