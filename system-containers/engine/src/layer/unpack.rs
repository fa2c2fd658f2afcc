//! The entries of a layer, one after the other, into its image.

use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::BorrowedFd;

use super::tree::{Existing, Resolved, Tree, file_failed, metadata};
use super::{EntryPath, LayerError, Lower, attributes, copied};
use crate::erofs::{DirectoryId, Kind as Inode, Metadata, Place, Sparse, Writer};
use crate::limits;
use crate::memory::Memory;
use crate::merged::{Found, MergedDirectory};
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

/// Where a layer's image goes.
pub struct Target<'a> {
    /// An empty file.
    pub file: File,
    /// Something on the same file system.
    pub place: BorrowedFd<'a>,
    /// What tells the image from all others; the first half of the layer's chain ID.
    pub uuid: [u8; 16],
    /// What it takes of the memory that there is for layers.
    pub memory: &'a Memory<'a>,
}

/// How much of a layer is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most entries.
    pub entries: u64,
    /// The most bytes of its files, and of its image.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: limits::LAYER_ENTRIES, bytes: limits::LAYER_BYTES }
    }
}

/// Makes an image of a tar stream. `lower` are the layers below it. Returns what is left of the stream after the archive's
/// end, for its digest. `room` is what is left free.
///
/// Most entries say nothing of the layers below, so that these may come at the same time. One that has very many names waits
/// for them first.
///
/// On an error the file is half written, and no image.
pub fn unpack<R: Input>(
    stream: R,
    target: Target<'_>,
    lower: &Lower<'_>,
    room: Room,
) -> Result<(Summary, R), LayerError> {
    unpack_within(stream, target, lower, room, Limits::default())
}

/// The same within other limits.
pub fn unpack_within<R: Input>(
    stream: R,
    target: Target<'_>,
    lower: &Lower<'_>,
    room: Room,
    most: Limits,
) -> Result<(Summary, R), LayerError> {
    let Target { file, place, uuid, memory } = target;
    let mut reader = Reader::new(stream);
    let bounds = Bounds { place, room, most: most.bytes, checked_at: 0 };
    let mut unpacker = Unpacker { tree: Tree::new(file, lower)?, summary: Summary::default(), bounds };
    room.check(place, 0)?;
    while let Some(entry) = reader.next_entry()? {
        unpacker.summary.entries += 1;
        if unpacker.summary.entries > most.entries {
            return Err(LayerError::Entries);
        }
        unpacker.summary.bytes = unpacker.summary.bytes.saturating_add(entry.stored);
        if unpacker.summary.bytes > most.bytes {
            return Err(LayerError::Bytes);
        }
        unpacker.bounds.admit(&unpacker.tree.writer, entry.stored)?;
        memory.names(unpacker.tree.memory())?;
        unpacker.entry(&entry, &mut reader)?;
    }
    unpacker.bounds.admit(&unpacker.tree.writer, 0)?;
    room.check(place, unpacker.tree.unwritten())?;
    unpacker.tree.finish(uuid)?;
    Ok((unpacker.summary, reader.into_inner()))
}

/// How much may be written.
struct Bounds<'a> {
    place: BorrowedFd<'a>,
    room: Room,
    most: u64,
    /// How long the image was when the free space was looked at.
    checked_at: u64,
}

impl Bounds<'_> {
    /// Looks whether what is written is not too much, and whether there is room for so many bytes more.
    fn admit(&mut self, writer: &Writer, bytes: u64) -> Result<(), LayerError> {
        if writer.bytes() > self.most {
            return Err(LayerError::Bytes);
        }
        let written = writer.bytes().saturating_add(bytes);
        if written.saturating_sub(self.checked_at) >= SPACE_INTERVAL {
            self.room.check(self.place, bytes)?;
            self.checked_at = written;
        }
        Ok(())
    }
}

struct Unpacker<'a> {
    tree: Tree<'a>,
    summary: Summary,
    bounds: Bounds<'a>,
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
        let (kind, place) = match entry.kind {
            Kind::HardLink => return self.hard_link(parent, &path, entry),
            // It was handled above.
            Kind::Directory => return Ok(()),
            Kind::File => (Inode::File, self.file(&path, entry, reader)?),
            Kind::Symlink => (Inode::Symlink, self.symlink(&path, entry)?),
            Kind::CharacterDevice => (Inode::CharacterDevice, self.node(Inode::CharacterDevice, &path, entry)?),
            Kind::BlockDevice => (Inode::BlockDevice, self.node(Inode::BlockDevice, &path, entry)?),
            Kind::Fifo => (Inode::Fifo, self.node(Inode::Fifo, &path, entry)?),
        };
        self.tree.add(parent, &path, kind, place)
    }

    fn file<R: Input>(&mut self, path: &EntryPath, entry: &Entry, reader: &mut Reader<R>) -> Result<Place, LayerError> {
        reader.keep_content(entry);
        let attributes = encoded(&entry.attributes, path)?;
        let writer = &mut self.tree.writer;
        let made = match &entry.segments {
            None => write_all(writer, reader)
                .and_then(|begin| writer.end(Inode::File, metadata(entry), &attributes, begin).map_err(Broken::File)),
            Some(segments) => {
                let sparse = Sparse::new(entry.size).ok_or(LayerError::Bytes)?;
                write_sparse(writer, reader, segments, sparse, self.bounds.most)
                    .and_then(|sparse| writer.end_sparse(sparse, metadata(entry), &attributes).map_err(Broken::File))
            }
        };
        let place = made.map_err(|error| match error {
            Broken::Archive(error) => LayerError::Tar(error),
            Broken::TooLarge => LayerError::Bytes,
            Broken::File(source) => file_failed("write", path)(source),
        })?;
        reader.kept(entry, place.number());
        Ok(place)
    }

    fn symlink(&mut self, path: &EntryPath, entry: &Entry) -> Result<Place, LayerError> {
        if entry.link.is_empty() || entry.link.len() > limits::PATH_BYTES || entry.link.contains(&0) {
            let start = String::from_utf8_lossy(&entry.path).chars().take(60).collect();
            return Err(super::PathError::TooLong { bytes: entry.link.len(), start }.into());
        }
        let attributes = encoded(&entry.attributes, path)?;
        let writer = &mut self.tree.writer;
        let begin = writer.bytes();
        // Nobody looks at its mode, and this is what every file system says of it.
        let metadata = Metadata { mode: 0o777, ..metadata(entry) };
        let written =
            writer.content(&entry.link).and_then(|()| writer.end(Inode::Symlink, metadata, &attributes, begin));
        written.map_err(file_failed("write", path))
    }

    fn node(&mut self, kind: Inode, path: &EntryPath, entry: &Entry) -> Result<Place, LayerError> {
        let attributes = encoded(&entry.attributes, path)?;
        let made = self.tree.writer.node(kind, metadata(entry), &attributes, entry.device);
        made.map_err(file_failed("write", path))
    }

    fn hard_link(&mut self, parent: DirectoryId, path: &EntryPath, entry: &Entry) -> Result<(), LayerError> {
        let target = EntryPath::parse(&entry.link)?;
        let missing = || LayerError::LinkTarget {
            path: path.to_string(),
            target: String::from_utf8_lossy(&entry.link).into_owned(),
        };
        let (directory, name) = target.split();
        if target == *path || name.is_empty() {
            return Err(missing());
        }
        let directory = match self.own_target(&target, missing)? {
            Some(directory) => directory,
            None => {
                // Links of the layers below may be on the way, and lead back into this one.
                let Resolved { path, hidden } = self.tree.resolve(&directory)?;
                let target = path.join(name);
                match self.own_target(&target, missing)? {
                    Some(directory) => directory,
                    None if hidden => return Err(missing()),
                    None => self.copy_up(&target)?.ok_or_else(missing)?,
                }
            }
        };
        if self.tree.link(directory, name, parent, path)? { Ok(()) } else { Err(missing()) }
    }

    /// The directory of this layer that has a hard link's target; `None` if this layer says nothing of it.
    fn own_target(
        &self,
        target: &EntryPath,
        missing: impl Fn() -> LayerError,
    ) -> Result<Option<DirectoryId>, LayerError> {
        let Some(directory) = self.tree.open(&target.split().0)? else { return Ok(None) };
        match self.tree.existing(directory, target)? {
            Existing::Copy | Existing::Other => Ok(Some(directory)),
            Existing::Nothing => Ok(None),
            Existing::Directory(_) | Existing::Whiteout => Err(missing()),
        }
    }

    /// Brings what a layer below has into this one, for a link to it. Returns the directory it is in; none if there is no such
    /// thing, or it is a directory.
    fn copy_up(&mut self, path: &EntryPath) -> Result<Option<DirectoryId>, LayerError> {
        let Some(Found::Other(source)) = self.tree.lower()?.find_without_links(path)? else {
            return Ok(None);
        };
        let parent = self.tree.parent_below(path)?;
        let attributes = encoded(&source.attributes()?, path)?;
        let admit = |writer: &Writer, bytes| self.bounds.admit(writer, bytes);
        let made = copied::copy(&mut self.tree.writer, &source, &attributes, path, admit)?;
        self.tree.add_of_below(parent, path, source.kind(), made)?;
        Ok(Some(parent))
    }

    fn opaque(&mut self, directory: &EntryPath) -> Result<(), LayerError> {
        // Only a directory of the layers below has something to hide.
        let Some((path, below)) = self.shown(directory)? else { return Ok(()) };
        if path.is_root() {
            // There overlayfs does not look for the attribute, so every name gets a mark of its own.
            return below.each(|name| match below.child(name)? {
                Some(_) => self.hide(&path.join(name)),
                None => Ok(()),
            });
        }
        // The name below it is never used; it only says that the directory itself is wanted.
        let directory = self.tree.parent_below(&path.join(OPAQUE_MARK))?;
        self.tree.set_opaque(directory)
    }

    /// The directory of the layers below that a path leads to, and its path without links; none if there is none, or this
    /// layer hides it. umoci writes marks into such directories.
    fn shown(&self, directory: &EntryPath) -> Result<Option<(EntryPath, MergedDirectory)>, LayerError> {
        let Resolved { path, hidden } = self.tree.resolve(directory)?;
        if hidden {
            return Ok(None);
        }
        match self.tree.lower()?.find_without_links(&path)? {
            Some(Found::Directory(below)) => Ok(Some((path, below))),
            _ => Ok(None),
        }
    }

    fn whiteout(&mut self, path: &EntryPath, directory: &EntryPath, hidden: &[u8]) -> Result<(), LayerError> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(LayerError::Whiteout { path: path.to_string() });
        }
        match self.shown(directory)? {
            Some((path, below)) if below.child(hidden)?.is_some() => self.hide(&path.join(hidden)),
            _ => Ok(()),
        }
    }

    /// Hides what the layers below have there.
    fn hide(&mut self, target: &EntryPath) -> Result<(), LayerError> {
        let parent = self.tree.parent_below(target)?;
        match self.tree.existing(parent, target)? {
            // This layer's own entries stay; only what is below is deleted.
            Existing::Directory(own) if !self.tree.is_of_below(own) => self.tree.set_opaque(own),
            Existing::Whiteout | Existing::Other => Ok(()),
            Existing::Nothing | Existing::Copy | Existing::Directory(_) => {
                let made = self.tree.writer.node(Inode::CharacterDevice, Metadata::default(), &[], (0, 0));
                let mark = made.map_err(file_failed("mark as deleted", target))?;
                self.tree.add_of_below(parent, target, Inode::CharacterDevice, mark)
            }
        }
    }
}

/// The attributes of an entry that images may have, the last of each name.
fn encoded(given: &[(Vec<u8>, Vec<u8>)], path: &EntryPath) -> Result<Vec<u8>, LayerError> {
    if given.is_empty() {
        return Ok(Vec::new());
    }
    let kept = given.iter().filter(|(name, _)| attributes::is_kept(name));
    let kept: std::collections::BTreeMap<&[u8], &[u8]> = kept.map(|(name, value)| (&**name, &**value)).collect();
    crate::erofs::encode_attributes(kept).ok_or_else(|| LayerError::Attributes { path: path.to_string() })
}

enum Broken {
    Archive(TarError),
    File(io::Error),
    TooLarge,
}

fn archive_error(error: io::Error) -> Broken {
    Broken::Archive(match error.kind() {
        io::ErrorKind::UnexpectedEof => TarError::Truncated { place: "a file's data" },
        _ => TarError::Read(error),
    })
}

/// Returns where the content begins.
fn write_all<R: Input>(writer: &mut Writer, reader: &mut Reader<R>) -> Result<u64, Broken> {
    let begin = writer.bytes();
    let mut data = reader.data();
    loop {
        let bytes = data.fill_buf().map_err(archive_error)?;
        if bytes.is_empty() {
            return Ok(begin);
        }
        writer.content(bytes).map_err(Broken::File)?;
        let length = bytes.len();
        data.consume(length);
    }
}

/// The image gets at most so many bytes: what the file has of them is not what it has of content, for a chunk is whole.
fn write_sparse<R: Input>(
    writer: &mut Writer,
    reader: &mut Reader<R>,
    segments: &[Segment],
    mut sparse: Sparse,
    most: u64,
) -> Result<Sparse, Broken> {
    let mut data = reader.data();
    for segment in segments {
        let (mut offset, mut left) = (segment.offset, segment.length);
        while left > 0 {
            let bytes = data.fill_buf().map_err(archive_error)?;
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if count == 0 {
                return Err(Broken::Archive(TarError::Truncated { place: "a sparse file" }));
            }
            if writer.sparse_place(&sparse, offset) > most {
                return Err(Broken::TooLarge);
            }
            writer.sparse_content(&mut sparse, offset, &bytes[..count]).map_err(Broken::File)?;
            data.consume(count);
            offset += count as u64;
            left -= count as u64;
        }
    }
    if writer.sparse_end(&sparse) > most { Err(Broken::TooLarge) } else { Ok(sparse) }
}
