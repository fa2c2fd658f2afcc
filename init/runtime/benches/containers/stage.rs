//! The machine that the runtimes are measured on: a small root with the reference's programs and libraries, in a mount
//! namespace of its own, with cgroup v2 where runtimes look for it.
//!
//! It is the root, not a directory with a root changed to it: a runtime copies its caller's mounts for every
//! container, so the number of them is part of what is measured.

use std::io::Result;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::bundle;
use crate::measure::Runtime;
use crate::sys;

/// Where the container's root and configuration are, on the stage.
pub const BUNDLES: &str = "/bundles";

/// The command under test, in the stage's folder.
const COMMAND: &str = "berth-oci";

/// A link in the stage's folder to where the programs come from.
const PEERS: &str = "peers";

/// Links that Debian has in its root.
const LINKS: &[&str] = &["bin", "sbin", "lib", "lib64"];

/// Puts the files of the stage into `folder`. Further command lines may be compared: `--beside=PATH`.
pub fn build(folder: &Path, arguments: &[&str]) -> Result<()> {
    for directory in ["usr", "etc", "proc", "sys", "dev", "run", "tmp"] {
        std::fs::create_dir(folder.join(directory))?;
    }
    for link in LINKS {
        std::os::unix::fs::symlink(format!("usr/{link}"), folder.join(link))?;
    }
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    std::fs::copy(env!("CARGO_BIN_EXE_berth-oci"), folder.join(COMMAND))?;
    for path in beside(arguments) {
        std::fs::copy(path, folder.join(path.file_name().unwrap_or_default()))?;
    }
    std::os::unix::fs::symlink(peers()?, folder.join(PEERS))?;
    bundle::write_all(&folder.join(BUNDLES.trim_start_matches('/')))
}

fn beside<'a>(arguments: &[&'a str]) -> impl Iterator<Item = &'a Path> {
    arguments.iter().filter_map(|argument| argument.strip_prefix("--beside=")).map(Path::new)
}

/// What is compared on the stage in `folder`; the command under test first.
pub fn runtimes(folder: &Path, arguments: &[&str]) -> Vec<Runtime> {
    let ours = std::iter::once(Path::new(COMMAND)).chain(beside(arguments));
    let mut runtimes: Vec<Runtime> = ours
        .filter_map(Path::file_name)
        .map(|name| Runtime { name: name.to_string_lossy().into_owned(), path: Path::new("/").join(name) })
        .collect();
    for (name, place) in [("crun", "usr/bin/crun"), ("runc", "usr/sbin/runc"), ("runc", "usr/bin/runc")] {
        if folder.join(PEERS).join(place).is_file() && runtimes.iter().all(|runtime| runtime.name != name) {
            runtimes.push(Runtime { name: name.to_owned(), path: Path::new("/").join(place) });
        }
    }
    runtimes
}

/// Debian's packages of the peers, fetched when they are not there yet; the machine's own root if they cannot be had.
fn peers() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../image-build/fetch-debian.sh");
    let peers = ["testing", "peers", "crun", "runc"];
    let output = Command::new(script).args(peers).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    Ok(if output.status.success() { PathBuf::from(printed.trim()) } else { PathBuf::from("/") })
}

/// Makes `folder` the root of this process, which must be the only thread.
pub fn enter(folder: &Path) -> Result<()> {
    sys::leave_mount_namespace()?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    rustix::mount::mount_bind(folder, folder)?;
    for directory in ["usr", "etc"] {
        rustix::mount::mount_bind_recursive(folder.join(PEERS).join(directory), folder.join(directory))?;
    }
    rustix::mount::mount_bind_recursive("/dev", folder.join("dev"))?;
    for directory in ["run", "tmp"] {
        rustix::mount::mount("tmpfs", folder.join(directory), "tmpfs", MountFlags::empty(), None)?;
    }
    rustix::mount::mount("proc", folder.join("proc"), "proc", MountFlags::empty(), None)?;
    rustix::mount::mount("sysfs", folder.join("sys"), "sysfs", MountFlags::empty(), None)?;
    rustix::mount::mount("cgroup2", folder.join("sys/fs/cgroup"), "cgroup2", MountFlags::empty(), None)?;
    rustix::process::chdir(folder)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    debug_assert!(rustix::fs::statat(CWD, BUNDLES, rustix::fs::AtFlags::empty()).is_ok());
    Ok(())
}
