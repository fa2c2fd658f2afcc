//! Real services as images: file systems of Debian's packages, with what their official images have around them.
//!
//! mmdebstrap unpacks the packages (nothing of Debian is configured, no maintainer's script runs), and a second layer
//! brings what those scripts would have made: users, folders with their owners, an entrypoint. An image is made once
//! and kept in the build cache under a key of everything that is written here; a newer package in Debian's archive
//! does not make it anew.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use berth_image_build::cache::Cache;
use berth_image_build::digest::Key;
use serde_json::{Value, json};

use self::debian::Tree;
use crate::archive::{Image, Layer};

mod debian;

/// What every tree has beside its service: a shell and what entrypoints call.
const COMMON_PACKAGES: [&str; 3] = ["coreutils", "dash", "util-linux"];

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// A web server.
    Nginx,
    /// A key-value store.
    Redis,
    /// A database.
    Postgresql,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Nginx, Self::Redis, Self::Postgresql];

    /// The name of its image, without a registry and a tag.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Redis => "redis",
            Self::Postgresql => "postgresql",
        }
    }

    /// The image as an OCI layout in an archive, named `localhost/<name>:1`.
    ///
    /// # Errors
    /// If mmdebstrap is not installed or cannot run here, which skips the case, or the image cannot be written.
    pub fn archive(self) -> Result<PathBuf> {
        let own = self.own_layer().into_bytes();
        let process = self.process();
        let tree = Tree { packages: [&COMMON_PACKAGES[..], self.packages()].concat() };
        let key = tree.add_to(Key::new("service image 1")).part("own", &own).part("process", process.to_string());
        let entry = Cache::from_environment()?.entry_or("service-images", &key.finish(), |folder| {
            let image = Image::with_process(&format!("localhost/{}:1", self.name()), process);
            let image = image.archived_layer(tree.build(folder)?).archived_layer(own);
            let path = archive_in(folder);
            std::fs::write(&path, image.oci_archive()?).with_context(|| format!("write {}", path.display()))
        })?;
        Ok(archive_in(&entry))
    }

    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => &["nginx"],
            Self::Redis => &["redis-server"],
            Self::Postgresql => &["postgresql-15"],
        }
    }

    /// What the official images of these services have as their configuration.
    fn process(self) -> Value {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        // Before /usr/bin, where Debian has wrappers of the same names that need Perl.
        let programs = "/usr/lib/postgresql/15/bin";
        match self {
            Self::Nginx => json!({
                "Cmd": ["nginx", "-g", "daemon off;"],
                "Env": [format!("PATH={path}")],
                "ExposedPorts": { "80/tcp": {} },
                "StopSignal": "SIGQUIT",
            }),
            Self::Redis => json!({
                "Entrypoint": ["/entrypoint.sh"],
                "Cmd": ["redis-server"],
                "Env": [format!("PATH={path}")],
                "ExposedPorts": { "6379/tcp": {} },
                "Volumes": { "/data": {} },
                "WorkingDir": "/data",
            }),
            Self::Postgresql => json!({
                "Entrypoint": ["/entrypoint.sh"],
                "Cmd": ["postgres"],
                "Env": [format!("PATH={programs}:{path}"), "PGDATA=/var/lib/postgresql/data", "LANG=C.UTF-8"],
                "ExposedPorts": { "5432/tcp": {} },
                "StopSignal": "SIGINT",
                "Volumes": { "/var/lib/postgresql/data": {} },
            }),
        }
    }

    /// The user that it runs as; names and numbers are Debian's or those of the official images.
    fn user(self) -> (&'static str, u32) {
        match self {
            Self::Nginx => ("www-data", 33),
            Self::Redis => ("redis", 999),
            Self::Postgresql => ("postgres", 999),
        }
    }

    fn own_layer(self) -> Layer {
        let (name, id) = self.user();
        let directory = tar::EntryType::Directory;
        let layer = Layer::new()
            .file("etc/passwd", 0o644, format!("root:x:0:0::/root:/bin/sh\n{name}:x:{id}:{id}::/:/bin/sh\n").as_bytes())
            .file("etc/group", 0o644, format!("root:x:0:\n{name}:x:{id}:\n").as_bytes())
            .folder("run")
            .symbolic_link("var/run", "/run")
            .entry("tmp", directory, 0o1777, "", &[]);
        match self {
            Self::Nginx => layer
                .file("etc/nginx/nginx.conf", 0o644, include_bytes!("services/nginx.conf"))
                .symbolic_link("var/log/nginx/access.log", "/dev/stdout")
                .symbolic_link("var/log/nginx/error.log", "/dev/stderr"),
            Self::Redis => {
                layer.file("entrypoint.sh", 0o755, include_bytes!("services/redis.sh")).owned_by(id).folder("data")
            }
            Self::Postgresql => layer
                .file("entrypoint.sh", 0o755, include_bytes!("services/postgresql.sh"))
                .owned_by(id)
                .entry("var/lib/postgresql", directory, 0o1777, "", &[])
                .entry("var/lib/postgresql/data", directory, 0o700, "", &[])
                .entry("run/postgresql", directory, 0o3777, "", &[]),
        }
    }
}

fn archive_in(folder: &Path) -> PathBuf {
    folder.join("image.tar")
}
