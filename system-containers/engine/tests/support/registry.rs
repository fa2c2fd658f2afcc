//! A registry of our own that does what a test says, good or bad.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_engine::digest::Digest;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Image, Method, compress, descriptor};

/// The media types of Docker's form, as in its specification "Image Manifest V 2, Schema 2".
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// With the query.
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: String,
    /// The same as it came.
    pub bytes: Vec<u8>,
    /// How many requests with this path came before.
    pub before: usize,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }
}

/// What the registry does with a request.
pub enum Act {
    /// What it should.
    Serve,
    /// What it should, but the connection ends after so many bytes of the body.
    CutAfter(usize),
    /// What it should, but nothing comes after so many bytes of the body until the client gives up.
    StallAfter(usize),
    /// What it should, but nothing comes after so many bytes of the body until the test says so.
    PauseAfter(usize, Receiver<()>),
    /// What it should, without looking at `Range`.
    Whole,
    /// The same in so many parts, with this long between them.
    Trickle(usize, Duration),
    /// Something else: status, more header lines, body.
    Say(u16, String, Vec<u8>),
    /// The connection ends without an answer.
    HangUp,
}

/// What the registry does when it has seen the head of a request, and not yet its body.
pub enum Look {
    /// It reads that.
    Read,
    /// It reads that later.
    Pause(Duration),
    /// It never reads that.
    Stall,
    /// It says this, and asks for no more.
    Say(u16),
}

/// Says this as a registry's answer.
pub fn json(status: u16, headers: &str, body: &str) -> Act {
    Act::Say(status, headers.to_owned(), body.as_bytes().to_vec())
}

type Script = Box<dyn FnMut(&Asked) -> Act + Send>;

type Eye = Box<dyn FnMut(&Asked) -> Look + Send>;

struct State {
    eye: Mutex<Eye>,
    content: Mutex<HashMap<String, (String, Vec<u8>)>>,
    script: Mutex<Script>,
    log: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
}

/// It listens as long as the test's process lives.
pub struct Registry {
    address: SocketAddr,
    state: Arc<State>,
}

impl Registry {
    pub fn start(script: impl FnMut(&Asked) -> Act + Send + 'static) -> Self {
        Self::listen(script, None)
    }

    /// With TLS.
    pub fn secure(tls: &Arc<ServerConfig>, script: impl FnMut(&Asked) -> Act + Send + 'static) -> Self {
        Self::listen(script, Some(Arc::clone(tls)))
    }

    fn listen(script: impl FnMut(&Asked) -> Act + Send + 'static, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script: Script = Box::new(script);
        let eye: Mutex<Eye> = Mutex::new(Box::new(|_| Look::Read));
        let state = Arc::new(State {
            eye,
            content: Mutex::default(),
            script: Mutex::new(script),
            log: Mutex::default(),
            connections: AtomicUsize::default(),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                state.connections.fetch_add(1, Ordering::Relaxed);
                // A client that goes away is no error of the registry.
                std::thread::spawn(move || match tls {
                    Some(tls) => drop(serve(StreamOwned::new(ServerConnection::new(tls).unwrap(), stream), &state)),
                    None => drop(serve(stream, &state)),
                });
            }
        });
        Self { address, state }
    }

    /// One that only does what it should.
    pub fn good() -> Self {
        Self::start(|_| Act::Serve)
    }

    /// What it does with bodies.
    pub fn look(&self, eye: impl FnMut(&Asked) -> Look + Send + 'static) {
        *self.state.eye.lock().unwrap() = Box::new(eye);
    }

    pub fn name(&self) -> String {
        self.address.to_string()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything that was asked so far.
    pub fn log(&self) -> Vec<Asked> {
        self.state.log.lock().unwrap().clone()
    }

    /// How many connections it took.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    pub fn put(&self, path: &str, kind: &str, body: &[u8]) {
        self.state.content.lock().unwrap().insert(path.to_owned(), (kind.to_owned(), body.to_vec()));
    }

    pub fn remove(&self, path: &str) {
        self.state.content.lock().unwrap().remove(path);
    }

    /// Puts an image into a repository; the digest and bytes of its manifest.
    pub fn push(&self, repository: &str, tag: &str, image: &Image) -> (Digest, Vec<u8>) {
        let config = image.config();
        let put_blob = |blob: &[u8]| {
            let path = format!("/v2/{repository}/blobs/{}", Digest::of(blob));
            self.put(&path, "application/octet-stream", blob);
        };
        put_blob(&config);
        let mut layers = Vec::new();
        for (method, layer) in &image.layers {
            let blob = compress(*method, layer);
            layers.push(descriptor("layer.v1.tar", &blob, ""));
            put_blob(&blob);
        }
        let config = descriptor("config.v1+json", &config, "");
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, layers.join(","));
        (self.put_manifest(repository, tag, manifest.as_bytes()), manifest.into_bytes())
    }

    /// Whoever asks for the whole URL gets the same.
    pub fn serve_also_as(&self, prefix: &str) {
        let mut content = self.state.content.lock().unwrap();
        let more: Vec<_> = content.iter().map(|(path, found)| (format!("{prefix}{path}"), found.clone())).collect();
        content.extend(more);
    }

    pub fn put_manifest(&self, repository: &str, tag: &str, manifest: &[u8]) -> Digest {
        self.put_manifest_as(repository, tag, "application/vnd.oci.image.manifest.v1+json", manifest)
    }

    pub fn put_manifest_as(&self, repository: &str, tag: &str, kind: &str, manifest: &[u8]) -> Digest {
        let digest = Digest::of(manifest);
        for reference in [tag, &digest.to_string()] {
            self.put(&format!("/v2/{repository}/manifests/{reference}"), kind, manifest);
        }
        digest
    }

    /// Puts an image there as Docker makes it: its layers with gzip, and of this kind. The digest and bytes of its
    /// manifest.
    pub fn push_as_docker(&self, repository: &str, tag: &str, image: &Image, layer: &str) -> (Digest, Vec<u8>) {
        let pointer = |kind: &str, blob: &[u8]| {
            self.put(&format!("/v2/{repository}/blobs/{}", Digest::of(blob)), "application/octet-stream", blob);
            format!(r#"{{"mediaType":"{kind}","size":{},"digest":"{}"}}"#, blob.len(), Digest::of(blob))
        };
        let config = pointer(DOCKER_CONFIG, &image.config());
        let layers = image.layers.iter().map(|(_, tar)| pointer(layer, &compress(Method::Gzip, tar)));
        let layers = layers.collect::<Vec<_>>().join(",");
        let manifest =
            format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}","config":{config},"layers":[{layers}]}}"#);
        (self.put_manifest_as(repository, tag, DOCKER_MANIFEST, manifest.as_bytes()), manifest.into_bytes())
    }
}

/// A manifest list of Docker's form with this image for this machine, and one for another.
pub fn docker_list(digest: Digest, manifest: &[u8]) -> String {
    let entry = |architecture: &str, digest: Digest, size: usize| {
        format!(
            r#"{{"mediaType":"{DOCKER_MANIFEST}","size":{size},"digest":"{digest}","platform":{{"architecture":"{architecture}","os":"linux"}}}}"#
        )
    };
    let other = entry("s390x", digest, manifest.len());
    let ours = entry(berth_engine::oci::ARCHITECTURE, digest, manifest.len());
    format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_LIST}","manifests":[{other},{ours}]}}"#)
}

/// The header that tells a manifest's digest.
pub fn content_digest(digest: Digest) -> String {
    format!("Docker-Content-Digest: {digest}\r\n")
}

fn serve<S: Read + Write>(stream: S, state: &State) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(mut asked) = read(&mut reader)? {
        let look = (*state.eye.lock().unwrap())(&asked);
        match look {
            Look::Read => {}
            // That is what makes it slow.
            Look::Pause(pause) => std::thread::sleep(pause),
            Look::Stall => loop {
                std::thread::park();
            },
            Look::Say(status) => {
                respond(reader.get_mut(), status, "", b"", 0)?;
                // Until the client closes the connection.
                reader.read_to_end(&mut Vec::new())?;
                return Ok(());
            }
        }
        // As Google's front ends do (RFC 9110, section 15.5.12).
        if ["POST", "PUT", "PATCH"].contains(&asked.method.as_str()) && asked.header("content-length").is_empty() {
            respond(reader.get_mut(), 411, "", b"", 0)?;
            return Ok(());
        }
        read_body(&mut reader, &mut asked)?;
        {
            let mut log = state.log.lock().unwrap();
            asked.before = log.iter().filter(|other| other.path == asked.path).count();
            log.push(asked.clone());
        }
        let act = (*state.script.lock().unwrap())(&asked);
        let found = state.content.lock().unwrap().get(&asked.path).cloned();
        let (mut pause, mut trickle) = (None, None);
        let (limit, stall, ranges) = match act {
            Act::HangUp => return Ok(()),
            Act::Say(status, headers, body) => {
                respond(reader.get_mut(), status, &headers, &body, body.len())?;
                continue;
            }
            Act::Serve => (usize::MAX, false, true),
            Act::Whole => (usize::MAX, false, false),
            Act::Trickle(parts, between) => {
                trickle = Some((parts, between));
                (0, false, false)
            }
            Act::CutAfter(limit) => (limit, false, true),
            Act::StallAfter(limit) => (limit, true, true),
            Act::PauseAfter(limit, until) => {
                pause = Some(until);
                (limit, false, true)
            }
        };
        // A registry does not send a kind of manifest that it was not asked for.
        let is_wanted = |kind: &str| {
            let told = asked.path.contains("/manifests/") && kind.starts_with("application/vnd.");
            !told || asked.header("accept").contains(kind)
        };
        let Some((kind, body)) = found.filter(|(kind, _)| is_wanted(kind)) else {
            let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            respond(reader.get_mut(), 404, "", body, body.len())?;
            continue;
        };
        let range = asked.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
        let start: usize = range.filter(|_| ranges).map_or(0, |start| start.parse().unwrap());
        let (status, total) = (if start > 0 { 206 } else { 200 }, body.len());
        let mut headers =
            format!("Content-Type: {kind}\r\nContent-Range: bytes {start}-{}/{total}\r\n", total.saturating_sub(1));
        if asked.path.contains("/manifests/") {
            headers.push_str(&content_digest(Digest::of(&body)));
        }
        respond(reader.get_mut(), status, &headers, &body[start..], limit)?;
        if let Some(until) = pause {
            // A test that has ended has nothing more to say.
            let _ = until.recv();
            reader.get_mut().write_all(&body[start + limit..])?;
            reader.get_mut().flush()?;
        } else if let Some((parts, between)) = trickle {
            for part in body.chunks(body.len().div_ceil(parts).max(1)) {
                std::thread::sleep(between);
                reader.get_mut().write_all(part)?;
                reader.get_mut().flush()?;
            }
        } else if limit < body.len() - start {
            if stall {
                // Until the client closes the connection.
                reader.read_to_end(&mut Vec::new())?;
            }
            return Ok(());
        }
    }
    Ok(())
}

fn read(reader: &mut BufReader<impl Read>) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Some(Asked { method, path, headers, body: String::new(), bytes: Vec::new(), before: 0 }))
}

fn read_body(reader: &mut BufReader<impl Read>, asked: &mut Asked) -> std::io::Result<()> {
    let length = asked.headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    asked.bytes = vec![0; length];
    reader.read_exact(&mut asked.bytes)?;
    asked.body = String::from_utf8_lossy(&asked.bytes).into_owned();
    Ok(())
}

fn respond(stream: &mut impl Write, status: u16, headers: &str, body: &[u8], limit: usize) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status} Because\r\nContent-Length: {}\r\n{headers}\r\n", body.len())?;
    stream.write_all(&body[..limit.min(body.len())])?;
    stream.flush()
}
