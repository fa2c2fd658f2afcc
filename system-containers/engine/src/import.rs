//! Brings the images of an archive into the store.
//!
//! Nothing becomes visible unverified: a layer is unpacked into a draft, and published only if the digests of the blob
//! and of the uncompressed stream are those that the manifest and the configuration name.

use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::archive::{Archive, ArchiveError, ArchivedImage, ArchivedLayer};
use crate::compression::{Compression, CompressionError, Decoder};
use crate::digest::{Digest, Hasher, HashingReader};
use crate::layer::{self, LayerError, Summary};
use crate::limits;
use crate::store::{ArchiveRecord, Identity, ImageRecord, Outcome, Store, StoreError, chain_ids};
use crate::tar::Input;

/// How much of each end of an archive is part of its identity.
const END_BYTES: u64 = 64 << 10;

/// Why an archive, or an image of it, was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("read the archive")]
    Open(#[source] io::Error),
    /// The archive is unsound.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer's data is unsound.
    #[error("the layer {name} cannot be unpacked")]
    Layer {
        /// Its path in the archive.
        name: String,
        /// Why.
        #[source]
        source: LayerError,
    },
    /// A layer is not compressed in a way that is known.
    #[error("the layer {name} cannot be read")]
    Compression {
        /// Its path in the archive.
        name: String,
        /// Why.
        #[source]
        source: CompressionError,
    },
    /// A layer cannot be decompressed to its end.
    #[error("the layer {name} is damaged")]
    Decompress {
        /// Its path in the archive.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer is not what the image says.
    #[error("the layer {name} is damaged: its {which} is {found}, not {expected}")]
    Digest {
        /// Its path in the archive.
        name: String,
        /// Blob digest or diff ID.
        which: &'static str,
        /// As named.
        expected: Digest,
        /// As it is.
        found: Digest,
    },
}

impl ImportError {
    /// Whether the archive is to blame, and not this machine: then another try with the same archive is useless.
    pub fn is_of_the_archive(&self) -> bool {
        match self {
            Self::Archive(error) => error.is_of_the_archive(),
            Self::Layer { source, .. } => source.is_of_the_image(),
            Self::Compression { .. } | Self::Digest { .. } | Self::Decompress { .. } => true,
            Self::Open(_) | Self::Store(_) => false,
        }
    }
}

/// An error with all its causes, in one line.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What an import did.
#[derive(Debug)]
pub struct Report {
    /// What to remember of the archive.
    pub record: ArchiveRecord,
    /// For the log: what went wrong, a line each.
    pub problems: Vec<String>,
    /// How many layers were unpacked.
    pub unpacked: usize,
}

/// Looks at an archive as shortly as possible.
pub fn identity(path: &Path) -> io::Result<Identity> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let size = metadata.len();
    let modified = metadata.modified()?;
    let modified_ns = match modified.duration_since(UNIX_EPOCH) {
        Ok(time) => i128::try_from(time.as_nanos()).unwrap_or(i128::MAX),
        Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX),
    };
    let mut hasher = Hasher::default();
    let length = usize::try_from(END_BYTES.min(size)).unwrap_or(0);
    let mut buffer = vec![0; length];
    for offset in [0, size - length as u64] {
        file.read_exact_at(&mut buffer, offset)?;
        hasher.update(&buffer);
        if offset == 0 && size <= END_BYTES {
            break;
        }
    }
    Ok(Identity { size, modified_ns, ends: hasher.finish() })
}

/// Imports one archive. An image that cannot be used does not stop the others of the archive.
pub fn archive(store: &Store, path: &Path, name: &str, identity: Identity) -> Report {
    let (mut names, mut nameless, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
    let mut is_final = true;
    let mut unpacked = 0;
    let outcome = match open(store, path, name).and_then(|archive| Ok((archive.contents()?, archive))) {
        Err(error) => {
            is_final = error.is_of_the_archive();
            Outcome::Rejected(describe(&error))
        }
        Ok((contents, archive)) => {
            for (what, error) in contents.rejected {
                is_final &= error.is_of_the_archive();
                rejected.push(format!("{what}: {}", describe(&error)));
            }
            for found in contents.images {
                match image(store, &archive, &found) {
                    Ok(count) => {
                        unpacked += count;
                        if found.names.is_empty() {
                            nameless.push(found.digest);
                        }
                        names.extend(found.names.iter().filter_map(|name| Some((name.tagged()?, found.digest))));
                    }
                    Err(error) => {
                        is_final &= error.is_of_the_archive();
                        let what = found.names.first().map_or_else(|| found.digest.to_string(), ToString::to_string);
                        rejected.push(format!("{what}: {}", describe(&error)));
                    }
                }
            }
            Outcome::Images { names, nameless, rejected }
        }
    };
    // What failed for a reason of this machine, such as a full disk, is tried again: no file has that time.
    let identity = if is_final { identity } else { Identity { modified_ns: i128::MIN, ..identity } };
    let record = ArchiveRecord { identity, outcome, present: true };
    let problems = record.problems().into_iter().map(|problem| format!("{name}: {problem}")).collect();
    Report { record, problems, unpacked }
}

fn open(store: &Store, path: &Path, name: &str) -> Result<Archive, ImportError> {
    let file = File::open(path).map_err(ImportError::Open)?;
    let spool = store.spool()?;
    Ok(Archive::open(file, name, spool.as_fd())?)
}

/// Unpacks the layers that are missing and adds the image. Returns how many layers were unpacked.
pub fn image(store: &Store, archive: &Archive, image: &ArchivedImage) -> Result<usize, ImportError> {
    let chain = chain_ids(&image.config.rootfs.diff_ids);
    let mut unpacked = 0;
    for (position, (layer, id)) in image.layers.iter().zip(&chain).enumerate() {
        if store.has_layer(*id) {
            continue;
        }
        let draft = store.draft()?;
        let lower = chain.get(..position).unwrap_or_default();
        match unpack(store, archive, layer, draft.directory(), lower) {
            Ok(summary) => store.publish(draft, *id, layer.diff_id, summary)?,
            Err(error) => {
                if let Err(error) = store.discard(draft) {
                    eprintln!("engine: {}", describe(&error));
                }
                return Err(error);
            }
        }
        unpacked += 1;
    }
    let record = ImageRecord { config_digest: image.config_digest, chain, config: image.config.clone(), unnamed: None };
    store.add_image(image.digest, record, image.manifest.as_deref(), &image.raw_config)?;
    Ok(unpacked)
}

fn unpack(
    store: &Store,
    archive: &Archive,
    layer: &ArchivedLayer,
    target: std::os::fd::BorrowedFd<'_>,
    lower: &[Digest],
) -> Result<Summary, ImportError> {
    let name = &layer.name;
    let start = archive.start(layer).map_err(ImportError::Open)?;
    let compression =
        Compression::detect(&start).map_err(|source| ImportError::Compression { name: name.clone(), source })?;
    let decompress = |source| ImportError::Decompress { name: name.clone(), source };
    let failed = |source| ImportError::Layer { name: name.clone(), source };
    let check = |which, expected: Digest, found: Digest| {
        let same = found == expected;
        if same { Ok(()) } else { Err(ImportError::Digest { name: name.clone(), which, expected, found }) }
    };
    let lower = store.merged(lower)?;
    // A layer that is not compressed is its own blob: it is hashed once, for both digests.
    let blob = layer.blob.filter(|_| compression != Compression::Plain);
    let source = Source { inner: archive.stream(layer), hasher: blob.is_some().then(Hasher::default) };
    let stream = HashingReader::new(Decoder::new(compression, source).map_err(decompress)?);
    let (summary, rest) = layer::unpack(stream, target, &lower).map_err(failed)?;
    let (decoder, diff_id) = rest.finish(limits::TRAILING_BYTES).map_err(decompress)?;
    check("diff ID", layer.diff_id, diff_id)?;
    if let Some(expected) = layer.blob {
        let found = match decoder.into_inner().finish().map_err(decompress)? {
            Some(found) => found,
            None => diff_id,
        };
        check("digest", expected, found)?;
    }
    if summary.refused_attributes > 0 {
        eprintln!("engine: {name}: {} extended attributes are not for images to set", summary.refused_attributes);
    }
    Ok(summary)
}

/// A blob's bytes, hashed if somebody wants to know.
struct Source<R> {
    inner: R,
    hasher: Option<Hasher>,
}

impl<R: BufRead> Source<R> {
    /// Reads what the decompressor has left, such as padding, and gives the digest.
    fn finish(mut self) -> io::Result<Option<Digest>> {
        while self.hasher.is_some() {
            let length = self.fill_buf()?.len();
            if length == 0 {
                break;
            }
            self.consume(length);
        }
        Ok(self.hasher.map(Hasher::finish))
    }
}

impl<R: BufRead> io::Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if let (Some(hasher), Ok(buffer)) = (&mut self.hasher, self.inner.fill_buf()) {
            hasher.update(&buffer[..count.min(buffer.len())]);
        }
        self.inner.consume(count);
    }
}

impl<R: BufRead> Input for HashingReader<R> {}
