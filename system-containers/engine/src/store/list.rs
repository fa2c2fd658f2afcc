//! What the store holds, for people.

use std::collections::{BTreeMap, HashSet};

use berth_control::images::StoredImage;

use super::catalogue::Catalogue;
use super::{ImageRecord, Store};
use crate::digest::Digest;

impl Store {
    /// Every name with its image, in the order of names; then those that have none. What an image has to say of itself is read
    /// when its turn comes.
    pub fn list(&self) -> impl Iterator<Item = StoredImage> + '_ {
        self.list_without_labels()
            .into_iter()
            .map(|(record, image)| StoredImage { labels: self.labels(&record), ..image })
    }

    fn list_without_labels(&self) -> Vec<(ImageRecord, StoredImage)> {
        let catalogue = self.catalogue();
        let names = catalogue.names();
        let needed = catalogue.users.needed(&names);
        let named: HashSet<Digest> = names.values().copied().collect();
        let nameless = catalogue.images.keys().filter(|digest| !named.contains(digest));
        let nameless: Vec<_> = nameless.map(|digest| (String::new(), *digest)).collect();
        let stored = |(name, digest): (String, Digest)| {
            let image = catalogue.images.get(&digest)?;
            let stored = StoredImage {
                from: catalogue.pulled.get(&name).map(|pull| pull.from.clone()),
                image: name,
                digest: digest.to_string(),
                layers: image.chain.len(),
                bytes: bytes(&catalogue, image),
                in_use: needed.contains(&digest),
                labels: BTreeMap::new(),
            };
            Some((image.clone(), stored))
        };
        names.into_iter().chain(nameless).filter_map(stored).collect()
    }

    /// None of an image whose configuration cannot be read: whoever runs it is told.
    fn labels(&self, image: &ImageRecord) -> BTreeMap<String, String> {
        self.wishes(image).ok().and_then(|wishes| wishes.labels).unwrap_or_default()
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
