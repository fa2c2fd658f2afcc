//! The configuration: schema, merging, validation, diagnostics.

use serde::{Deserialize, Serialize};

/// A user container as configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// The image's name.
    pub image: String,
}
