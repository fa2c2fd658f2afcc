//! Looking at a container's network from inside of it, without a helper process.
//!
//! A socket belongs for ever to the network namespace that it was made in. PID 1 steps into the container's network for
//! that one system call and back, and from then on the socket is one more descriptor of its loop: connecting, asking and
//! reading never block. Of what a container answers no more than [`STATUS_LINE`] bytes are ever read.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use berth_runtime::handover::Handed;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use serde::{Deserialize, Serialize};

/// The longest status line that is read, in bytes.
const STATUS_LINE: usize = 256;

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    address: SocketAddr,
    /// The page; without it, that the connection is accepted is enough.
    path: Option<String>,
}

impl Target {
    /// Of a check by network; `None` of another.
    pub fn of(settings: &berth_config::Health) -> Option<Self> {
        let page =
            settings.http.as_ref().map(|http| Self { address: http.address(), path: Some(http.path().to_owned()) });
        page.or_else(|| settings.tcp.map(|tcp| Self { address: tcp.address(), path: None }))
    }

    fn request(&self, path: &str) -> String {
        let address = self.address;
        format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: berth\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )
    }

    fn failed(&self, error: &io::Error) -> String {
        match &self.path {
            Some(path) => format!("http://{}{path}: {error}", self.address),
            None => format!("{}: {error}", self.address),
        }
    }
}

/// A look that is under way.
#[derive(Debug, Serialize, Deserialize)]
pub struct Probe {
    target: Target,
    connection: Handed<TcpStream>,
    stage: Stage,
}

#[derive(Debug, Serialize, Deserialize)]
enum Stage {
    Connecting,
    /// So many bytes of the request are on their way.
    Asking(usize),
    /// What has come of the answer.
    Listening(Vec<u8>),
}

impl Probe {
    /// Begins to look, from the network of the process with this number.
    pub fn begin(target: Target, pid: i32) -> Result<Self, String> {
        let path = format!("/proc/{pid}/ns/net");
        let namespace = File::open(&path).map_err(|error| format!("open {path}: {error}"))?;
        let family = if target.address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let made = inside(&namespace, || socket(family, SockType::Stream, flags, None));
        let made = made.map_err(|error| format!("join its network: {error}"))?;
        let connection = TcpStream::from(made.map_err(|error| format!("make a socket in its network: {error}"))?);
        match connect(connection.as_raw_fd(), &SockaddrStorage::from(target.address)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {
                Ok(Self { target, connection: connection.into(), stage: Stage::Connecting })
            }
            Err(error) => Err(target.failed(&error.into())),
        }
    }

    /// Whether it waits for room to write rather than for something to read.
    pub fn waits_for_room(&self) -> bool {
        !matches!(self.stage, Stage::Listening(_))
    }

    /// Goes on as far as it can; what was found, once that is known.
    pub fn advance(&mut self) -> Option<Result<(), String>> {
        loop {
            match self.step() {
                Ok(None) => {}
                Ok(Some(result)) => return Some(result),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A connection that is not there yet is ENOTCONN to getpeername(2).
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return None,
                Err(error) => return Some(Err(self.target.failed(&error))),
            }
        }
    }

    /// `None` if there is a next step.
    fn step(&mut self) -> io::Result<Option<Result<(), String>>> {
        match &mut self.stage {
            Stage::Connecting => {
                if let Some(error) = self.connection.take_error()? {
                    return Err(error);
                }
                self.connection.peer_addr()?;
                if self.target.path.is_none() {
                    return Ok(Some(Ok(())));
                }
                self.stage = Stage::Asking(0);
            }
            Stage::Asking(sent) => {
                let request = self.target.path.as_deref().map(|path| self.target.request(path)).unwrap_or_default();
                let rest = request.as_bytes().get(*sent..).unwrap_or_default();
                if rest.is_empty() {
                    self.stage = Stage::Listening(Vec::new());
                } else {
                    *sent += (&*self.connection).write(rest)?;
                }
            }
            Stage::Listening(line) => {
                let mut buffer = [0; STATUS_LINE];
                let length = (&*self.connection).read(&mut buffer)?;
                line.extend(buffer.iter().take(length));
                if length == 0 || line.contains(&b'\n') || line.len() >= STATUS_LINE {
                    return Ok(Some(judge(&self.target, line)));
                }
            }
        }
        Ok(None)
    }
}

impl AsFd for Probe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// Does this in another network namespace. PID 1 must not stay there: what it forks later would be in it.
fn inside<T>(namespace: &File, work: impl FnOnce() -> T) -> nix::Result<T> {
    let own = File::open("/proc/self/ns/net").map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let result = work();
    // With a descriptor of its own namespace and all rights this fails only for want of a few bytes (setns(2), ENOMEM),
    // which the kernel finds by itself: it does not refuse so small a thing.
    while let Err(error) = setns(&own, CloneFlags::CLONE_NEWNET) {
        log::error!("come back from a container's network: {error}");
    }
    Ok(result)
}

fn judge(target: &Target, line: &[u8]) -> Result<(), String> {
    let Target { address, path } = target;
    let path = path.as_deref().unwrap_or_default();
    match status(line) {
        Some(200..=399) => Ok(()),
        Some(other) => Err(format!("http://{address}{path} answers with status {other}")),
        None => Err(format!("http://{address}{path} does not answer in HTTP")),
    }
}

/// The number in `HTTP/1.1 200 OK` (RFC 9112, 4).
fn status(line: &[u8]) -> Option<u16> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words.next()?.strip_prefix("HTTP/")?;
    words.next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Duration;

    use crate::reactor::{Reactor, Token};

    #[test]
    fn a_status_line_has_its_number() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\nServer: x\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503\r\n"), Some(503));
        for nonsense in [&b""[..], b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1\r\n", b"HTTP/1.1 OK\r\n", b"\xff\xfe 200\n"] {
            assert_eq!(status(nonsense), None, "{nonsense:?}");
        }
    }

    fn answering(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(answer);
            }
        });
        address
    }

    /// From this process's own network, as the loop does it.
    fn look(address: SocketAddr, path: Option<&str>) -> Result<(), String> {
        let reactor = Reactor::new().unwrap();
        let target = Target { address, path: path.map(str::to_owned) };
        let mut probe = Probe::begin(target, std::process::id().cast_signed())?;
        reactor.add(&probe, Token::Health(0)).unwrap();
        loop {
            reactor.watch_room(&probe, Token::Health(0), probe.waits_for_room()).unwrap();
            assert!(!reactor.wait(Some(Duration::from_secs(60))).unwrap().is_empty(), "nothing happens: {probe:?}");
            if let Some(result) = probe.advance() {
                return result;
            }
        }
    }

    #[test]
    fn a_page_is_well_by_its_status() {
        let look = |answer| look(answering(answer), Some("/x"));
        assert_eq!(look(b"HTTP/1.1 204 No Content\r\n\r\n"), Ok(()));
        assert!(look(b"HTTP/1.1 500 Oh\r\n\r\n").unwrap_err().contains("/x answers with status 500"));
        assert!(look(b"").unwrap_err().contains("does not answer in HTTP"));
        assert!(look(&[b'x'; 4096]).unwrap_err().contains("does not answer in HTTP"));
    }

    #[test]
    fn a_port_is_well_if_somebody_is_there() {
        assert_eq!(look(answering(b""), None), Ok(()));
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(look(closed, None).unwrap_err().contains("refused"));
    }

    #[test]
    fn pid_1_stays_in_its_own_network() {
        let network = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let before = network();
        let namespace = File::open("/proc/self/ns/net").unwrap();
        assert_eq!(inside(&namespace, || 7), Ok(7));
        assert_eq!(network(), before);
    }
}
