//! Answers to a registry's challenge: passwords, and tokens as the distribution project's token specification has them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use serde::Deserialize;

use super::body::Content;
use super::challenge::Challenge;
use super::credentials::Credentials;
use super::error::RegistryError;
use super::exchange::{Exchange, Question, detail};
use super::url::{Url, encode};

/// The largest answer of a token server, in bytes.
const TOKEN_BYTES: u64 = 64 << 10;
/// How long a token lasts whose answer does not tell; the specification's number.
const LIFETIME: u64 = 60;
/// So long before its end a token is not used any more.
const MARGIN: u64 = 5;
/// The most tokens that are kept: one a repository and registry.
const KEPT: usize = 256;

/// What registries take at the moment, by registry and repository.
#[derive(Default)]
pub struct Tokens {
    known: Mutex<HashMap<(String, String), (HeaderValue, Instant)>>,
}

impl Tokens {
    /// What a registry took last for a repository, if it should take it still.
    pub fn of(&self, registry: &str, repository: &str) -> Option<HeaderValue> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (token, until) = known.get(&(registry.to_owned(), repository.to_owned()))?;
        (*until > Instant::now()).then(|| token.clone())
    }

    /// Remembers what to send.
    pub fn keep(&self, registry: &str, repository: &str, given: &Given) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.clear();
        }
        let until = Instant::now() + given.lifetime;
        known.insert((registry.to_owned(), repository.to_owned()), (given.header.clone(), until));
    }

    /// Forgets all: who pulls may have changed.
    pub fn clear(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// What to send, and for how long.
pub struct Given {
    /// The value of `Authorization`.
    pub header: HeaderValue,
    lifetime: Duration,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Answers a challenge. `question` is the request that was refused with it.
pub async fn answer(exchange: &Exchange, challenge: &Challenge, repository: &str) -> Result<Given, RegistryError> {
    let credentials = exchange.settings.credentials(&exchange.registry, repository);
    match challenge {
        Challenge::Basic => match credentials.filter(|credentials| !credentials.username.is_empty()) {
            Some(credentials) => given(&exchange.base, &credentials.basic(), Duration::from_secs(24 * 3600)),
            None => Err(RegistryError::Unauthorised {
                to: exchange.base.authority(),
                who: "anonymous requests".to_owned(),
                detail: "it wants a user name and a password".to_owned(),
                advice: format!(": {}", log_in(&exchange.registry)),
            }),
        },
        Challenge::Bearer { realm, service, scope, .. } => {
            let url = exchange
                .base
                .join(realm)
                .map_err(|source| RegistryError::Url { to: exchange.base.authority(), source })?;
            if exchange.base.https && !url.https {
                return Err(RegistryError::Downgrade { to: exchange.base.authority(), target: url.to_string() });
            }
            // GitHub's challenge for no repository names one that nobody has, and gives no token for it.
            let scope = match (repository.is_empty(), scope) {
                (true, _) => String::new(),
                (false, Some(scope)) if !scope.is_empty() => scope.clone(),
                (false, _) => format!("repository:{repository}:pull"),
            };
            fetch(exchange, url, service.as_deref(), &scope, (repository, credentials)).await
        }
    }
}

/// What to do about a registry that has something for those that it knows.
fn log_in(registry: &str) -> String {
    format!("`berth login -u NAME {registry}`")
}

/// What it may mean that a registry refuses: it tells nobody whether there is such a repository, Docker Hub as little as
/// GitHub.
pub fn advice(registry: &str, repository: &str, credentials: Option<&Credentials>) -> String {
    match credentials {
        _ if repository.is_empty() => String::new(),
        None => format!("; there is no repository {repository}, or it wants a login: {}", log_in(registry)),
        Some(_) => format!("; there is no repository {repository}, or not for this user"),
    }
}

async fn fetch(
    exchange: &Exchange,
    url: Url,
    service: Option<&str>,
    scope: &str,
    (repository, credentials): (&str, Option<Credentials>),
) -> Result<Given, RegistryError> {
    let question = question(url, service, scope, credentials.as_ref());
    let to = question.url.authority();
    let answer = exchange.ask(&question).await?;
    if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST) {
        let status = answer.status;
        let advice = match (status, &credentials) {
            // The password is wrong.
            (StatusCode::UNAUTHORIZED, Some(_)) => String::new(),
            (_, credentials) => advice(&exchange.registry, repository, credentials.as_ref()),
        };
        let who = credentials.map_or_else(|| "anonymous requests".to_owned(), |credentials| credentials.who());
        let reason = answer.read(TOKEN_BYTES, "the error").await.map(|text| detail(&text)).unwrap_or_default();
        let detail = if reason.is_empty() { status.to_string() } else { reason };
        return Err(RegistryError::Unauthorised { to, who, detail, advice });
    }
    if !answer.status.is_success() {
        return Err(answer.into_error().await);
    }
    let text = answer.read(TOKEN_BYTES, "the token").await?;
    let malformed = |what: String| RegistryError::Malformed { to: to.clone(), what };
    let token: Token = serde_json::from_slice(&text).map_err(|error| malformed(format!("its token: {error}")))?;
    let text = if token.token.is_empty() { token.access_token } else { token.token };
    if text.is_empty() {
        return Err(malformed("it gives no token".to_owned()));
    }
    let seconds = token.expires_in.unwrap_or(LIFETIME).min(24 * 3600);
    given(&question.url, &format!("Bearer {text}"), Duration::from_secs(seconds.saturating_sub(MARGIN)))
}

/// How a token is asked for: in a form with all scopes in one field, or in a query with a field for each.
fn question(url: Url, service: Option<&str>, scope: &str, credentials: Option<&Credentials>) -> Question {
    let mut question =
        Question { url, headers: HeaderMap::new(), authorization: None, method: Method::GET, body: Content::default() };
    let service = service.map(|service| format!("service={}", encode(service)));
    let field = |scope: &str| format!("scope={}", encode(scope));
    if let Some(refresh) = credentials.and_then(|credentials| credentials.identity_token.as_deref()) {
        // Who only logs in asks for nothing.
        let all = (!scope.is_empty()).then(|| field(scope));
        let begin = ["grant_type=refresh_token", "client_id=berth"].map(str::to_owned);
        let end = format!("refresh_token={}", encode(refresh));
        let form: Vec<String> = begin.into_iter().chain(service).chain(all).chain([end]).collect();
        question.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        (question.method, question.body) = (Method::POST, Content::Bytes(form.join("&").into()));
    } else {
        let separator = if question.url.path.contains('?') { '&' } else { '?' };
        let query: Vec<String> = service.into_iter().chain(scope.split_whitespace().map(field)).collect();
        question.url.path = format!("{}{separator}{}", question.url.path, query.join("&"));
        question.authorization = credentials.and_then(|credentials| HeaderValue::from_str(&credentials.basic()).ok());
    }
    question
}

fn given(from: &Url, value: &str, lifetime: Duration) -> Result<Given, RegistryError> {
    let mut header = HeaderValue::from_str(value).map_err(|_| RegistryError::Malformed {
        to: from.authority(),
        what: "the token or password has characters that no header can have".to_owned(),
    })?;
    header.set_sensitive(true);
    Ok(Given { header, lifetime })
}
