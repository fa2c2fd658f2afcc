//! Looking at a container's network from inside of it, in a task.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

/// The longest status line that is read, in bytes.
const STATUS_LINE: usize = 256;

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// Joins the network of the process and looks. Not to be called in PID 1 itself: there is no way back.
    pub fn look(&self, pid: i32, patience: Duration) -> Result<(), String> {
        let path = format!("/proc/{pid}/ns/net");
        let namespace = File::open(&path).map_err(|error| format!("open {path}: {error}"))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|error| format!("join its network: {error}"))?;
        self.connect(patience)
    }

    fn connect(&self, patience: Duration) -> Result<(), String> {
        let begin = Instant::now();
        let address = self.address;
        let mut stream =
            TcpStream::connect_timeout(&address, patience).map_err(|error| format!("{address}: {error}"))?;
        let Some(path) = &self.path else { return Ok(()) };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: berth\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        let left = || patience.saturating_sub(begin.elapsed()).max(Duration::from_millis(1));
        let exchange = |stream: &mut TcpStream| {
            stream.set_write_timeout(Some(left()))?;
            stream.write_all(request.as_bytes())?;
            let mut line = Vec::new();
            while !line.contains(&b'\n') && line.len() < STATUS_LINE {
                stream.set_read_timeout(Some(left()))?;
                let mut buffer = [0; STATUS_LINE];
                let length = stream.read(&mut buffer)?;
                if length == 0 {
                    break;
                }
                line.extend(buffer.iter().take(length));
            }
            Ok::<_, std::io::Error>(line)
        };
        let line = exchange(&mut stream).map_err(|error| format!("http://{address}{path}: {error}"))?;
        match status(&line) {
            Some(200..=399) => Ok(()),
            Some(other) => Err(format!("http://{address}{path} answers with status {other}")),
            None => Err(format!("http://{address}{path} does not answer in HTTP")),
        }
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

    #[test]
    fn a_page_is_well_by_its_status() {
        let look = |answer| {
            let target = Target { address: answering(answer), path: Some("/x".into()) };
            target.connect(Duration::from_secs(20))
        };
        assert_eq!(look(b"HTTP/1.1 204 No Content\r\n\r\n"), Ok(()));
        assert!(look(b"HTTP/1.1 500 Oh\r\n\r\n").unwrap_err().contains("/x answers with status 500"));
        assert!(look(b"").unwrap_err().contains("does not answer in HTTP"));
    }

    #[test]
    fn a_port_is_well_if_somebody_is_there() {
        let address = answering(b"");
        assert_eq!(Target { address, path: None }.connect(Duration::from_secs(20)), Ok(()));
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = Target { address: closed, path: None }.connect(Duration::from_secs(20));
        assert!(refused.unwrap_err().contains("refused"));
    }
}
