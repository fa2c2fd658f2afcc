//! A connection to a server: names, TCP, perhaps a proxy, perhaps TLS, then HTTP/1.1.

use std::io;
use std::sync::Arc;

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::body::Outgoing;
use super::dial;
use super::error::RegistryError;
use super::patience::Patience;
use super::settings::{Settings, Through};
use super::tls;
use super::url::Url;

/// How much of an answer is buffered at once, in bytes; its head must fit. From 64 KiB on musl maps each buffer anew.
const BUFFER_BYTES: usize = 60 << 10;

/// The longest answer of a proxy to `CONNECT`, in bytes.
const PROXY_ANSWER_BYTES: usize = 8 << 10;

/// A server, and whose authorities may vouch for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// Whether with TLS.
    pub https: bool,
    /// Name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The registry whose settings count.
    pub registry: String,
    /// Whether it is that registry itself, and not one that it leads to.
    pub is_itself: bool,
}

/// An open connection.
pub struct Connection {
    /// Takes requests, one after the other.
    pub sender: SendRequest<Outgoing>,
    /// The proxy that wants the whole URL in each request, if there is one.
    pub through: Option<Through>,
    _driver: Driver,
}

/// The task that reads and writes. It ends with the connection, also in the middle of a body that nobody takes.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects, in the time that there is for it.
pub async fn open(
    settings: &Settings,
    patience: &Patience,
    server: &Server,
    url: &Url,
) -> Result<Connection, RegistryError> {
    let tls = match url.https {
        true => Some(tls::configuration(settings, &server.registry, server.is_itself)?),
        false => None,
    };
    let opening = connect(settings.proxy(url), tls, url);
    tokio::time::timeout(patience.connect, opening).await.unwrap_or_else(|_| {
        Err(RegistryError::Slow { to: url.authority(), what: "does not take a connection", within: patience.connect })
    })
}

async fn connect(
    through: Option<Through>,
    tls: Option<Arc<ClientConfig>>,
    url: &Url,
) -> Result<Connection, RegistryError> {
    let (host, port) = through.as_ref().map_or((url.host.as_str(), url.port), |proxy| (&proxy.host, proxy.port));
    let failed = |source| RegistryError::Connect { to: format!("{host} port {port}"), source };
    let mut stream = dial::dial(host, port).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let (stream, through): (Box<dyn Stream>, _) = match tls {
        Some(tls) => {
            if let Some(proxy) = &through {
                tunnel(&mut stream, proxy, url).await?;
            }
            (Box::new(tls::begin(stream, url, tls).await?), None)
        }
        None => (Box::new(stream), through),
    };
    let (sender, connection) = Builder::new()
        .max_buf_size(BUFFER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| RegistryError::Broken { to: url.authority(), source })?;
    // What goes wrong on it, the request that is under way hears.
    let driver = Driver(tokio::spawn(async move { drop(connection.await) }).abort_handle());
    Ok(Connection { sender, through, _driver: driver })
}

/// Asks a proxy for a way through (RFC 9110, section 9.3.6).
async fn tunnel(stream: &mut TcpStream, proxy: &Through, url: &Url) -> Result<(), RegistryError> {
    let at = format!("{}:{}", proxy.host, proxy.port);
    let failed = |source: io::Error| RegistryError::Connect { to: format!("the proxy {at}"), source };
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    let target = format!("{host}:{}", url.port);
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the answer is TLS's.
    while !answer.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) if answer.len() < PROXY_ANSWER_BYTES => answer.push(byte),
            Ok(_) => return Err(RegistryError::Malformed { to: at, what: "an answer without an end".to_owned() }),
            Err(error) => return Err(failed(error)),
        }
    }
    let first = String::from_utf8_lossy(answer.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
    let mut words = first.split(' ');
    let accepted = words.next().is_some_and(|version| version.starts_with("HTTP/1."))
        && words.next().is_some_and(|status| status.len() == 3 && status.starts_with('2'));
    if accepted { Ok(()) } else { Err(RegistryError::Proxy { proxy: at, to: target, answer: first }) }
}
