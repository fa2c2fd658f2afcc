//! What a request carries: a few bytes, or a part of a file, which goes out piece by piece so that it is never in memory.
//! Who sent the request hears how much the connection has taken.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::watch;

use super::patience::{Pace, Patience};

/// What is given to a connection at once, in bytes: on a modem's line it must be gone long before [`Patience::idle`].
const PIECE_BYTES: u64 = 16 << 10;

/// What is to be sent; every attempt sends it from its beginning.
#[derive(Clone, Debug)]
pub enum Content {
    /// These bytes.
    Bytes(Bytes),
    /// A part of a blob.
    Part(Part),
}

/// A part of a file that is a blob.
#[derive(Clone)]
pub struct Part {
    /// The file; nobody changes it.
    pub file: Arc<File>,
    /// Where it begins.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// Hears how many bytes of the blob have gone out.
    pub sent: Arc<dyn Fn(u64) + Send + Sync>,
}

impl fmt::Debug for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "bytes {}..{} of a blob", self.start, self.end)
    }
}

impl Default for Content {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl Content {
    /// How much it is, in bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Part(part) => part.end - part.start,
        }
    }

    /// For one attempt: what goes out, and how far that is.
    pub fn begin(&self) -> (Outgoing, Gauge) {
        let (taken, seen) = watch::channel(0);
        let length = self.length();
        (Outgoing { content: self.clone(), length, taken }, Gauge { length, taken: seen })
    }
}

/// Content on its way.
pub struct Outgoing {
    content: Content,
    length: u64,
    taken: watch::Sender<u64>,
}

impl Outgoing {
    fn piece(&self, from: u64, to: u64) -> io::Result<Bytes> {
        let place = |at: u64| usize::try_from(at).map_err(io::Error::other);
        match &self.content {
            Content::Bytes(bytes) => Ok(bytes.slice(place(from)?..place(to)?)),
            Content::Part(part) => {
                let mut bytes = vec![0; place(to - from)?];
                part.file.read_exact_at(&mut bytes, part.start + from)?;
                (part.sent)(part.start + to);
                Ok(Bytes::from(bytes))
            }
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let from = *self.taken.borrow();
        if from == self.length {
            return Poll::Ready(None);
        }
        let to = self.length.min(from + PIECE_BYTES);
        let piece = self.piece(from, to);
        if piece.is_ok() {
            self.taken.send_replace(to);
        }
        Poll::Ready(Some(piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        *self.taken.borrow() == self.length
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length - *self.taken.borrow())
    }
}

/// How much of an [`Outgoing`] the connection has taken.
pub struct Gauge {
    length: u64,
    taken: watch::Receiver<u64>,
}

impl Gauge {
    /// Whether all of it has gone out.
    pub fn is_out(&self) -> bool {
        *self.taken.borrow() == self.length
    }

    /// Waits until all has gone out, or no more of it will. What too little of it went out in is an error.
    pub async fn drained(&mut self, patience: &Patience) -> Result<(), Stalled> {
        let mut pace = Pace::new(patience, 0);
        while !self.is_out() {
            match tokio::time::timeout(patience.idle, self.taken.changed()).await {
                Err(_) => return Err(Stalled),
                // The connection has done with it, and says why itself.
                Ok(Err(_)) => break,
                Ok(Ok(())) => {
                    let taken = *self.taken.borrow_and_update();
                    if taken < self.length && pace.is_too_slow(taken).is_some() {
                        return Err(Stalled);
                    }
                }
            }
        }
        Ok(())
    }
}

/// In [`Patience::idle`] next to nothing was taken.
pub struct Stalled;
