//! The one way of a layer into the store, from an archive or a registry.
//!
//! Nothing becomes visible unverified: a layer is unpacked into a draft, and published only if the digests of the blob
//! and of the uncompressed stream are those that the manifest and the configuration name.

use std::io::{self, BufRead, Cursor, Read};

use crate::compression::{Compression, CompressionError, Decoder, MAGIC_BYTES};
use crate::digest::{Digest, Hasher};
use crate::import::describe;
use crate::layer::{self, LayerError, Lower, Recorder, Summary};
use crate::limits;
use crate::memory::Memory;
use crate::pipeline::Pipeline;
use crate::store::{Draft, Store, StoreError, file_error};

/// Why a layer is not taken.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its beginning cannot be read.
    #[error("the layer {name} cannot be read")]
    Read {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its data is unsound.
    #[error("the layer {name} cannot be unpacked")]
    Layer {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: LayerError,
    },
    /// It is not compressed in a way that is known.
    #[error("the layer {name} cannot be read")]
    Compression {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: CompressionError,
    },
    /// It cannot be decompressed to its end.
    #[error("the layer {name} is damaged")]
    Decompress {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what the image says.
    #[error("the layer {name} is damaged: its {which} is {found}, not {expected}")]
    Digest {
        /// Its name.
        name: String,
        /// Blob digest or diff ID.
        which: &'static str,
        /// As named.
        expected: Digest,
        /// As it is.
        found: Digest,
    },
}

impl IntakeError {
    /// Whether it failed because the disk is full, or nearly.
    pub fn is_for_want_of_room(&self) -> bool {
        match self {
            Self::Layer { source, .. } => source.is_for_want_of_room(),
            Self::Store(error) => error.is_for_want_of_room(),
            // A download is spooled to the same disk.
            Self::Read { source, .. } | Self::Decompress { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            Self::Compression { .. } | Self::Digest { .. } => false,
        }
    }

    /// Whether the image is to blame, and not this machine: then another try with the same is useless.
    pub fn is_of_the_image(&self) -> bool {
        match self {
            Self::Layer { source, .. } => source.is_of_the_image(),
            Self::Compression { .. } | Self::Digest { .. } | Self::Decompress { .. } => true,
            Self::Store(_) | Self::Read { .. } => false,
        }
    }
}

/// A layer that comes in.
pub struct Incoming<'a, R> {
    /// What it is called in errors.
    pub name: &'a str,
    /// The blob. It must end in an error if it is not whole.
    pub stream: R,
    /// The blob's digest, if nobody else verifies it.
    pub blob: Option<Digest>,
    /// The digest of the uncompressed layer.
    pub diff_id: Digest,
    /// Called before the layers below are looked at, if not all of them are there: waits until they are.
    pub below: &'a (dyn Fn() -> Result<(), LayerError> + Sync),
    /// Called when nobody wants the rest: a read that waits for the network must then end.
    pub cancel: &'a dyn Fn(),
}

/// Unpacks a layer, verifies it and makes it visible. `chain` are the image's layers up to and with this one.
pub fn layer<R: BufRead + Send>(store: &Store, incoming: Incoming<'_, R>, chain: &[Digest]) -> Result<(), IntakeError> {
    let Some(id) = chain.last() else { return Ok(()) };
    let diff_id = incoming.diff_id;
    let draft = store.draft()?;
    match unpack(store, incoming, &draft, chain) {
        Ok(summary) => Ok(store.publish(draft, *id, diff_id, summary)?),
        Err(error) => {
            if let Err(error) = store.discard(draft) {
                eprintln!("engine: {}", describe(&error));
            }
            Err(error)
        }
    }
}

fn unpack<R: BufRead + Send>(
    store: &Store,
    incoming: Incoming<'_, R>,
    draft: &Draft,
    chain: &[Digest],
) -> Result<Summary, IntakeError> {
    let Some((id, lower)) = chain.split_last() else { return Ok(Summary::default()) };
    let Incoming { name, mut stream, blob, diff_id: expected, below, cancel } = incoming;
    let mut start = Vec::new();
    (&mut stream)
        .take(MAGIC_BYTES as u64)
        .read_to_end(&mut start)
        .map_err(|source| IntakeError::Read { name: name.to_owned(), source })?;
    let compression = Compression::detect_layer(&start)
        .map_err(|source| IntakeError::Compression { name: name.to_owned(), source })?;
    let decompress = |source| IntakeError::Decompress { name: name.to_owned(), source };
    let failed = |source| IntakeError::Layer { name: name.to_owned(), source };
    let check = |which, expected: Digest, found: Digest| {
        let same = found == expected;
        if same { Ok(()) } else { Err(IntakeError::Digest { name: name.to_owned(), which, expected, found }) }
    };
    let open = || {
        below()?;
        store.merged(lower).map_err(LayerError::from)
    };
    let lower = Lower::new(&open);
    let memory = Memory::new(below);
    // A layer that is not compressed is its own blob: it is hashed once, for both digests.
    let hashed = blob.is_some() && compression != Compression::Plain;
    let source = Source { inner: Cursor::new(start).chain(stream), hasher: hashed.then(Hasher::default) };
    let unwritten = |error| file_error("write a layer in", store.path())(error);
    let gate = Box::new(|window| memory.window(window).map_err(io::Error::other));
    let decoder = Decoder::new(compression, source, gate).and_then(Decoder::without_checksums).map_err(decompress)?;
    let (summary, decoder, diff_id) = std::thread::scope(|scope| {
        let work = || -> Result<_, IntakeError> {
            let pipeline = Pipeline::start(scope, decoder, compression == Compression::Plain).map_err(decompress)?;
            let stream = Recorder::new(pipeline, draft.record().map_err(unwritten)?);
            let file = draft.image().map_err(unwritten)?;
            let target = layer::Target { file, place: draft.place(), uuid: id.half(), memory: &memory };
            let (summary, mut rest) = layer::unpack(stream, target, &lower, store.room()).map_err(failed)?;
            rest.read_rest(limits::TRAILING_BYTES).map_err(decompress)?;
            let (decoder, diff_id) = rest.finish().map_err(unwritten)?.finish().map_err(decompress)?;
            Ok((summary, decoder, diff_id))
        };
        // The scope waits for the stages, and one of them may wait for the source.
        work().inspect_err(|_| cancel())
    })?;
    check("diff ID", expected, diff_id)?;
    let found = decoder.into_inner().finish().map_err(decompress)?;
    if let Some(expected) = blob {
        check("digest", expected, found.unwrap_or(diff_id))?;
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
        loop {
            let length = self.fill_buf()?.len();
            if length == 0 {
                return Ok(self.hasher.map(Hasher::finish));
            }
            self.consume(length);
        }
    }
}

impl<R: BufRead> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count.min(buffer.len())]);
        }
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
