//! Looks into an image through its layers, without mounting them: what overlayfs would show, computed from the
//! directories themselves.
//!
//! Every step is one component below a directory descriptor and follows no link by itself, so nothing in an image can
//! lead out of it. Symbolic links are followed by name, as if the image were the root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::layer::{self, EntryPath};

/// How many symbolic links one path may lead through; the kernel's own limit.
const LINKS: u32 = 40;

/// Why a path of an image cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub enum MergedError {
    /// A system call failed.
    #[error("{operation} {path:?} in the image's layers")]
    System {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Its error.
        #[source]
        source: Errno,
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
    roots: Vec<OwnedFd>,
}

/// A directory as the layers together have it.
#[derive(Debug)]
pub struct MergedDirectory {
    /// The directories that merge, the uppermost first; never empty.
    parts: Vec<OwnedFd>,
}

/// What a name is.
#[derive(Debug)]
pub enum Found {
    /// A directory.
    Directory(MergedDirectory),
    /// Anything else, with the directory of the layer it is in.
    Other {
        /// The directory that contains it.
        parent: OwnedFd,
        /// Its name there.
        name: Vec<u8>,
        /// What it is.
        metadata: Box<Stat>,
    },
}

fn failed(operation: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> MergedError {
    let path = Path::new(&*String::from_utf8_lossy(path)).to_owned();
    move |source| MergedError::System { operation, path, source }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Merged {
    /// Opens the layers' directories, the uppermost first.
    pub fn open<P: AsRef<Path>>(layers: &[P]) -> Result<Self, MergedError> {
        let open = |layer: &P| {
            let path = layer.as_ref();
            rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(|source| MergedError::System {
                operation: "open",
                path: path.to_owned(),
                source,
            })
        };
        Ok(Self { roots: layers.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// Whether there is any layer.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// The image's root; none without layers.
    pub fn root(&self) -> Result<Option<MergedDirectory>, MergedError> {
        let copy = |root: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(root, 3).map_err(failed("open", b"/"));
        let parts = self.roots.iter().map(copy).collect::<Result<Vec<_>, _>>()?;
        Ok((!parts.is_empty()).then_some(MergedDirectory { parts }))
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
        let Some(Found::Other { parent, name, metadata }) = self.find(path.as_bytes())? else { return Ok(None) };
        let size = u64::try_from(metadata.st_size).unwrap_or(u64::MAX);
        if FileType::from_raw_mode(metadata.st_mode) != FileType::RegularFile || size > limit {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, &*name, flags, Mode::empty()).map_err(failed("open", &name))?;
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(std::fs::File::from(file), limit), &mut content)
            .map_err(|error| failed("read", &name)(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        Ok(Some(content))
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
                Some(Found::Other { parent, name, metadata }) => {
                    let is_link = FileType::from_raw_mode(metadata.st_mode) == FileType::Symlink;
                    if !(is_link && follow) {
                        let found = Found::Other { parent, name, metadata };
                        return Ok(pending.is_empty().then_some(found));
                    }
                    links += 1;
                    if links > LINKS {
                        return Err(MergedError::Loop { path: String::from_utf8_lossy(path).into_owned() });
                    }
                    let target = rustix::fs::readlinkat(&parent, &*name, Vec::new()).map_err(failed("read", &name))?;
                    if target.to_bytes().starts_with(b"/") {
                        ancestors.clear();
                        let Some(root) = self.root()? else { return Ok(None) };
                        current = root;
                    }
                    pending.extend(components(target.to_bytes()).rev());
                }
            }
        }
        Ok(Some(Found::Directory(current)))
    }
}

impl MergedDirectory {
    /// The uppermost of the directories that merge: it gives owner, mode and times.
    pub fn top(&self) -> BorrowedFd<'_> {
        self.parts[0].as_fd()
    }

    /// The entry of that name; no link is followed.
    pub fn child(&self, name: &[u8]) -> Result<Option<Found>, MergedError> {
        let mut parts = Vec::new();
        for part in &self.parts {
            let metadata = match rustix::fs::statat(part, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(metadata) => metadata,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed("look up", name)(error)),
            };
            if FileType::from_raw_mode(metadata.st_mode) != FileType::Directory {
                if parts.is_empty() && !layer::is_whiteout(&metadata) {
                    let parent = rustix::io::fcntl_dupfd_cloexec(part, 3).map_err(failed("open", name))?;
                    return Ok(Some(Found::Other { parent, name: name.to_vec(), metadata: Box::new(metadata) }));
                }
                break;
            }
            let directory = rustix::fs::openat(part, name, DIRECTORY, Mode::empty()).map_err(failed("open", name))?;
            let opaque = layer::is_opaque(directory.as_fd()).map_err(failed("read the attributes of", name))?;
            parts.push(directory);
            if opaque {
                break;
            }
        }
        Ok((!parts.is_empty()).then_some(Found::Directory(Self { parts })))
    }

    /// The names of its entries, in order.
    pub fn names(&self) -> Result<Vec<Vec<u8>>, MergedError> {
        let mut names = std::collections::BTreeSet::new();
        for part in &self.parts {
            let directory = rustix::fs::Dir::read_from(part).map_err(failed("list", b"a directory"))?;
            for entry in directory {
                let entry = entry.map_err(failed("list", b"a directory"))?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    names.insert(name.to_vec());
                }
            }
        }
        // Names that a whiteout hides are left out by looking each one up.
        let mut present = Vec::new();
        for name in names {
            if self.child(&name)?.is_some() {
                present.push(name);
            }
        }
        Ok(present)
    }
}

/// The components of a path without `.`; `..` stays.
fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec)
}
