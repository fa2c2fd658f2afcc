//! A TCP connection to a host that may have several addresses, of which some may lead nowhere (RFC 8305, "Happy Eyeballs"):
//! the next one is tried when the one before has failed, or has not answered for a moment, and the first that answers counts.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long an address has to itself before the next one is tried too (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to a name or address. The error is that of the address that failed last.
pub async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    first(interleaved(tokio::net::lookup_host((host, port)).await?.collect())).await
}

/// Both families in turn, beginning with that of the first address: if one of them leads nowhere, the other is not far.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let begins_with_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mine, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == begins_with_ipv6);
    let (mut mine, mut other) = (mine.into_iter(), other.into_iter());
    let mut all = Vec::new();
    loop {
        let pair = [mine.next(), other.next()];
        if pair == [None, None] {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}

/// The first connection that there is to one of these. The attempts that are still under way end with that.
async fn first(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut addresses = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    loop {
        if let Some(address) = addresses.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => failure = error,
                Some(Err(error)) => failure = io::Error::other(error),
                None => return Err(failure),
            },
            () = tokio::time::sleep(HEAD_START), if addresses.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream as Blocking};

    fn block<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn families_take_turns() {
        let addresses = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"].map(|text| text.parse().unwrap());
        let [a, b, c, d] = addresses;
        assert_eq!(interleaved(addresses.to_vec()), [a, d, b, c]);
        assert_eq!(interleaved(vec![d, a, b]), [d, a, b]);
        assert!(interleaved(Vec::new()).is_empty());
    }

    #[test]
    fn an_address_that_swallows_everything_does_not_hide_the_next() {
        // Its queue is full: whoever comes gets no answer, as from behind a dead route.
        let full = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&full, 0).unwrap();
        let swallows = full.local_addr().unwrap();
        let _in_the_queue = Blocking::connect(swallows).unwrap();
        let live = TcpListener::bind("127.0.0.1:0").unwrap();
        let answers = live.local_addr().unwrap();
        let stream = block(first(vec![swallows, swallows, answers])).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), answers);
    }

    #[test]
    fn the_last_failure_is_told_if_none_answers() {
        let closed = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let live = TcpListener::bind("127.0.0.1:0").unwrap();
        let answers = live.local_addr().unwrap();
        assert_eq!(block(first(vec![closed(), answers])).unwrap().peer_addr().unwrap(), answers);
        assert_eq!(block(first(vec![closed(), closed()])).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(block(first(Vec::new())).unwrap_err().to_string(), "it has no address");
    }
}
