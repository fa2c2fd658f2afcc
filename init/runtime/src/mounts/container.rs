//! The configuration's mounts, attached inside the container's root.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::options::Options;
use super::sources::is_bind;
use super::{MountError, attach, filesystem};
use crate::error::{Context, SystemError};
use crate::rootfs::{Kind, Root, RootError};
use crate::spec::Mount;

/// What mounting needs to know of the container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    /// Whether /proc/self/cgroup is the container's own.
    pub own_cgroup_namespace: bool,
    /// The container's cgroup on the host.
    pub cgroup: Option<&'a Path>,
    /// Whether sysfs can be mounted anew.
    pub own_network_namespace: bool,
    /// `linux.mountLabel`.
    pub label: Option<&'a String>,
}

/// What of the mounts is still needed.
#[derive(Debug, Default)]
pub(crate) struct Mounted {
    /// The container's procfs, if one is mounted.
    pub procfs: Option<OwnedFd>,
    /// What is to become read-only at the end.
    late: Vec<(OwnedFd, String)>,
}

impl Mounted {
    /// Puts read-only in force where it had to wait.
    pub(crate) fn finish(&mut self) -> Result<(), SystemError> {
        self.late.drain(..).try_for_each(|(tree, destination)| attach::make_read_only(tree, false, &destination))
    }
}

/// Mounts everything, in order. `binds` are the trees of the bind mounts among `mounts`.
pub(crate) fn attach_all(
    root: &Root,
    mounts: &[Mount],
    binds: Vec<OwnedFd>,
    surroundings: Surroundings<'_>,
) -> Result<Mounted, MountError> {
    let mut binds = binds.into_iter();
    let mut mounted = Mounted::default();
    for mount in mounts {
        let options = Options::parse(mount.options());
        let is_bind = is_bind(mount, &options);
        let bind = if is_bind { binds.next() } else { None };
        let tree = one(root, mount, &options, bind, surroundings).map_err(|error| MountError::Mount {
            source_name: mount.source.clone().or_else(|| mount.kind.clone()).unwrap_or_default(),
            destination: mount.destination.clone(),
            source: Box::new(error),
        })?;
        match mount.kind.as_deref() {
            _ if is_bind => {}
            Some("proc") if !options.remount => mounted.procfs = Some(tree),
            Some(kind) if filesystem::is_late(kind) && options.read_only() => {
                mounted.late.push((tree, mount.destination.clone()));
            }
            _ => {}
        }
    }
    Ok(mounted)
}

fn one(
    root: &Root,
    mount: &Mount,
    options: &Options,
    bind: Option<OwnedFd>,
    surroundings: Surroundings<'_>,
) -> Result<OwnedFd, MountError> {
    if options.remount {
        return super::remount::remount(root, mount, options);
    }
    let kind = mount.kind.as_deref().unwrap_or("none");
    let destination = mount.destination.as_str();
    let is_bind = bind.is_some();
    let tree = match bind {
        Some(tree) => tree,
        None => make(kind, mount, options, surroundings)?,
    };
    let point = mount_point_kind(&tree, destination)?;
    let target = if matches!(kind, "proc" | "sysfs") && !is_bind {
        // Their files are written and masked by what is expected at the path (CVE-2019-19921).
        root.plain_mount_point(destination, point)
    } else {
        root.mount_point(destination, point)
    };
    let target = target.map_err(RootError::into_mount_error)?;
    attach::attach(tree.as_fd(), target.as_fd(), destination)?;
    if options.copy_up && kind == "tmpfs" {
        super::copy_up::fill(target.as_fd(), tree.as_fd(), destination)?;
    }
    if is_bind {
        attach::change(tree.as_fd(), options, destination)?;
    } else {
        // The attributes are there from the beginning.
        let propagation = Options { propagation: options.propagation.clone(), ..Options::default() };
        attach::change(tree.as_fd(), &propagation, destination)?;
    }
    Ok(tree)
}

fn mount_point_kind(tree: &OwnedFd, destination: &str) -> Result<Kind, SystemError> {
    let stat = rustix::fs::fstat(tree).on("stat", destination)?;
    Ok(if FileType::from_raw_mode(stat.st_mode) == FileType::Directory { Kind::Directory } else { Kind::File })
}

/// A file system of the kernel's.
fn make(kind: &str, mount: &Mount, options: &Options, surroundings: Surroundings<'_>) -> Result<OwnedFd, MountError> {
    let source = mount.source.as_deref();
    match kind {
        "cgroup" | "cgroup2" => control_groups(source, options, surroundings),
        "sysfs" => match filesystem::make(kind, source, options) {
            // Only who owns the network namespace may mount sysfs: bind the host's instead, as crun does.
            Err(MountError::System(error)) if error.source == Errno::PERM && !surroundings.own_network_namespace => {
                host_sysfs(options)
            }
            result => result,
        },
        _ => match crate::labels::context(kind, surroundings.label) {
            Some(label) => {
                let mut options = options.clone();
                options.data.push(("context".to_owned(), Some(label.to_owned())));
                filesystem::make(kind, source, &options)
            }
            None => filesystem::make(kind, source, options),
        },
    }
}

fn host_sysfs(options: &Options) -> Result<OwnedFd, MountError> {
    let tree = attach::clone_tree(rustix::fs::CWD, Path::new("/sys"), true)?;
    attach::set_propagation(tree.as_fd(), libc::MS_SLAVE, true, "/sys")?;
    attach::change(tree.as_fd(), options, "/sys")?;
    Ok(tree)
}

/// With a cgroup namespace the tree's root is the container's own cgroup; without one it is bound from the host's.
fn control_groups(
    source: Option<&str>,
    options: &Options,
    surroundings: Surroundings<'_>,
) -> Result<OwnedFd, MountError> {
    if !surroundings.own_cgroup_namespace
        && let Some(path) = surroundings.cgroup
    {
        let tree = attach::clone_tree(rustix::fs::CWD, path, false)?;
        attach::set_propagation(tree.as_fd(), libc::MS_SLAVE, true, "cgroup")?;
        attach::change(tree.as_fd(), options, "cgroup")?;
        return Ok(tree);
    }
    // Options of version 1, as `nsdelegate` of version 2, are not the container's to choose.
    let options = Options { data: Vec::new(), ..options.clone() };
    filesystem::make("cgroup2", source, &options)
}

/// The container's procfs for the runtime's own use: the one that is mounted, or a detached one.
pub(crate) fn procfs(mounted: Option<OwnedFd>) -> Result<OwnedFd, MountError> {
    match mounted {
        Some(tree) => Ok(tree),
        None => filesystem::make("proc", Some("proc"), &Options::default()),
    }
}

/// Writes a file of a procfs that is known to be one, and of nothing that is mounted over it (CVE-2025-52881).
pub(crate) fn write_proc(procfs: &OwnedFd, path: &str, value: &[u8]) -> Result<(), SystemError> {
    use rustix::fs::{Mode, ResolveFlags};
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    let subject = || format!("/proc/{path}");
    let file = rustix::fs::openat2(procfs, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)
        .context("open", subject)?;
    let written = rustix::io::write(&file, value).context("write", subject)?;
    if written == value.len() { Ok(()) } else { Err(Errno::IO).context("write", subject) }
}
