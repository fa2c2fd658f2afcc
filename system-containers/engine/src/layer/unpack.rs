//! The entries of a layer, one after the other, into its directory.

use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::tree::{Existing, Tree, failed};
use super::{EntryPath, LayerError, tree};
use crate::limits;
use crate::merged::{Found, Merged};
use crate::room::Room;
use crate::tar::{Entry, Input, Kind, Reader, Segment, TarError};

/// The prefix of a mark of deletion (OCI image specification, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// The mark that a directory hides all that is below it.
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
/// The prefix of AUFS's own files, which mean nothing here.
const AUFS: &[u8] = b".wh..wh.";

/// How much is written between two looks at the free space, in bytes.
const SPACE_INTERVAL: u64 = 16 << 20;
/// The same in entries.
const ENTRY_INTERVAL: u64 = 4096;

/// What a layer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Its entries.
    pub entries: u64,
    /// The bytes of its files, without holes.
    pub bytes: u64,
    /// Extended attributes that images may not set.
    pub refused_attributes: u64,
}

/// Unpacks a tar stream into the empty directory `root`. `lower` are the layers below it. Returns what is left of
/// the stream after the archive's end, for its digest. `room` is what is left free.
///
/// Sets the process's umask to 0. On an error the directory is left half filled.
pub fn unpack<R: Input>(
    stream: R,
    root: BorrowedFd<'_>,
    lower: &Merged,
    room: Room,
) -> Result<(Summary, R), LayerError> {
    let mut reader = Reader::new(stream);
    let mut unpacker = Unpacker { tree: Tree::new(root, lower)?, summary: Summary::default(), checked_at: 0 };
    room.check(root, 0)?;
    while let Some(entry) = reader.next_entry()? {
        unpacker.summary.entries += 1;
        if unpacker.summary.entries > limits::LAYER_ENTRIES {
            return Err(LayerError::Entries);
        }
        if unpacker.summary.entries.is_multiple_of(ENTRY_INTERVAL) {
            room.check(root, 0)?;
        }
        unpacker.summary.bytes = unpacker.summary.bytes.saturating_add(entry.stored);
        if unpacker.summary.bytes > limits::LAYER_BYTES {
            return Err(LayerError::Bytes);
        }
        if unpacker.summary.bytes - unpacker.checked_at >= SPACE_INTERVAL {
            room.check(root, entry.stored)?;
            unpacker.checked_at = unpacker.summary.bytes;
        }
        unpacker.entry(&entry, &mut reader)?;
    }
    unpacker.tree.finish()?;
    Ok((unpacker.summary, reader.into_inner()))
}

struct Unpacker<'a> {
    tree: Tree<'a>,
    summary: Summary,
    checked_at: u64,
}

impl Unpacker<'_> {
    fn entry<R: Input>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<(), LayerError> {
        let path = EntryPath::parse(&entry.path)?;
        let refused = entry.attributes.iter().filter(|(name, _)| !super::attributes::is_kept(name)).count();
        self.summary.refused_attributes += refused as u64;
        let name = path.name();
        if name == OPAQUE_MARK {
            return self.opaque(&path.split().0);
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(&path, &path.split().0, hidden);
        }
        if entry.kind == Kind::Directory {
            return self.tree.directory(&path, entry);
        }
        if path.is_root() {
            return Err(super::PathError::Malformed { name: "/".to_owned() }.into());
        }
        let parent = self.tree.parent_of(&path)?;
        let parent = parent.as_fd();
        match entry.kind {
            Kind::Directory => Ok(()),
            Kind::File => self.file(parent, &path, entry, reader),
            Kind::HardLink => self.hard_link(parent, &path, entry),
            Kind::Symlink => self.symlink(parent, &path, entry),
            Kind::CharacterDevice => self.node(parent, &path, entry, FileType::CharacterDevice),
            Kind::BlockDevice => self.node(parent, &path, entry, FileType::BlockDevice),
            Kind::Fifo => self.node(parent, &path, entry, FileType::Fifo),
        }
    }

    fn file<R: Input>(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &EntryPath,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), LayerError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode);
        let make = |parent: BorrowedFd<'_>, name: &[u8]| rustix::fs::openat(parent, name, flags, mode);
        let mut file = File::from(self.tree.make_new(parent, path, make)?);
        reader.keep_content(entry);
        let written = match &entry.segments {
            None => write_all(&mut file, reader),
            Some(segments) => write_sparse(&file, reader, segments, entry.size),
        };
        written.map_err(|error| match error {
            Broken::Archive(error) => LayerError::Tar(error),
            Broken::File(source) => failed("write", path)(Errno::from_io_error(&source).unwrap_or(Errno::IO)),
        })?;
        self.tree.set_metadata(file.as_fd(), path, entry)
    }

    fn symlink(&mut self, parent: BorrowedFd<'_>, path: &EntryPath, entry: &Entry) -> Result<(), LayerError> {
        if entry.link.is_empty() || entry.link.len() > limits::PATH_BYTES || entry.link.contains(&0) {
            let start = String::from_utf8_lossy(&entry.path).chars().take(60).collect();
            return Err(super::PathError::TooLong { bytes: entry.link.len(), start }.into());
        }
        let target = &*entry.link;
        self.tree.make_new(parent, path, |parent, name| rustix::fs::symlinkat(target, parent, name))?;
        self.tree.set_metadata_at(parent, path, entry)
    }

    fn node(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &EntryPath,
        entry: &Entry,
        kind: FileType,
    ) -> Result<(), LayerError> {
        let device = if kind == FileType::Fifo { 0 } else { rustix::fs::makedev(entry.device.0, entry.device.1) };
        let mode = Mode::from_raw_mode(entry.mode);
        self.tree.make_new(parent, path, |parent, name| rustix::fs::mknodat(parent, name, kind, mode, device))?;
        self.tree.set_metadata_at(parent, path, entry)?;
        if entry.mode & 0o6000 != 0 {
            rustix::fs::chmodat(parent, path.name(), mode, AtFlags::empty()).map_err(failed("chmod", path))?;
        }
        Ok(())
    }

    fn hard_link(&mut self, parent: BorrowedFd<'_>, path: &EntryPath, entry: &Entry) -> Result<(), LayerError> {
        let target = EntryPath::parse(&entry.link)?;
        let missing = || LayerError::LinkTarget {
            path: path.to_string(),
            target: String::from_utf8_lossy(&entry.link).into_owned(),
        };
        let (directory, name) = target.split();
        if target == *path || name.is_empty() {
            return Err(missing());
        }
        let found = match self.tree.open(&directory)? {
            Some(directory) => match self.tree.existing(directory.as_fd(), name, &target)? {
                Existing::Other => Some(Rc::new(directory)),
                Existing::Nothing => None,
                Existing::Directory(_) | Existing::Whiteout => return Err(missing()),
            },
            None => None,
        };
        let directory = match found {
            Some(directory) => directory,
            None => self.copy_up(&target)?.ok_or_else(missing)?,
        };
        let link =
            |parent: BorrowedFd<'_>, new: &[u8]| rustix::fs::linkat(&directory, name, parent, new, AtFlags::empty());
        self.tree.make_new(parent, path, link)
    }

    /// Brings a file of a layer below into this one, for a link to it. Returns the directory it is in.
    fn copy_up(&mut self, path: &EntryPath) -> Result<Option<Rc<OwnedFd>>, LayerError> {
        let Some(Found::Other { parent: source, name, metadata }) = self.tree.lower().find_without_links(path)? else {
            return Ok(None);
        };
        if FileType::from_raw_mode(metadata.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = rustix::fs::openat(&source, &*name, flags, Mode::empty());
        let mut source = File::from(open.map_err(failed("open", path))?);
        let parent = self.tree.parent_of(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(metadata.st_mode);
        let make = |parent: BorrowedFd<'_>, name: &[u8]| rustix::fs::openat(parent, name, flags, mode);
        let mut target = File::from(self.tree.make_new(parent.as_fd(), path, make)?);
        std::io::copy(&mut source, &mut target)
            .map_err(|error| failed("copy", path)(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        crate::copy::metadata(source.as_fd(), target.as_fd(), &metadata, path)?;
        Ok(Some(parent))
    }

    fn opaque(&mut self, directory: &EntryPath) -> Result<(), LayerError> {
        // Only a directory of the layers below has something to hide.
        if matches!(self.tree.lower().find(directory.as_bytes())?, Some(Found::Directory(_))) {
            // The name below it is never used; it only says that the directory itself is wanted.
            let Some(descriptor) = self.parent_of_mark(&directory.join(OPAQUE_MARK))? else { return Ok(()) };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let descriptor = rustix::fs::openat(&descriptor, ".", flags, Mode::empty());
            tree::set_opaque(descriptor.map_err(failed("open", directory))?.as_fd(), directory)?;
        }
        Ok(())
    }

    /// The directory that a mark is in; none if this layer has something else in its place, which hides all below it
    /// anyway. umoci writes such marks.
    fn parent_of_mark(&mut self, path: &EntryPath) -> Result<Option<Rc<OwnedFd>>, LayerError> {
        match self.tree.parent_of(path) {
            Err(LayerError::System { source: Errno::NOTDIR, .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    fn whiteout(&mut self, path: &EntryPath, directory: &EntryPath, hidden: &[u8]) -> Result<(), LayerError> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(LayerError::Whiteout { path: path.to_string() });
        }
        let below = match self.tree.lower().find(directory.as_bytes())? {
            Some(Found::Directory(below)) => below.child(hidden)?,
            _ => None,
        };
        if below.is_none() {
            return Ok(());
        }
        let target = directory.join(hidden);
        let Some(parent) = self.parent_of_mark(&target)? else { return Ok(()) };
        match self.tree.existing(parent.as_fd(), hidden, &target)? {
            // This layer's own entries stay; only what is below is deleted.
            Existing::Directory(own) => tree::set_opaque(own.as_fd(), &target),
            Existing::Whiteout | Existing::Other => Ok(()),
            Existing::Nothing => {
                let mode = Mode::empty();
                rustix::fs::mknodat(&parent, hidden, FileType::CharacterDevice, mode, 0)
                    .map_err(failed("mark as deleted", &target))
            }
        }
    }
}

enum Broken {
    Archive(TarError),
    File(std::io::Error),
}

fn archive_error(error: std::io::Error) -> Broken {
    Broken::Archive(match error.kind() {
        std::io::ErrorKind::UnexpectedEof => TarError::Truncated { place: "a file's data" },
        _ => TarError::Read(error),
    })
}

fn write_all<R: Input>(file: &mut File, reader: &mut Reader<R>) -> Result<(), Broken> {
    let mut data = reader.data();
    loop {
        let bytes = data.fill_buf().map_err(archive_error)?;
        if bytes.is_empty() {
            return Ok(());
        }
        file.write_all(bytes).map_err(Broken::File)?;
        let length = bytes.len();
        data.consume(length);
    }
}

fn write_sparse<R: Input>(file: &File, reader: &mut Reader<R>, segments: &[Segment], size: u64) -> Result<(), Broken> {
    let mut data = reader.data();
    for segment in segments {
        let (mut offset, mut left) = (segment.offset, segment.length);
        while left > 0 {
            let bytes = data.fill_buf().map_err(archive_error)?;
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if count == 0 {
                return Err(Broken::Archive(TarError::Truncated { place: "a sparse file" }));
            }
            file.write_all_at(&bytes[..count], offset).map_err(Broken::File)?;
            data.consume(count);
            offset += count as u64;
            left -= count as u64;
        }
    }
    file.set_len(size).map_err(Broken::File)
}
