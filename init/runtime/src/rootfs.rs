//! The container's root while it is being built: looking up, making and mounting inside it, and moving into it.
//!
//! Invariant: every path of the container is resolved by openat2(2) with RESOLVE_IN_ROOT below the root's descriptor,
//! and what is then done is done to the descriptor that came of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::error::{Context, SystemError};
use crate::mounts::{MountError, attach};

/// Why the root cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// A path of the configuration that the image turns elsewhere.
    #[error("{path} is in the way: {reason}")]
    InTheWay {
        /// In the container.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Mounting something on it failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SystemError),
}

impl RootError {
    /// The same of one mount.
    pub(crate) fn into_mount_error(self) -> MountError {
        match self {
            Self::System(error) => MountError::System(error),
            Self::Mount(error) => error,
            Self::InTheWay { path, reason } => MountError::Option { option: path, reason },
        }
    }
}

/// What a missing mount point becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// The container's root.
#[derive(Debug)]
pub(crate) struct Root {
    mount: OwnedFd,
}

impl Root {
    /// Attaches a detached tree as a root to be. It comes on top of the caller's `/`, which nothing looks up again
    /// until [`Self::enter`].
    pub(crate) fn attach(tree: OwnedFd) -> Result<Self, RootError> {
        let slash =
            rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).on("open", "/")?;
        // Attaching below a shared mount would show on the host.
        attach::set_propagation(slash.as_fd(), libc::MS_PRIVATE, false, "/")?;
        attach::attach(tree.as_fd(), slash.as_fd(), "/")?;
        Ok(Self { mount: tree })
    }

    /// Looks a path up as the container would see it.
    pub(crate) fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.is_empty() { "/" } else { path };
        // The kernel gives EAGAIN when something is renamed or mounted meanwhile; a container that shares the tree
        // could do that for a while, not for ever.
        for _ in 0..64 {
            match rustix::fs::openat2(&self.mount, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    /// A path that must not lead through symbolic links: the places of procfs and sysfs.
    pub(crate) fn open_plain(&self, path: &str) -> Result<OwnedFd, RootError> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&self.mount, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::LOOP) => Err(RootError::InTheWay { path: path.to_owned(), reason: "it is a symbolic link" }),
            result => Ok(result.on("open", path)?),
        }
    }

    /// Such a place, made if it is not there.
    pub(crate) fn plain_mount_point(&self, path: &str, kind: Kind) -> Result<OwnedFd, RootError> {
        match self.open_plain(path) {
            Err(RootError::System(error)) if error.source == Errno::NOENT => {
                self.mount_point(path, kind)?;
                self.open_plain(path)
            }
            result => result,
        }
    }

    /// A mount point, made if it is not there (with the directories above it).
    pub(crate) fn mount_point(&self, path: &str, kind: Kind) -> Result<OwnedFd, RootError> {
        match self.open(path, OFlags::PATH) {
            Ok(found) => return Ok(found),
            Err(Errno::NOENT) => {}
            failed => return Ok(failed.on("open", path)?),
        }
        let (parent, name) = self.make_parents(path)?;
        match kind {
            Kind::Directory => match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                failed => failed.on("mkdir", path)?,
            },
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::EXCL;
                match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
                    Ok(_) | Err(Errno::EXIST) => {}
                    failed => drop(failed.on("create", path)?),
                }
            }
        }
        self.open(path, OFlags::PATH).map_err(|errno| match errno {
            Errno::NOENT => RootError::InTheWay { path: path.to_owned(), reason: "it is a symbolic link to nowhere" },
            source => SystemError { call: "open", subject: path.to_owned(), source }.into(),
        })
    }

    /// The directory that `path` is in, with what is missing on the way made, and the path's last component.
    pub(crate) fn make_parents<'a>(&self, path: &'a str) -> Result<(OwnedFd, &'a str), RootError> {
        let parts: Vec<&str> = Path::new(path)
            .components()
            .filter_map(|component| match component {
                Component::Normal(part) => part.to_str(),
                _ => None,
            })
            .collect();
        let Some((name, above)) = parts.split_last() else {
            return Err(RootError::InTheWay { path: path.to_owned(), reason: "it is the root" });
        };
        let mut walked = format!("/{}", above.join("/"));
        // Nearly always they are all there.
        match self.open(&walked, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(directory) => return Ok((directory, *name)),
            Err(Errno::NOENT) => walked.clear(),
            failed => drop(failed.on("open", &walked)?),
        }
        let mut directory = self.open("/", OFlags::PATH | OFlags::DIRECTORY).on("open", "/")?;
        for part in above {
            walked.push('/');
            walked.push_str(part);
            directory = match self.open(&walked, OFlags::PATH | OFlags::DIRECTORY) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&directory, *part, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        failed => failed.on("mkdir", &walked)?,
                    }
                    self.open(&walked, OFlags::PATH | OFlags::DIRECTORY).on("open", &walked)?
                }
                result => result.on("open", &walked)?,
            };
        }
        Ok((directory, *name))
    }

    /// Hides a path: a file behind the null device, a directory behind an empty one. What is not there needs no hiding.
    pub(crate) fn mask(&self, path: &str, masks: &mut Masks) -> Result<(), RootError> {
        let target = match self.open(path, OFlags::PATH) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            failed => failed.on("open", path)?,
        };
        let stat = rustix::fs::fstat(&target).on("stat", path)?;
        let tree = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            masks.directory()?
        } else {
            masks.file()?
        };
        attach::attach(tree.as_fd(), target.as_fd(), path)?;
        masks.attached(tree, &stat);
        Ok(())
    }

    /// Makes a path read-only, with everything mounted below it.
    pub(crate) fn make_read_only(&self, path: &str) -> Result<(), RootError> {
        let target = match self.open(path, OFlags::PATH) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            failed => failed.on("open", path)?,
        };
        let tree = attach::clone_of(target.as_fd(), true, path)?;
        attach::make_read_only(&tree, true, path)?;
        attach::attach(tree.as_fd(), target.as_fd(), path)?;
        Ok(())
    }

    /// Makes this the root of the calling process's mount namespace and lets go of the old one.
    pub(crate) fn enter(&self) -> Result<(), RootError> {
        let old =
            rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).on("open", "/")?;
        rustix::process::fchdir(&self.mount).on("fchdir", "the new root")?;
        rustix::process::pivot_root(".", ".").on("pivot_root", "the new root")?;
        rustix::process::fchdir(&old).on("fchdir", "the old root")?;
        // What the container does to the old root's mounts in the moment before they go must not reach the host.
        let here = rustix::fs::open(".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).on("open", "the old root")?;
        attach::set_propagation(here.as_fd(), libc::MS_SLAVE, true, "the old root")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH).on("umount", "the old root")?;
        rustix::process::chdir("/").on("chdir", "/")?;
        Ok(())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }
}

/// What hides files and directories; opened before the root is exchanged, so that the image has no say in it.
#[derive(Debug)]
pub(crate) struct Masks {
    null: OwnedFd,
    /// The first empty directory, once it is attached; later ones are clones of it.
    empty: Option<OwnedFd>,
    label: Option<String>,
}

impl Masks {
    /// `label` is that of the container's mounts.
    pub(crate) fn new(label: Option<&String>) -> Result<Self, RootError> {
        Ok(Self { null: host_device("null", 1, 3)?, empty: None, label: label.cloned() })
    }

    fn file(&self) -> Result<OwnedFd, RootError> {
        Ok(attach::clone_of(self.null.as_fd(), false, "/dev/null")?)
    }

    fn directory(&self) -> Result<OwnedFd, RootError> {
        if let Some(empty) = &self.empty {
            return Ok(attach::clone_of(empty.as_fd(), false, "the empty directory")?);
        }
        let filesystem = crate::mounts::filesystem::Filesystem::open("tmpfs")?;
        filesystem.set("source", "tmpfs")?;
        filesystem.set("mode", "0755")?;
        if let Some(label) = crate::labels::context("tmpfs", self.label.as_ref()) {
            filesystem.set("context", label)?;
        }
        filesystem.set_flag("ro")?;
        Ok(filesystem.mount(crate::sys::mount::attribute::READ_ONLY)?)
    }

    fn attached(&mut self, tree: OwnedFd, hidden: &rustix::fs::Stat) {
        if FileType::from_raw_mode(hidden.st_mode) == FileType::Directory && self.empty.is_none() {
            self.empty = Some(tree);
        }
    }
}

/// A device node of the host, checked to be the device and not what somebody put in its place.
pub(crate) fn host_device(name: &str, major: u32, minor: u32) -> Result<OwnedFd, RootError> {
    let path = format!("/dev/{name}");
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::openat(CWD, &path, flags, Mode::empty()).on("open", &path)?;
    let stat = rustix::fs::statat(&node, "", AtFlags::EMPTY_PATH).on("stat", &path)?;
    let right = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && rustix::fs::major(stat.st_rdev) == major
        && rustix::fs::minor(stat.st_rdev) == minor;
    if right { Ok(node) } else { Err(RootError::InTheWay { path, reason: "it is not the device of that name" }) }
}
