//! What `make run` and the first tests boot: a user-data disk with a configuration and an image archive, the image being
//! the static busybox that serves one page.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use crate::digest;
use crate::user_data;
use crate::userland::{self, Userland};
use crate::workspace::Workspace;

/// The name in berth.toml and in the archive.
const IMAGE_NAME: &str = "berth-demo:latest";

/// What a person who opens a shell in the demo expects, beside the server itself.
const APPLETS: [&str; 14] =
    ["cat", "echo", "hostname", "httpd", "id", "ip", "kill", "ls", "mount", "ping", "ps", "sh", "sleep", "wget"];

/// Makes out/demo.img and the folder it is made of, and returns the image's path.
///
/// # Errors
/// If busybox cannot be built or a file cannot be written.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    let userland = userland::build(workspace)?;
    let source = workspace.root.join("image-build/demo");
    let page = fs::read(source.join("index.html")).context("read the demo's page")?;
    let folder = workspace.out()?.join("demo");
    fs::create_dir_all(folder.join("images")).with_context(|| format!("make {}", folder.display()))?;
    fs::write(folder.join("images/demo.tar"), archive(&userland, &page)?).context("write the demo's archive")?;
    fs::copy(source.join("berth.toml"), folder.join("berth.toml")).context("copy the demo's configuration")?;
    let image = workspace.out()?.join("demo.img");
    user_data::build(&folder, user_data::LABEL, &image)?;
    Ok(image)
}

/// The image as `docker save` writes one today: an OCI layout with a manifest.json for older readers.
fn archive(userland: &Userland, page: &[u8]) -> Result<Vec<u8>> {
    let layer = layer(&userland.busybox, page)?;
    let config = serde_json::to_vec(&json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["/bin/httpd", "-f", "-p", "80", "-h", "/www"],
            "Env": ["PATH=/bin"],
            "ExposedPorts": {"80/tcp": {}},
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest::of_bytes(&layer))]},
        "history": [{"created_by": "berth image-build"}],
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] = json!({
        "io.containerd.image.name": format!("docker.io/library/{IMAGE_NAME}"),
        "org.opencontainers.image.ref.name": "latest",
    });
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]}))?;
    let saved = serde_json::to_vec(&json!([{
        "Config": blob_path(&config), "RepoTags": [IMAGE_NAME], "Layers": [blob_path(&layer)],
    }]))?;

    let mut tar = Archive::default();
    for folder in ["blobs/", "blobs/sha256/"] {
        tar.folder(folder)?;
    }
    for blob in [&config, &manifest, &layer] {
        tar.file(&blob_path(blob), 0o644, blob)?;
    }
    tar.file("index.json", 0o644, &index)?;
    tar.file("manifest.json", 0o644, &saved)?;
    tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.finish()
}

fn layer(busybox: &Path, page: &[u8]) -> Result<Vec<u8>> {
    let mut tar = Archive::default();
    for folder in ["bin/", "dev/", "etc/", "proc/", "sys/", "tmp/", "www/"] {
        tar.folder(folder)?;
    }
    let busybox = fs::read(busybox).with_context(|| format!("read {}", busybox.display()))?;
    tar.file("bin/busybox", 0o755, &busybox)?;
    for applet in APPLETS {
        tar.link(&format!("bin/{applet}"), "busybox")?;
    }
    tar.file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n")?;
    tar.file("etc/group", 0o644, b"root:x:0:\n")?;
    tar.file("www/index.html", 0o644, page)?;
    tar.finish()
}

fn descriptor(media_type: &str, content: &[u8]) -> serde_json::Value {
    json!({
        "mediaType": media_type,
        "digest": format!("sha256:{}", digest::of_bytes(content)),
        "size": content.len(),
    })
}

fn blob_path(content: &[u8]) -> String {
    format!("blobs/sha256/{}", digest::of_bytes(content))
}

/// A tar in which only names, modes and contents vary: owner root, time 0.
struct Archive(tar::Builder<Vec<u8>>);

impl Default for Archive {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Archive {
    fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size as u64);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header
    }

    fn folder(&mut self, path: &str) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Directory, 0o755, 0);
        self.0.append_data(&mut header, path, &[][..]).with_context(|| format!("archive {path}"))
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Regular, mode, content.len());
        self.0.append_data(&mut header, path, content).with_context(|| format!("archive {path}"))
    }

    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target).with_context(|| format!("archive {path}"))
    }

    fn finish(self) -> Result<Vec<u8>> {
        self.0.into_inner().context("finish an archive")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_parts_give_the_same_archive() {
        let folder = tempfile::tempdir().unwrap();
        let busybox = folder.path().join("busybox");
        fs::write(&busybox, "program").unwrap();
        let first = layer(&busybox, b"page").unwrap();
        assert_eq!(first, layer(&busybox, b"page").unwrap());
        let mut archive = tar::Archive::new(&first[..]);
        let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
        let names: Vec<String> = names.collect();
        assert!(names.contains(&"www/index.html".to_owned()), "{names:?}");
    }
}
