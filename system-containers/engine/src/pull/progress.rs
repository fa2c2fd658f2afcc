//! How far a pull has come, for whoever watches.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use berth_control::images::{LayerProgress as Seen, PullProgress};

use crate::oci::Descriptor;

/// Of one pull.
#[derive(Debug, Default)]
pub struct Progress {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    from: String,
    layers: Vec<Arc<LayerProgress>>,
}

/// Of one of its layers.
#[derive(Debug)]
pub struct LayerProgress {
    blob: Descriptor,
    bytes: AtomicU64,
    received: AtomicU64,
    done: AtomicBool,
}

impl LayerProgress {
    /// So many bytes there are in all.
    pub fn comes_to(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// So many bytes are there.
    pub fn received(&self, bytes: u64) {
        self.received.store(bytes, Ordering::Relaxed);
    }

    /// It is unpacked, or was before.
    pub fn done(&self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

impl Progress {
    /// Asks from now on there.
    pub fn ask(&self, from: &str) {
        *self.lock() = State { from: from.to_owned(), layers: Vec::new() };
    }

    /// It is about these layers.
    pub fn begin(&self, layers: &[Descriptor]) -> Vec<Arc<LayerProgress>> {
        let new = |blob: &Descriptor| {
            let (bytes, received, done) = (AtomicU64::new(blob.size), AtomicU64::new(0), AtomicBool::new(false));
            Arc::new(LayerProgress { blob: blob.clone(), bytes, received, done })
        };
        let layers: Vec<_> = layers.iter().map(new).collect();
        self.lock().layers = layers.clone();
        layers
    }

    /// As it is now.
    pub fn look(&self) -> PullProgress {
        let state = self.lock();
        let seen = |layer: &Arc<LayerProgress>| Seen {
            digest: layer.blob.digest.to_string(),
            bytes: layer.bytes.load(Ordering::Relaxed),
            received: layer.received.load(Ordering::Relaxed),
            done: layer.done.load(Ordering::Relaxed),
        };
        PullProgress { from: state.from.clone(), layers: state.layers.iter().map(seen).collect() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
