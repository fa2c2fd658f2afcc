//! What goes to a registry (OCI distribution specification 1.1, "Push").

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use hyper::body::Bytes;
use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RANGE};
use hyper::{HeaderMap, Method, StatusCode};

use super::client::Client;
use super::error::RegistryError;
use super::exchange::{Answer, Question};
use super::url::{self, Url};
use crate::digest::Digest;

/// What is sent at once, in bytes; a smaller blob goes in one piece.
const CHUNK_BYTES: u64 = 8 << 20;
/// The most that is sent at once because a registry takes nothing smaller, in bytes.
const LARGEST_CHUNK_BYTES: u64 = 32 << 20;
/// What a registry takes at least.
const CHUNK_MINIMUM: HeaderName = HeaderName::from_static("oci-chunk-min-length");

impl Client {
    /// Whether a blob is there.
    pub async fn has_blob(&self, digest: Digest) -> Result<bool, RegistryError> {
        let asked =
            self.again(|| self.send(Method::HEAD, self.at(&format!("blobs/{digest}")), HeaderMap::new(), Bytes::new()));
        match asked.await {
            Ok(_) => Ok(true),
            Err(error) if error.is_absence() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has a blob of another repository of the same registry taken over. False if it has to be uploaded.
    pub async fn mount(&self, digest: Digest, from: &str) -> Result<bool, RegistryError> {
        let url = self.at(&format!("blobs/uploads/?mount={digest}&from={}", url::encode(from)));
        let asked = self.again(|| self.send(Method::POST, url.clone(), HeaderMap::new(), Bytes::new()));
        match asked.await {
            Ok(answer) => Ok(answer.status == StatusCode::CREATED),
            // Who may not read there must upload, whether the registry says so or the server that gives tokens.
            Err(RegistryError::Unauthorised { .. }) => Ok(false),
            Err(RegistryError::Status { status, .. }) if is_refusal(status) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Uploads a blob from a file; `sent` hears how many bytes are there. What fails for a passing reason goes on where the
    /// registry has come to, or from the beginning if it knows nothing of it any more.
    pub async fn upload(
        &self,
        blob: &File,
        digest: Digest,
        size: u64,
        sent: impl Fn(u64),
    ) -> Result<(), RegistryError> {
        let (mut place, chunk) = self.begin().await?;
        let (mut offset, mut furthest, mut failures) = (0, 0, 0);
        loop {
            let end = if size > CHUNK_BYTES { size.min(offset + chunk) } else { size };
            let is_last = size <= CHUNK_BYTES || offset == size;
            let bytes = read(blob, offset, end)?;
            let answer = match is_last {
                true => self.send(Method::PUT, finished(&place, digest), binary(), bytes).await,
                false => self.patch(&place, bytes, offset).await,
            };
            match answer {
                Ok(_) if is_last => break,
                Ok(answer) => (place, offset) = (self.next(&answer)?, end),
                Err(error) if error.is_passing() => {
                    let pause = self.patience().before(failures, error.retry_after());
                    let Some(pause) = pause else { return Err(error) };
                    tokio::time::sleep(pause).await;
                    failures += 1;
                    match self.again(|| self.send(Method::GET, place.clone(), HeaderMap::new(), Bytes::new())).await {
                        Ok(answer) => {
                            offset = received(&answer).filter(|there| *there <= size).ok_or(error)?;
                            place = self.next(&answer).unwrap_or(place);
                        }
                        // It was whole, and only the answer was lost.
                        Err(gone) if gone.is_absence() && self.has_blob(digest).await? => break,
                        Err(gone) if gone.is_absence() => (place, offset) = (self.begin().await?.0, 0),
                        Err(_) => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
            if offset > furthest {
                (furthest, failures) = (offset, 0);
            }
            sent(offset);
        }
        sent(size);
        Ok(())
    }

    /// Where an upload goes to, and how much of it at once.
    async fn begin(&self) -> Result<(Url, u64), RegistryError> {
        let start = || self.send(Method::POST, self.at("blobs/uploads/"), HeaderMap::new(), Bytes::new());
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
        let manifest = Bytes::copy_from_slice(manifest);
        let put =
            || self.send(Method::PUT, self.at(&format!("manifests/{reference}")), headers.clone(), manifest.clone());
        self.again(put).await.map(drop)
    }

    async fn patch(&self, place: &Url, bytes: Bytes, offset: u64) -> Result<Answer, RegistryError> {
        let mut headers = binary();
        let last = offset + bytes.len() as u64 - 1;
        if let Ok(range) = HeaderValue::from_str(&format!("{offset}-{last}")) {
            headers.insert(CONTENT_RANGE, range);
        }
        self.send(Method::PATCH, place.clone(), headers, bytes).await
    }

    async fn send(&self, method: Method, url: Url, headers: HeaderMap, body: Bytes) -> Result<Answer, RegistryError> {
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

fn binary() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers
}

fn read(blob: &File, start: u64, end: u64) -> Result<Bytes, RegistryError> {
    let mut bytes = vec![0; usize::try_from(end - start).unwrap_or_default()];
    blob.read_exact_at(&mut bytes, start).map_err(|error: io::Error| RegistryError::Spool(error))?;
    Ok(Bytes::from(bytes))
}
