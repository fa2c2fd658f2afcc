//! A layer's stream in three stages, each a thread of its own, so that they share the processors there are:
//!
//! ```text
//!   decompress ──► digest ──► whoever reads: unpack
//!        ▲                         │
//!        └───── empty pieces ──────┘
//! ```
//!
//! A few pieces go round, so the memory is the same for every layer, and the fast wait for the slow. What is read is
//! not verified yet: [`Pipeline::finish`] gives the digest of everything. A reader that is dropped early ends the other
//! stages as soon as their source answers.
//!
//! Where there is one processor, the reader does it all: there is nothing to share, and handing on costs time.

use std::io::{self, BufRead, Read};
use std::num::NonZeroUsize;
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

/// What a stage hands on; an error is the last.
type Piece = io::Result<Vec<u8>>;

/// The last stage: reads what was decompressed and digested.
pub struct Pipeline<'scope, S> {
    stages: Stages<'scope, S>,
    piece: Vec<u8>,
    position: usize,
}

/// The stages before it.
enum Stages<'scope, S> {
    Threads {
        pieces: Receiver<Piece>,
        empty: Sender<Vec<u8>>,
        source: ScopedJoinHandle<'scope, S>,
        digest: ScopedJoinHandle<'scope, Digest>,
    },
    Inline {
        source: S,
        hasher: Hasher,
        /// How the source has ended, once it has.
        end: Option<io::Result<()>>,
    },
}

impl<'scope, S: Read + Send + 'scope> Pipeline<'scope, S> {
    /// Starts the stages on a source that decompresses.
    pub fn start(scope: &'scope Scope<'scope, '_>, source: S) -> io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        if processors > 1 { Self::threads(scope, source) } else { Ok(Self::inline(source)) }
    }

    fn inline(source: S) -> Self {
        let stages = Stages::Inline { source, hasher: Hasher::default(), end: None };
        Self { stages, piece: Vec::new(), position: 0 }
    }

    fn threads(scope: &'scope Scope<'scope, '_>, mut source: S) -> io::Result<Self> {
        let (empty, empties) = channel();
        let (filled, to_digest) = sync_channel(PIECES);
        let (digested, pieces) = sync_channel(PIECES);
        for _ in 0..PIECES {
            // The other end is in the next line.
            let _ = empty.send(vec![0; PIECE_BYTES]);
        }
        let source = Builder::new().name("decompress".to_owned()).spawn_scoped(scope, move || {
            fill(&mut source, &empties, &filled);
            source
        })?;
        let digest =
            Builder::new().name("digest".to_owned()).spawn_scoped(scope, move || digest(&to_digest, &digested))?;
        let stages = Stages::Threads { pieces, empty, source, digest };
        Ok(Self { stages, piece: Vec::new(), position: 0 })
    }

    /// The source and the digest of everything. Whoever read it has read it to its end: what is left is not digested.
    pub fn finish(self) -> io::Result<(S, Digest)> {
        match self.stages {
            Stages::Inline { source, hasher, .. } => Ok((source, hasher.finish())),
            Stages::Threads { pieces, empty, source, digest } => {
                drop((pieces, empty));
                let ended = || io::Error::other("a stage has ended");
                Ok((source.join().map_err(|_| ended())?, digest.join().map_err(|_| ended())?))
            }
        }
    }
}

impl<S: Read> Pipeline<'_, S> {
    /// The next piece; an empty one is the end.
    fn next(&mut self) -> io::Result<()> {
        let mut used = std::mem::take(&mut self.piece);
        self.position = 0;
        match &mut self.stages {
            Stages::Threads { pieces, empty, .. } => {
                if used.capacity() > 0 {
                    // Nobody fills it any more when the source has ended.
                    let _ = empty.send(used);
                }
                // Without another piece this is the end: the digest says whether it came too early.
                if let Ok(piece) = pieces.recv() {
                    self.piece = piece?;
                }
            }
            Stages::Inline { source, hasher, end } => {
                if end.is_none() {
                    used.resize(INLINE_BYTES, 0);
                    let (length, ended) = read_full(source, &mut used);
                    used.truncate(length);
                    hasher.update(&used);
                    *end = ended;
                    self.piece = used;
                }
                if self.piece.is_empty() {
                    return end.replace(Ok(())).unwrap_or(Ok(()));
                }
            }
        }
        Ok(())
    }
}

/// The first stage.
fn fill(source: &mut impl Read, empty: &Receiver<Vec<u8>>, filled: &SyncSender<Piece>) {
    for mut piece in empty {
        piece.resize(PIECE_BYTES, 0);
        let (length, end) = read_full(source, &mut piece);
        piece.truncate(length);
        if length > 0 && filled.send(Ok(piece)).is_err() {
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

/// The second stage.
fn digest(filled: &Receiver<Piece>, digested: &SyncSender<Piece>) -> Digest {
    let mut hasher = Hasher::default();
    for piece in filled {
        if let Ok(piece) = &piece {
            hasher.update(piece);
        }
        if digested.send(piece).is_err() {
            break;
        }
    }
    hasher.finish()
}

impl<S: Read> BufRead for Pipeline<'_, S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.piece.len() {
            self.next()?;
        }
        Ok(&self.piece[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position = (self.position + count).min(self.piece.len());
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

    /// With one processor and with several.
    fn both(source: impl Fn() -> Uneven, check: impl Fn(Pipeline<'_, Uneven>)) {
        check(Pipeline::inline(source()));
        std::thread::scope(|scope| check(Pipeline::threads(scope, source()).unwrap()));
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
        both(|| Uneven { left: LENGTH, then: None }, check);
    }

    #[test]
    fn an_error_comes_after_what_was_read_before_it() {
        let check = |mut pipeline: Pipeline<'_, Uneven>| {
            let mut content = Vec::new();
            let error = pipeline.read_to_end(&mut content).unwrap_err();
            assert_eq!((content.len(), error.to_string().as_str()), (LENGTH, "broken"));
        };
        both(|| Uneven { left: LENGTH, then: Some(io::Error::other("broken")) }, check);
    }

    #[test]
    fn a_reader_that_goes_ends_the_others() {
        // The scope waits for them: a stage that did not end would hang the test.
        std::thread::scope(|scope| {
            let mut pipeline = Pipeline::threads(scope, Uneven { left: usize::MAX, then: None }).unwrap();
            pipeline.read_exact(&mut [0; 10]).unwrap();
        });
    }
}
