//! Device nodes and symbolic links in the container's /dev.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::error::{Context, SystemError};
use crate::mounts::options::Options;
use crate::mounts::sources::is_bind;
use crate::mounts::{MountError, attach};
use crate::rootfs::{Kind, Root, RootError};
use crate::spec::{Device, Mount};

/// Why a device is not there.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Not one of the types.
    #[error("linux.devices: the type of {path} must be c, u, b or p, not {kind}")]
    Kind {
        /// In the container.
        path: String,
        /// As given.
        kind: String,
    },
    /// Without privileges over the host, nodes come from the host.
    #[error("linux.devices: no device {major}:{minor} at {path} on the host to give to a user namespace")]
    NotOnHost {
        /// On the host.
        path: String,
        /// Of the device.
        major: i64,
        /// Of the device.
        minor: i64,
    },
    /// Its place cannot be had.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Mounting it failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// The devices that the specification wants in every container.
const DEFAULT: &[(&str, i64, i64)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// And the links. `core` is runc's and crun's custom.
const LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
];

/// Makes nodes and links, unless /dev is the host's own. `bind` takes the nodes from the host, for a process that may
/// not make any.
pub(crate) fn populate(root: &Root, mounts: &[Mount], devices: &[Device], bind: bool) -> Result<(), DeviceError> {
    let mut on_dev = mounts
        .iter()
        .rev()
        .filter(|mount| mount.destination.trim_end_matches('/') == "/dev")
        .map(|mount| (mount, Options::parse(mount.options())))
        .filter(|(_, options)| !options.remount);
    if on_dev.next().is_some_and(|(mount, options)| is_bind(mount, &options)) {
        return Ok(());
    }
    // The nodes' modes are as given, whatever the caller's mask was.
    let mask = rustix::process::umask(Mode::empty());
    let result = make(root, mounts, devices, bind);
    rustix::process::umask(mask);
    result
}

/// The directories that nodes and links go into: nearly all of them into one.
struct Places<'a> {
    root: &'a Root,
    last: Option<(PathBuf, OwnedFd)>,
}

impl Places<'_> {
    /// The directory of a path, made if it is not there, and the name in it.
    fn find<'b>(&mut self, path: &'b str) -> Result<(BorrowedFd<'_>, &'b str), RootError> {
        let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
        let name = Path::new(path).file_name().and_then(OsStr::to_str);
        let is_known = self.last.as_ref().is_some_and(|(known, _)| known == parent);
        let (last, name) = match (self.last.take(), name) {
            (Some(last), Some(name)) if is_known => (last, name),
            _ => {
                let (directory, name) = self.root.make_parents(path)?;
                ((parent.to_owned(), directory), name)
            }
        };
        Ok((self.last.insert(last).1.as_fd(), name))
    }
}

fn make(root: &Root, mounts: &[Mount], devices: &[Device], bind: bool) -> Result<(), DeviceError> {
    let default = DEFAULT.iter().map(|(path, major, minor)| Device {
        kind: "c".to_owned(),
        path: path.into(),
        major: *major,
        minor: *minor,
        file_mode: Some(0o666),
        uid: Some(0),
        gid: Some(0),
    });
    let configured = |path: &std::path::Path| devices.iter().any(|device| device.path == path);
    let mut places = Places { root, last: None };
    for device in default.filter(|device| !configured(&device.path)) {
        place(&mut places, &device, bind, Other::Replaced)?;
    }
    for device in devices {
        place(&mut places, device, bind, Other::Refused)?;
    }
    for (path, target) in LINKS {
        if *path == "/dev/core" && rustix::fs::stat("/proc/kcore").is_err() {
            continue;
        }
        link(&mut places, path, target)?;
    }
    // Where the container has a devpts of its own, its multiplexer is the one to use.
    let own_terminals = |mount: &Mount| mount.destination == "/dev/pts" && mount.kind.as_deref() == Some("devpts");
    if mounts.iter().any(own_terminals) {
        replace_with_link(&mut places, "/dev/ptmx", "pts/ptmx")?;
    }
    Ok(())
}

/// What happens to another file that is where a device is to be: images have files at the places of default devices,
/// at that of a configured one the specification wants an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    Replaced,
    Refused,
}

fn place(places: &mut Places<'_>, device: &Device, bind: bool, other: Other) -> Result<(), DeviceError> {
    let path = device.path.to_string_lossy().into_owned();
    let path = path.as_str();
    if bind { from_host(places, device, path, other) } else { node(places, device, path, other) }
}

/// Whether what is there is the device already.
fn is_same(stat: &rustix::fs::Stat, device: &Device, kind: FileType) -> bool {
    let same_number = kind == FileType::Fifo || stat.st_rdev == number(device);
    FileType::from_raw_mode(stat.st_mode) == kind && same_number
}

fn in_the_way(path: &str) -> DeviceError {
    RootError::InTheWay { path: path.to_owned(), reason: "it is not the device of linux.devices" }.into()
}

fn kind_of(device: &Device, path: &str) -> Result<FileType, DeviceError> {
    match device.kind.as_str() {
        "c" | "u" => Ok(FileType::CharacterDevice),
        "b" => Ok(FileType::BlockDevice),
        "p" => Ok(FileType::Fifo),
        kind => Err(DeviceError::Kind { path: path.to_owned(), kind: kind.to_owned() }),
    }
}

fn number(device: &Device) -> u64 {
    let part = |number: i64| u32::try_from(number).unwrap_or_default();
    rustix::fs::makedev(part(device.major), part(device.minor))
}

fn node(places: &mut Places<'_>, device: &Device, path: &str, other: Other) -> Result<(), DeviceError> {
    let kind = kind_of(device, path)?;
    let (directory, name) = places.find(path)?;
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666));
    let made = rustix::fs::mknodat(directory, name, kind, mode, number(device));
    match made {
        Ok(()) => {}
        // The image has it already: it must then be the same, and gets the mode and owner.
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).on("stat", path)?;
            if !is_same(&stat, device, kind) {
                if other == Other::Refused {
                    return Err(in_the_way(path));
                }
                rustix::fs::unlinkat(directory, name, AtFlags::empty()).on("unlink", path)?;
                rustix::fs::mknodat(directory, name, kind, mode, number(device)).on("mknod", path)?;
            } else {
                rustix::fs::chmodat(directory, name, mode, AtFlags::empty()).on("chmod", path)?;
            }
        }
        // Not allowed to make nodes (a machine inside a user namespace): take the host's.
        Err(Errno::PERM) => return from_host(places, device, path, other),
        failed => failed.on("mknod", path)?,
    }
    let owner = (Uid::from_raw(device.uid.unwrap_or(0)), Gid::from_raw(device.gid.unwrap_or(0)));
    if owner != (Uid::ROOT, Gid::ROOT) {
        rustix::fs::chownat(directory, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)
            .on("chown", path)?;
    }
    Ok(())
}

/// Mounts the host's node on an empty file.
fn from_host(places: &mut Places<'_>, device: &Device, path: &str, other: Other) -> Result<(), DeviceError> {
    let kind = kind_of(device, path)?;
    if kind == FileType::Fifo {
        return node_unprivileged(places, device, path);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let missing = || DeviceError::NotOnHost { path: path.to_owned(), major: device.major, minor: device.minor };
    let host: OwnedFd = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Err(missing()),
        result => result.on("open", path)?,
    };
    let stat = rustix::fs::fstat(&host).on("stat", path)?;
    if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_rdev != number(device) {
        return Err(missing());
    }
    let tree = attach::clone_of(host.as_fd(), false, path)?;
    let there = places.root.open(path, OFlags::PATH).ok().and_then(|there| rustix::fs::fstat(there).ok());
    if other == Other::Refused && there.is_some_and(|there| !is_same(&there, device, kind)) {
        return Err(in_the_way(path));
    }
    let target = places.root.mount_point(path, Kind::File)?;
    attach::attach(tree.as_fd(), target.as_fd(), path)?;
    Ok(())
}

fn node_unprivileged(places: &mut Places<'_>, device: &Device, path: &str) -> Result<(), DeviceError> {
    let (directory, name) = places.find(path)?;
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666));
    match rustix::fs::mknodat(directory, name, FileType::Fifo, mode, 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        failed => Ok(failed.on("mkfifo", path)?),
    }
}

/// A link that the image may have already, in its own way.
fn link(places: &mut Places<'_>, path: &str, target: &str) -> Result<(), DeviceError> {
    let (directory, name) = places.find(path)?;
    match rustix::fs::symlinkat(target, directory, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        failed => Ok(failed.on("symlink", path)?),
    }
}

fn replace_with_link(places: &mut Places<'_>, path: &str, target: &str) -> Result<(), DeviceError> {
    let (directory, name) = places.find(path)?;
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        failed => failed.on("unlink", path)?,
    }
    Ok(rustix::fs::symlinkat(target, directory, name).on("symlink", path)?)
}
