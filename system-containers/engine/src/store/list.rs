//! What the store holds, for people.

use std::collections::HashSet;

use berth_control::images::StoredImage;

use super::catalogue::Catalogue;
use super::{ImageRecord, Store};
use crate::digest::Digest;

impl Store {
    /// Every name with its image, in the order of names; then those that have none.
    pub fn list(&self) -> Vec<StoredImage> {
        let catalogue = self.catalogue();
        let names = catalogue.names();
        let needed = catalogue.users.needed(&names);
        let named: HashSet<Digest> = names.values().copied().collect();
        let nameless = catalogue.images.keys().filter(|digest| !named.contains(digest));
        let nameless: Vec<_> = nameless.map(|digest| (String::new(), *digest)).collect();
        let stored = |(name, digest): (String, Digest)| {
            let image = catalogue.images.get(&digest)?;
            Some(StoredImage {
                from: catalogue.pulled.get(&name).map(|pull| pull.from.clone()),
                image: name,
                digest: digest.to_string(),
                layers: image.chain.len(),
                bytes: bytes(&catalogue, image),
                in_use: needed.contains(&digest),
                labels: image.config.config.as_ref().and_then(|wishes| wishes.labels.clone()).unwrap_or_default(),
            })
        };
        names.into_iter().chain(nameless).filter_map(stored).collect()
    }

    /// The bytes of the images that containers run from, as [`Self::list`] has them; none for one without an image.
    pub fn bytes_of(&self, containers: &[String]) -> Vec<Option<u64>> {
        let catalogue = self.catalogue();
        let names = catalogue.names();
        let bytes = |name: &String| {
            let image = catalogue.images.get(&catalogue.users.image(name, &names)?)?;
            Some(bytes(&catalogue, image))
        };
        containers.iter().map(bytes).collect()
    }
}

fn bytes(catalogue: &Catalogue, image: &ImageRecord) -> u64 {
    // A layer may be there twice.
    let layers: HashSet<&Digest> = image.chain.iter().collect();
    layers.iter().filter_map(|layer| catalogue.layers.get(*layer)).map(|layer| layer.bytes).sum()
}
