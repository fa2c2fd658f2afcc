//! Single images, by hand: their names, and what is kept of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde_json::json;

use super::{CONFIGS, ImageRecord, LayerRecord, MANIFESTS, RECORDS, Store, StoreError, file_error};
use crate::digest::Digest;
use crate::limits;
use crate::oci::{ImageConfig, Process};
use crate::reference::Reference;

/// Why a name is not taken away.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is none.
    #[error("there is no image {image} here")]
    Missing {
        /// As asked for.
        image: String,
    },
    /// Containers need it.
    #[error("containers use {image} ({}); remove them first, or take its name away all the same with --force", containers.join(", "))]
    InUse {
        /// As asked for.
        image: String,
        /// Which.
        containers: Vec<String>,
    },
    /// It has more names than one, and was called by its digest.
    #[error("the image has several names ({}); remove them one by one, or all with --force", names.join(", "))]
    Several {
        /// Which.
        names: Vec<String>,
    },
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What no boot is called: an image that lost its last name by hand goes at once.
const BY_HAND: &str = "removed";

impl Store {
    /// Gives an image a name, which means another one no more.
    pub fn name(&self, name: &Reference, digest: Digest) {
        let mut catalogue = self.catalogue();
        catalogue.pulled.remove(&name.key());
        catalogue.named.insert(name.key(), digest);
    }

    /// Takes a name away. Its image goes at the next [`Self::collect`] if nothing else leads to it. A digest that is no name
    /// of its own means the names of its repository that the image of that digest has.
    pub fn remove_name(&self, name: &Reference, force: bool) -> Result<(), RemoveError> {
        let mut catalogue = self.catalogue();
        let image = name.to_string();
        let names = catalogue.names();
        let keys = meant(name, &names);
        let Some(digest) = keys.first().and_then(|key| names.get(key)).copied() else {
            return Err(RemoveError::Missing { image });
        };
        if keys.len() > 1 && !force {
            return Err(RemoveError::Several { names: keys });
        }
        let is_last = names.iter().all(|(other, meant)| keys.contains(other) || *meant != digest);
        let containers = catalogue.users.of(digest, &names);
        if is_last && !force && !containers.is_empty() {
            return Err(RemoveError::InUse { image, containers });
        }
        for key in &keys {
            catalogue.pulled.remove(key);
            catalogue.named.remove(key);
            for archive in catalogue.archives.values_mut() {
                archive.forget_name(key);
            }
        }
        if is_last && let Some(image) = catalogue.images.get_mut(&digest) {
            image.unnamed = Some(BY_HAND.to_owned());
        }
        Ok(())
    }

    /// Takes all names of an image away, and what archives have of it.
    pub fn remove_image(&self, digest: Digest, force: bool) -> Result<(), RemoveError> {
        let mut catalogue = self.catalogue();
        let names = catalogue.names();
        let containers = catalogue.users.of(digest, &names);
        let names: Vec<String> =
            names.into_iter().filter(|(_, meant)| *meant == digest).map(|(name, _)| name).collect();
        if !force && names.len() > 1 {
            return Err(RemoveError::Several { names });
        }
        if !force && !containers.is_empty() {
            return Err(RemoveError::InUse { image: digest.to_string(), containers });
        }
        catalogue.pulled.retain(|_, pull| pull.digest != digest);
        catalogue.named.retain(|_, named| *named != digest);
        for archive in catalogue.archives.values_mut() {
            archive.forget_image(digest);
        }
        if let Some(image) = catalogue.images.get_mut(&digest) {
            image.unnamed = Some(BY_HAND.to_owned());
        }
        Ok(())
    }

    /// Repositories of a name's registry that its image was pulled from.
    pub fn repositories(&self, name: &Reference) -> Vec<String> {
        let catalogue = self.catalogue();
        let Some(digest) = catalogue.names().get(&name.key()).copied() else { return Vec::new() };
        let pulled = catalogue.pulled.iter().filter(|(_, pull)| pull.digest == digest);
        let names = pulled.filter_map(|(pulled, _)| pulled.parse::<Reference>().ok());
        let there = names.filter(|pulled| pulled.registry() == name.registry() && pulled.path() != name.path());
        let paths: std::collections::BTreeSet<String> = there.map(|pulled| pulled.path().to_owned()).collect();
        paths.into_iter().collect()
    }

    /// What the stream of a layer had beside the content of its files.
    pub fn record(&self, chain: Digest) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = format!("{RECORDS}/{}", chain.hex());
        Ok(File::from(rustix::fs::openat(&self.directory, name, flags, Mode::empty())?))
    }

    /// An image's configuration, as it came.
    pub fn config(&self, image: &ImageRecord) -> Result<Vec<u8>, StoreError> {
        let path = self.path.join(CONFIGS).join(image.config_digest.hex());
        let config = read(&path).map_err(file_error("read", &path))?;
        if Digest::of(&config) == image.config_digest { Ok(config) } else { Err(StoreError::Changed { path }) }
    }

    /// How an image wants to be run.
    pub fn wishes(&self, image: &ImageRecord) -> Result<Process, StoreError> {
        let config: ImageConfig = serde_json::from_slice(&self.config(image)?).map_err(|error| {
            let path = self.path.join(CONFIGS).join(image.config_digest.hex());
            file_error("read", &path)(error.into())
        })?;
        Ok(config.config.unwrap_or_default())
    }

    /// An image's manifest, as it came; none if an archive had none.
    pub fn manifest(&self, image: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path.join(MANIFESTS).join(image.hex());
        match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some).map_err(file_error("read", &path)),
        }
    }

    /// Everything about an image, for people and programs.
    pub fn inspect(&self, digest: Digest, image: &ImageRecord) -> Result<serde_json::Value, StoreError> {
        let config: serde_json::Value = serde_json::from_slice(&self.config(image)?).unwrap_or_default();
        let catalogue = self.catalogue();
        let mut names = catalogue.names();
        let in_use = !catalogue.users.of(digest, &names).is_empty();
        names.retain(|_, meant| *meant == digest);
        let layer = |id: &Digest| {
            let record = catalogue.layers.get(id)?;
            let LayerRecord { diff_id, entries, bytes, verity } = record;
            Some(json!({ "diff_id": diff_id, "entries": entries, "bytes": bytes, "verity": verity }))
        };
        let pulled = |name: &String| {
            let pull = catalogue.pulled.get(name)?;
            Some(json!({ "name": name, "from": pull.from, "at": pull.at, "signed": pull.policy.is_some() }))
        };
        Ok(json!({
            "names": names.keys().collect::<Vec<_>>(),
            "digest": digest,
            "id": image.config_digest,
            "pulled": names.keys().filter_map(pulled).collect::<Vec<_>>(),
            "layers": image.chain.iter().filter_map(layer).collect::<Vec<_>>(),
            "in_use": in_use,
            "configuration": config,
        }))
    }
}

/// The names that go where this one is to.
fn meant(name: &Reference, names: &BTreeMap<String, Digest>) -> Vec<String> {
    if names.contains_key(&name.key()) {
        return vec![name.key()];
    }
    let is_of_it = |(other, digest): &(&String, &Digest)| {
        name.digest() == Some(**digest)
            && other.parse::<Reference>().is_ok_and(|other| {
                (other.registry(), other.path()) == (name.registry(), name.path())
                    && (name.tag().is_none() || name.tag() == other.tag())
            })
    };
    names.iter().filter(is_of_it).map(|(other, _)| other.clone()).collect()
}

/// Reads a document. One that is as short as most are takes no more than one read, for every start of a container has one.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut file = File::open(path)?;
    let mut content = vec![0; 16 << 10];
    let length = file.read(&mut content)?;
    let is_whole = length < content.len();
    content.truncate(length);
    if !is_whole {
        file.take(limits::JSON_BYTES).read_to_end(&mut content)?;
    }
    Ok(content)
}
