//! What the name of a container with replicas stands for.

use serde::{Deserialize, Serialize};

/// As Compose's `deploy.endpoint_mode`, with the other default: who sees an address sees the container itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EndpointMode {
    /// The addresses of all that are healthy, in an order that changes.
    #[default]
    Dnsrr,
    /// One address, from which the kernel shares connections out among all that are healthy.
    Vip,
}
