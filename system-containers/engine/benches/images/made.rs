//! Images for measuring: the same bytes at every run, about as compressible as programs and their data.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use berth_tests::archive::Layer;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How an image's layers are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Not at all.
    Plain,
    /// gzip at its usual level.
    Gzip,
    /// zstd at its usual level.
    Zstd,
}

/// An OCI layout in a folder.
pub struct Made {
    /// Where it is.
    pub folder: PathBuf,
    /// The blobs of its layers, the lowest first.
    pub layers: Vec<PathBuf>,
}

/// A sequence that is the same at every run (Knuth's linear congruential generator).
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The upper bits are the better ones.
        usize::try_from(self.0 >> 33).unwrap_or(0) % below.max(1)
    }
}

/// Files' contents: words of a vocabulary, which gzip brings to a third or so.
pub struct Content {
    random: Random,
    words: Vec<Vec<u8>>,
}

impl Content {
    /// Another sequence for each seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let words = (0..8192).map(|_| {
            let length = 2 + random.next(11);
            (0..length).map(|_| u8::try_from(random.next(256)).unwrap_or(0)).collect()
        });
        let words = words.collect();
        Self { random, words }
    }

    fn file(&mut self, bytes: usize) -> Vec<u8> {
        let mut content = Vec::with_capacity(bytes + 16);
        while content.len() < bytes {
            let word = self.random.next(self.words.len());
            content.extend_from_slice(self.words.get(word).map_or(b"word", Vec::as_slice));
        }
        content.truncate(bytes);
        content
    }
}

/// A layer of `count` files of up to `bytes` bytes, 25 to a directory; `name` begins its paths.
pub fn layer(content: &mut Content, name: &str, count: usize, bytes: usize) -> Vec<u8> {
    let mut layer = Layer::new().folder(name);
    for number in 0..count {
        let directory = format!("{name}/{:04}", number / 25);
        if number % 25 == 0 {
            layer = layer.folder(&directory);
        }
        let size = bytes / 2 + content.random.next(bytes / 2 + 1);
        layer = layer.file(&format!("{directory}/file-{number:05}"), 0o644, &content.file(size));
    }
    layer.into_bytes()
}

/// Writes an image as an OCI layout.
pub fn image(folder: &Path, method: Method, layers: &[Vec<u8>]) -> Result<Made> {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let (mut described, mut diff_ids, mut paths) = (Vec::new(), Vec::new(), Vec::new());
    for layer in layers {
        let (kind, packed) = match method {
            Method::Plain => ("tar", layer.clone()),
            Method::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(layer)?;
                ("tar+gzip", encoder.finish()?)
            }
            Method::Zstd => ("tar+zstd", zstd::encode_all(layer.as_slice(), 3)?),
        };
        diff_ids.push(format!("sha256:{}", hex(layer)));
        described.push(blob(&blobs, &format!("application/vnd.oci.image.layer.v1.{kind}"), &packed)?);
        paths.push(blobs.join(hex(&packed)));
    }
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Cmd": ["/nothing"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": blob(&blobs, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?,
        "layers": described,
    });
    let mut listed = blob(&blobs, manifest_type, manifest.to_string().as_bytes())?;
    listed["annotations"] = json!({ "org.opencontainers.image.ref.name": "1" });
    let index = json!({ "schemaVersion": 2, "manifests": [listed] });
    std::fs::write(folder.join("index.json"), index.to_string())?;
    std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(Made { folder: folder.to_owned(), layers: paths })
}

fn blob(folder: &Path, media_type: &str, content: &[u8]) -> Result<Value> {
    let name = hex(content);
    std::fs::write(folder.join(&name), content)?;
    Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{name}"), "size": content.len() }))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
