//! Removes directory trees that somebody else made, however deep.
//!
//! A container can nest directories deeper than any stack or descriptor limit. So nothing here recurses: a directory
//! that is not empty is moved up to the top before it is emptied. Nor are names collected, of which there can be more than the
//! memory holds: each goes as it is read.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Removes `name` in `parent`, whatever it is; no link is followed. What is not there counts as removed.
pub fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match remove_present(parent, name) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Removes everything in a directory.
pub fn remove_all_in(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    each(directory, |name| remove_present(directory, name))
}

fn remove_present(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    let top = open(parent, name)?;
    let mut moved = 0_u64;
    each(top.as_fd(), |child| empty(top.as_fd(), child, &mut moved))?;
    drop(top);
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Removes one entry of the top directory; directories in it are moved to the top.
fn empty(top: BorrowedFd<'_>, child: &[u8], moved: &mut u64) -> Result<(), Errno> {
    match rustix::fs::unlinkat(top, child, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    let directory = open(top, child)?;
    each(directory.as_fd(), |entry| {
        let metadata = rustix::fs::statat(&directory, entry, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(metadata.st_mode) != FileType::Directory {
            return rustix::fs::unlinkat(&directory, entry, AtFlags::empty());
        }
        match rustix::fs::unlinkat(&directory, entry, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => move_up(&directory, entry, top, moved),
            other => other,
        }
    })?;
    drop(directory);
    rustix::fs::unlinkat(top, child, AtFlags::REMOVEDIR)
}

fn move_up(directory: &OwnedFd, entry: &[u8], top: BorrowedFd<'_>, moved: &mut u64) -> Result<(), Errno> {
    loop {
        *moved += 1;
        let name = format!(".removed-{moved}");
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(directory, entry, top, &*name, flags) {
            Err(Errno::EXIST) => {}
            other => return other,
        }
    }
}

fn open(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Calls for the names in a directory, each of which is to be gone or moved by that, until there is none. One reading may miss
/// some, or have one twice, while the directory changes.
fn each(directory: BorrowedFd<'_>, mut each: impl FnMut(&[u8]) -> Result<(), Errno>) -> Result<(), Errno> {
    loop {
        let (mut found, mut gone) = (false, false);
        for entry in rustix::fs::Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            found = true;
            match each(name) {
                Ok(()) => gone = true,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        match (found, gone) {
            (false, _) => return Ok(()),
            (true, true) => {}
            // A file system that names what is not there is damaged.
            (true, false) => return Err(Errno::UCLEAN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_tree_deeper_than_the_descriptor_limit_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let parent = File::open(directory.path()).unwrap();
        rustix::fs::mkdirat(&parent, "tree", Mode::RWXU).unwrap();
        let mut current = open(parent.as_fd(), b"tree").unwrap();
        for _ in 0..1_500 {
            rustix::fs::mkdirat(&current, "d", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&current, ".removed-1", Mode::RWXU).unwrap();
            rustix::fs::symlinkat("/etc", &current, "link").unwrap();
            current = open(current.as_fd(), b"d").unwrap();
        }
        remove(parent.as_fd(), b"tree").unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert_eq!(remove(parent.as_fd(), b"tree"), Ok(()));
    }
}
