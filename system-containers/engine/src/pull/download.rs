//! One blob from a registry into a spool: verified on the way, resumed where it broke off.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::progress::LayerProgress;
use super::spool::{Reader, Spool};
use crate::digest::{Digest, Hasher};
use crate::oci::Descriptor;
use crate::registry::{Client, Pace, RegistryError};

/// How much must have come for earlier failures to be forgotten, in bytes.
const STEP: u64 = 1 << 20;

/// A download that is under way; it ends with this value.
#[derive(Debug)]
pub struct Download {
    spool: Arc<Spool>,
    error: Arc<Mutex<Option<RegistryError>>>,
    task: AbortHandle,
}

impl Download {
    /// Begins as soon as there is a place for it.
    pub fn start(
        runtime: &Handle,
        places: &Arc<Semaphore>,
        client: Client,
        blob: Descriptor,
        spool: Arc<Spool>,
        progress: Arc<LayerProgress>,
    ) -> Self {
        let error = Arc::new(Mutex::new(None));
        let (places, target, report) = (Arc::clone(places), Arc::clone(&spool), Arc::clone(&error));
        let task = runtime.spawn(async move {
            // Nobody closes it.
            let _place = places.acquire().await;
            let done =
                Fetch { client, digest: blob.digest, size: blob.size, spool: &target, progress: &progress }.run().await;
            let verified = done.is_ok();
            *report.lock().unwrap_or_else(PoisonError::into_inner) = done.err();
            target.finish(verified);
        });
        Self { spool, error, task: task.abort_handle() }
    }

    /// The blob, as it comes.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.spool))
    }

    /// Ends it: whoever waits for more of it gets an error.
    pub fn cancel(&self) {
        self.task.abort();
        self.spool.finish(false);
    }

    /// Why it failed, if it has failed.
    pub fn error(&self) -> Option<RegistryError> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Fetch<'a> {
    client: Client,
    digest: Digest,
    size: u64,
    spool: &'a Spool,
    progress: &'a LayerProgress,
}

impl Fetch<'_> {
    async fn run(&self) -> Result<(), RegistryError> {
        let mut hasher = Hasher::default();
        let mut have = 0;
        let mut failures = 0;
        while have < self.size {
            let before = have;
            let Err(error) = self.attempt(&mut have, &mut hasher).await else { continue };
            // A body that ends too early is a connection that broke, told otherwise.
            let cut_off = matches!(error, RegistryError::Length { found, .. } if found < self.size);
            if have - before >= STEP {
                failures = 0;
            }
            let pause = self.client.patience().before(failures, error.retry_after());
            let Some(pause) = pause.filter(|_| error.is_passing() || cut_off) else { return Err(error) };
            tokio::time::sleep(pause).await;
            failures += 1;
        }
        let (expected, found) = (self.digest, hasher.finish());
        if expected == found {
            return Ok(());
        }
        Err(RegistryError::Digest { to: self.client.place(), what: self.what(), expected, found })
    }

    /// One request's worth.
    async fn attempt(&self, have: &mut u64, hasher: &mut Hasher) -> Result<(), RegistryError> {
        let mut blob = self.client.blob(self.digest, *have).await?;
        let patience = self.client.patience();
        let mut pace = Pace::new(patience, 0);
        // With what is skipped: that comes, too.
        let mut received = 0;
        loop {
            if *have < self.size {
                self.spool.ready().await;
            }
            let Some(bytes) = blob.answer.chunk().await? else { break };
            received += bytes.len() as u64;
            let skipped = bytes.len().min(usize::try_from(blob.skip).unwrap_or(usize::MAX));
            blob.skip -= skipped as u64;
            let bytes = &bytes[skipped..];
            if *have + bytes.len() as u64 > self.size {
                return Err(self.length(*have + bytes.len() as u64));
            }
            self.spool.append(bytes).await.map_err(RegistryError::Spool)?;
            hasher.update(bytes);
            *have += bytes.len() as u64;
            self.progress.received(*have);
            if *have < self.size
                && let Some(within) = pace.is_too_slow(received)
            {
                return Err(RegistryError::Slow { to: self.client.place(), what: Pace::COMPLAINT, within });
            }
        }
        if *have < self.size { Err(self.length(*have)) } else { Ok(()) }
    }

    fn length(&self, found: u64) -> RegistryError {
        RegistryError::Length { to: self.client.place(), what: self.what(), expected: self.size, found }
    }

    fn what(&self) -> String {
        format!("the blob {}", self.digest)
    }
}
