//! A request and its answer, over connections that are used again.

use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderValue, LOCATION, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{HeaderMap, Method, Request, StatusCode};

use super::body::{Content, Gauge, Outgoing};
use super::connection::{self, Connection, Server};
use super::error::RegistryError;
use super::patience::{Pace, Patience};
use super::retry;
use super::settings::Settings;
use super::url::Url;

/// How often one registry's redirection is followed.
const REDIRECTS: usize = 5;
/// How many idle connections are kept to one server.
const IDLE: usize = 4;
/// How long a connection lies idle before another one is opened: many a router forgets it then, and tells nobody.
const FRESH: Duration = Duration::from_mins(1);
/// How long the end of an answer that says nothing is waited for: longer than another connection takes is for nothing.
const PASSING: Duration = Duration::from_secs(1);
/// How much of the text of an error is read, in bytes, and how much of it is told.
const ERROR_BYTES: u64 = 16 << 10;
const DETAIL_BYTES: usize = 500;
const AGENT: &str = concat!("berth/", env!("CARGO_PKG_VERSION"));

/// Idle connections, by where they lead.
#[derive(Default)]
pub struct Pool {
    idle: Mutex<HashMap<Server, Vec<(Instant, Connection)>>>,
}

impl Pool {
    fn take(&self, server: &Server) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(server)?;
        connections.retain(|(since, connection)| since.elapsed() < FRESH && !connection.sender.is_closed());
        connections.pop().map(|(_, connection)| connection)
    }

    fn put(&self, server: Server, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.entry(server).or_default();
        if connections.len() < IDLE {
            connections.push((Instant::now(), connection));
        }
    }

    /// Closes all: how servers are reached may have changed.
    pub fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Everything that a request needs.
#[derive(Clone)]
pub struct Exchange {
    /// What is known of registries.
    pub settings: Arc<Settings>,
    /// Connections.
    pub pool: Arc<Pool>,
    /// How long is waited.
    pub patience: Patience,
    /// The registry that is asked, by the name that it has in the settings.
    pub registry: String,
    /// Where it is.
    pub base: Url,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where.
    pub url: Url,
    /// More header fields.
    pub headers: HeaderMap,
    /// The value of `Authorization`; left out where another server is led to.
    pub authorization: Option<HeaderValue>,
    /// What is to be done.
    pub method: Method,
    /// What is sent.
    pub body: Content,
}

/// An answer whose body is still to be read.
pub struct Answer {
    /// Its code.
    pub status: StatusCode,
    /// Its header.
    pub headers: HeaderMap,
    /// Who gave it.
    pub from: Url,
    body: Incoming,
    connection: Option<(Connection, Server)>,
    /// Of what was sent: an answer may come before that is out, and then the connection is of no more use.
    sent: Gauge,
    pool: Arc<Pool>,
    patience: Patience,
}

impl Exchange {
    /// Asks, and follows where that leads.
    pub async fn ask(&self, question: &Question) -> Result<Answer, RegistryError> {
        let first = &question.url;
        let mut url = first.clone();
        for _ in 0..=REDIRECTS {
            let answer = self.ask_once(question, &url).await?;
            let location = answer.headers.get(LOCATION).filter(|_| answer.status.is_redirection());
            let Some(location) = location else { return Ok(answer) };
            let to = || url.authority();
            let location = location.to_str().unwrap_or_default();
            let next = url.join(location).map_err(|source| RegistryError::Url { to: to(), source })?;
            if url.https && !next.https {
                return Err(RegistryError::Downgrade { to: to(), target: next.to_string() });
            }
            answer.pass_over().await;
            url = next;
        }
        Err(RegistryError::Redirects { to: first.authority(), limit: REDIRECTS })
    }

    async fn ask_once(&self, question: &Question, url: &Url) -> Result<Answer, RegistryError> {
        let is_itself = url.same_server(&self.base);
        let Url { https, host, port, .. } = url.clone();
        let server = Server { https, host, port, registry: self.registry.clone(), is_itself };
        // A connection that was idle may have been closed a moment ago: that is no failure of the registry.
        if let Some(connection) = self.pool.take(&server) {
            match self.ask_on(connection, &server, question, url).await {
                Err(error) if question.may_be_sent_again(&error) => {}
                done => return done,
            }
        }
        let connection = connection::open(&self.settings, &self.patience, &server, url).await?;
        self.ask_on(connection, &server, question, url).await
    }

    async fn ask_on(
        &self,
        mut connection: Connection,
        server: &Server,
        question: &Question,
        url: &Url,
    ) -> Result<Answer, RegistryError> {
        let (body, mut gauge) = question.body.begin();
        let request = request(question, url, &connection, body)?;
        let asking = async {
            connection.sender.ready().await?;
            connection.sender.send_request(request).await
        };
        let answer = self.within(asking, &mut gauge, url).await?.map_err(|source| broken(url, source))?;
        let (head, body) = answer.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            from: url.clone(),
            body,
            connection: Some((connection, server.clone())),
            sent: gauge,
            pool: Arc::clone(&self.pool),
            patience: self.patience,
        })
    }

    /// What sending takes is a matter of the line: there only has to be progress. For the answer there is a time, from when
    /// all has gone out.
    async fn within<T>(
        &self,
        asking: impl Future<Output = T>,
        gauge: &mut Gauge,
        url: &Url,
    ) -> Result<T, RegistryError> {
        let slow = |what, within| RegistryError::Slow { to: url.authority(), what, within };
        let mut asking = pin!(asking);
        tokio::select! {
            biased;
            answer = &mut asking => return Ok(answer),
            drained = gauge.drained(&self.patience) => {
                drained.map_err(|_| slow("takes next to nothing", self.patience.idle))?;
            }
        }
        let within = self.patience.answer;
        tokio::time::timeout(within, asking).await.map_err(|_| slow("does not answer", within))
    }
}

impl Question {
    /// Whether it does no harm that it may have been heard already. A part of an upload must not come twice: who uploads asks
    /// how far that is.
    fn may_be_sent_again(&self, error: &RegistryError) -> bool {
        let was_not_sent = matches!(error, RegistryError::Broken { source, .. } if source.is_canceled());
        was_not_sent || self.method.is_idempotent() && matches!(self.body, Content::Bytes(_))
    }
}

/// A connection that broke, unless it is the blob that cannot be read.
fn broken(url: &Url, source: hyper::Error) -> RegistryError {
    match source.source().and_then(|cause| cause.downcast_ref::<io::Error>()).filter(|_| source.is_user()) {
        Some(cause) => RegistryError::Read(io::Error::new(cause.kind(), cause.to_string())),
        None => RegistryError::Broken { to: url.authority(), source },
    }
}

fn request(
    question: &Question,
    url: &Url,
    connection: &Connection,
    body: Outgoing,
) -> Result<Request<Outgoing>, RegistryError> {
    let target = match &connection.through {
        Some(_) => format!("http://{}{}", url.authority(), url.path),
        None => url.path.clone(),
    };
    let mut builder = Request::builder().method(question.method.clone()).uri(target).header(HOST, url.authority());
    builder = builder.header(USER_AGENT, AGENT);
    if let Some(authorization) = question.authorization.as_ref().filter(|_| url.same_server(&question.url)) {
        builder = builder.header(AUTHORIZATION, authorization);
    }
    if let Some(authorization) = connection.through.as_ref().and_then(|proxy| proxy.authorization.as_ref()) {
        builder = builder.header(PROXY_AUTHORIZATION, authorization);
    }
    let malformed =
        |error: hyper::http::Error| RegistryError::Malformed { to: url.authority(), what: error.to_string() };
    // There are front ends that want the length of nothing, too (RFC 9110, section 8.6), and hyper does not tell it.
    let carries = [Method::POST, Method::PUT, Method::PATCH].contains(&question.method);
    if carries && body.is_end_stream() {
        builder = builder.header(CONTENT_LENGTH, 0);
    }
    let mut request = builder.body(body).map_err(malformed)?;
    request.headers_mut().extend(question.headers.clone());
    Ok(request)
}

impl Answer {
    /// The next bytes of the body; none at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let within = self.patience.idle;
            let slow = || RegistryError::Slow { to: self.from.authority(), what: "sends nothing", within };
            let frame = tokio::time::timeout(within, self.body.frame()).await.map_err(|_| slow())?;
            match frame {
                None => {
                    if let Some((connection, server)) = self.connection.take().filter(|_| self.sent.is_out()) {
                        self.pool.put(server, connection);
                    }
                    return Ok(None);
                }
                Some(Err(source)) => return Err(RegistryError::Broken { to: self.from.authority(), source }),
                // A trailer says nothing here.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body, if it is no longer than `limit` bytes. `what` it is stands in the error.
    pub async fn read(mut self, limit: u64, what: &str) -> Result<Vec<u8>, RegistryError> {
        let mut content = Vec::new();
        let mut pace = Pace::new(&self.patience, 0);
        while let Some(bytes) = self.chunk().await? {
            if content.len() as u64 + bytes.len() as u64 > limit {
                return Err(RegistryError::TooLarge { to: self.from.authority(), what: what.to_owned(), limit });
            }
            content.extend_from_slice(&bytes);
            if let Some(within) = pace.is_too_slow(content.len() as u64) {
                return Err(RegistryError::Slow { to: self.from.authority(), what: Pace::COMPLAINT, within });
            }
        }
        Ok(content)
    }

    /// Comes to the end of a body that does not matter, so that the connection can be used again; unless that is far.
    async fn pass_over(self) {
        // Whatever goes wrong costs the connection and nothing else.
        drop(tokio::time::timeout(PASSING, self.read(ERROR_BYTES, "the redirection")).await);
    }

    /// The error that an answer other than a success is, with the reason that the registry gives.
    pub async fn into_error(self) -> RegistryError {
        let (to, status) = (self.from.authority(), self.status);
        let retry_after = retry::after(&self.headers);
        let detail = self.read(ERROR_BYTES, "the error").await.map(|text| detail(&text)).unwrap_or_default();
        RegistryError::Status { to, status, detail, retry_after }
    }
}

/// The reason in an error's body: the distribution specification's list, or what token servers write.
pub fn detail(body: &[u8]) -> String {
    let text = serde_json::from_slice::<serde_json::Value>(body).ok().and_then(|value| {
        let first = value.get("errors").and_then(|errors| errors.get(0)).unwrap_or(&value);
        let field = |key: &str| first.get(key).and_then(|field| field.as_str()).filter(|text| !text.is_empty());
        let keys = ["message", "error_description", "details", "detail", "error", "code"];
        keys.iter().find_map(|key| field(key)).map(str::to_owned)
    });
    let text: String = text.unwrap_or_default().chars().filter(|character| !character.is_control()).collect();
    text[..text.floor_char_boundary(DETAIL_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_registries_and_token_servers_are_found() {
        let hub = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#;
        assert_eq!(detail(hub), "manifest unknown");
        assert_eq!(detail(br#"{"errors":[{"code":"DENIED"}]}"#), "DENIED");
        assert_eq!(detail(br#"{"details":"incorrect username or password"}"#), "incorrect username or password");
        assert_eq!(detail(br#"{"error":"x","error_description":"why\u0007"}"#), "why");
        for text in ["", "<html>", "[]", "1", "{\"errors\":[]}", "{\"errors\":{}}"] {
            assert_eq!(detail(text.as_bytes()), "", "{text}");
        }
        assert!(detail(format!(r#"{{"message":"{}"}}"#, "ä".repeat(900)).as_bytes()).len() <= DETAIL_BYTES);
    }
}
