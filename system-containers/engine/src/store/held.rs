//! Images that are there and have no name yet. A name is what containers call an image by, so until then nothing tells that
//! they need it: whoever brings an image holds it until it is named.

use super::Store;
use crate::digest::Digest;

/// Keeps an image from being removed as long as it lasts.
#[derive(Debug)]
pub struct Held<'a> {
    store: &'a Store,
    digest: Digest,
}

impl Store {
    /// Holds an image, which may be still to come.
    #[must_use]
    pub fn hold(&self, digest: Digest) -> Held<'_> {
        *self.catalogue().held.entry(digest).or_default() += 1;
        Held { store: self, digest }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut catalogue = self.store.catalogue();
        if let Some(count) = catalogue.held.get_mut(&self.digest) {
            *count -= 1;
        }
        catalogue.held.retain(|_, count| *count > 0);
    }
}
