//! `berth save`: an archive that is an OCI layout and what `docker save` writes at once, so that everybody can read it.
//!
//! The documents come first and each layer once, however many images have it. It is a stream: nothing is written to the
//! disk for it, and who reads it may be a pipe.

use std::collections::BTreeSet;
use std::io::Write;

use serde_json::json;

use super::documents::{self, INDEX, MANIFEST, Outgoing};
use super::{ExportError, layer};
use crate::digest::Digest;
use crate::reference::Reference;
use crate::store::{Found, Store};

/// The size of a block of a tar archive, in bytes.
const BLOCK: usize = 512;
/// Above this a size does not fit into a header's octal digits.
const OCTAL_BYTES: u64 = 1 << 33;

/// Writes these images.
pub fn write(store: &Store, images: Vec<Found>, target: &mut dyn Write) -> Result<(), ExportError> {
    let images: Vec<Outgoing> =
        images.into_iter().map(|image| documents::of(store, image)).collect::<Result<_, _>>()?;
    let mut written = BTreeSet::new();
    entry(target, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    entry(target, "index.json", &index(&images)?)?;
    entry(target, "manifest.json", &saved(&images)?)?;
    for image in &images {
        for document in [&image.config, &image.manifest] {
            if written.insert(Digest::of(document)) {
                entry(target, &blob(Digest::of(document)), document)?;
            }
        }
    }
    for one in images.iter().flat_map(|image| &image.layers).filter(|layer| written.insert(layer.diff_id)) {
        put(target, &header(&blob(one.diff_id), one.length))?;
        layer::write(store, &one.chain, one.diff_id, target)?;
        pad(target, one.length)?;
    }
    put(target, &[0; 2 * BLOCK])?;
    target.flush().map_err(ExportError::Write)
}

fn index(images: &[Outgoing]) -> Result<Vec<u8>, ExportError> {
    let manifest = |image: &Outgoing| {
        let mut pointer = json!({
            "mediaType": MANIFEST,
            "digest": Digest::of(&image.manifest),
            "size": image.manifest.len(),
        });
        if let Some(name) = image.name.as_ref().map(Reference::to_string) {
            pointer["annotations"] =
                json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name });
        }
        pointer
    };
    let manifests: Vec<_> = images.iter().map(manifest).collect();
    document("index", &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }))
}

fn saved(images: &[Outgoing]) -> Result<Vec<u8>, ExportError> {
    let saved = |image: &Outgoing| {
        let layers: Vec<String> = image.layers.iter().map(|layer| blob(layer.diff_id)).collect();
        let names: Vec<String> = image.name.as_ref().and_then(Reference::tagged).into_iter().collect();
        json!({ "Config": blob(Digest::of(&image.config)), "RepoTags": names, "Layers": layers })
    };
    document("list of images", &images.iter().map(saved).collect())
}

fn document(what: &'static str, value: &serde_json::Value) -> Result<Vec<u8>, ExportError> {
    serde_json::to_vec(value).map_err(|source| ExportError::Document { what, source })
}

fn blob(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn entry(target: &mut dyn Write, name: &str, content: &[u8]) -> Result<(), ExportError> {
    put(target, &header(name, content.len() as u64))?;
    put(target, content)?;
    pad(target, content.len() as u64)
}

fn put(target: &mut dyn Write, bytes: &[u8]) -> Result<(), ExportError> {
    target.write_all(bytes).map_err(ExportError::Write)
}

fn pad(target: &mut dyn Write, length: u64) -> Result<(), ExportError> {
    let padding = usize::try_from(length.wrapping_neg() % BLOCK as u64).unwrap_or_default();
    put(target, &[0; BLOCK][..padding])
}

/// The header of a file of root (POSIX ustar; GNU's form for a size that does not fit). The same every time.
fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut block = [0_u8; BLOCK];
    let mut put = |offset: usize, bytes: &[u8]| block[offset..offset + bytes.len()].copy_from_slice(bytes);
    // Names are those above: at most 77 bytes, of 100.
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    match size < OCTAL_BYTES {
        true => put(124, format!("{size:011o}\0").as_bytes()),
        false => {
            put(124, &[0x80, 0, 0, 0]);
            put(128, &size.to_be_bytes());
        }
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Reader;

    #[test]
    fn sizes_of_all_magnitudes_are_read_as_they_were_written() {
        for size in [0, 1, OCTAL_BYTES - 1, OCTAL_BYTES, 5 << 40] {
            let block = header("blobs/sha256/x", size);
            let entry = Reader::new(&block[..]).next_entry().unwrap().unwrap();
            assert_eq!((entry.path.as_slice(), entry.size, entry.mode), (&b"blobs/sha256/x"[..], size, 0o644));
        }
    }
}
