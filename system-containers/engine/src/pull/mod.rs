//! Pulling: an image from its registry, or a mirror of it, into the store.
//!
//! ```text
//!   documents ──► downloads, several at once, each into a spool ──► unpackers, one or two layers at once ──► store
//!   (verified)    (digest of the blob on the way)                   (digest of the content on the way)
//! ```
//!
//! - [`puller`]: the thread with the network, and who waits for what
//! - [`image`]: one image from one place; [`order`]: its layers; [`download`], [`spool`]: one blob;
//!   [`demand`]: whether it is wanted yet
//! - [`progress`]: how far it has come

pub mod demand;
pub mod download;
pub mod image;
pub mod order;
pub mod progress;
pub mod puller;
pub mod spool;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_control::images::Pulled;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use self::progress::Progress;
use crate::document::DocumentError;
use crate::import::{describe, with_room};
use crate::intake::IntakeError;
use crate::reference::Reference;
use crate::registry::{Client, RegistryError, Settings, Shared, endpoint};
use crate::store::{PullRecord, Store, StoreError};
use crate::trust::{Policy, TrustError, signature};

/// How many layers are unpacked at once, see [`crate::limits`] for their memory.
const UNPACKERS: usize = 2;

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry did not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What it gave is of no use.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A layer is not taken.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// The policy does not take it.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nor did any mirror.
    #[error("{mirrors}")]
    Mirrors {
        /// What was wrong with each.
        mirrors: String,
        /// What is wrong with the registry itself.
        #[source]
        source: Box<PullError>,
    },
    /// The unpacker's thread is gone.
    #[error("the unpacker has ended")]
    Unpacker,
}

impl PullError {
    /// Whether it failed because the disk is full, or nearly.
    fn is_for_want_of_room(&self) -> bool {
        match self {
            Self::Store(error) => error.is_for_want_of_room(),
            Self::Registry(RegistryError::Spool(error)) => error.kind() == std::io::ErrorKind::StorageFull,
            Self::Intake(error) => error.is_for_want_of_room(),
            _ => false,
        }
    }

    /// When the registry wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Registry(error) => error.retry_after(),
            Self::Mirrors { source, .. } => source.retry_after(),
            _ => None,
        }
    }

    /// Whether another place may do better.
    fn is_of_the_place(&self) -> bool {
        match self {
            Self::Store(_) | Self::Registry(RegistryError::Spool(_)) | Self::Unpacker => false,
            Self::Intake(error) => error.is_of_the_image(),
            _ => true,
        }
    }
}

/// What all pulls need.
#[derive(Clone)]
pub struct Pulling {
    store: Arc<Store>,
    shared: Shared,
    unpackers: Arc<Semaphore>,
    runtime: Handle,
}

impl Pulling {
    /// On the runtime that is entered.
    pub fn new(store: Arc<Store>, shared: Shared) -> Self {
        Self { store, shared, unpackers: Arc::new(Semaphore::new(UNPACKERS)), runtime: Handle::current() }
    }

    /// Pulls from the first place that has it.
    pub async fn pull(
        &self,
        reference: &Reference,
        settings: Settings,
        progress: &Arc<Progress>,
    ) -> Result<Pulled, PullError> {
        let policy = settings.policy(reference)?;
        let settings = Arc::new(settings);
        let endpoints = endpoint::of(reference, &settings)?;
        let mut failures: Vec<String> = Vec::new();
        let mut endpoints = endpoints.into_iter().peekable();
        loop {
            let Some(endpoint) = endpoints.next() else { return Err(PullError::Unpacker) };
            let client = Client::new(&self.shared, Arc::clone(&settings), endpoint);
            // A mirror that is not there costs each pull as long as it is believed in.
            let asked = if endpoints.peek().is_some() { client.or_else() } else { client.clone() };
            progress.ask(&client.place());
            let pulled = match image::find(&asked, reference).await {
                Ok(found) => self.pull_from(&client, reference, found, &policy, progress).await,
                Err(error) => Err(error),
            };
            match pulled {
                Ok(pulled) => return Ok(pulled),
                Err(error) if error.is_of_the_place() && endpoints.peek().is_some() => {
                    eprintln!("engine: {reference} from {}: {}", client.place(), describe(&error));
                    failures.push(describe(&error));
                }
                Err(error) if failures.is_empty() => return Err(error),
                Err(error) => {
                    return Err(PullError::Mirrors { mirrors: failures.join("; "), source: Box::new(error) });
                }
            }
        }
    }

    async fn pull_from(
        &self,
        client: &Client,
        reference: &Reference,
        found: image::Found,
        policy: &Policy,
        progress: &Arc<Progress>,
    ) -> Result<Pulled, PullError> {
        let digest = found.digest;
        // Until it has its name.
        let _held = self.store.hold(digest);
        signature::verify(client, policy, found.named, digest).await?;
        let permit = Arc::clone(&self.unpackers).acquire_owned().await.map_err(|_| PullError::Unpacker)?;
        let (store, runtime, from) = (Arc::clone(&self.store), self.runtime.clone(), client.clone());
        let progress = Arc::clone(progress);
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        // On a single processor there is nothing to gain by more.
        let more = (processors > 1).then(|| Arc::clone(&self.unpackers));
        let bringing = tokio::task::spawn_blocking(move || {
            let brought = with_room(&store, PullError::is_for_want_of_room, || {
                image::bring(&store, &from, found.clone(), &runtime, &progress, more.as_deref())
            });
            drop(permit);
            brought
        });
        let layers = bringing.await.map_err(|_| PullError::Unpacker)??;
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        self.store.record_pull(reference, PullRecord { digest, from: client.place(), at, policy: policy.digest() });
        Ok(Pulled { image: reference.to_string(), digest: digest.to_string(), from: client.place(), layers })
    }
}
