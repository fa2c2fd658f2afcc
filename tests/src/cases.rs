//! The cases, in the order in which they are started: the short ones that fail for everybody's mistakes first.

use crate::runner::Case;

mod boot;

/// All of them.
#[must_use]
pub fn all() -> Vec<Case> {
    [boot::CASES].concat()
}
