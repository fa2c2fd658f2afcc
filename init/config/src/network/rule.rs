//! `[[network.rules]]`: which routing table a packet is looked up in.

use serde::{Deserialize, Serialize};

use super::{LinkName, Prefix};
use crate::container::is_default;

/// One rule. Every key that is there must fit the packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Rules are tried from the lowest number on; the kernel's own are 0, 32766 and 32767. 20000
    /// and its place in the list if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Where the packet comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Prefix>,
    /// Where it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Prefix>,
    /// The link that it came in on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incoming: Option<LinkName>,
    /// The link that its socket is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outgoing: Option<LinkName>,
    /// The number it was marked with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
    /// The table that it is looked up in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// What happens instead of a look-up.
    #[serde(skip_serializing_if = "is_default")]
    pub action: RuleAction,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RuleAction {
    /// Look it up in `table`.
    #[default]
    Lookup,
    /// Drop it in silence.
    Blackhole,
    /// Say that there is no way.
    Unreachable,
    /// Say that it is not allowed.
    Prohibit,
}
