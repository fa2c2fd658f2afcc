//! What the store holds, for people.

use std::collections::HashSet;

use berth_control::images::StoredImage;

use super::Store;
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
            // A layer may be there twice.
            let layers: HashSet<&Digest> = image.chain.iter().collect();
            let bytes = layers.iter().filter_map(|layer| catalogue.layers.get(*layer)).map(|layer| layer.bytes).sum();
            Some(StoredImage {
                from: catalogue.pulled.get(&name).map(|pull| pull.from.clone()),
                image: name,
                digest: digest.to_string(),
                layers: image.chain.len(),
                bytes,
                in_use: needed.contains(&digest),
                labels: image.config.config.as_ref().and_then(|wishes| wishes.labels.clone()).unwrap_or_default(),
            })
        };
        names.into_iter().chain(nameless).filter_map(stored).collect()
    }
}
