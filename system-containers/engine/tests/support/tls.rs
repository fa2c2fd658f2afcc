//! TLS in tests: certificates by openssl, and a proxy that TLS goes through.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::peer::run;

/// A private authority, the certificate of a server that has these names, and a client's.
pub fn certificates(folder: &Path, names: &str) {
    let request = |name: &str, more: &[&str]| {
        let key = format!("{name}.key");
        let subject = format!("/CN={name}");
        let begin = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", &key];
        run("openssl", &[&begin[..], &["-subj", &subject], more].concat(), folder);
    };
    request("authority", &["-x509", "-days", "2", "-out", "authority.pem"]);
    let names = format!("subjectAltName={names}");
    for (name, use_of_it) in [("server", names.as_str()), ("client", "extendedKeyUsage=clientAuth")] {
        let (asked, given) = (format!("{name}.csr"), format!("{name}.pem"));
        request(name, &["-out", &asked]);
        std::fs::write(folder.join("extensions"), format!("{use_of_it}\nbasicConstraints=CA:false\n")).unwrap();
        let sign =
            ["x509", "-req", "-in", &asked, "-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial"];
        run("openssl", &[&sign[..], &["-days", "2", "-extfile", "extensions", "-out", &given]].concat(), folder);
    }
}

/// What a server with the certificate of that folder speaks.
pub fn server(folder: &Path) -> Arc<ServerConfig> {
    let chain = CertificateDer::from_pem_file(folder.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(builder.with_single_cert(vec![chain], key).unwrap())
}

/// What went through a proxy on one connection.
#[derive(Clone, Debug, Default)]
pub struct Tunnel {
    /// Where to, as asked for.
    pub target: String,
    /// The value of `Proxy-Authorization`.
    pub authorization: String,
    /// What the client sent.
    pub sent: Vec<u8>,
    /// How many bytes it got.
    pub received: usize,
}

/// A proxy that connects to one server, whatever that is called.
pub struct Proxy {
    address: SocketAddr,
    tunnels: Arc<Mutex<Vec<Tunnel>>>,
}

impl Proxy {
    pub fn start(name: &'static str, server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tunnels: Arc<Mutex<Vec<Tunnel>>> = Arc::default();
        let shared = Arc::clone(&tunnels);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let tunnels = Arc::clone(&shared);
                // A client that goes away is no error of the proxy.
                std::thread::spawn(move || drop(connect(stream, name, server, &tunnels)));
            }
        });
        Self { address, tunnels }
    }

    pub fn name(&self) -> String {
        self.address.to_string()
    }

    pub fn tunnels(&self) -> Vec<Tunnel> {
        self.tunnels.lock().unwrap().clone()
    }
}

fn connect(
    client: TcpStream,
    name: &str,
    server: SocketAddr,
    tunnels: &Arc<Mutex<Vec<Tunnel>>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut client = client;
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let target = head.first().and_then(|line| line.strip_prefix("CONNECT ")?.strip_suffix(" HTTP/1.1"));
    let Some(target) = target.filter(|target| *target == name).map(str::to_owned) else {
        return client.write_all(b"HTTP/1.1 502 Unknown\r\nContent-Length: 0\r\n\r\n");
    };
    let authorization = head.iter().find_map(|line| line.strip_prefix("Proxy-Authorization: "));
    let authorization = authorization.unwrap_or_default().to_owned();
    let number = {
        let mut tunnels = tunnels.lock().unwrap();
        tunnels.push(Tunnel { target, authorization, ..Tunnel::default() });
        tunnels.len() - 1
    };
    let mut stream = TcpStream::connect(server)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 berth\r\n\r\n")?;
    let (back, forth) = (client.try_clone()?, Arc::clone(tunnels));
    let answers = stream.try_clone()?;
    std::thread::spawn(move || {
        relay(answers, back, |bytes| forth.lock().unwrap()[number].received += bytes.len());
    });
    // What the client sent already may be in the reader.
    let seen = |bytes: &[u8]| tunnels.lock().unwrap()[number].sent.extend_from_slice(bytes);
    let early = reader.buffer().to_vec();
    seen(&early);
    stream.write_all(&early)?;
    relay(client, stream, seen);
    Ok(())
}

/// Hands on what comes, counted before it arrives.
fn relay(mut from: TcpStream, mut to: TcpStream, seen: impl Fn(&[u8])) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        seen(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // One side may be gone.
    let _ = to.shutdown(Shutdown::Write);
}
