//! The directory of a layer while it is being filled: finds and makes parents, makes room, sets metadata.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::{EntryPath, LayerError, OPAQUE, attributes};
use crate::merged::{Found, Merged, MergedDirectory};
use crate::removal;
use crate::tar::{Entry, Timestamp};

/// How many symbolic links one parent may lead through.
const LINKS: u32 = 40;

/// Opens a directory without rights to its content.
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A layer under construction over the layers below it.
pub struct Tree<'a> {
    root: BorrowedFd<'a>,
    lower: &'a Merged,
    /// The last parent: entries of one directory follow each other.
    parent: Option<(EntryPath, Rc<OwnedFd>)>,
    /// Times of directories, set at the end: every new entry changes them.
    times: Vec<(EntryPath, Timestamp)>,
    /// Whether a directory passes its group on, so that a new file's group is not ours.
    inherits_groups: bool,
}

/// Turns a system call's error into one that names the entry.
pub fn failed(operation: &'static str, path: &EntryPath) -> impl FnOnce(Errno) -> LayerError {
    move |source| LayerError::System { operation, path: path.to_string(), source }
}

impl<'a> Tree<'a> {
    /// Starts with an empty directory, which takes the metadata that the image's root has so far.
    pub fn new(root: BorrowedFd<'a>, lower: &'a Merged) -> Result<Self, LayerError> {
        // Files are made with their final mode, which spares a system call each.
        rustix::process::umask(Mode::empty());
        let mut tree = Self { root, lower, parent: None, times: Vec::new(), inherits_groups: false };
        match lower.root()? {
            Some(directory) => tree.copy_metadata(root, &EntryPath::ROOT, &directory)?,
            None => rustix::fs::fchmod(root, Mode::from_raw_mode(0o755)).map_err(failed("chmod", &EntryPath::ROOT))?,
        }
        Ok(tree)
    }

    /// The layers below.
    pub fn lower(&self) -> &'a Merged {
        self.lower
    }

    /// The directory that an entry goes into; made, as the layers below have it, if the stream did not bring it.
    pub fn parent_of(&mut self, path: &EntryPath) -> Result<Rc<OwnedFd>, LayerError> {
        if let Some((directory, descriptor)) = &self.parent
            && path.is_in(directory)
        {
            return Ok(Rc::clone(descriptor));
        }
        let (directory, _) = path.split();
        let descriptor = match self.open(&directory)? {
            Some(descriptor) => descriptor,
            None => self.make_parents(&directory)?,
        };
        let descriptor = Rc::new(descriptor);
        self.parent = Some((directory, Rc::clone(&descriptor)));
        Ok(descriptor)
    }

    /// A directory of this layer; none if it is missing or something else.
    pub fn open(&self, directory: &EntryPath) -> Result<Option<OwnedFd>, LayerError> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(self.root, directory.as_bytes(), DIRECTORY, Mode::empty(), resolve) {
            Ok(descriptor) => Ok(Some(descriptor)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(Errno::XDEV) => Err(LayerError::Escape { path: directory.to_string() }),
            Err(error) => Err(failed("open", directory)(error)),
        }
    }

    /// Walks to a directory component by component and makes what is missing.
    fn make_parents(&mut self, directory: &EntryPath) -> Result<OwnedFd, LayerError> {
        let escape = || LayerError::Escape { path: directory.to_string() };
        let mut pending: Vec<Vec<u8>> = directory.components().map(<[u8]>::to_vec).collect();
        pending.reverse();
        let mut links = 0;
        let mut at = EntryPath::ROOT;
        while let Some(name) = pending.pop() {
            if name == b".." {
                if at.is_root() {
                    return Err(escape());
                }
                at = at.split().0;
                continue;
            }
            let next = at.join(&name);
            let Some(link) = self.make_directory(&at, &name, &next)? else {
                at = next;
                continue;
            };
            links += 1;
            if links > LINKS {
                return Err(failed("open", directory)(Errno::LOOP));
            }
            if link.target.starts_with(b"/") {
                // In a layer below it is a matter of the image; in this one it is an attempt.
                if link.own {
                    return Err(escape());
                }
                at = EntryPath::ROOT;
            }
            let components = link.target.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
            pending.extend(components.rev().map(<[u8]>::to_vec));
        }
        self.open(&at)?.ok_or_else(escape)
    }

    /// Sees to it that `next` is a directory, or returns the symbolic link that it is.
    fn make_directory(&mut self, at: &EntryPath, name: &[u8], next: &EntryPath) -> Result<Option<Link>, LayerError> {
        let parent = self.open(at)?.ok_or_else(|| LayerError::Escape { path: at.to_string() })?;
        match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(metadata) => match FileType::from_raw_mode(metadata.st_mode) {
                FileType::Directory => return Ok(None),
                FileType::Symlink => return self.link(parent.as_fd(), name, next, true).map(Some),
                // What the layers below had there is deleted, so the new directory hides it.
                _ if super::is_whiteout(&metadata) => {
                    self.replace_whiteout(parent.as_fd(), name, next)?;
                    return Ok(None);
                }
                _ => return Err(failed("open", next)(Errno::NOTDIR)),
            },
            Err(Errno::NOENT) => {}
            Err(error) => return Err(failed("look up", next)(error)),
        }
        match self.lower.find_without_links(next)? {
            Some(Found::Other { parent, name, metadata })
                if FileType::from_raw_mode(metadata.st_mode) == FileType::Symlink =>
            {
                return self.link(parent.as_fd(), &name, next, false).map(Some);
            }
            Some(Found::Directory(directory)) => {
                let made = self.make(parent.as_fd(), name, next)?;
                self.copy_metadata(made.as_fd(), next, &directory)?;
            }
            _ => drop(self.make(parent.as_fd(), name, next)?),
        }
        Ok(None)
    }

    fn link(&self, parent: BorrowedFd<'_>, name: &[u8], path: &EntryPath, own: bool) -> Result<Link, LayerError> {
        let target = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(failed("read", path))?;
        Ok(Link { target: target.into_bytes(), own })
    }

    /// Makes a directory with the usual mode.
    fn make(&self, parent: BorrowedFd<'_>, name: &[u8], path: &EntryPath) -> Result<OwnedFd, LayerError> {
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)).map_err(failed("make", path))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed("open", path))
    }

    /// A directory in the place of a mark of deletion, hiding what the mark hid.
    fn replace_whiteout(&self, parent: BorrowedFd<'_>, name: &[u8], path: &EntryPath) -> Result<OwnedFd, LayerError> {
        rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(failed("remove", path))?;
        let directory = self.make(parent, name, path)?;
        set_opaque(directory.as_fd(), path)?;
        Ok(directory)
    }

    /// Gives a directory that the stream did not bring the metadata that it has below.
    fn copy_metadata(
        &mut self,
        target: BorrowedFd<'_>,
        path: &EntryPath,
        source: &MergedDirectory,
    ) -> Result<(), LayerError> {
        let metadata = rustix::fs::fstat(source.top()).map_err(failed("look up", path))?;
        copy_attributes(source.top(), target, path)?;
        let (uid, gid) = (Uid::from_raw(metadata.st_uid), Gid::from_raw(metadata.st_gid));
        rustix::fs::fchown(target, Some(uid), Some(gid)).map_err(failed("chown", path))?;
        rustix::fs::fchmod(target, Mode::from_raw_mode(metadata.st_mode)).map_err(failed("chmod", path))?;
        self.inherits_groups |= metadata.st_mode & 0o2000 != 0;
        let nanoseconds = u32::try_from(metadata.st_mtime_nsec).unwrap_or(0);
        self.times.push((path.clone(), Timestamp { seconds: metadata.st_mtime, nanoseconds }));
        Ok(())
    }

    /// An entry of the stream that is a directory: new, or there already, or in the place of something else.
    pub fn directory(&mut self, path: &EntryPath, entry: &Entry) -> Result<(), LayerError> {
        let directory = if path.is_root() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(self.root, ".", flags, Mode::empty()).map_err(failed("open", path))?
        } else {
            let parent = self.parent_of(path)?;
            let name = path.name();
            if self.new_directory(parent.as_fd(), path, entry)? {
                return Ok(());
            }
            match self.existing(parent.as_fd(), name, path)? {
                Existing::Nothing => self.make(parent.as_fd(), name, path)?,
                Existing::Directory(directory) => directory,
                Existing::Whiteout => self.replace_whiteout(parent.as_fd(), name, path)?,
                Existing::Other => {
                    self.remove(parent.as_fd(), name, path)?;
                    self.make(parent.as_fd(), name, path)?
                }
            }
        };
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::fchown(&directory, Some(uid), Some(gid)).map_err(failed("chown", path))?;
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(entry.mode)).map_err(failed("chmod", path))?;
        self.inherits_groups |= entry.mode & 0o2000 != 0;
        for (name, value) in entry.attributes.iter().filter(|(name, _)| attributes::is_kept(name)) {
            attributes::set(directory.as_fd(), name, value).map_err(failed("set an attribute of", path))?;
        }
        self.times.push((path.clone(), entry.modified));
        Ok(())
    }

    /// Makes a directory that is not there yet and needs nothing but a mode and an owner, as nearly all are. False if it
    /// was not made.
    fn new_directory(&mut self, parent: BorrowedFd<'_>, path: &EntryPath, entry: &Entry) -> Result<bool, LayerError> {
        if self.inherits_groups || entry.mode & 0o7000 != 0 || !entry.attributes.is_empty() {
            return Ok(false);
        }
        match rustix::fs::mkdirat(parent, path.name(), Mode::from_raw_mode(entry.mode)) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(false),
            Err(error) => return Err(failed("make", path)(error)),
        }
        let chown =
            |uid, gid| rustix::fs::chownat(parent, path.name(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        self.set_owner(entry, chown).map_err(failed("chown", path))?;
        self.times.push((path.clone(), entry.modified));
        Ok(true)
    }

    /// What is at a name of this layer.
    pub fn existing(&self, parent: BorrowedFd<'_>, name: &[u8], path: &EntryPath) -> Result<Existing, LayerError> {
        let metadata = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(metadata) => metadata,
            Err(Errno::NOENT) => return Ok(Existing::Nothing),
            Err(error) => return Err(failed("look up", path)(error)),
        };
        if super::is_whiteout(&metadata) {
            return Ok(Existing::Whiteout);
        }
        if FileType::from_raw_mode(metadata.st_mode) != FileType::Directory {
            return Ok(Existing::Other);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed("open", path))?;
        Ok(Existing::Directory(directory))
    }

    /// Makes room at a name. Whatever was below it is forgotten.
    pub fn remove(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &EntryPath) -> Result<(), LayerError> {
        self.parent = None;
        removal::remove(parent, name).map_err(failed("replace", path))
    }

    /// Makes something; where something is already, the new takes its place, as tar does it.
    pub fn make_new<T>(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &EntryPath,
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, LayerError> {
        let name = path.name();
        match make(parent, name) {
            Err(Errno::EXIST) => {
                self.remove(parent, name, path)?;
                make(parent, name).map_err(failed("make", path))
            }
            result => result.map_err(failed("make", path)),
        }
    }

    /// Gives a new entry that is neither file nor directory its owner, attributes and times.
    pub fn set_metadata_at(&self, parent: BorrowedFd<'_>, path: &EntryPath, entry: &Entry) -> Result<(), LayerError> {
        let name = path.name();
        self.set_owner(entry, |uid, gid| {
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        })
        .map_err(failed("chown", path))?;
        for (key, value) in entry.attributes.iter().filter(|(key, _)| attributes::is_kept(key)) {
            attributes::set_at(parent, name, key, value).map_err(failed("set an attribute of", path))?;
        }
        let times = timestamps(entry.modified);
        rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("set the times of", path))
    }

    /// As [`Self::set_metadata_at`] for an open file, and its mode where making it could not give it.
    pub fn set_metadata(&self, file: BorrowedFd<'_>, path: &EntryPath, entry: &Entry) -> Result<(), LayerError> {
        self.set_owner(entry, |uid, gid| rustix::fs::fchown(file, Some(uid), Some(gid)))
            .map_err(failed("chown", path))?;
        if entry.mode & 0o6000 != 0 {
            // Writing and chown have cleared these bits.
            rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(failed("chmod", path))?;
        }
        for (key, value) in entry.attributes.iter().filter(|(key, _)| attributes::is_kept(key)) {
            attributes::set(file, key, value).map_err(failed("set an attribute of", path))?;
        }
        rustix::fs::futimens(file, &timestamps(entry.modified)).map_err(failed("set the times of", path))
    }

    fn set_owner(&self, entry: &Entry, set: impl Fn(Uid, Gid) -> Result<(), Errno>) -> Result<(), Errno> {
        // What root makes is root's, unless the directory passes its group on.
        if entry.uid == 0 && entry.gid == 0 && !self.inherits_groups {
            return Ok(());
        }
        set(Uid::from_raw(entry.uid), Gid::from_raw(entry.gid))
    }

    /// Sets the times of all directories; nothing may be made afterwards.
    pub fn finish(self) -> Result<(), LayerError> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for (path, modified) in &self.times {
            match rustix::fs::openat2(self.root, path.as_bytes(), flags, Mode::empty(), resolve) {
                Ok(directory) => {
                    let times = timestamps(*modified);
                    rustix::fs::futimens(&directory, &times).map_err(failed("set the times of", path))?;
                }
                // A later entry has taken its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                Err(error) => return Err(failed("open", path)(error)),
            }
        }
        Ok(())
    }
}

/// A symbolic link on the way to a parent.
struct Link {
    target: Vec<u8>,
    /// Whether it is of this layer.
    own: bool,
}

/// What is at a name.
pub enum Existing {
    /// Nothing.
    Nothing,
    /// A directory.
    Directory(OwnedFd),
    /// A mark of deletion.
    Whiteout,
    /// Anything else.
    Other,
}

/// Makes a directory hide what is below it.
pub fn set_opaque(directory: BorrowedFd<'_>, path: &EntryPath) -> Result<(), LayerError> {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::fsetxattr(directory, OPAQUE, b"y", flags).map_err(failed("mark as emptied", path))
}

/// Copies the attributes that images keep.
pub fn copy_attributes(source: BorrowedFd<'_>, target: BorrowedFd<'_>, path: &EntryPath) -> Result<(), LayerError> {
    let error = || failed("copy the attributes of", path);
    // The kernel's limit for a list of names is 64 KiB (XATTR_LIST_MAX), and the same for a value.
    let mut names = vec![0_u8; 64 << 10];
    let length = match rustix::fs::flistxattr(source, &mut names[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        other => other.map_err(error())?,
    };
    let mut value = vec![0_u8; 64 << 10];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| attributes::is_kept(name)) {
        let length = rustix::fs::fgetxattr(source, name, &mut value[..]).map_err(error())?;
        attributes::set(target, name, &value[..length]).map_err(error())?;
    }
    Ok(())
}

fn timestamps(modified: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
