//! Where an image came from, as far as policies for images ask.
//!
//! What counts is the image, and not the name that leads to it: a digest and a name that was given by hand say nothing of who
//! has looked at what they mean.

use super::Store;
use crate::digest::Digest;
use crate::reference::Reference;

impl Store {
    /// Whether the owner's archives have brought what a name means. They did not if the name was pulled.
    pub fn is_of_an_archive(&self, name: &Reference, image: Digest) -> bool {
        let catalogue = self.catalogue();
        if name.digest().is_none() && catalogue.pulled.contains_key(&name.key()) {
            return false;
        }
        // A catalogue of an earlier Berth tells it by its archives alone.
        let holds = |digests: &[(String, Digest)]| digests.iter().any(|(_, digest)| *digest == image);
        catalogue.images.get(&image).is_some_and(|image| image.imported)
            || catalogue.archives.values().any(|archive| holds(archive.names()) || archive.nameless().contains(&image))
    }

    /// Whether what a name means was taken by this policy, by whatever name, or is of an archive, which no policy asks.
    pub fn is_taken_by(&self, name: &Reference, image: Digest, policy: Digest) -> bool {
        let verified = self.catalogue().pulled.values().any(|pull| pull.digest == image && pull.policy == Some(policy));
        verified || self.is_of_an_archive(name, image)
    }
}
