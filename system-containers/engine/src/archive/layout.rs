//! OCI image layouts (OCI image specification, "Image Layout").

use super::{Archive, ArchiveError, ArchivedImage, ArchivedLayer, Contents, blob_name, names};
use crate::document::{self, DocumentError, Kind, image_config, parse};
use crate::limits;
use crate::oci::{Descriptor, Entries, Manifest};
use crate::platform::{choose, describe, is_ours};
use crate::reference::Reference;

/// The images that index.json names; none if there is no index.json.
pub fn images(archive: &Archive) -> Result<Option<Contents>, ArchiveError> {
    let bytes = match archive.document("index.json") {
        Err(ArchiveError::Missing { .. }) => return Ok(None),
        other => other?,
    };
    let index: Manifest = parse("index.json", &bytes)?;
    let mut contents = Contents::default();
    let Entries { known: descriptors, odd } = index.manifests.unwrap_or_default();
    if odd > 0 {
        contents.rejected.push(("index.json".to_owned(), DocumentError::Odd { entries: odd }.into()));
    }
    if descriptors.len() > limits::ARCHIVE_IMAGES {
        return Err(ArchiveError::Images);
    }
    for descriptor in descriptors {
        // An image for several machines that was copied without its index: only one of them is meant.
        if descriptor.platform.as_ref().is_some_and(|platform| !is_ours(platform)) {
            let offered = describe(descriptor.platform.as_ref());
            let error = DocumentError::Platform { offered };
            contents.rejected.push((descriptor.digest.to_string(), error.into()));
            continue;
        }
        let names = names::of_descriptor(&descriptor, &archive.stem);
        match image(archive, &descriptor, names.clone(), 0) {
            // Several names of one image are several descriptors of one digest.
            Ok(image) => match contents.images.iter_mut().find(|known| known.digest == image.digest) {
                Some(known) => known.names.extend(image.names),
                None => contents.images.push(image),
            },
            Err(error) => {
                let name = names.first().map_or_else(|| descriptor.digest.to_string(), Reference::to_string);
                contents.rejected.push((name, error));
            }
        }
    }
    Ok(Some(contents))
}

/// Follows a descriptor through indexes to the manifest for this machine.
fn image(
    archive: &Archive,
    descriptor: &Descriptor,
    names: Vec<Reference>,
    depth: u32,
) -> Result<ArchivedImage, ArchiveError> {
    if depth > limits::INDEX_DEPTH {
        return Err(DocumentError::Nested.into());
    }
    let raw = archive.blob_document(descriptor.digest, Some(descriptor.size))?;
    let name = blob_name(descriptor.digest);
    let (config, layers) = match document::manifest(&name, &raw)? {
        Kind::Index(manifests) => {
            let chosen = choose(&manifests).map_err(|offered| DocumentError::Platform { offered })?;
            return image(archive, chosen, names, depth + 1);
        }
        Kind::Image { config, layers } => (config, layers),
    };
    let raw_config = archive.blob_document(config.digest, Some(config.size))?;
    let config_name = blob_name(config.digest);
    let parsed = image_config(&config_name, &config.media_type, &raw_config, layers.len())?;
    let found = layers.iter().zip(&parsed.rootfs.diff_ids).map(|(layer, diff_id)| {
        let name = blob_name(layer.digest);
        let found = archive.section(&name)?.remaining();
        if found != layer.size {
            return Err(ArchiveError::Size { name, expected: layer.size, found });
        }
        Ok(ArchivedLayer { name, blob: Some(layer.digest), diff_id: *diff_id })
    });
    let layers = found.collect::<Result<_, _>>()?;
    Ok(ArchivedImage {
        names,
        digest: descriptor.digest,
        manifest_name: Some(name),
        config_digest: config.digest,
        config_name,
        layers,
    })
}
