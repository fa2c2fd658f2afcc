//! What keeps a container apart from the machine. Everything here is tight by default; each loosening is written.

use serde::{Deserialize, Serialize};

use super::is_default;

/// `[containers.<name>.security]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// Whether root in the container is root on the machine.
    #[serde(skip_serializing_if = "is_default")]
    pub user_namespace: UserNamespace,
    /// Which system calls are let through.
    #[serde(skip_serializing_if = "is_default")]
    pub seccomp: Seccomp,
    /// Whether programs with set-user-ID bits gain nothing; true by default.
    #[serde(skip_serializing_if = "is_true")]
    pub no_new_privileges: bool,
}

impl Default for Security {
    fn default() -> Self {
        Self { user_namespace: UserNamespace::Auto, seccomp: Seccomp::Default, no_new_privileges: true }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

/// Which user namespace the container runs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UserNamespace {
    /// One of its own, with a range of user IDs that no other container has.
    #[default]
    Auto,
    /// The machine's: root in the container is root.
    Host,
}

/// Which system calls the kernel lets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// Those that containers are known to need, depending on their capabilities.
    #[default]
    Default,
    /// All.
    Unconfined,
}
