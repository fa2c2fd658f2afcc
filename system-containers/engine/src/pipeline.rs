//! A layer's stream in three stages, which share the processors there are:
//!
//! ```text
//!   decompress ──┬──► whoever reads: unpack
//!        ▲       └──► digest
//!        │                │
//!        └── empty pieces, when both have let go ──
//! ```
//!
//! Each is a thread of its own; but what is not compressed is read by whoever unpacks it, for that is no work to be handed
//! on. A few pieces go round, so the memory is the same for every layer, and the fast wait for the slow. What is read is not
//! verified yet: [`Pipeline::finish`] gives the digest of everything. A reader that is dropped early ends the other stages as
//! soon as their source answers.
//!
//! Where there is one processor, the reader does it all: there is nothing to share, and handing on costs time.

use std::io::{self, BufRead, Read};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::digest::{Digest, Hasher};
use crate::tar::Input;

/// The bytes of a piece that goes from thread to thread: so many that waking the next one, on a virtual machine some tens of
/// microseconds, is little beside them.
const PIECE_BYTES: usize = 512 << 10;

/// How many of them there are: one for each stage.
const PIECES: usize = 3;

/// The bytes of a piece that stays in its thread: few enough for a processor's cache.
const INLINE_BYTES: usize = 128 << 10;

/// A part of the stream that stages share; goes home when the last has let go.
struct Piece {
    bytes: Vec<u8>,
    home: Sender<Vec<u8>>,
}

impl Drop for Piece {
    fn drop(&mut self) {
        // Nobody fills it any more when the source has ended.
        let _ = self.home.send(std::mem::take(&mut self.bytes));
    }
}

/// The last stage: reads what was decompressed.
pub struct Pipeline<'scope, S> {
    stages: Stages<'scope, S>,
    position: usize,
}

/// The stages before it and beside it. Of those with threads, `piece` is what is being read.
enum Stages<'scope, S> {
    Threads {
        pieces: Receiver<io::Result<Arc<Piece>>>,
        piece: Option<Arc<Piece>>,
        source: ScopedJoinHandle<'scope, S>,
        digest: ScopedJoinHandle<'scope, Digest>,
    },
    Beside {
        source: S,
        pieces: Pieces,
        piece: Option<Arc<Piece>>,
        end: Option<io::Result<()>>,
        digest: ScopedJoinHandle<'scope, Digest>,
    },
    Inline {
        source: S,
        hasher: Hasher,
        piece: Vec<u8>,
        /// How the source has ended, once it has.
        end: Option<io::Result<()>>,
    },
}

/// The pieces that go round, for the one who fills them.
struct Pieces {
    home: Sender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    to_digest: SyncSender<Arc<Piece>>,
}

impl Pieces {
    /// With a thread that digests them.
    fn start<'scope>(scope: &'scope Scope<'scope, '_>) -> io::Result<(Self, ScopedJoinHandle<'scope, Digest>)> {
        let (home, empty) = channel();
        let (to_digest, filled) = sync_channel(PIECES);
        for _ in 0..PIECES {
            // The other end is in the line above.
            let _ = home.send(vec![0; PIECE_BYTES]);
        }
        let digest = Builder::new().name("digest".to_owned()).spawn_scoped(scope, move || digest(&filled))?;
        Ok((Self { home, empty, to_digest }, digest))
    }

    /// The next piece of a source, which the digest has as well; and how the source ended, if it did before the piece was
    /// full. Waits until one is empty.
    fn fill(&self, source: &mut impl Read) -> (Option<Arc<Piece>>, Option<io::Result<()>>) {
        // Its other end is here too.
        let Ok(mut bytes) = self.empty.recv() else { return (None, Some(Ok(()))) };
        // Not longer than it was: nothing is filled with zeros.
        bytes.resize(PIECE_BYTES, 0);
        let (length, end) = read_full(source, &mut bytes);
        bytes.truncate(length);
        let piece = Arc::new(Piece { bytes, home: self.home.clone() });
        if length == 0 {
            return (None, end);
        }
        // It waits for pieces until this end is gone.
        let _ = self.to_digest.send(Arc::clone(&piece));
        (Some(piece), end)
    }
}

impl<'scope, S: Read + Send + 'scope> Pipeline<'scope, S> {
    /// Starts the stages on a source; `is_plain` says that it has nothing to decompress.
    pub fn start(scope: &'scope Scope<'scope, '_>, source: S, is_plain: bool) -> io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        match (processors, is_plain) {
            (0..=1, _) => Ok(Self::inline(source)),
            (_, true) => Self::beside(scope, source),
            (_, false) => Self::threads(scope, source),
        }
    }

    fn inline(source: S) -> Self {
        Self { stages: Stages::Inline { source, hasher: Hasher::default(), piece: Vec::new(), end: None }, position: 0 }
    }

    fn beside(scope: &'scope Scope<'scope, '_>, source: S) -> io::Result<Self> {
        let (pieces, digest) = Pieces::start(scope)?;
        Ok(Self { stages: Stages::Beside { source, pieces, piece: None, end: None, digest }, position: 0 })
    }

    fn threads(scope: &'scope Scope<'scope, '_>, mut source: S) -> io::Result<Self> {
        let (empty, digest) = Pieces::start(scope)?;
        let (filled, pieces) = sync_channel(PIECES);
        let source = Builder::new().name("decompress".to_owned()).spawn_scoped(scope, move || {
            decompress(&mut source, &empty, &filled);
            source
        })?;
        Ok(Self { stages: Stages::Threads { pieces, piece: None, source, digest }, position: 0 })
    }

    /// The source and the digest of everything. Whoever read it has read it to its end: what is left is not digested.
    pub fn finish(self) -> io::Result<(S, Digest)> {
        let ended = || io::Error::other("a stage has ended");
        match self.stages {
            Stages::Inline { source, hasher, .. } => Ok((source, hasher.finish())),
            Stages::Beside { source, pieces, digest, .. } => {
                drop(pieces);
                Ok((source, digest.join().map_err(|_| ended())?))
            }
            Stages::Threads { pieces, source, digest, .. } => {
                drop(pieces);
                Ok((source.join().map_err(|_| ended())?, digest.join().map_err(|_| ended())?))
            }
        }
    }
}

impl<S: Read> Pipeline<'_, S> {
    /// What of the piece is left.
    fn left(&self) -> &[u8] {
        let bytes = match &self.stages {
            Stages::Threads { piece, .. } | Stages::Beside { piece, .. } => {
                piece.as_ref().map_or(&[][..], |piece| &piece.bytes)
            }
            Stages::Inline { piece, .. } => piece,
        };
        bytes.get(self.position..).unwrap_or_default()
    }

    /// The next piece; an empty one is the end.
    fn next(&mut self) -> io::Result<()> {
        self.position = 0;
        match &mut self.stages {
            Stages::Threads { pieces, piece, .. } => {
                *piece = None;
                // Without another piece this is the end: the digest says whether it came too early.
                if let Ok(next) = pieces.recv() {
                    *piece = Some(next?);
                }
                Ok(())
            }
            Stages::Beside { source, pieces, piece, end, .. } => {
                *piece = None;
                if end.is_none() {
                    (*piece, *end) = pieces.fill(source);
                }
                if piece.is_none() { end.replace(Ok(())).unwrap_or(Ok(())) } else { Ok(()) }
            }
            Stages::Inline { source, hasher, piece, end } => {
                if end.is_none() {
                    piece.resize(INLINE_BYTES, 0);
                    let (length, ended) = read_full(source, piece);
                    piece.truncate(length);
                    hasher.update(piece);
                    *end = ended;
                } else {
                    piece.clear();
                }
                if piece.is_empty() { end.replace(Ok(())).unwrap_or(Ok(())) } else { Ok(()) }
            }
        }
    }
}

/// The first stage.
fn decompress(source: &mut impl Read, empty: &Pieces, filled: &SyncSender<io::Result<Arc<Piece>>>) {
    loop {
        let (piece, end) = empty.fill(source);
        if piece.is_some_and(|piece| filled.send(Ok(piece)).is_err()) {
            return;
        }
        match end {
            None => {}
            Some(Ok(())) => return,
            Some(Err(error)) => {
                // The reader may have gone already, and then wants no reason.
                let _ = filled.send(Err(error));
                return;
            }
        }
    }
}

/// How much was read, and how the source ended if it did before the piece was full.
fn read_full(source: &mut impl Read, piece: &mut [u8]) -> (usize, Option<io::Result<()>>) {
    let mut length = 0;
    while length < piece.len() {
        match source.read(&mut piece[length..]) {
            Ok(0) => return (length, Some(Ok(()))),
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (length, Some(Err(error))),
        }
    }
    (length, None)
}

/// The stage beside them.
fn digest(filled: &Receiver<Arc<Piece>>) -> Digest {
    let mut hasher = Hasher::default();
    for piece in filled {
        hasher.update(&piece.bytes);
    }
    hasher.finish()
}

impl<S: Read> BufRead for Pipeline<'_, S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left().is_empty() {
            self.next()?;
        }
        Ok(self.left())
    }

    fn consume(&mut self, count: usize) {
        self.position += count.min(self.left().len());
    }
}

impl<S: Read> Read for Pipeline<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        crate::buffered::read(self, buffer)
    }
}

impl<S: Read> Input for Pipeline<'_, S> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source whose reads are as long as they like to be.
    struct Uneven {
        left: usize,
        then: Option<io::Error>,
    }

    impl Read for Uneven {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.left == 0 {
                return self.then.take().map_or(Ok(0), Err);
            }
            let count = buffer.len().min(self.left).min(1 + self.left % 70_001);
            buffer[..count].fill(7);
            self.left -= count;
            Ok(count)
        }
    }

    const LENGTH: usize = 20 * PIECE_BYTES + 12_345;

    /// With one processor and with several, both ways.
    fn all(source: impl Fn() -> Uneven, check: impl Fn(Pipeline<'_, Uneven>)) {
        check(Pipeline::inline(source()));
        std::thread::scope(|scope| check(Pipeline::threads(scope, source()).unwrap()));
        std::thread::scope(|scope| check(Pipeline::beside(scope, source()).unwrap()));
    }

    #[test]
    fn everything_comes_in_order_and_is_digested() {
        let check = |mut pipeline: Pipeline<'_, Uneven>| {
            let mut content = Vec::new();
            pipeline.read_to_end(&mut content).unwrap();
            assert!(pipeline.fill_buf().unwrap().is_empty(), "the end is an end");
            assert_eq!(content.len(), LENGTH);
            assert_eq!(pipeline.finish().unwrap().1, Digest::of(&vec![7; LENGTH]));
        };
        all(|| Uneven { left: LENGTH, then: None }, check);
    }

    #[test]
    fn an_error_comes_after_what_was_read_before_it() {
        let check = |mut pipeline: Pipeline<'_, Uneven>| {
            let mut content = Vec::new();
            let error = pipeline.read_to_end(&mut content).unwrap_err();
            assert_eq!((content.len(), error.to_string().as_str()), (LENGTH, "broken"));
        };
        all(|| Uneven { left: LENGTH, then: Some(io::Error::other("broken")) }, check);
    }

    #[test]
    fn a_reader_that_goes_ends_the_others() {
        // The scope waits for them: a stage that did not end would hang the test.
        let endless = || Uneven { left: usize::MAX, then: None };
        std::thread::scope(|scope| {
            Pipeline::threads(scope, endless()).unwrap().read_exact(&mut [0; 10]).unwrap();
            Pipeline::beside(scope, endless()).unwrap().read_exact(&mut [0; 10]).unwrap();
            // With everything that goes round in the reader's hands.
            let mut pipeline = Pipeline::threads(scope, endless()).unwrap();
            pipeline.read_exact(&mut vec![0; (PIECES + 1) * PIECE_BYTES]).unwrap();
        });
    }
}
