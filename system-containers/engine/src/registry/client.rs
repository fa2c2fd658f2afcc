//! One repository of one registry: manifests and blobs (OCI distribution specification 1.1, "Pull").

use std::sync::Arc;

use hyper::header::{ACCEPT, CONTENT_RANGE, HeaderName, HeaderValue, RANGE};
use hyper::{HeaderMap, Method, StatusCode};

use super::body::Content;
use super::challenge;
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::exchange::{Answer, Exchange, Pool, Question};
use super::link;
use super::patience::Patience;
use super::settings::Settings;
use super::token::{self, Tokens};
use super::url::{self, Url};
use crate::digest::Digest;
use crate::document::{self, DocumentError};
use crate::limits;
use crate::oci::{Descriptor, Manifest};

/// What is taken for a manifest. A registry that has only Docker's first format sends that all the same.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// How many pages of a list of referrers are read: some registries have ten on one.
const REFERRERS_PAGES: usize = 10;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What all pulls share.
#[derive(Clone)]
pub struct Shared {
    /// Connections.
    pub pool: Arc<Pool>,
    /// Tokens.
    pub tokens: Arc<Tokens>,
    /// How long is waited.
    pub patience: Patience,
}

/// A repository.
#[derive(Clone)]
pub struct Client {
    exchange: Exchange,
    tokens: Arc<Tokens>,
    repository: String,
    /// Whether it is written to.
    writes: bool,
}

/// A blob on its way.
pub struct Blob {
    /// Its bytes.
    pub answer: Answer,
    /// How many bytes come that were there already: the registry knows no ranges.
    pub skip: u64,
}

impl Client {
    /// For one endpoint.
    pub fn new(shared: &Shared, settings: Arc<Settings>, endpoint: Endpoint) -> Self {
        let Endpoint { registry, base, repository } = endpoint;
        let Shared { pool, tokens, patience } = shared.clone();
        Self { exchange: Exchange { settings, pool, patience, registry, base }, tokens, repository, writes: false }
    }

    /// The same, with less patience: somebody else can be asked.
    pub fn or_else(&self) -> Self {
        let mut hasty = self.clone();
        hasty.exchange.patience = self.exchange.patience.or_else();
        hasty
    }

    /// The same, to write: it asks for what it needs for that from the beginning, for a repository that does not exist yet can
    /// only be read by who may make it. Tokens that only read are not taken.
    #[must_use]
    pub fn writing(&self) -> Self {
        Self { tokens: Arc::default(), writes: true, ..self.clone() }
    }

    /// How long is waited.
    pub fn patience(&self) -> &Patience {
        &self.exchange.patience
    }

    /// Host and port, for people.
    pub fn place(&self) -> String {
        self.exchange.base.authority()
    }

    /// A manifest or index by tag or digest, with its digest.
    pub async fn manifest(&self, reference: &str, wanted: Option<Digest>) -> Result<(Vec<u8>, Digest), RegistryError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(MANIFESTS));
        let what = format!("the manifest {}:{reference}", self.repository);
        let path = format!("manifests/{reference}");
        let (bytes, announced) = self
            .again(|| async {
                let answer = self.ask(&path, &headers).await?;
                let announced = answer.headers.get(CONTENT_DIGEST).and_then(|value| value.to_str().ok()?.parse().ok());
                Ok((answer.read(limits::JSON_BYTES, &what).await?, announced))
            })
            .await?;
        let found = Digest::of(&bytes);
        match wanted.or(announced) {
            Some(expected) if expected != found => {
                // The digest of Docker's first format leaves out the signatures that come with it.
                if let Err(error @ DocumentError::SchemaOne) = document::manifest(&what, &bytes) {
                    return Err(error.into());
                }
                Err(RegistryError::Digest { to: self.place(), what, expected, found })
            }
            _ => Ok((bytes, found)),
        }
    }

    /// What refers to a manifest: of this kind if the registry can tell kinds apart, else of any. A registry that has much of
    /// it tells it page by page. One that knows nothing of it may have a list under a tag ("Referrers Tag Schema").
    pub async fn referrers(&self, digest: Digest, kind: &str) -> Result<Vec<Descriptor>, RegistryError> {
        let what = format!("what refers to {digest}");
        let mut page = Some(self.at(&format!("referrers/{digest}?artifactType={}", url::encode(kind))));
        let (mut found, mut left) = (None, limits::JSON_BYTES);
        for _ in 0..REFERRERS_PAGES {
            let Some(url) = page.take() else { break };
            let asked = self.again(|| async {
                let answer = self.ask_at(url.clone(), &HeaderMap::new()).await?;
                let next = link::next(&answer.headers).and_then(|next| answer.from.join(next).ok());
                Ok((answer.read(left, &what).await?, next))
            });
            match asked.await {
                // What is no list is a page for people, for one.
                Ok((bytes, next)) => match listed(&bytes) {
                    Some(referrers) => {
                        left -= bytes.len() as u64;
                        found.get_or_insert_with(Vec::new).extend(referrers);
                        // Nobody else tells it.
                        page = next.filter(|next| next.same_server(&url));
                    }
                    None => break,
                },
                Err(error) if error.is_of_no_such_question() => break,
                Err(error) => return Err(error),
            }
        }
        if let Some(referrers) = found {
            return Ok(referrers);
        }
        match self.manifest(&format!("sha256-{}", digest.hex()), None).await {
            // What is no index lists nothing.
            Ok((bytes, _)) => Ok(listed(&bytes).unwrap_or_default()),
            Err(error) if error.is_absence() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// A blob that is a document.
    pub async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let (to, what) = (self.place(), format!("the blob {}", descriptor.digest));
        if descriptor.size > limits::JSON_BYTES {
            return Err(RegistryError::TooLarge { to, what, limit: limits::JSON_BYTES });
        }
        let path = format!("blobs/{}", descriptor.digest);
        let bytes = self
            .again(|| async { self.ask(&path, &HeaderMap::new()).await?.read(limits::JSON_BYTES, &what).await })
            .await?;
        let (expected, found) = (descriptor.size, bytes.len() as u64);
        if expected != found {
            return Err(RegistryError::Length { to, what, expected, found });
        }
        let (expected, found) = (descriptor.digest, Digest::of(&bytes));
        if expected == found { Ok(bytes) } else { Err(RegistryError::Digest { to, what, expected, found }) }
    }

    /// A blob from an offset on. Not repeated here: who reads it knows how far it came.
    pub async fn blob(&self, digest: Digest, offset: u64) -> Result<Blob, RegistryError> {
        let mut headers = HeaderMap::new();
        if offset > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
        {
            headers.insert(RANGE, range);
        }
        let answer = self.ask(&format!("blobs/{digest}"), &headers).await?;
        if answer.status != StatusCode::PARTIAL_CONTENT {
            return Ok(Blob { answer, skip: offset });
        }
        let range = answer.headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let start: Option<u64> =
            range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok());
        match start {
            Some(start) if start <= offset => Ok(Blob { answer, skip: offset - start }),
            _ => Err(RegistryError::Malformed { to: self.place(), what: format!("the range {range:?} for {offset}-") }),
        }
    }

    /// Does it again as long as it fails for a passing reason.
    pub(super) async fn again<T, F: Future<Output = Result<T, RegistryError>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, RegistryError> {
        let patience = self.patience();
        let mut repetition = 0;
        loop {
            let error = match attempt().await {
                Err(error) if error.is_passing() => error,
                done => return done,
            };
            let Some(pause) = patience.before(repetition, error.retry_after()) else { return Err(error) };
            tokio::time::sleep(pause).await;
            repetition += 1;
        }
    }

    /// Where something of the repository is.
    pub(super) fn at(&self, path: &str) -> Url {
        self.exchange.base.with_path(format!("/v2/{}/{path}", self.repository))
    }

    /// Whether the registry takes the credentials that there are; one that wants none takes all.
    pub async fn log_in(&self) -> Result<(), RegistryError> {
        let question = Question {
            url: self.exchange.base.with_path("/v2/".to_owned()),
            headers: HeaderMap::new(),
            authorization: None,
            method: Method::GET,
            body: Content::default(),
        };
        self.ask_question(question).await.map(drop)
    }

    /// One request with what the registry wants to see; a success or an error.
    async fn ask(&self, path: &str, headers: &HeaderMap) -> Result<Answer, RegistryError> {
        self.ask_at(self.at(path), headers).await
    }

    async fn ask_at(&self, url: Url, headers: &HeaderMap) -> Result<Answer, RegistryError> {
        let question = Question {
            url,
            headers: headers.clone(),
            authorization: None,
            method: Method::GET,
            body: Content::default(),
        };
        self.ask_question(question).await
    }

    /// The same for any question. Another server than the registry gets no credentials.
    pub(super) async fn ask_question(&self, mut question: Question) -> Result<Answer, RegistryError> {
        let Exchange { base, registry, .. } = &self.exchange;
        let is_itself = question.url.same_server(base);
        question.authorization = self.tokens.of(registry, &self.repository).filter(|_| is_itself);
        let mut answer = self.exchange.ask(&question).await?;
        let refused =
            |answer: &Answer| answer.status == StatusCode::UNAUTHORIZED && answer.from.same_server(&question.url);
        if is_itself
            && refused(&answer)
            && let Some(challenge) = challenge::read(&answer.headers)
        {
            // To the end, so that the connection can be used again.
            drop(answer.into_error().await);
            let challenge = if self.writes { challenge.to_write(&self.repository) } else { challenge };
            let given = token::answer(&self.exchange, &challenge, &self.repository).await?;
            let with_token = Question { authorization: Some(given.header.clone()), ..question.clone() };
            answer = self.exchange.ask(&with_token).await?;
            if !refused(&answer) {
                self.tokens.keep(registry, &self.repository, &given);
            }
        }
        if answer.status.is_success() {
            return Ok(answer);
        }
        if refused(&answer) {
            return Err(self.unauthorised(answer).await);
        }
        Err(answer.into_error().await)
    }

    async fn unauthorised(&self, answer: Answer) -> RegistryError {
        let credentials = self.exchange.settings.credentials(&self.exchange.registry, &self.repository);
        let advice = token::advice(&self.exchange.registry, &self.repository, credentials.as_ref());
        let who = credentials.map_or_else(|| "anonymous requests".to_owned(), |credentials| credentials.who());
        let reason = match answer.into_error().await {
            RegistryError::Status { detail, .. } if !detail.is_empty() => detail,
            _ => "401 Unauthorized".to_owned(),
        };
        RegistryError::Unauthorised { to: self.place(), who, detail: reason, advice }
    }
}

/// What an index lists; none if it is no index.
fn listed(bytes: &[u8]) -> Option<Vec<Descriptor>> {
    Some(serde_json::from_slice::<Manifest>(bytes).ok()?.manifests?.known)
}
