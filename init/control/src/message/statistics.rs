//! What a container uses.

use serde::{Deserialize, Serialize};

/// Of one container, as the kernel counts it for the container's cgroup (cgroup-v2.rst) and links. What the kernel does not say is
/// absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// The container.
    pub name: String,
    /// Processor time since it began, in microseconds; may pass the time of day with several processors.
    pub cpu_us: u64,
    /// Memory in use, in bytes: with its files in the page cache and the kernel's memory for it.
    pub memory_bytes: u64,
    /// Of these, what the kernel can drop at once, in bytes: files that were not used lately.
    pub memory_reclaimable_bytes: u64,
    /// The limit in bytes; absent if there is none.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub tasks: u64,
    /// Bytes read from disks.
    pub read_bytes: u64,
    /// Bytes written to disks.
    pub written_bytes: u64,
    /// Bytes received over its own networks.
    #[serde(default)]
    pub received_bytes: u64,
    /// Bytes sent over them.
    #[serde(default)]
    pub sent_bytes: u64,
}
