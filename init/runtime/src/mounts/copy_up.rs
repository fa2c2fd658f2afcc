//! `tmpcopyup`: a new tmpfs starts with what the directory had in the image.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};

use crate::error::{Context, SystemError};

/// Deeper trees are cut off with an error rather than with a stack that overflows.
const MAXIMUM_DEPTH: usize = 128;

/// Copies everything in `from` (beneath the new mount) into `to`.
pub(crate) fn fill(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &str) -> Result<(), SystemError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, ".", flags, Mode::empty()).on("open", name)?;
    let target = rustix::fs::openat(to, ".", flags, Mode::empty()).on("open", name)?;
    let stat = rustix::fs::fstat(&source).on("stat", name)?;
    directory(&source, &target, name, 0)?;
    take_attributes(&target, &stat, name)
}

fn directory(from: &OwnedFd, to: &OwnedFd, path: &str, depth: usize) -> Result<(), SystemError> {
    if depth > MAXIMUM_DEPTH {
        return Err(SystemError { call: "copy", subject: path.to_owned(), source: rustix::io::Errno::LOOP });
    }
    for entry in Dir::read_from(from).on("read", path)? {
        let entry = entry.on("read", path)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let path = format!("{path}/{}", name.to_string_lossy());
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).on("stat", &path)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::mkdirat(to, name, mode).on("mkdir", &path)?;
                let source = rustix::fs::openat(from, name, flags, Mode::empty()).on("open", &path)?;
                let target = rustix::fs::openat(to, name, flags, Mode::empty()).on("open", &path)?;
                directory(&source, &target, &path, depth + 1)?;
                take_attributes(&target, &stat, &path)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new()).on("readlink", &path)?;
                rustix::fs::symlinkat(target.as_c_str(), to, name).on("symlink", &path)?;
            }
            FileType::RegularFile => {
                let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let source = rustix::fs::openat(from, name, read, Mode::empty()).on("open", &path)?;
                let target = rustix::fs::openat(to, name, write, mode).on("create", &path)?;
                let mut buffer = vec![0; 64 * 1024];
                loop {
                    let length = rustix::io::read(&source, &mut buffer).on("read", &path)?;
                    let mut rest = buffer.get(..length).unwrap_or_default();
                    if rest.is_empty() {
                        break;
                    }
                    while !rest.is_empty() {
                        let written = rustix::io::write(&target, rest).on("write", &path)?;
                        rest = rest.get(written..).unwrap_or_default();
                    }
                }
                take_attributes(&target, &stat, &path)?;
            }
            kind => rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev).on("mknod", &path)?,
        }
    }
    Ok(())
}

fn take_attributes(file: impl AsFd, stat: &Stat, path: &str) -> Result<(), SystemError> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(&file, Some(uid), Some(gid)).on("chown", path)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(stat.st_mode & 0o7777)).on("chmod", path)
}
