//! Questions that go on to the host's servers, one after the other until one has an answer.
//!
//! Over UDP each question has a port, an id and a connected socket of its own (RFC 5452), and an answer counts only if
//! it is one to that question. The query itself is passed on as it came.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};
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
/// How long a server that did not answer is asked after all others: one question in that time waits for it, not all.
const SILENCE: Duration = Duration::from_secs(30);
/// Over TCP, for a connection and an answer.
const TCP_PATIENCE: Duration = Duration::from_secs(5);
/// More than any answer over UDP that a query of ours allows for.
const LARGEST_DATAGRAM: usize = 65_535;

/// Servers that did not answer, and until when others are asked before them.
#[derive(Debug, Default)]
pub struct Silent(Mutex<Vec<(SocketAddr, Duration)>>);

impl Silent {
    /// The servers in the order in which they are to be asked.
    fn order(&self, servers: &[SocketAddr], now: Duration) -> Vec<SocketAddr> {
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|(_, until)| now < *until);
        let (last, mut order): (Vec<_>, Vec<_>) =
            servers.iter().copied().partition(|server| silent.iter().any(|(silent, _)| silent == server));
        order.extend(last);
        order
    }

    fn note(&self, server: SocketAddr, answers: bool, now: Duration) {
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|(other, _)| *other != server);
        if !answers {
            silent.push((server, now + SILENCE));
        }
    }
}

/// Asks over UDP, or over TCP. A server that says that it cannot or will not counts only if no other has an answer; `None`
/// if no server says anything.
pub async fn ask(query: &[u8], servers: &[SocketAddr], silent: &Silent, stream: bool) -> Option<Vec<u8>> {
    let (rounds, patience) = if stream { (1, TCP_PATIENCE) } else { (ROUNDS, UDP_PATIENCE) };
    let mut refusal = None;
    for _ in 0..rounds {
        for server in silent.order(servers, clock::now()) {
            let asked = async { if stream { over_tcp(query, server).await } else { over_udp(query, server).await } };
            let answer = timeout(patience, asked).await.ok().and_then(Result::ok);
            silent.note(server, answer.is_some(), clock::now());
            match answer {
                Some(answer) if message::is_refusal(&answer) => refusal = refusal.or(Some(answer)),
                None => {}
                answer => return answer,
            }
        }
        if refusal.is_some() {
            break;
        }
    }
    refusal
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
    fn a_server_that_did_not_answer_is_asked_last_for_a_while() {
        let [one, two, three] = [1, 2, 3].map(|last| SocketAddr::from(([192, 0, 2, last], 53)));
        let (silent, now) = (Silent::default(), Duration::from_secs(9));
        silent.note(one, false, now);
        assert_eq!(silent.order(&[one, two, three], now), [two, three, one]);
        silent.note(two, false, now);
        silent.note(three, false, now);
        assert_eq!(silent.order(&[one, two, three], now), [one, two, three], "all of them are asked");
        silent.note(three, true, now);
        assert_eq!(silent.order(&[one, two, three], now), [three, one, two]);
        assert_eq!(silent.order(&[one, two, three], now + SILENCE), [one, two, three]);
    }
}
