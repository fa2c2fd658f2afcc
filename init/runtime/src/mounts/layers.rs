//! Layers that are images of a file system: one mount of each, for all containers that have it, so that what they read is
//! in memory once.
//!
//! The mounts are in the mount namespace of who makes containers, each in a directory that its layer names, and stay
//! there until somebody removes them: [`remove_but`]. Beside each is a file with what the mount was made of; whoever looks
//! or mounts has it locked.
//!
//! A layer with an fs-verity digest is mounted only if it still has it. That costs the same for every layer; blocks that
//! the disk has changed are noticed when they are read.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::filesystem::Filesystem;
use super::{MountError, attach};
use crate::error::{Context, SystemError};
use crate::sys::mount::attribute;
use crate::sys::{loop_device, verity};

/// The file system's magic number: EROFS_SUPER_MAGIC_V1.
const EROFS: u64 = 0xE0F5_E1E2;

/// The size of an image's blocks, in bytes.
const BLOCK: u32 = 4096;

/// A layer of an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// A directory.
    Directory(PathBuf),
    /// A file with an EROFS in it.
    Image {
        /// The file.
        file: PathBuf,
        /// The fs-verity digest (SHA-256) that it must have.
        verity: Option<[u8; 32]>,
        /// The directory that it is mounted on, made if it is not there; its parent is on no mount that others clone.
        mount: PathBuf,
    },
}

impl Layer {
    /// Where its content is, once it is mounted.
    pub(crate) fn directory(&self) -> &Path {
        match self {
            Self::Directory(directory) => directory,
            Self::Image { mount, .. } => mount,
        }
    }
}

/// Mounts those that are images and not mounted yet. It may wait for the disk, and for others who do the same.
pub(crate) fn mount(layers: &[Layer]) -> Result<(), MountError> {
    for layer in layers {
        if let Layer::Image { file, verity, mount } = layer {
            mount_one(file, verity.as_ref(), mount)?;
        }
    }
    Ok(())
}

fn mount_one(path: &Path, verity: Option<&[u8; 32]>, mount: &Path) -> Result<(), MountError> {
    let name = || path.display().to_string();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).context("open", name)?);
    if let Some(expected) = verity {
        check(&file, path, expected)?;
    }
    let metadata = file.metadata().map_err(failed("look up", path))?;
    // Another file may have come to the same place.
    let identity =
        [metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime() as u64, metadata.mtime_nsec() as u64];
    let identity = identity.map(|number| number.to_string()).join(" ");
    std::fs::create_dir_all(mount).map_err(failed("make", mount))?;
    let mut source = lock(mount)?;
    let mut known = String::new();
    source.read_to_string(&mut known).map_err(failed("read what was mounted on", mount))?;
    if is_mounted(mount)? {
        if known == identity {
            return Ok(());
        }
        rustix::mount::unmount(mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .context("umount", || mount.display().to_string())?;
    }
    let tree = open(&file).map_err(|error| MountError::Mount {
        source_name: name(),
        destination: mount.display().to_string(),
        source: Box::new(error),
    })?;
    source.rewind().and_then(|()| source.set_len(0)).map_err(failed("note what is mounted on", mount))?;
    source.write_all(identity.as_bytes()).map_err(failed("note what is mounted on", mount))?;
    let target = rustix::fs::open(mount, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let target = target.context("open", || mount.display().to_string())?;
    attach::attach(tree.as_fd(), target.as_fd(), &mount.display().to_string())
}

/// A detached mount of an image.
fn open(file: &File) -> Result<OwnedFd, MountError> {
    match filesystem(&format!("/proc/self/fd/{}", file.as_raw_fd())) {
        // The kernel reads no files that are in memory by themselves, and before 6.12 none at all.
        Err(
            MountError::System(SystemError { source: Errno::NOTBLK, .. })
            | MountError::Filesystem { source: SystemError { source: Errno::NOTBLK, .. }, .. },
        ) => {
            let device = loop_device::attach(file, BLOCK);
            let (_held, path) = device.context("make a loop device", || "for a layer".to_owned())?;
            filesystem(&path)
        }
        opened => opened,
    }
}

fn filesystem(source: &str) -> Result<OwnedFd, MountError> {
    let filesystem = Filesystem::open("erofs")?;
    filesystem.set("source", source)?;
    filesystem.set_flag("ro")?;
    // An overlay has attributes of its own; whoever else finds the mount gets no device and no privilege out of it.
    filesystem.mount(attribute::READ_ONLY | attribute::NO_DEVICES | attribute::NO_SUID)
}

fn check(file: &File, path: &Path, expected: &[u8; 32]) -> Result<(), MountError> {
    let found = match verity::measure(file.as_fd()) {
        Ok(found) if found == *expected => return Ok(()),
        Ok(found) => hexadecimal(&found),
        Err(Errno::NODATA | Errno::NOTTY | Errno::OPNOTSUPP) => "missing".to_owned(),
        Err(error) => return Err(error_of("measure", path, error).into()),
    };
    Err(MountError::Changed { layer: path.to_owned(), found, expected: hexadecimal(expected) })
}

fn hexadecimal(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file beside a mount.
fn note(mount: &Path) -> PathBuf {
    let mut name = mount.as_os_str().to_owned();
    name.push(".source");
    PathBuf::from(name)
}

fn lock(mount: &Path) -> Result<File, MountError> {
    let path = note(mount);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = || path.display().to_string();
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).context("open", name)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).context("flock", name)?;
    Ok(File::from(file))
}

fn is_mounted(mount: &Path) -> Result<bool, MountError> {
    let found = rustix::fs::statfs(mount).context("statfs", || mount.display().to_string())?;
    Ok(u64::try_from(found.f_type).is_ok_and(|kind| kind == EROFS))
}

fn error_of(call: &'static str, path: &Path, source: Errno) -> SystemError {
    SystemError { call, subject: path.display().to_string(), source }
}

fn failed(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MountError {
    move |error| error_of(call, path, Errno::from_io_error(&error).unwrap_or(Errno::IO)).into()
}

/// Removes the mounts in a folder that are of none of these directories. Containers that have their layers keep them.
/// Never waits. Nobody may be mounting one of those that go.
pub fn remove_but(folder: &Path, kept: &BTreeSet<&OsStr>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if !entry.file_type()?.is_dir() || kept.contains(&*name) {
            continue;
        }
        let path = entry.path();
        match rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // It was never mounted.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        std::fs::remove_dir(&path)?;
        match std::fs::remove_file(note(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
