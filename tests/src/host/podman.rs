//! podman of Debian's testing suite, with conmon, crun and netavark, in namespaces beside Berth's.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use berth_image_build::workspace::Workspace;

use super::namespaces::{Namespaces, succeeded};

/// What is fetched, beside what it needs.
const PACKAGES: [&str; 6] = ["podman", "conmon", "crun", "netavark", "nftables", "busybox-static"];

/// There is neither systemd nor a journal, and no cgroup controller where this host has cgroup v1: podman makes no cgroup
/// then, which is less work than Berth has.
const CONFIGURATION: &str = "[containers]\nlog_driver = \"k8s-file\"\ncgroups = \"disabled\"\n\
    [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"crun\"\n";

/// Becomes process 1. `$1` is podman's root, `$2` the folder of what is written.
const BEGIN: &str = r#"
set -eu
mount --make-rprivate /
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
cd "$2/root"
mkdir -p proc sys dev run tmp mnt var/lib/containers var/tmp
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
# An overlay cannot hold the layers of another one.
mount --bind "$2/storage" var/lib/containers
ip link set lo up
pivot_root . mnt
/usr/bin/busybox umount -l mnt
exec /usr/bin/busybox sleep infinity
"#;

/// It ends with its owner.
#[derive(Debug)]
pub struct Podman {
    namespaces: Namespaces,
    /// Behind the mounts, which end first.
    _folder: tempfile::TempDir,
}

impl Podman {
    /// Fetches it, if it was not, and gives it the image of this archive.
    ///
    /// # Errors
    /// If it cannot be fetched, or does not run here.
    pub fn start(workspace: &Workspace, archive: &[u8]) -> Result<Self> {
        let root = fetch(workspace)?;
        let folder = tempfile::Builder::new().prefix("berth-podman.").tempdir()?;
        for name in ["upper/etc/containers", "work", "root", "storage"] {
            fs::create_dir_all(folder.path().join(name))?;
        }
        fs::write(folder.path().join("upper/etc/containers/containers.conf"), CONFIGURATION)?;
        fs::write(folder.path().join("storage/true.tar"), archive)?;
        let namespaces = Namespaces::start("berth-podman", BEGIN, &[&root, folder.path()], "busybox")?;
        let podman = Self { namespaces, _folder: folder };
        let loaded = podman.command(&["load", "--input", "/var/lib/containers/true.tar"]).output()?;
        succeeded(&loaded).context("podman load")?;
        Ok(podman)
    }

    /// `podman` with these words.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command =
            self.namespaces.command(&["/usr/bin/busybox", "env", "PATH=/usr/sbin:/usr/bin", "/usr/bin/podman"]);
        command.args(words);
        command
    }
}

fn fetch(workspace: &Workspace) -> Result<PathBuf> {
    let script = workspace.root.join("image-build/fetch-debian.sh");
    let mut command = Command::new(script);
    let output =
        command.args(["testing", "podman"]).args(PACKAGES).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    Ok(PathBuf::from(succeeded(&output).context("fetch podman")?.trim()))
}
