//! Fetching a page, as `curl` would.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The pause between two attempts: nothing tells a client when a server begins to listen.
const PAUSE: Duration = Duration::from_millis(100);

/// The body of `http://address/path`. A connection that fails is tried again: a container runs before its program
/// listens.
///
/// # Errors
/// If nobody answers within `limit`, or not with a page.
pub fn fetch(address: SocketAddr, path: &str, limit: Duration) -> Result<String> {
    let deadline = Instant::now() + limit;
    loop {
        match fetch_once(address, path, limit) {
            Err(error) if error.root_cause().is::<std::io::Error>() && Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}

fn fetch_once(address: SocketAddr, path: &str, limit: Duration) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, limit).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").context("send the request")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("read the answer of {address}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("{address} sent no page: {answer:?}") };
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("{address} answered {status:?}");
    }
    Ok(body.to_owned())
}
