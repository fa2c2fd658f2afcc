//! Why something is as it is.

use serde::{Deserialize, Serialize};

/// A step of the chain that leads to the state of a container, a link or the boot. The causes of one follow it, one level deeper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// How far from what was asked for; 0 is that itself.
    pub depth: u32,
    /// The container, the link or what else it is about.
    pub subject: String,
    /// What is the case, in a sentence without its subject.
    pub text: String,
    /// When it came to that, in microseconds since the boot; 0 if that is not known or is now.
    pub at_us: u64,
}
