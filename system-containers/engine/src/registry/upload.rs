//! What goes to a registry (OCI distribution specification 1.1, "Push").
//!
//! A blob goes in one `PUT`, which every registry takes. In chunks it goes only from where an upload broke off, or if it is too
//! large for the registry otherwise: some take no chunks, others none above a size of their own. After a failure the registry
//! says how far it has come; if it does not know, the upload begins anew.
//!
//! ```text
//!              POST               broke off, 416
//!   (anew) ------------> PUT all ----------------> GET: so far ---> PATCH, PATCH ... PUT the last
//!      ^                  | 413                     ^   | knows nothing                  |
//!      |                  v                         |   v                                | broke off, 416
//!      +------ from now on in chunks       HEAD: is it there? -> done   <----------------+
//! ```

use std::fs::File;
use std::sync::Arc;

use hyper::body::Bytes;
use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RANGE};
use hyper::{HeaderMap, Method, StatusCode};

use super::body::{Content, Part};
use super::client::Client;
use super::error::RegistryError;
use super::exchange::{Answer, Question};
use super::url::{self, Url};
use crate::digest::Digest;

/// A chunk, in bytes: the most that GHCR takes.
const CHUNK_BYTES: u64 = 4 << 20;
/// The most that is sent at once because a registry takes nothing smaller, in bytes.
const LARGEST_CHUNK_BYTES: u64 = 32 << 20;
/// What a registry takes at least.
const CHUNK_MINIMUM: HeaderName = HeaderName::from_static("oci-chunk-min-length");

impl Client {
    /// Whether a blob is there; not if the registry cannot be asked that.
    pub async fn has_blob(&self, digest: Digest) -> Result<bool, RegistryError> {
        let asked = self.again(|| {
            self.send(Method::HEAD, self.at(&format!("blobs/{digest}")), HeaderMap::new(), Content::default())
        });
        match asked.await {
            Ok(_) => Ok(true),
            Err(error) if has_status(&error, is_unknown) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has a blob of another repository of the same registry taken over. False if it has to be uploaded.
    pub async fn mount(&self, digest: Digest, from: &str) -> Result<bool, RegistryError> {
        let url = self.at(&format!("blobs/uploads/?mount={digest}&from={}", url::encode(from)));
        let asked = self.again(|| self.send(Method::POST, url.clone(), HeaderMap::new(), Content::default()));
        match asked.await {
            Ok(answer) => Ok(answer.status == StatusCode::CREATED),
            // Who may not read there must upload, whether the registry says so or the server that gives tokens.
            Err(RegistryError::Unauthorised { .. }) => Ok(false),
            Err(RegistryError::Status { status, .. }) if is_refusal(status) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Uploads a blob from a file; `sent` hears how many bytes have gone out. What fails for a passing reason goes on where the
    /// registry has come to, or from the beginning if it knows nothing of it any more.
    pub async fn upload(
        &self,
        blob: &Arc<File>,
        digest: Digest,
        size: u64,
        sent: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<(), RegistryError> {
        let (place, chunk) = self.begin().await?;
        let (blob, sent) = (Arc::clone(blob), Arc::new(sent));
        let blob = Part { file: blob, start: 0, end: size, sent };
        let mut upload =
            Upload { client: self, blob, digest, place, offset: 0, chunk, in_chunks: false, furthest: 0, failures: 0 };
        while !upload.step().await? {
            upload.tell();
        }
        Ok(())
    }

    /// Where an upload goes to, and how much of it at once.
    async fn begin(&self) -> Result<(Url, u64), RegistryError> {
        let start = || self.send(Method::POST, self.at("blobs/uploads/"), HeaderMap::new(), Content::default());
        let answer = self.again(start).await?;
        let least = answer.headers.get(CHUNK_MINIMUM).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok((self.next(&answer)?, CHUNK_BYTES.max(least.unwrap_or(0)).min(LARGEST_CHUNK_BYTES)))
    }

    /// Puts a manifest under a tag or its digest.
    pub async fn put_manifest(&self, reference: &str, kind: &str, manifest: &[u8]) -> Result<(), RegistryError> {
        let mut headers = HeaderMap::new();
        if let Ok(kind) = HeaderValue::from_str(kind) {
            headers.insert(CONTENT_TYPE, kind);
        }
        let manifest = Content::Bytes(Bytes::copy_from_slice(manifest));
        let put =
            || self.send(Method::PUT, self.at(&format!("manifests/{reference}")), headers.clone(), manifest.clone());
        self.again(put).await.map(drop)
    }

    async fn send(&self, method: Method, url: Url, headers: HeaderMap, body: Content) -> Result<Answer, RegistryError> {
        let mut answer = self.ask_question(Question { url, headers, authorization: None, method, body }).await?;
        // What is said beside the header does not matter, and the connection can be used again.
        while answer.chunk().await?.is_some() {}
        Ok(answer)
    }

    /// Where an upload goes on.
    fn next(&self, answer: &Answer) -> Result<Url, RegistryError> {
        let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let nonsense = || RegistryError::Malformed { to: self.place(), what: "no place for an upload".to_owned() };
        let next = answer.from.join(location.ok_or_else(nonsense)?);
        let next = next.map_err(|source| RegistryError::Url { to: self.place(), source })?;
        if answer.from.https && !next.https {
            return Err(RegistryError::Downgrade { to: self.place(), target: next.to_string() });
        }
        Ok(next)
    }
}

/// A blob on its way.
struct Upload<'a> {
    client: &'a Client,
    blob: Part,
    digest: Digest,
    /// Where the next part goes.
    place: Url,
    /// How much the registry has.
    offset: u64,
    /// What it gets at once if it does not get all, in bytes.
    chunk: u64,
    /// Whether all at once is too much for it.
    in_chunks: bool,
    /// The most that it ever had, and how often it failed since.
    furthest: u64,
    failures: u32,
}

impl Upload<'_> {
    /// Sends once, all that is left or a chunk. True when the blob is there.
    async fn step(&mut self) -> Result<bool, RegistryError> {
        let is_whole = self.offset == 0 && !self.in_chunks;
        let size = self.blob.end;
        let end = if is_whole { size } else { size.min(self.offset.saturating_add(self.chunk)) };
        match self.send(end, is_whole).await {
            Ok(_) if end == size => Ok(true),
            Ok(answer) => {
                self.place = self.client.next(&answer)?;
                self.has_come_to(end);
                Ok(false)
            }
            Err(RegistryError::Status { status, .. }) if is_whole && size > self.chunk && is_too_much(status) => {
                self.in_chunks = true;
                self.begin_anew().await
            }
            Err(error) => self.recover(error).await,
        }
    }

    async fn send(&self, end: u64, is_whole: bool) -> Result<Answer, RegistryError> {
        let (start, part) = (self.offset, Part { start: self.offset, end, ..self.blob.clone() });
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        // Of nothing there is no range.
        if let Some(last) = end.checked_sub(1).filter(|last| !is_whole && *last >= start)
            && let Ok(range) = HeaderValue::from_str(&format!("{start}-{last}"))
        {
            headers.insert(CONTENT_RANGE, range);
        }
        let (method, url) = match end == self.blob.end {
            true => (Method::PUT, finished(&self.place, self.digest)),
            false => (Method::PATCH, self.place.clone()),
        };
        self.client.send(method, url, headers, Content::Part(part)).await
    }

    /// Goes on after an error if that may help. True if the blob is there all the same.
    async fn recover(&mut self, error: RegistryError) -> Result<bool, RegistryError> {
        // What it takes from here on is not what is sent: perhaps only an answer was lost.
        let is_out_of_step =
            error.is_passing() || has_status(&error, |status| status == StatusCode::RANGE_NOT_SATISFIABLE);
        // It knows nothing of this upload, or nothing of chunks.
        let is_unknown = has_status(&error, is_unknown) && (error.is_absence() || !self.in_chunks);
        let pause = self.client.patience().before(self.failures, error.retry_after());
        let Some(pause) = pause.filter(|_| is_out_of_step || is_unknown) else { return Err(error) };
        tokio::time::sleep(pause).await;
        self.failures += 1;
        if is_out_of_step {
            match self.client.again(|| self.ask()).await {
                Ok(answer) => {
                    if let Some(there) = received(&answer).filter(|there| *there <= self.blob.end) {
                        self.place = self.client.next(&answer).unwrap_or(self.place.clone());
                        self.has_come_to(there);
                        return Ok(false);
                    }
                }
                Err(gone) if has_status(&gone, is_refusal) => {}
                Err(_) => return Err(error),
            }
        }
        // It may be whole, and only the answer was lost.
        if self.client.has_blob(self.digest).await? { Ok(true) } else { self.begin_anew().await }
    }

    /// How far the registry has come.
    async fn ask(&self) -> Result<Answer, RegistryError> {
        self.client.send(Method::GET, self.place.clone(), HeaderMap::new(), Content::default()).await
    }

    async fn begin_anew(&mut self) -> Result<bool, RegistryError> {
        (self.place, self.chunk) = self.client.begin().await?;
        self.offset = 0;
        Ok(false)
    }

    fn has_come_to(&mut self, offset: u64) {
        self.offset = offset;
        if offset > self.furthest {
            (self.furthest, self.failures) = (offset, 0);
        }
    }

    fn tell(&self) {
        (self.blob.sent)(self.offset);
    }
}

fn has_status(error: &RegistryError, which: impl Fn(StatusCode) -> bool) -> bool {
    matches!(error, RegistryError::Status { status, .. } if which(*status))
}

/// Whether less at once might be taken.
fn is_too_much(status: StatusCode) -> bool {
    matches!(status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::RANGE_NOT_SATISFIABLE)
}

/// Whether a registry has no such thing, or does no such thing.
fn is_unknown(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED)
}

/// Whether a registry does not do what it could be asked in another way.
fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED
}

/// Where the last part of an upload goes.
fn finished(place: &Url, digest: Digest) -> Url {
    let separator = if place.path.contains('?') { '&' } else { '?' };
    place.with_path(format!("{}{separator}digest={digest}", place.path))
}

/// How many bytes of an upload are there.
fn received(answer: &Answer) -> Option<u64> {
    let range = answer.headers.get(RANGE)?.to_str().ok()?;
    let last: u64 = range.trim_start_matches("bytes=").split_once('-')?.1.trim().parse().ok()?;
    // `0-0` is said of nothing and of one byte.
    Some(if last == 0 { 0 } else { last + 1 })
}
