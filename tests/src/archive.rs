//! Image archives, made here so that the cases need no registry and no other tool, and can be as wrong as they like.

use std::io::{Seek, Write};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The commands that the test image has.
const APPLETS: [&str; 27] = [
    "cat", "chmod", "chown", "dd", "echo", "env", "grep", "head", "hostname", "httpd", "id", "ln", "ls", "mkdir",
    "mknod", "mount", "ps", "readlink", "rm", "sh", "sleep", "stat", "tail", "touch", "true", "wc", "wget",
];

/// The bytes of a layer: a tar archive whose entries may be anything.
#[derive(Default)]
pub struct Layer {
    bytes: Vec<u8>,
    /// User and group of the entries that follow.
    owner: (u32, u32),
}

impl Layer {
    /// Without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `program`, a static busybox, as /bin/busybox, and its commands as links to it.
    #[must_use]
    pub fn busybox(program: &[u8]) -> Self {
        let mut layer = Self::new().folder("bin").folder("etc").file("bin/busybox", 0o755, program);
        layer = layer.entry("tmp", tar::EntryType::Directory, 0o1777, "", &[]);
        layer = layer.file("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n");
        layer = layer.file("etc/group", 0o644, b"root:x:0:\nweb:x:1000:\n");
        APPLETS.iter().fold(layer, |layer, name| layer.symbolic_link(&format!("bin/{name}"), "busybox"))
    }

    /// What follows belongs to this user and to the group of the same number; what came before, to root.
    #[must_use]
    pub fn owned_by(self, id: u32) -> Self {
        Self { owner: (id, id), ..self }
    }

    /// With a regular file.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(path, tar::EntryType::Regular, mode, "", content)
    }

    /// With a folder.
    #[must_use]
    pub fn folder(self, path: &str) -> Self {
        self.entry(path, tar::EntryType::Directory, 0o755, "", &[])
    }

    /// With a symbolic link.
    #[must_use]
    pub fn symbolic_link(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Symlink, 0o777, target, &[])
    }

    /// With a hard link.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Link, 0o644, target, &[])
    }

    /// With any entry; names are taken as they are, `..` and all. They may have up to 100 bytes.
    #[must_use]
    pub fn entry(mut self, path: &str, kind: tar::EntryType, mode: u32, target: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        let raw = header.as_old_mut();
        for (field, text) in [(&mut raw.name, path), (&mut raw.linkname, target)] {
            let bytes = text.as_bytes();
            assert!(bytes.len() <= field.len(), "{text} is too long");
            field.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        }
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(self.owner.0.into());
        header.set_gid(self.owner.1.into());
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// The archive.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        // Two empty blocks end it.
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

/// An image to be written in one of the two archive forms.
pub struct Image {
    name: String,
    process: Value,
    layers: Vec<Vec<u8>>,
}

impl Image {
    /// An image called `name` (such as `localhost/web:1`) that runs `command`.
    #[must_use]
    pub fn new(name: &str, command: &[&str]) -> Self {
        Self::with_process(name, json!({ "Cmd": command, "Env": ["PATH=/bin"] }))
    }

    /// An image called `name` whose configuration has this as its `config` (OCI image specification, "Image
    /// Configuration").
    #[must_use]
    pub fn with_process(name: &str, process: Value) -> Self {
        Self { name: name.to_owned(), process, layers: Vec::new() }
    }

    /// With one more layer on top.
    #[must_use]
    pub fn layer(self, layer: Layer) -> Self {
        self.archived_layer(layer.into_bytes())
    }

    /// With a tar archive as one more layer on top.
    #[must_use]
    pub fn archived_layer(mut self, archive: Vec<u8>) -> Self {
        self.layers.push(archive);
        self
    }

    fn config(&self) -> Vec<u8> {
        let layers: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": self.process,
            "rootfs": { "type": "layers", "diff_ids": layers },
        });
        config.to_string().into_bytes()
    }

    /// As `docker save` writes it.
    #[must_use]
    pub fn docker_archive(&self) -> Vec<u8> {
        let config = self.config();
        let config_name = format!("{}.json", hexadecimal(&config));
        let layer_names: Vec<String> =
            self.layers.iter().map(|layer| format!("{}/layer.tar", hexadecimal(layer))).collect();
        let manifest = json!([{ "Config": config_name, "RepoTags": [self.name], "Layers": layer_names }]);
        let mut archive = Layer::new().file(&config_name, 0o644, &config);
        for (name, layer) in layer_names.iter().zip(&self.layers) {
            archive = archive.file(name, 0o644, layer);
        }
        archive.file("manifest.json", 0o644, manifest.to_string().as_bytes()).into_bytes()
    }

    /// As an OCI image layout with layers compressed by gzip.
    ///
    /// # Errors
    /// None in memory; the compressor's interface has one.
    pub fn oci_archive(&self) -> Result<Vec<u8>> {
        let config = self.config();
        let layers = self.layers.iter().map(|layer| gzip(layer)).collect::<Result<Vec<_>>>()?;
        let described: Vec<Value> =
            layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": described,
        });
        let manifest = manifest.to_string().into_bytes();
        let mut listed = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        listed["annotations"] = json!({ "org.opencontainers.image.ref.name": self.name });
        let index = json!({ "schemaVersion": 2, "manifests": [listed] });
        let mut archive = Layer::new().file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#).file(
            "index.json",
            0o644,
            index.to_string().as_bytes(),
        );
        for blob in [&config, &manifest].into_iter().chain(&layers) {
            archive = archive.file(&format!("blobs/sha256/{}", hexadecimal(blob)), 0o644, blob);
        }
        Ok(archive.into_bytes())
    }
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(blob), "size": blob.len() })
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hexadecimal(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `bytes` compressed by gzip.
///
/// # Errors
/// None in memory; the compressor's interface has one.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// `bytes` compressed by zstd.
///
/// # Errors
/// None in memory; the compressor's interface has one.
pub fn zstd(bytes: &[u8]) -> Result<Vec<u8>> {
    Ok(zstd::encode_all(bytes, 1)?)
}

/// `bytes` compressed by a program such as xz, which is installed.
///
/// # Errors
/// It cannot be run, or fails.
pub fn compressed_by(program: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut input = tempfile::tempfile()?;
    input.write_all(bytes)?;
    input.rewind()?;
    let output = Command::new(program).arg("-c").stdin(input).output().with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "{program}: {output:?}");
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn names_are_written_as_they_are() {
        let bytes = Layer::new().file("../../escape", 0o644, b"x").symbolic_link("link", "/etc").into_bytes();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut entries = archive.entries().unwrap();
        let mut first = entries.next().unwrap().unwrap();
        assert_eq!(first.path_bytes().as_ref(), b"../../escape");
        let mut content = String::new();
        first.read_to_string(&mut content).unwrap();
        assert_eq!(content, "x");
        assert_eq!(entries.next().unwrap().unwrap().link_name_bytes().unwrap().as_ref(), b"/etc");
        assert!(entries.next().is_none());
    }

    #[test]
    fn every_blob_of_a_layout_has_the_digest_that_is_its_name() {
        let image = Image::new("localhost/x:1", &["/x"]).layer(Layer::new().file("x", 0o755, b"x"));
        let bytes = image.oci_archive().unwrap();
        let mut blobs = 0;
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(name, hexadecimal(&content));
                blobs += 1;
            }
        }
        assert_eq!(blobs, 3);
    }
}
