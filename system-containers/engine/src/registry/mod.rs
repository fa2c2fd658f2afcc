//! The client of registries: OCI distribution 1.1 and Docker's registry API, version 2, which are one.
//!
//! - [`client`]: manifests and blobs of a repository; [`endpoint`]: where that is
//! - [`upload`]: what goes there
//! - [`exchange`]: a request with its redirections; [`body`]: what it carries; [`connection`], [`tls`]: what it goes over
//! - [`patience`], [`retry`]: how long it is waited for, and when it is asked again
//! - [`challenge`], [`token`], [`credentials`], [`logins`]: who asks
//! - [`settings`]: what the configuration says
//!
//! What comes from a registry is believed only after its digest is verified; what it leads to never gets the
//! credentials that were meant for it.

pub mod body;
pub mod challenge;
pub mod client;
pub mod connection;
pub mod credentials;
mod dial;
pub mod endpoint;
pub mod error;
pub mod exchange;
mod link;
pub mod logins;
pub mod patience;
pub mod retry;
pub mod settings;
pub mod tls;
pub mod token;
pub mod upload;
pub mod url;

pub use client::{Blob, Client, Shared};
pub use error::RegistryError;
pub use patience::{Pace, Patience};
pub use settings::Settings;
