//! The files of an archive, wherever they are: in a tar file, or in a folder.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::ArchiveError;
use super::index::{Index, normalise};
use crate::section::Section;

/// What every archive of images has one of.
pub const DOCUMENTS: [&str; 2] = ["index.json", "manifest.json"];

/// Where an archive's files are.
#[derive(Debug)]
pub enum Files {
    /// In a tar file, its headers read.
    Tar(Arc<File>, Index),
    /// In a folder, as the image specification describes a layout.
    Folder(File),
}

impl Files {
    /// Reads the headers of a tar file.
    pub fn tar(file: File) -> Result<Self, ArchiveError> {
        let index = Index::read(&file)?;
        Ok(Self::Tar(Arc::new(file), index))
    }

    /// The content of a file, also by the name of a link to it; none if there is no such file. What is no file, or lies
    /// outside, is none of the archive's.
    pub fn open(&self, name: &str) -> Result<Option<Section<Arc<File>>>, ArchiveError> {
        match self {
            Self::Tar(file, index) => {
                Ok(index.find(name).map(|place| Section::new(Arc::clone(file), place.offset, place.length)))
            }
            Self::Folder(folder) => {
                // Nothing waits at a FIFO.
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
                let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let file = match openat2(folder, normalise(name), flags, Mode::empty(), within) {
                    Ok(file) => File::from(file),
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP | Errno::NXIO) => return Ok(None),
                    Err(error) => return Err(ArchiveError::Read(error.into())),
                };
                let metadata = file.metadata().map_err(ArchiveError::Read)?;
                Ok(metadata.is_file().then(|| Section::new(Arc::new(file), 0, metadata.len())))
            }
        }
    }
}

/// Whether a folder looks like an archive of images.
pub fn is_folder(path: &Path) -> Result<bool, ArchiveError> {
    let folder = Files::Folder(File::open(path).map_err(ArchiveError::Read)?);
    for document in DOCUMENTS {
        if folder.open(document)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
