//! Copies out of an image: a directory with all that is in it, for a new volume; a file's metadata.
//!
//! The target is new and empty and nobody else's; the source is a merged view, which follows no link.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::layer::{EntryPath, LayerError, copy_attributes, failed};
use crate::limits;
use crate::merged::{Found, MergedDirectory};

/// Copies owner, mode, attributes and times to an open file or directory.
pub fn metadata(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    metadata: &Stat,
    path: &EntryPath,
) -> Result<(), LayerError> {
    let (uid, gid) = (Uid::from_raw(metadata.st_uid), Gid::from_raw(metadata.st_gid));
    rustix::fs::fchown(target, Some(uid), Some(gid)).map_err(failed("chown", path))?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(metadata.st_mode)).map_err(failed("chmod", path))?;
    copy_attributes(source, target, path)?;
    rustix::fs::futimens(target, &times(metadata)).map_err(failed("set the times of", path))
}

/// Copies a directory of an image into an empty one. Hard links become files of their own.
pub fn directory(source: &MergedDirectory, target: BorrowedFd<'_>, path: &EntryPath) -> Result<(), LayerError> {
    if path.components().count() > limits::PATH_DEPTH {
        return Err(crate::layer::PathError::TooDeep { start: path.to_string().chars().take(60).collect() }.into());
    }
    for name in source.names()? {
        let path = path.join(&name);
        match source.child(&name)? {
            None => {}
            Some(Found::Directory(child)) => {
                let made = Mode::from_raw_mode(0o700);
                rustix::fs::mkdirat(target, &*name, made).map_err(failed("make", &path))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let opened = rustix::fs::openat(target, &*name, flags, Mode::empty()).map_err(failed("open", &path))?;
                directory(&child, opened.as_fd(), &path)?;
            }
            Some(Found::Other { parent, name, metadata }) => {
                other(parent.as_fd(), &name, &metadata, target, &path)?;
            }
        }
    }
    let own = rustix::fs::fstat(source.top()).map_err(failed("look up", path))?;
    metadata(source.top(), target, &own, path)
}

fn other(
    parent: BorrowedFd<'_>,
    name: &[u8],
    found: &Stat,
    target: BorrowedFd<'_>,
    path: &EntryPath,
) -> Result<(), LayerError> {
    let kind = FileType::from_raw_mode(found.st_mode);
    let mode = Mode::from_raw_mode(found.st_mode);
    match kind {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed("open", path))?;
            let mut opened = File::from(opened);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(target, name, flags, mode).map_err(failed("make", path))?;
            let mut made = File::from(made);
            std::io::copy(&mut opened, &mut made)
                .map_err(|error| failed("copy", path)(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
            return metadata(opened.as_fd(), made.as_fd(), found, path);
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(failed("read", path))?;
            rustix::fs::symlinkat(&link, target, name).map_err(failed("make", path))?;
        }
        _ => rustix::fs::mknodat(target, name, kind, mode, found.st_rdev).map_err(failed("make", path))?,
    }
    let (uid, gid) = (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid));
    rustix::fs::chownat(target, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("chown", path))?;
    rustix::fs::utimensat(target, name, &times(found), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set the times of", path))
}

fn times(metadata: &Stat) -> Timestamps {
    let time =
        |seconds: i64, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
    Timestamps {
        last_access: time(metadata.st_atime, metadata.st_atime_nsec),
        last_modification: time(metadata.st_mtime, metadata.st_mtime_nsec),
    }
}
