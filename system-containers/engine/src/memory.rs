//! Memory of the layers that are being unpacked.
//!
//! What grows with a layer is the window of its decompressor and the names of its files. Every layer may have a little of
//! both. One at a time in the whole process may have more, up to [`limits::LAYER_MEMORY`], and only when all layers below it are
//! there: who has the turn waits for nobody who may want it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::layer::LayerError;
use crate::limits;

/// What one layer takes.
pub struct Memory<'a> {
    /// Waits until the layers below are there.
    below: &'a (dyn Fn() -> Result<(), LayerError> + Sync),
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    window: u64,
    names: u64,
    turn: Option<Turn>,
}

impl<'a> Memory<'a> {
    /// Nothing yet.
    pub fn new(below: &'a (dyn Fn() -> Result<(), LayerError> + Sync)) -> Self {
        Self { below, held: Mutex::default() }
    }

    /// The decompressor is about to take a window of so many bytes. It waits for the turn if that is much.
    pub fn window(&self, bytes: u64) -> Result<(), LayerError> {
        let mut held = self.lock();
        held.window = held.window.max(bytes);
        self.settle(held, bytes > limits::SMALL_WINDOW)
    }

    /// The same of names.
    pub fn names(&self, bytes: u64) -> Result<(), LayerError> {
        let mut held = self.lock();
        held.names = held.names.max(bytes);
        self.settle(held, bytes > limits::SMALL_NAMES)
    }

    fn settle(&self, mut held: MutexGuard<'_, Held>, is_large: bool) -> Result<(), LayerError> {
        if held.window.saturating_add(held.names) > limits::LAYER_MEMORY {
            return Err(LayerError::Memory);
        }
        if is_large && held.turn.is_none() {
            (self.below)()?;
            held.turn = Some(Turn::wait());
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to take tens of megabytes; it ends with this value.
pub struct Turn(());

static TAKEN: Mutex<bool> = Mutex::new(false);
static ENDED: Condvar = Condvar::new();

impl Turn {
    /// Waits for it.
    pub fn wait() -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = ENDED.wait_while(taken, |taken| *taken).unwrap_or_else(PoisonError::into_inner);
        *taken = true;
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = false;
        ENDED.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn one_layer_at_a_time_has_much() {
        let waited = AtomicU32::new(0);
        let below = || {
            waited.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let small = Memory::new(&below);
        small.window(limits::SMALL_WINDOW).unwrap();
        small.names(limits::SMALL_NAMES).unwrap();
        assert_eq!(waited.load(Ordering::Relaxed), 0);
        let at_once = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let large = Memory::new(&below);
                    large.window(limits::SMALL_WINDOW + 1).unwrap();
                    large.names(limits::SMALL_NAMES + 1).unwrap();
                    assert_eq!(at_once.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    at_once.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(waited.load(Ordering::Relaxed), 4, "once for each");
    }

    #[test]
    fn nobody_takes_more_than_there_is() {
        let below = || Ok(());
        let memory = Memory::new(&below);
        memory.window(32 << 20).unwrap();
        memory.names(limits::LAYER_MEMORY - (32 << 20)).unwrap();
        assert!(matches!(memory.names(limits::LAYER_MEMORY - (32 << 20) + 1), Err(LayerError::Memory)));
        let forsaken = || Err(LayerError::Forsaken);
        assert!(matches!(Memory::new(&forsaken).names(limits::LAYER_MEMORY), Err(LayerError::Forsaken)));
    }
}
