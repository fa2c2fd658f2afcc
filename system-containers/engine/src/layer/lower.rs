//! The layers below one that is being unpacked.

use std::cell::OnceCell;

use super::LayerError;
use crate::merged::Merged;

/// Opened when they are first looked at: they may be under way themselves, and opening them waits for that.
pub struct Lower<'a> {
    open: &'a dyn Fn() -> Result<Merged, LayerError>,
    opened: OnceCell<Merged>,
}

impl<'a> Lower<'a> {
    /// `open` waits until they are there, or fails if they are not going to be.
    pub fn new(open: &'a dyn Fn() -> Result<Merged, LayerError>) -> Self {
        Self { open, opened: OnceCell::new() }
    }

    /// The layers as one tree.
    pub fn get(&self) -> Result<&Merged, LayerError> {
        match self.opened.get() {
            Some(merged) => Ok(merged),
            None => {
                let merged = (self.open)()?;
                Ok(self.opened.get_or_init(|| merged))
            }
        }
    }
}
