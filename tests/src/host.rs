//! The image's own root as a machine on this host, without a kernel of its own: PID 1 in namespaces, for figures that
//! emulated processors would spoil and that need a peer beside it.
//!
//! What it runs is what ships: the packed root, mounted as the machine mounts it, and `/usr/bin/init` as process 1 of a
//! process namespace. It has no network but its own, keeps its state in memory, looks at no disk for state and cannot
//! change the kernel's settings. Consoles and the guest agent, which are the host's here, are left out. Needs root.

mod namespaces;
pub mod podman;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use berth_image_build::program::{self, BERTH};
use berth_image_build::workspace::Workspace;
use berth_image_build::{root, userland};

pub use self::namespaces::{Namespaces, succeeded};

/// The system containers that have something to do here.
pub const SYSTEM_CONTAINERS: [&str; 4] = ["control", "engine", "logs", "network"];

/// Becomes process 1. `$1` is the folder of the files.
const BEGIN: &str = r#"
set -eu
mount --make-rprivate /
mount -t erofs -o ro,loop "$1/rootfs.erofs" "$1/root"
mount --bind "$1/system-containers" "$1/root/usr/lib/berth/system-containers"
mount -t proc proc "$1/root/proc"
mount --bind "$1/cmdline" "$1/root/proc/cmdline"
mount --bind "$1/root/proc/sys" "$1/root/proc/sys"
mount -o remount,bind,ro "$1/root/proc/sys"
cd "$1/root"
pivot_root . mnt
umount -l mnt
exec /usr/bin/init
"#;

/// Why there can be none on this host, if that is so.
#[must_use]
pub fn obstacle() -> Option<&'static str> {
    (!rustix::process::geteuid().is_root()).then_some("it needs root")
}

/// A running one; it ends with its owner.
#[derive(Debug)]
pub struct Host {
    namespaces: Namespaces,
    /// Behind the mounts, which end first.
    _folder: tempfile::TempDir,
}

impl Host {
    /// Builds what is missing and starts it; returns when its API answers and these archives are imported.
    ///
    /// # Errors
    /// If something cannot be built, or it does not start.
    pub fn start(workspace: &Workspace, archives: &[(&str, Vec<u8>)]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("berth-host.").tempdir()?;
        let place = folder.path();
        let program = program::build(workspace, BERTH)?;
        root::build(workspace, &userland::build(workspace)?, &program, place)?;
        for name in ["root", "system-containers"] {
            fs::create_dir(place.join(name))?;
        }
        for name in SYSTEM_CONTAINERS {
            let from = workspace.root.join("system-containers").join(name).join("container.toml");
            fs::copy(&from, place.join("system-containers").join(format!("{name}.toml")))?;
        }
        fs::write(place.join("cmdline"), "berth.state=memory\n")?;
        let namespaces = Namespaces::start("berth-host", BEGIN, &[place], "init")?;
        let mut host = Self { namespaces, _folder: folder };
        host.namespaces.wait_for("the control API", |it| berth(it, &["status"]).map(Some))?;
        host.import(archives)?;
        Ok(host)
    }

    /// Process 1, as this host counts.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.namespaces.pid
    }

    /// Its namespaces, to ask for what comes.
    pub fn namespaces(&mut self) -> &mut Namespaces {
        &mut self.namespaces
    }

    /// A program in it.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        self.namespaces.command(words)
    }

    /// What `berth` prints.
    ///
    /// # Errors
    /// If it fails.
    pub fn berth(&self, words: &[&str]) -> Result<String> {
        berth(&self.namespaces, words)
    }

    /// The system container's first process as this host counts.
    ///
    /// # Errors
    /// If it does not run.
    pub fn service(&self, name: &str) -> Result<u32> {
        let file = self.namespaces.cgroup.join("system").join(name).join("cgroup.procs");
        let processes = fs::read_to_string(file)?;
        processes.lines().next().and_then(|line| line.parse().ok()).with_context(|| format!("{name} has no process"))
    }

    /// Puts archives where user data is, and lets the engine, which looks for them at its start, start again.
    fn import(&mut self, archives: &[(&str, Vec<u8>)]) -> Result<()> {
        let images = PathBuf::from(format!("/proc/{}/root/run/berth/user-data/images", self.pid()));
        fs::create_dir_all(&images)?;
        for (name, archive) in archives {
            fs::write(images.join(name), archive)?;
        }
        self.namespaces.wait_for("the engine", |it| berth(it, &["kill", "engine"]).map(Some))?;
        let count = archives.len();
        self.namespaces.wait_for("the import", |it| {
            let listed: serde_json::Value = serde_json::from_str(&berth(it, &["images", "--json"])?)?;
            Ok((listed.as_array().map_or(0, Vec::len) >= count).then_some(()))
        })
    }
}

/// What `berth` prints in these namespaces.
///
/// # Errors
/// If it fails.
pub fn berth(namespaces: &Namespaces, words: &[&str]) -> Result<String> {
    let output = namespaces.command(&[&["/usr/bin/berth"], words].concat()).output()?;
    succeeded(&output).with_context(|| format!("berth {}", words.join(" ")))
}
