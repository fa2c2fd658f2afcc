//! Copies out of an image: a directory with all that is in it, for a new volume; a file's metadata.
//!
//! The target is new and empty and nobody else's; the source is a merged view, which follows no link.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use crate::erofs::{Kind, Metadata};
use crate::layer::{EntryPath, LayerError, attributes, failed, file_failed};
use crate::limits;
use crate::merged::{Found, Item, MergedDirectory};

/// How much of a file is copied at once, in bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// Copies owner, mode, attributes and times to an open file or directory.
pub fn metadata(source: &Item, target: BorrowedFd<'_>, path: &EntryPath) -> Result<(), LayerError> {
    let Metadata { mode, uid, gid, .. } = source.metadata();
    rustix::fs::fchown(target, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed("chown", path))?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(mode)).map_err(failed("chmod", path))?;
    for (name, value) in source.attributes()?.iter().filter(|(name, _)| attributes::is_kept(name)) {
        attributes::set(target, name, value).map_err(failed("copy the attributes of", path))?;
    }
    rustix::fs::futimens(target, &times(source)).map_err(failed("set the times of", path))
}

/// Refuses to write so many bytes more if there is no room for them.
pub type Check<'a> = &'a dyn Fn(u64) -> Result<(), LayerError>;

/// Copies a directory of an image into an empty one. Hard links become files of their own.
pub fn directory(
    source: &MergedDirectory,
    target: BorrowedFd<'_>,
    path: &EntryPath,
    check: Check<'_>,
) -> Result<(), LayerError> {
    if path.components().count() > limits::PATH_DEPTH {
        return Err(crate::layer::PathError::TooDeep { start: path.to_string().chars().take(60).collect() }.into());
    }
    let mut names = source.names_after(b"")?;
    while let Some(last) = names.last().cloned() {
        for name in names {
            check(0)?;
            let path = path.join(&name);
            match source.child(&name)? {
                None => {}
                Some(Found::Directory(child)) => subdirectory(&child, &name, target, &path, check)?,
                Some(Found::Other(item)) => other(&item, &name, target, &path, check)?,
            }
        }
        names = source.names_after(&last)?;
    }
    metadata(source.top(), target, path)
}

fn subdirectory(
    source: &MergedDirectory,
    name: &[u8],
    target: BorrowedFd<'_>,
    path: &EntryPath,
    check: Check<'_>,
) -> Result<(), LayerError> {
    rustix::fs::mkdirat(target, name, Mode::from_raw_mode(0o700)).map_err(failed("make", path))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(target, name, flags, Mode::empty()).map_err(failed("open", path))?;
    directory(source, opened.as_fd(), path, check)
}

fn other(
    source: &Item,
    name: &[u8],
    target: BorrowedFd<'_>,
    path: &EntryPath,
    check: Check<'_>,
) -> Result<(), LayerError> {
    let mode = Mode::from_raw_mode(source.metadata().mode);
    let kind = match source.kind() {
        Kind::File => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(target, name, flags, mode).map_err(failed("make", path))?;
            let made = File::from(made);
            content(source, &made, path, check)?;
            return metadata(source, made.as_fd(), path);
        }
        Kind::Symlink => {
            rustix::fs::symlinkat(&*source.target()?, target, name).map_err(failed("make", path))?;
            None
        }
        Kind::CharacterDevice => Some(FileType::CharacterDevice),
        Kind::BlockDevice => Some(FileType::BlockDevice),
        Kind::Socket => Some(FileType::Socket),
        // A directory is none of what is here.
        Kind::Fifo | Kind::Directory => Some(FileType::Fifo),
    };
    if let Some(kind) = kind {
        let device = if kind == FileType::Fifo { 0 } else { source.device().into() };
        rustix::fs::mknodat(target, name, kind, mode, device).map_err(failed("make", path))?;
    }
    let Metadata { uid, gid, .. } = source.metadata();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(target, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("chown", path))?;
    rustix::fs::utimensat(target, name, &times(source), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set the times of", path))
}

/// Copies content; what is nothing but zeros becomes a hole. How long the file is comes first: the size of one that is sparse
/// costs an image nothing, and no file system takes each.
fn content(source: &Item, target: &File, path: &EntryPath, check: Check<'_>) -> Result<(), LayerError> {
    target.set_len(source.size()).map_err(file_failed("copy", path))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut offset = 0;
    while offset < source.size() {
        let hole = source.hole(offset)?;
        if hole > 0 {
            offset += hole;
            continue;
        }
        let length = source.read_at(offset, &mut buffer)?;
        let read = &buffer[..length];
        if read.iter().any(|byte| *byte != 0) {
            check(length as u64)?;
            target.write_all_at(read, offset).map_err(file_failed("copy", path))?;
        }
        offset += length as u64;
    }
    Ok(())
}

fn times(source: &Item) -> Timestamps {
    let modified = source.metadata().modified;
    let time = Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
