//! How long anything may take.

use std::time::Duration;

/// For a whole boot and whatever waits for one. Software emulation on two shared processors needs up to a minute; the
/// rest is patience that only a broken machine uses up.
pub const BOOT: Duration = Duration::from_secs(240);

/// For one answer of a machine that is up.
pub const ANSWER: Duration = Duration::from_secs(240);
