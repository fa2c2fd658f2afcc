//! What is left over from a crash, or from an image that went without its documents, goes when the store is opened.

use std::collections::HashSet;

use super::{LAYERS, RECORDS, Store, StoreError, file_error};
use crate::digest::Digest;

/// Where the manifests of images lie below the store's directory.
pub(super) const MANIFESTS: &str = "manifests/sha256";
/// Where their configurations do.
pub(super) const CONFIGS: &str = "configs/sha256";

impl Store {
    /// Moves layers and documents that the catalogue does not name out of the way, and forgets images whose layers are gone.
    pub(super) fn clean(&self) -> Result<(), StoreError> {
        let mut present = HashSet::new();
        let mut catalogue = self.catalogue();
        self.sweep(LAYERS, |digest, is_file| {
            // An earlier Berth kept directories.
            let stays = is_file && catalogue.layers.contains_key(&digest);
            stays && present.insert(digest)
        })?;
        self.sweep(RECORDS, |digest, _| present.contains(&digest))?;
        catalogue.forget_without(&present);
        let images = &catalogue.images;
        let configs: HashSet<Digest> = images.values().map(|image| image.config_digest).collect();
        self.sweep(MANIFESTS, |digest, _| images.contains_key(&digest))?;
        self.sweep(CONFIGS, |digest, _| configs.contains(&digest))
    }

    /// Moves away what does not stay of what is called by its digest in a directory; the second argument is whether it is a
    /// file.
    fn sweep(&self, directory: &str, mut stays: impl FnMut(Digest, bool) -> bool) -> Result<(), StoreError> {
        let path = self.path.join(directory);
        for entry in std::fs::read_dir(&path).map_err(file_error("list", &path))? {
            let entry = entry.map_err(file_error("list", &path))?;
            let name = entry.file_name();
            let digest: Option<Digest> = name.to_str().and_then(|hex| format!("sha256:{hex}").parse().ok());
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if !digest.is_some_and(|digest| stays(digest, is_file)) {
                self.move_away(&format!("{directory}/{}", name.display()))?;
            }
        }
        Ok(())
    }
}
