//! Looks into an image through its layers, without mounting them: what overlayfs would show, computed from the
//! layers' own images.
//!
//! Symbolic links are followed by name, as if the image were the root: nothing in an image can lead out of it.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::erofs::{Attributes, Image, ImageError, Inode, Kind, Layout, Metadata, Place};
use crate::layer::{self, EntryPath};

/// How many symbolic links one path may lead through; the kernel's own limit.
const LINKS: u32 = 40;

/// The longest target of a symbolic link in bytes; the kernel's own limit.
const TARGET_BYTES: u64 = 4095;

/// Why a path of an image cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub enum MergedError {
    /// A layer cannot be opened or read.
    #[error("{operation} {path:?} in the image's layers")]
    Layer {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: ImageError,
    },
    /// Too many symbolic links.
    #[error("{path} leads through more than {LINKS} symbolic links")]
    Loop {
        /// What was looked up.
        path: String,
    },
}

/// A stack of layers.
#[derive(Debug)]
pub struct Merged {
    /// The uppermost first.
    layers: Vec<Arc<Image>>,
}

/// A directory as the layers together have it.
#[derive(Clone, Debug)]
pub struct MergedDirectory {
    /// The directories that merge, the uppermost first; never empty.
    parts: Vec<Item>,
}

/// Something in a layer.
#[derive(Clone, Debug)]
pub struct Item {
    image: Arc<Image>,
    place: Place,
    inode: Inode,
}

/// What a name is.
#[derive(Debug)]
pub enum Found {
    /// A directory.
    Directory(MergedDirectory),
    /// Anything else.
    Other(Item),
}

fn failed(operation: &'static str, path: &[u8]) -> impl FnOnce(ImageError) -> MergedError {
    let path = Path::new(&*String::from_utf8_lossy(path)).to_owned();
    move |source| MergedError::Layer { operation, path, source }
}

impl Item {
    /// What it is.
    pub fn kind(&self) -> Kind {
        self.inode.kind
    }

    /// Owner, mode, time.
    pub fn metadata(&self) -> Metadata {
        self.inode.metadata
    }

    /// The size of its content in bytes.
    pub fn size(&self) -> u64 {
        self.inode.size
    }

    /// The number of a device, as an inode has it and a system call takes it.
    pub fn device(&self) -> u32 {
        self.inode.start
    }

    /// Its extended attributes.
    pub fn attributes(&self) -> Result<Attributes, MergedError> {
        self.image.attributes(self.place, &self.inode).map_err(failed("read the attributes of", b"a file"))
    }

    /// Where a symbolic link leads.
    pub fn target(&self) -> Result<Vec<u8>, MergedError> {
        Ok(self.content(TARGET_BYTES)?.unwrap_or_default())
    }

    /// All its content, if that is at most `limit` bytes.
    pub fn content(&self, limit: u64) -> Result<Option<Vec<u8>>, MergedError> {
        self.image.content(self.place, &self.inode, limit).map_err(failed("read", b"a file"))
    }

    /// Reads content; 0 at its end.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<usize, MergedError> {
        self.image.read_at(self.place, &self.inode, offset, bytes).map_err(failed("read", b"a file"))
    }

    /// Whether it may have holes.
    pub fn is_sparse(&self) -> bool {
        self.inode.layout == Layout::Chunks
    }

    /// How long the hole is that begins at `offset`; 0 where there is none.
    pub fn hole(&self, offset: u64) -> Result<u64, MergedError> {
        self.image.hole(self.place, &self.inode, offset).map_err(failed("read", b"a file"))
    }

    fn child(&self, name: &[u8]) -> Result<Option<Self>, ImageError> {
        let Some(place) = self.image.child(self.place, &self.inode, name)? else { return Ok(None) };
        let inode = self.image.inode(place)?;
        Ok(Some(Self { image: Arc::clone(&self.image), place, inode }))
    }

    /// Whether a directory hides what is below it.
    fn is_opaque(&self) -> Result<bool, MergedError> {
        Ok(self.attributes()?.iter().any(|(name, value)| name == layer::OPAQUE.as_bytes() && value == b"y"))
    }

    /// Whether this is overlayfs's mark of a deletion.
    fn is_whiteout(&self) -> bool {
        self.inode.kind == Kind::CharacterDevice && self.inode.start == 0
    }
}

/// How many bytes of names are known at once, beside the last of them.
const NAMES_BYTES: usize = 4096;

impl Merged {
    /// Of open layers, the uppermost first.
    pub fn new(files: Vec<(PathBuf, File)>) -> Result<Self, MergedError> {
        let open = |(path, file)| match Image::open(file) {
            Ok(image) => Ok(Arc::new(image)),
            Err(source) => Err(MergedError::Layer { operation: "open", path, source }),
        };
        Ok(Self { layers: files.into_iter().map(open).collect::<Result<_, _>>()? })
    }

    /// Whether there is any layer.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// The image's root; none without layers.
    pub fn root(&self) -> Result<Option<MergedDirectory>, MergedError> {
        let mut parts = Vec::new();
        for image in &self.layers {
            let inode = image.inode(image.root()).map_err(failed("open", b"/"))?;
            parts.push(Item { image: Arc::clone(image), place: image.root(), inode });
        }
        Ok((!parts.is_empty()).then_some(MergedDirectory { parts }))
    }

    /// The file of the uppermost layer whose inode has this number, also one that has no name; none if it is no file.
    pub fn file(&self, number: u64) -> Result<Option<Item>, MergedError> {
        let Some(image) = self.layers.first() else { return Ok(None) };
        let place = Place::of_number(number);
        let inode = image.inode(place).map_err(failed("open", b"a file"))?;
        let image = Arc::clone(image);
        Ok((inode.kind == Kind::File).then_some(Item { image, place, inode }))
    }

    /// What a path of the image is, symbolic links in it followed (the last one too) as if the image were the root.
    pub fn find(&self, path: &[u8]) -> Result<Option<Found>, MergedError> {
        self.walk(path, true)
    }

    /// As [`Self::find`], but without following any symbolic link: none if there is one on the way.
    pub fn find_without_links(&self, path: &EntryPath) -> Result<Option<Found>, MergedError> {
        self.walk(path.as_bytes(), false)
    }

    /// A file's content; none if it is missing, no regular file, or larger than `limit` bytes.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, MergedError> {
        match self.find(path.as_bytes())? {
            Some(Found::Other(item)) if item.kind() == Kind::File => item.content(limit),
            _ => Ok(None),
        }
    }

    fn walk(&self, path: &[u8], follow: bool) -> Result<Option<Found>, MergedError> {
        let mut links = 0;
        let mut pending: Vec<Vec<u8>> = components(path).rev().collect();
        let mut ancestors: Vec<MergedDirectory> = Vec::new();
        let Some(mut current) = self.root()? else { return Ok(None) };
        while let Some(name) = pending.pop() {
            if name == b".." {
                // The root is its own parent.
                if let Some(parent) = ancestors.pop() {
                    current = parent;
                }
                continue;
            }
            match current.child(&name)? {
                None => return Ok(None),
                Some(Found::Directory(child)) => ancestors.push(std::mem::replace(&mut current, child)),
                Some(Found::Other(item)) => {
                    if !(item.kind() == Kind::Symlink && follow) {
                        return Ok(pending.is_empty().then_some(Found::Other(item)));
                    }
                    links += 1;
                    if links > LINKS {
                        return Err(MergedError::Loop { path: String::from_utf8_lossy(path).into_owned() });
                    }
                    let target = item.target()?;
                    if target.starts_with(b"/") {
                        ancestors.clear();
                        let Some(root) = self.root()? else { return Ok(None) };
                        current = root;
                    }
                    pending.extend(components(&target).rev());
                }
            }
        }
        Ok(Some(Found::Directory(current)))
    }
}

impl MergedDirectory {
    /// The uppermost of the directories that merge: it gives owner, mode and times.
    pub fn top(&self) -> &Item {
        &self.parts[0]
    }

    /// The entry of that name; no link is followed.
    pub fn child(&self, name: &[u8]) -> Result<Option<Found>, MergedError> {
        let mut parts = Vec::new();
        for part in &self.parts {
            let Some(item) = part.child(name).map_err(failed("look up", name))? else { continue };
            if item.kind() != Kind::Directory {
                if parts.is_empty() && !item.is_whiteout() {
                    return Ok(Some(Found::Other(item)));
                }
                break;
            }
            let opaque = item.is_opaque()?;
            parts.push(item);
            if opaque {
                break;
            }
        }
        Ok((!parts.is_empty()).then_some(Found::Directory(Self { parts })))
    }

    /// The entry of that name of the uppermost directory alone.
    pub fn own_child(&self, name: &[u8]) -> Result<Option<Item>, MergedError> {
        self.top().child(name).map_err(failed("look up", name))
    }

    /// Calls for every name that one of the directories has, once for each; it may be hidden.
    pub fn each<E: From<MergedError>>(&self, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        for part in &self.parts {
            let mut called = Ok(());
            let call = |name: &[u8], _, _| {
                if called.is_ok() {
                    called = each(name);
                }
            };
            part.image.each(part.place, &part.inode, call).map_err(failed("list", b"a directory"))?;
            called?;
        }
        Ok(())
    }

    /// The next names that one of the directories has, in order, behind this one; none behind the last. They may be hidden.
    /// However many names there are, these are few: whoever walks a tree keeps some of every directory on the way.
    pub fn names_after(&self, after: &[u8]) -> Result<Vec<Vec<u8>>, MergedError> {
        let mut names = BTreeSet::new();
        let mut known_to: Option<Vec<u8>> = None;
        for part in &self.parts {
            let found =
                part.image.names_after(part.place, &part.inode, after).map_err(failed("list", b"a directory"))?;
            // Behind the last of them this one may have more.
            if let Some(last) = found.last().filter(|last| known_to.as_ref().is_none_or(|known| *last < known)) {
                known_to = Some(last.clone());
            }
            names.extend(found);
        }
        let names = names.into_iter().take_while(|name| known_to.as_ref().is_some_and(|known| name <= known));
        let mut bytes = 0;
        let is_within = |name: &Vec<u8>| {
            let before = bytes;
            bytes += name.len();
            before < NAMES_BYTES
        };
        Ok(names.take_while(is_within).collect())
    }
}

/// The components of a path without `.`; `..` stays.
fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec)
}

#[cfg(test)]
impl Merged {
    /// One layer with one file.
    pub(crate) fn with_file(path: &str, content: &[u8]) -> Self {
        use crate::erofs::{Directory, Node, Tree, Writer};
        let metadata = Metadata { mode: 0o755, ..Metadata::default() };
        let directory = || Directory::new(metadata, Attributes::new());
        let (mut tree, mut at) = (Tree::new(directory()), Tree::ROOT);
        let mut writer = Writer::new(tempfile::tempfile().unwrap()).unwrap();
        let mut names: Vec<&str> = path.split('/').collect();
        let name = names.pop().unwrap();
        for name in names {
            at = tree.add_directory(at, name.as_bytes(), directory()).unwrap();
        }
        let begin = writer.bytes();
        writer.content(content).unwrap();
        let place = writer.end(Kind::File, metadata, &[], begin).unwrap();
        tree.add(at, name.as_bytes(), Node::Other(Kind::File, place)).unwrap();
        let file = tree.finish(writer, [0; 16]).unwrap().unwrap();
        Self::new(vec![(PathBuf::from("layer"), file)]).unwrap()
    }
}
