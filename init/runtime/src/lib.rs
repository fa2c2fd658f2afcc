//! The integrated OCI runtime: containers as OCI runtime-spec 1.2 describes them, on Linux with cgroup v2.
//!
//! Used in two ways by the same code: as a library inside PID 1, which is one thread and never waits, and as the
//! command line `berth-oci`. It knows nothing of Berth's configuration, network or API.
//!
//! ```no_run
//! use std::os::fd::AsFd;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let spec: berth_runtime::spec::Spec = serde_json::from_slice(&std::fs::read("/bundle/config.json")?)?;
//! let request = berth_runtime::Request {
//!     id: "web",
//!     spec: &spec,
//!     rootfs: berth_runtime::Rootfs::Path("/bundle/rootfs".into()),
//!     bundle: "/bundle".into(),
//!     cgroup: Some("/sys/fs/cgroup/user/web".into()),
//!     stdio: berth_runtime::Stdio::default(),
//!     inherited: Vec::new(),
//!     console: None,
//!     keep_keyring: false,
//!     init: false,
//! };
//! let creating = berth_runtime::create(&request)?;
//! // An event loop would poll `creating.as_fd()` and call `creating.advance()`.
//! let running = creating.wait()?.start()?;
//! // `running.pidfd` is readable when it has ended; then:
//! berth_runtime::cgroup::remove(std::path::Path::new("/sys/fs/cgroup/user/web"))?;
//! # Ok(()) }
//! ```
//!
//! # Where to start reading
//! [`create`] is the face, `launcher` what happens on the host's side of a container's birth, `process` what happens
//! inside. `mounts`, `rootfs`, `devices`, [`cgroup`], [`seccomp`] and `capabilities` are what these two use.
//!
//! # Invariants
//! - Nothing that the caller calls waits, but what says so (`wait`, `wait_executed`, `remove_blocking`).
//! - Paths inside a container's root are only resolved by openat2(2) below its descriptor.
//! - The container's program has the descriptors of the request and no others.
//! - A container that could not be made leaves nothing behind.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod binary;
mod capabilities;
pub mod cgroup;
mod channel;
mod create;
mod descriptors;
pub mod detached;
mod devices;
mod error;
mod exec;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gate;
pub mod handover;
mod holdings;
pub mod hooks;
mod identity;
mod idmap;
mod init;
mod labels;
mod launcher;
mod limits;
mod mounts;
mod namespaces;
mod netdevices;
mod netlink;
mod process;
mod program;
pub mod resctrl;
mod rootfs;
pub mod seccomp;
pub mod spec;
mod sys;
mod sysctl;
mod terminal;
mod validate;

pub use capabilities::{CapabilityError, names as capability_names, not_granted as capabilities_not_granted};
pub use create::{Created, Creating, Executed, Progress, Request, Rootfs, Running, Stdio, create, send_signal};
pub use devices::DeviceError;
pub use error::{Chain, Error, SystemError};
pub use exec::{ExecRequest, exec};
pub use idmap::{IdMapError, to_host};
pub use limits::{keep_within_reach, known_memory_policies};
pub use mounts::layers::{Layer, remove_but as remove_layers_but};
pub use mounts::{MountError, known_options as known_mount_options};
pub use namespaces::NamespaceError;
pub use netdevices::NetDeviceError;
pub use rootfs::RootError;
pub use validate::spec as check;
