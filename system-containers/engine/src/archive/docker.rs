//! `docker save`: manifest.json, alone (before Docker 25) or beside an OCI layout.

use super::{Archive, ArchiveError, ArchivedImage, ArchivedLayer, Contents, blob_name, verify};
use crate::digest::Digest;
use crate::document::{image_config, parse};
use crate::limits;
use crate::oci::SavedImage;
use crate::reference::Reference;

/// The entries of manifest.json; none if there is no such file.
pub fn saved_images(archive: &Archive) -> Result<Option<Vec<SavedImage>>, ArchiveError> {
    let bytes = match archive.document("manifest.json") {
        Err(ArchiveError::Missing { .. }) => return Ok(None),
        other => other?,
    };
    let images: Vec<SavedImage> = parse("manifest.json", &bytes)?;
    if images.len() > limits::ARCHIVE_IMAGES { Err(ArchiveError::Images) } else { Ok(Some(images)) }
}

/// Adds names to images that the layout has already, and images that it has not.
pub fn complete(archive: &Archive, saved: Vec<SavedImage>, contents: &mut Contents) -> Result<(), ArchiveError> {
    for image in saved {
        let tags = image.repo_tags.clone().unwrap_or_default();
        let names: Vec<Reference> = tags.iter().filter_map(|tag| tag.parse().ok()).collect();
        let known = digest_in(&image.config);
        if let Some(known) = contents.images.iter_mut().find(|found| Some(found.config_digest) == known) {
            for name in names {
                if !known.names.contains(&name) {
                    known.names.push(name);
                }
            }
            continue;
        }
        match read(archive, &image, names) {
            Ok(image) => contents.images.push(image),
            Err(error) => {
                let name = tags.first().cloned().unwrap_or_else(|| image.config.clone());
                contents.rejected.push((name, error));
            }
        }
    }
    Ok(())
}

fn read(archive: &Archive, image: &SavedImage, names: Vec<Reference>) -> Result<ArchivedImage, ArchiveError> {
    let raw_config = archive.document(&image.config)?;
    let config_digest = Digest::of(&raw_config);
    if let Some(expected) = digest_in(&image.config) {
        verify(&image.config, expected, &raw_config)?;
    }
    let paths = image.layers.clone().unwrap_or_default();
    let config = image_config(&image.config, "", &raw_config, paths.len())?;
    let found = paths.into_iter().zip(&config.rootfs.diff_ids).map(|(name, diff_id)| {
        archive.section(&name)?;
        let blob = digest_in(&name).filter(|digest| name == blob_name(*digest));
        Ok(ArchivedLayer { name, blob, diff_id: *diff_id })
    });
    let layers = found.collect::<Result<_, ArchiveError>>()?;
    let config_name = image.config.clone();
    Ok(ArchivedImage { names, digest: config_digest, manifest_name: None, config_digest, config_name, layers })
}

/// The digest in a path: `<hex>.json` or `blobs/sha256/<hex>`.
fn digest_in(path: &str) -> Option<Digest> {
    let name = path.rsplit('/').next()?;
    format!("sha256:{}", name.strip_suffix(".json").unwrap_or(name)).parse().ok()
}
