//! Image archives: OCI layouts and what `docker save` writes, as one tar file, compressed or not, or as a folder.
//!
//! Nothing is read into memory but the small JSON documents. The archive's headers are read once, into an index of
//! where each blob lies; blobs are then streamed from their place. A compressed archive is decompressed into an
//! unnamed file on the state partition first, for blobs come in any order.
//!
//! An [`ArchivedImage`] has a verified manifest and configuration. Its layers are verified while they are unpacked.

mod docker;
mod files;
mod identity;
mod index;
mod layout;
mod names;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use self::files::Files;
pub use self::files::is_folder;
pub use self::identity::identity;
use crate::compression::{Compression, CompressionError, Decoder, MAGIC_BYTES};
use crate::digest::Digest;
use crate::document::DocumentError;
use crate::limits;
use crate::memory::Turn;
use crate::reference::Reference;
use crate::room::Room;
use crate::section::Section;
use crate::tar::TarError;

/// Why an archive, or an image in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Reading failed.
    #[error("read the archive")]
    Read(#[source] io::Error),
    /// Its contents are gone before its end.
    #[error("the archive is truncated: {what} lies beyond its end")]
    Truncated {
        /// What is missing.
        what: String,
    },
    /// The compressed data is damaged.
    #[error("decompress the archive")]
    Decompress(#[source] io::Error),
    /// Decompressed it is larger than what one layer may have.
    #[error("decompressed, the archive has more than {} bytes", limits::LAYER_BYTES)]
    TooLarge,
    /// The state partition cannot take the decompressed archive.
    #[error("write the decompressed archive to the state partition")]
    Spool(#[source] io::Error),
    /// No archive.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// Not a sound tar file.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// More entries than an archive of images has.
    #[error("it has more than {} entries: it is no archive of images", limits::ARCHIVE_ENTRIES)]
    Entries,
    /// More images than are taken.
    #[error("it has more than {} images", limits::ARCHIVE_IMAGES)]
    Images,
    /// A tar file of something else.
    #[error("it has neither an index.json (OCI layout) nor a manifest.json (docker save): it is no archive of images")]
    NoImages,
    /// A document or layer that another one names is not there.
    #[error("{name} is missing in the archive")]
    Missing {
        /// Its path.
        name: String,
    },
    /// Over [`limits::JSON_BYTES`].
    #[error("{name} has {bytes} bytes, at most {} are taken", limits::JSON_BYTES)]
    DocumentTooLong {
        /// Its path.
        name: String,
        /// Its size.
        bytes: u64,
    },
    /// A document is of no use.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The content is not what its name says.
    #[error("{name} is damaged: its digest is {found}, not {expected}")]
    Digest {
        /// Its path.
        name: String,
        /// As named.
        expected: Digest,
        /// As it is.
        found: Digest,
    },
    /// The size differs from the one announced.
    #[error("{name} is damaged: it has {found} bytes, not {expected}")]
    Size {
        /// Its path.
        name: String,
        /// As announced.
        expected: u64,
        /// As it is.
        found: u64,
    },
}

impl ArchiveError {
    /// Whether it failed because the disk is full, or nearly.
    pub fn is_for_want_of_room(&self) -> bool {
        matches!(self, Self::Spool(error) if error.kind() == io::ErrorKind::StorageFull)
    }

    /// Whether the archive is to blame, and not this machine: then another try with the same archive is useless.
    pub fn is_of_the_archive(&self) -> bool {
        match self {
            Self::Read(_) | Self::Spool(_) => false,
            Self::Tar(error) => !matches!(error, TarError::Read(_)),
            _ => true,
        }
    }
}

/// An open archive, its contents indexed.
#[derive(Debug)]
pub struct Archive {
    files: Files,
    /// The file's name without its endings: what an image is called that brings no name.
    stem: String,
}

/// An image of an archive, its documents verified. They are read again when they are wanted: all at once may be gigabytes.
#[derive(Debug)]
pub struct ArchivedImage {
    /// What it is called; may be empty.
    pub names: Vec<Reference>,
    /// Its manifest's digest; its configuration's (Docker's image ID) where the archive has no manifest.
    pub digest: Digest,
    /// The path of the manifest in the archive.
    pub manifest_name: Option<String>,
    /// The configuration's digest.
    pub config_digest: Digest,
    /// The path of the configuration in the archive.
    pub config_name: String,
    /// Its layers, the lowest first.
    pub layers: Vec<ArchivedLayer>,
}

/// A layer of an archive, not yet verified.
#[derive(Clone, Debug)]
pub struct ArchivedLayer {
    /// Its path in the archive.
    pub name: String,
    /// The digest of the blob as it lies there, if the archive tells.
    pub blob: Option<Digest>,
    /// The digest of the uncompressed layer.
    pub diff_id: Digest,
}

/// What an archive holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// Images that this machine can use.
    pub images: Vec<ArchivedImage>,
    /// Those that it cannot: what it is, and why.
    pub rejected: Vec<(String, ArchiveError)>,
}

impl Archive {
    /// Opens an archive and reads its headers. `spool` is a directory of the state partition, for an archive that is
    /// compressed. The file may also be a folder that is open.
    pub fn open(file: File, file_name: &str, spool: BorrowedFd<'_>, room: Room) -> Result<Self, ArchiveError> {
        let metadata = file.metadata().map_err(ArchiveError::Read)?;
        if metadata.is_dir() {
            return Ok(Self { files: Files::Folder(file), stem: file_name.to_owned() });
        }
        let length = metadata.len();
        let mut start = vec![0; MAGIC_BYTES.min(usize::try_from(length).unwrap_or(MAGIC_BYTES))];
        file.read_exact_at(&mut start, 0).map_err(ArchiveError::Read)?;
        let file = match Compression::detect(&start)? {
            Compression::Plain => file,
            method => decompress(Section::whole(&file).map_err(ArchiveError::Read)?, method, spool, room)?,
        };
        Ok(Self { files: Files::tar(file)?, stem: names::stem(file_name).to_owned() })
    }

    /// The same from a pipe, whose content goes to `spool` first.
    pub fn receive(
        mut stream: impl io::BufRead,
        file_name: &str,
        spool: BorrowedFd<'_>,
        room: Room,
    ) -> Result<Self, ArchiveError> {
        let mut start = Vec::new();
        (&mut stream).take(MAGIC_BYTES as u64).read_to_end(&mut start).map_err(ArchiveError::Read)?;
        let stream = io::Cursor::new(start.as_slice()).chain(stream);
        let file = match Compression::detect(&start)? {
            // Others may have to wait for the memory that it takes, and whoever writes the pipe may take their time. That of
            // zstd is known with its last frame only.
            method @ (Compression::Xz | Compression::Zstd) => {
                let received = decompress(stream, Compression::Plain, spool, room)?;
                let source = Section::whole(&received).map_err(ArchiveError::Read)?;
                decompress(source, method, spool, room)?
            }
            method => decompress(stream, method, spool, room)?,
        };
        Ok(Self { files: Files::tar(file)?, stem: names::stem(file_name).to_owned() })
    }

    /// Reads and verifies the documents of all images.
    pub fn contents(&self) -> Result<Contents, ArchiveError> {
        let saved = docker::saved_images(self)?;
        let mut contents = match layout::images(self)? {
            Some(contents) => contents,
            None if saved.is_none() => return Err(ArchiveError::NoImages),
            None => Contents::default(),
        };
        docker::complete(self, saved.unwrap_or_default(), &mut contents)?;
        if contents.images.len() > limits::ARCHIVE_IMAGES {
            return Err(ArchiveError::Images);
        }
        if let [only] = &mut *contents.images
            && only.names.is_empty()
        {
            only.names.extend(names::from_stem(&self.stem, None));
        }
        Ok(contents)
    }

    /// A layer's bytes.
    pub fn stream(&self, layer: &ArchivedLayer) -> Result<Section<Arc<File>>, ArchiveError> {
        self.section(&layer.name)
    }

    /// An image's configuration, as it is in the archive.
    pub fn config(&self, image: &ArchivedImage) -> Result<Vec<u8>, ArchiveError> {
        self.verified(&image.config_name, image.config_digest)
    }

    /// Its manifest, if the archive has one.
    pub fn manifest(&self, image: &ArchivedImage) -> Result<Option<Vec<u8>>, ArchiveError> {
        image.manifest_name.as_ref().map(|name| self.verified(name, image.digest)).transpose()
    }

    fn verified(&self, name: &str, digest: Digest) -> Result<Vec<u8>, ArchiveError> {
        let bytes = self.document(name)?;
        verify(name, digest, &bytes)?;
        Ok(bytes)
    }

    fn section(&self, name: &str) -> Result<Section<Arc<File>>, ArchiveError> {
        self.files.open(name)?.ok_or_else(|| ArchiveError::Missing { name: name.to_owned() })
    }

    /// Reads a whole document.
    fn document(&self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        let mut section = self.section(name)?;
        let length = section.remaining();
        if length > limits::JSON_BYTES {
            return Err(ArchiveError::DocumentTooLong { name: name.to_owned(), bytes: length });
        }
        let mut bytes = Vec::new();
        section.read_to_end(&mut bytes).map_err(ArchiveError::Read)?;
        Ok(bytes)
    }

    /// Reads a blob that is a document, and verifies it.
    fn blob_document(&self, digest: Digest, size: Option<u64>) -> Result<Vec<u8>, ArchiveError> {
        let name = blob_name(digest);
        let bytes = self.document(&name)?;
        if let Some(expected) = size.filter(|size| *size != bytes.len() as u64) {
            return Err(ArchiveError::Size { name, expected, found: bytes.len() as u64 });
        }
        verify(&name, digest, &bytes)?;
        Ok(bytes)
    }
}

/// Where an OCI layout keeps a blob.
fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn verify(name: &str, expected: Digest, bytes: &[u8]) -> Result<(), ArchiveError> {
    let found = Digest::of(bytes);
    if found == expected { Ok(()) } else { Err(ArchiveError::Digest { name: name.to_owned(), expected, found }) }
}

/// Decompresses into a file without a name, which is gone when it is closed, and after a crash.
fn decompress(
    source: impl io::BufRead,
    method: Compression,
    spool: BorrowedFd<'_>,
    room: Room,
) -> Result<File, ArchiveError> {
    decompress_within(source, method, spool, room, limits::LAYER_BYTES)
}

/// The same if it comes to at most so many bytes.
fn decompress_within(
    source: impl io::BufRead,
    method: Compression,
    spool: BorrowedFd<'_>,
    room: Room,
    most: u64,
) -> Result<File, ArchiveError> {
    let _turn = (method == Compression::Xz).then(Turn::wait);
    let mut turn = None;
    let gate = Box::new(move |window| {
        if window > limits::SMALL_WINDOW {
            turn.get_or_insert_with(Turn::wait);
        }
        Ok(())
    });
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let spooled = rustix::fs::openat(spool, ".", flags, Mode::RUSR | Mode::WUSR);
    let mut target = File::from(spooled.map_err(|error| ArchiveError::Spool(error.into()))?);
    let mut decoder = Decoder::new(method, source, gate).map_err(ArchiveError::Decompress)?;
    let mut total = 0_u64;
    loop {
        let bytes = io::BufRead::fill_buf(&mut decoder).map_err(ArchiveError::Decompress)?;
        if bytes.is_empty() {
            return Ok(target);
        }
        let length = bytes.len();
        total += length as u64;
        if total > most {
            return Err(ArchiveError::TooLarge);
        }
        target.write_all(bytes).map_err(ArchiveError::Spool)?;
        io::BufRead::consume(&mut decoder, length);
        if total % (16 << 20) < length as u64 {
            room.check(target.as_fd(), 0)
                .map_err(|error| ArchiveError::Spool(io::Error::new(io::ErrorKind::StorageFull, error)))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_tests::archive::compressed_by;

    use super::*;

    #[test]
    fn a_bomb_stops_at_its_limit() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
        let gzip = encoder.finish().unwrap();
        let zstd = zstd::encode_all(&*vec![0; 1 << 20], 1).unwrap();
        let [xz, bzip2] = ["xz", "bzip2"].map(|program| compressed_by(program, &vec![0; 1 << 20]).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let spool = File::open(folder.path()).unwrap();
        for (method, bytes) in [
            (Compression::Gzip, &gzip),
            (Compression::Zstd, &zstd),
            (Compression::Xz, &xz),
            (Compression::Bzip2, &bzip2),
        ] {
            let within = |most| decompress_within(&**bytes, method, spool.as_fd(), Room::new(Some(0)), most);
            assert!(matches!(within((1 << 20) - 1), Err(ArchiveError::TooLarge)), "{method:?}");
            assert_eq!(within(1 << 20).unwrap().metadata().unwrap().len(), 1 << 20);
        }
    }
}
