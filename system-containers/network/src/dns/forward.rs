//! Questions that go on to the host's servers, one after the other until one has an answer.
//!
//! Over UDP each question has a port, an id and a connected socket of its own (RFC 5452), and an answer counts only if
//! it is one to that question. The query itself is passed on as it came.
//!
//! That a question gets no answer says nothing against the server: whoever is responsible for the name may be silent.
//! So a server that did not answer is asked something that it has to know by itself before it is taken for silent.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::socket::{self, MsgFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message;
use crate::{clock, random};

/// How long a server may take over UDP: with two rounds of two servers that is what resolvers in containers wait (5 s
/// and once again, resolv.conf(5)), and less than that for the first answer of the second server.
const UDP_PATIENCE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// How long a server that is not there is asked after all others: one question in that time waits for it, not all.
const SILENCE: Duration = Duration::from_secs(30);
/// Over TCP, for a connection and an answer.
const TCP_PATIENCE: Duration = Duration::from_secs(5);
/// More than any answer over UDP that a query of ours allows for.
const LARGEST_DATAGRAM: usize = 65_535;

/// A question for `localhost` of the kind A, which no server has to ask others (RFC 6761, 6.3). A refusal is an answer too.
const ARE_YOU_THERE: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x09localhost\0\0\x01\0\x01";

/// What is known of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is being asked whether it is there.
    Doubted,
    /// Until then others are asked before it.
    Silent { until: Duration },
}

/// Servers that did not answer; of all others there is nothing to be said.
#[derive(Clone, Debug, Default)]
pub struct Silent(Arc<Mutex<Vec<(SocketAddr, State)>>>);

impl Silent {
    fn states(&self) -> MutexGuard<'_, Vec<(SocketAddr, State)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The servers in the order in which they are to be asked.
    fn order(&self, servers: &[SocketAddr], now: Duration) -> Vec<SocketAddr> {
        let mut states = self.states();
        states.retain(|(_, state)| !matches!(state, State::Silent { until } if *until <= now));
        let is_silent = |server: &SocketAddr| {
            states.iter().any(|(other, state)| other == server && matches!(state, State::Silent { .. }))
        };
        let (last, mut order): (Vec<_>, Vec<_>) = servers.iter().copied().partition(is_silent);
        order.extend(last);
        order
    }

    /// It has answered.
    fn clear(&self, server: SocketAddr) {
        self.states().retain(|(other, _)| *other != server);
    }

    /// It did not answer. Says whether it is to be asked whether it is there, which somebody may be doing already.
    fn doubt(&self, server: SocketAddr, now: Duration) -> bool {
        let mut states = self.states();
        match states.iter_mut().find(|(other, _)| *other == server) {
            Some((_, State::Doubted)) => false,
            // It was asked last, and still is silent.
            Some((_, state)) => {
                *state = State::Silent { until: now + SILENCE };
                false
            }
            None => {
                states.push((server, State::Doubted));
                true
            }
        }
    }

    /// What came of that.
    fn note(&self, server: SocketAddr, is_there: bool, now: Duration) {
        self.clear(server);
        if !is_there {
            self.states().push((server, State::Silent { until: now + SILENCE }));
        }
    }

    /// Asks a server that did not answer whether it is there. Nobody waits for that.
    fn ask_if_there(&self, server: SocketAddr) {
        if self.doubt(server, clock::now()) {
            let silent = self.clone();
            tokio::spawn(async move {
                let answer = timeout(UDP_PATIENCE, over_udp(ARE_YOU_THERE, server)).await;
                silent.note(server, matches!(answer, Ok(Ok(_))), clock::now());
            });
        }
    }
}

/// What other servers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The message.
    pub message: Vec<u8>,
    /// Whether it may be kept. That there is nothing is not, where a server that goes before did not answer: it may know of
    /// names that nobody else has.
    pub keep: bool,
}

/// Asks over UDP, or over TCP. A server that says that it cannot or will not counts only if no other has an answer; `None`
/// if no server says anything.
pub async fn ask(query: &[u8], servers: &[SocketAddr], silent: &Silent, stream: bool) -> Option<Answer> {
    let (rounds, patience) = if stream { (1, TCP_PATIENCE) } else { (ROUNDS, UDP_PATIENCE) };
    let (mut refusal, mut refusing) = (None, Vec::new());
    for _ in 0..rounds {
        for server in silent.order(servers, clock::now()) {
            let asked = async { if stream { over_tcp(query, server).await } else { over_udp(query, server).await } };
            let Some(message) = timeout(patience, asked).await.ok().and_then(Result::ok) else {
                silent.ask_if_there(server);
                continue;
            };
            silent.clear(server);
            if message::is_refusal(&message) {
                refusing.push(server);
                refusal = refusal.or(Some(message));
                continue;
            }
            let mut before = servers.iter().take_while(|other| **other != server);
            let keep = !message::is_negative(&message) || before.all(|other| refusing.contains(other));
            return Some(Answer { message, keep });
        }
        if refusal.is_some() {
            break;
        }
    }
    refusal.map(|message| Answer { message, keep: false })
}

async fn over_udp(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let mut asked = query.to_vec();
    let [first, second, ..] = random::number().to_ne_bytes();
    message::set_id(&mut asked, [first, second]);
    socket.send(&asked).await?;
    loop {
        // That nobody listens there is an error which comes without a message.
        let mut answer = socket.async_io(Interest::READABLE | Interest::ERROR, || receive(&socket)).await?;
        if answer.get(..2) == asked.get(..2) && message::answers(&answer, query) {
            restore_id(&mut answer, query);
            return Ok(answer);
        }
    }
}

/// Most questions wait, and what waits is to need little: room for the answer is made when it is there.
fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    let length = socket::recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
    buffer.truncate(length);
    Ok(buffer)
}

async fn over_tcp(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, query).await?;
    let mut answer = read_message(&mut stream).await?;
    if !message::answers(&answer, query) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    restore_id(&mut answer, query);
    Ok(answer)
}

/// With its length before it (RFC 1035, 4.2.2), in one piece.
pub async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat()).await
}

/// The next message of a stream.
pub async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

fn restore_id(answer: &mut [u8], query: &[u8]) {
    if let Some(id) = query.get(..2).and_then(|id| id.try_into().ok()) {
        message::set_id(answer, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_not_there_is_asked_last_for_a_while() {
        let [one, two, three] = [1, 2, 3].map(|last| SocketAddr::from(([192, 0, 2, last], 53)));
        let (silent, now) = (Silent::default(), Duration::from_secs(9));
        assert!(silent.doubt(one, now));
        assert!(!silent.doubt(one, now), "it is being asked already");
        assert_eq!(silent.order(&[one, two, three], now), [one, two, three], "it may be there");
        silent.note(one, false, now);
        assert_eq!(silent.order(&[one, two, three], now), [two, three, one]);
        silent.note(two, false, now);
        silent.note(three, false, now);
        assert_eq!(silent.order(&[one, two, three], now), [one, two, three], "all of them are asked");
        silent.clear(three);
        assert_eq!(silent.order(&[one, two, three], now), [three, one, two]);
        let later = now + SILENCE / 2;
        assert!(!silent.doubt(one, later), "it is silent still");
        assert_eq!(silent.order(&[one, two, three], now + SILENCE), [two, three, one]);
        assert_eq!(silent.order(&[one, two, three], later + SILENCE), [one, two, three]);
    }

    #[test]
    fn a_server_that_is_there_is_asked_as_before() {
        let [one, two] = [1, 2].map(|last| SocketAddr::from(([192, 0, 2, last], 53)));
        let (silent, now) = (Silent::default(), Duration::from_secs(9));
        assert!(silent.doubt(one, now));
        silent.note(one, true, now);
        assert_eq!(silent.order(&[one, two], now), [one, two]);
        assert!(silent.doubt(one, now), "the next time it is asked again");
    }

    #[test]
    fn the_question_whether_a_server_is_there_is_one() {
        let query = message::Query::read(ARE_YOU_THERE).unwrap();
        assert_eq!((query.name.as_str(), query.kind), ("localhost", message::Kind::A));
    }
}
