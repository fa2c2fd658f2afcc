//! How a container is asked to end.

use serde::{Deserialize, Serialize};

/// What is different from what the container's definition says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// What asks it to end, by number.
    pub signal: Option<i32>,
    /// How long it may take before it is killed, in milliseconds.
    pub grace_ms: Option<u64>,
}
