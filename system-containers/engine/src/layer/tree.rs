//! The tree of a layer while it is being made: finds and makes parents, as paths and symbolic links of the layer and of
//! those below have them. Links lead where they do for a process whose root the image is (path_resolution(7)), as with
//! Docker, containerd and umoci: `/` is the image's root, and nothing is above it. Nothing here can leave the layer: it
//! exists in memory and in the image alone. [`ways`] follows the links.

mod ways;

use std::fs::File;
use std::io;

use rustix::io::Errno;

pub use self::ways::Resolved;
use self::ways::Step;
use super::{EntryPath, LayerError, Lower, OPAQUE, attributes};
use crate::erofs::{self, Attributes, Directory, DirectoryId, Kind, Metadata, Node, Place, TreeFull, Writer};
use crate::merged::{Found, Merged, MergedDirectory};
use crate::tar::Entry;

/// A layer under construction over the layers below it.
pub struct Tree<'a> {
    names: erofs::Tree,
    /// Where content and inodes go.
    pub writer: Writer,
    lower: &'a Lower<'a>,
    /// Whether the stream has said what the root directory is.
    root_given: bool,
    /// The last parent: entries of one directory follow each other.
    parent: Option<(EntryPath, DirectoryId)>,
}

/// Turns a system call's error into one that names the entry.
pub fn failed(operation: &'static str, path: &EntryPath) -> impl FnOnce(Errno) -> LayerError {
    move |source| LayerError::System { operation, path: path.to_string(), source }
}

/// The same for an error of a file.
pub fn file_failed(operation: &'static str, path: &EntryPath) -> impl FnOnce(io::Error) -> LayerError {
    let failed = failed(operation, path);
    move |error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn full(_: TreeFull) -> LayerError {
    LayerError::Names
}

impl<'a> Tree<'a> {
    /// Starts with an empty file.
    pub fn new(file: File, lower: &'a Lower<'a>) -> Result<Self, LayerError> {
        let writer = Writer::new(file).map_err(file_failed("write", &EntryPath::ROOT))?;
        Ok(Self { names: erofs::Tree::new(usual()), writer, lower, root_given: false, parent: None })
    }

    /// The layers below. It waits for them.
    pub fn lower(&self) -> Result<&'a Merged, LayerError> {
        self.lower.get()
    }

    /// How much memory its names take, in bytes.
    pub fn memory(&self) -> u64 {
        self.names.memory() as u64
    }

    /// The directory that an entry goes into; made, as the layers below have it, if the stream did not bring it.
    pub fn parent_of(&mut self, path: &EntryPath) -> Result<DirectoryId, LayerError> {
        let id = self.parent_below(path)?;
        self.names.unmark_directories(id);
        Ok(id)
    }

    /// The same for what the layers below are the reason for: directories that are made for that alone go with it.
    pub fn parent_below(&mut self, path: &EntryPath) -> Result<DirectoryId, LayerError> {
        if let Some((directory, id)) = &self.parent
            && path.is_in(directory)
        {
            return Ok(*id);
        }
        let (directory, _) = path.split();
        let id = match self.open(&directory)? {
            Some(id) => id,
            None => self.make_parents(&directory)?,
        };
        self.parent = Some((directory, id));
        Ok(id)
    }

    /// Makes what is missing of a directory and those it is in.
    fn make_parents(&mut self, directory: &EntryPath) -> Result<DirectoryId, LayerError> {
        let (mut at, mut id, mut step) = (EntryPath::ROOT, erofs::Tree::ROOT, Step::ROOT);
        for name in self.resolve(directory)?.path.components() {
            at = at.join(name);
            id = self.make_directory(id, step.hidden, name, &at)?;
            step = self.step(step, id);
        }
        Ok(id)
    }

    /// Sees to it that `next` is a directory. `hidden`: nothing of the layers below is in the one that it is in.
    fn make_directory(
        &mut self,
        at: DirectoryId,
        hidden: bool,
        name: &[u8],
        next: &EntryPath,
    ) -> Result<DirectoryId, LayerError> {
        let made = match self.names.find(at, name) {
            Some(Node::Directory(id)) => return Ok(id),
            // What the layers below had there is deleted, so the new directory hides it.
            Some(Node::Other(kind, place)) if self.is_whiteout(kind, place, next)? => emptied(usual()),
            Some(Node::Other(..)) => return Err(failed("open", next)(Errno::NOTDIR)),
            None if hidden => usual(),
            None => match self.lower()?.find_without_links(next)? {
                Some(Found::Directory(directory)) => as_below(&directory)?,
                _ => usual(),
            },
        };
        let id = self.add_directory(at, name, made)?;
        self.names.mark_directory(id);
        Ok(id)
    }

    /// Whether a directory was made for the sake of the layers below alone.
    pub fn is_of_below(&self, id: DirectoryId) -> bool {
        self.names.is_directory_marked(id)
    }

    fn add_directory(&mut self, at: DirectoryId, name: &[u8], made: Directory) -> Result<DirectoryId, LayerError> {
        self.names.add_directory(at, name, made).map_err(full)
    }

    /// An entry of the stream that is a directory: new, or there already, or in the place of something else.
    pub fn directory(&mut self, path: &EntryPath, entry: &Entry) -> Result<(), LayerError> {
        let id = if path.is_root() {
            self.root_given = true;
            erofs::Tree::ROOT
        } else {
            let parent = self.parent_of(path)?;
            match self.existing(parent, path)? {
                Existing::Directory(id) => {
                    self.names.unmark_directories(id);
                    id
                }
                Existing::Nothing => self.add_directory(parent, path.name(), usual())?,
                // What was there has hidden what the layers below have there.
                Existing::Whiteout | Existing::Copy | Existing::Other => {
                    self.add_directory(parent, path.name(), emptied(usual()))?
                }
            }
        };
        let change = |directory: &mut Directory| {
            directory.metadata = metadata(entry);
            let kept = entry.attributes.iter().filter(|(name, _)| attributes::is_kept(name));
            kept.for_each(|(name, value)| directory.set(name, value));
        };
        self.names.directory(id, change).map_err(full)
    }

    /// Makes a directory hide what is below it.
    pub fn set_opaque(&mut self, id: DirectoryId) -> Result<(), LayerError> {
        self.names.directory(id, |directory| directory.set(OPAQUE.as_bytes(), b"y")).map_err(full)
    }

    /// What is at a name of this layer.
    pub fn existing(&self, parent: DirectoryId, path: &EntryPath) -> Result<Existing, LayerError> {
        Ok(match self.names.find(parent, path.name()) {
            None => Existing::Nothing,
            Some(Node::Directory(id)) => Existing::Directory(id),
            Some(Node::Other(kind, place)) if self.is_whiteout(kind, place, path)? => Existing::Whiteout,
            Some(Node::Other(..)) if self.names.is_marked(parent, path.name()) => Existing::Copy,
            Some(Node::Other(..)) => Existing::Other,
        })
    }

    fn is_whiteout(&self, kind: Kind, place: Place, path: &EntryPath) -> Result<bool, LayerError> {
        if kind != Kind::CharacterDevice {
            return Ok(false);
        }
        Ok(self.writer.written(place).map_err(file_failed("read", path))?.start == 0)
    }

    /// Gives something its name; where something is already, the new takes its place, as tar does it.
    pub fn add(&mut self, parent: DirectoryId, path: &EntryPath, kind: Kind, place: Place) -> Result<(), LayerError> {
        self.forget(parent, path);
        self.names.add(parent, path.name(), Node::Other(kind, place)).map_err(full)
    }

    /// The same of what the layers below are the reason for: it goes if the directory turns out to hide them.
    pub fn add_of_below(
        &mut self,
        parent: DirectoryId,
        path: &EntryPath,
        kind: Kind,
        place: Place,
    ) -> Result<(), LayerError> {
        self.add(parent, path, kind, place)?;
        self.names.mark(parent, path.name());
        Ok(())
    }

    /// Gives what has a name in one directory another name.
    pub fn link(
        &mut self,
        directory: DirectoryId,
        name: &[u8],
        parent: DirectoryId,
        path: &EntryPath,
    ) -> Result<bool, LayerError> {
        self.forget(parent, path);
        self.names.add_link((directory, name), parent, path.name()).map_err(full)
    }

    /// A directory that is about to be replaced may be the last parent, or above it.
    fn forget(&mut self, parent: DirectoryId, path: &EntryPath) {
        if matches!(self.names.find(parent, path.name()), Some(Node::Directory(_))) {
            self.parent = None;
        }
    }

    /// About how many bytes are still to be written: the directories, and the hashes of fs-verity, of which there is one of
    /// 32 bytes for each block.
    pub fn unwritten(&self) -> u64 {
        self.names.unwritten() + (self.writer.bytes() + self.names.unwritten()) / 126
    }

    /// Writes what is still missing: the directories. What the stream has not said of the root is as below.
    pub fn finish(mut self, uuid: [u8; 16]) -> Result<File, LayerError> {
        let root = EntryPath::ROOT;
        if let Some(below) = self.lower()?.root()? {
            let Directory { metadata, attributes, .. } = as_below(&below)?;
            let given = self.root_given;
            let change = |directory: &mut Directory| {
                if !given {
                    directory.metadata = metadata;
                }
                let known = |name: &[u8]| directory.attributes.iter().any(|(own, _)| own == name);
                let missing: Attributes = attributes.into_iter().filter(|(name, _)| !known(name)).collect();
                directory.attributes.extend(missing);
            };
            self.names.directory(erofs::Tree::ROOT, change).map_err(full)?;
        }
        // overlayfs lists the marks of a directory that has nothing below it.
        self.names.drop_marked(|directory| is_opaque(&directory.attributes));
        let written = self.names.finish(self.writer, uuid).map_err(file_failed("write", &root))?;
        written.ok_or_else(|| LayerError::Attributes { path: "a directory".to_owned() })
    }
}

/// What an entry of the stream says of itself.
pub fn metadata(entry: &Entry) -> Metadata {
    Metadata { mode: entry.mode, uid: entry.uid, gid: entry.gid, modified: entry.modified }
}

/// A directory that nothing is said of.
fn usual() -> Directory {
    Directory::new(Metadata { mode: 0o755, ..Metadata::default() }, Attributes::new())
}

fn emptied(mut directory: Directory) -> Directory {
    directory.set(OPAQUE.as_bytes(), b"y");
    directory
}

fn is_opaque(attributes: &[(Vec<u8>, Vec<u8>)]) -> bool {
    attributes.iter().any(|(name, _)| name == OPAQUE.as_bytes())
}

/// What a directory that the stream did not bring has below.
fn as_below(directory: &MergedDirectory) -> Result<Directory, LayerError> {
    let top = directory.top();
    let mut kept = top.attributes()?;
    kept.retain(|(name, _)| attributes::is_kept(name));
    Ok(Directory::new(top.metadata(), kept))
}

/// What is at a name.
pub enum Existing {
    /// Nothing.
    Nothing,
    /// A directory.
    Directory(DirectoryId),
    /// A mark of deletion.
    Whiteout,
    /// What a layer below has, for a hard link's sake.
    Copy,
    /// Anything else.
    Other,
}
