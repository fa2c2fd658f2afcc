//! Questions that go on to the host's servers, one after the other until one answers.
//!
//! Over UDP each question has a port, an id and a connected socket of its own (RFC 5452), and an answer counts only if
//! it is one to that question. The query itself is passed on as it came.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message;
use crate::device;

/// How long a server may take over UDP: with two rounds of two servers that is what resolvers in containers wait (5 s
/// and once again, resolv.conf(5)), and less than that for the first answer of the second server.
const UDP_PATIENCE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// Over TCP, for a connection and an answer.
const TCP_PATIENCE: Duration = Duration::from_secs(5);
/// More than any answer over UDP that a query of ours allows for.
const LARGEST_DATAGRAM: usize = 65_535;

/// Asks over UDP. `None` if no server answers.
pub async fn over_udp(query: &[u8], servers: &[SocketAddr]) -> Option<Vec<u8>> {
    for _ in 0..ROUNDS {
        for server in servers {
            // A server that cannot be reached or takes too long: the next one is asked.
            if let Ok(Ok(answer)) = timeout(UDP_PATIENCE, ask_over_udp(query, *server)).await {
                return Some(answer);
            }
        }
    }
    None
}

async fn ask_over_udp(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let mut asked = query.to_vec();
    let [first, second, ..] = device::random().to_ne_bytes();
    message::set_id(&mut asked, [first, second]);
    socket.send(&asked).await?;
    let mut buffer = vec![0; LARGEST_DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = buffer.get_mut(..length).unwrap_or_default();
        if answer.get(..2) == asked.get(..2) && message::answers(answer, query) {
            restore_id(answer, query);
            return Ok(answer.to_vec());
        }
    }
}

/// Asks over TCP. `None` if no server answers.
pub async fn over_tcp(query: &[u8], servers: &[SocketAddr]) -> Option<Vec<u8>> {
    for server in servers {
        if let Ok(Ok(mut answer)) = timeout(TCP_PATIENCE, ask_over_tcp(query, *server)).await
            && message::answers(&answer, query)
        {
            restore_id(&mut answer, query);
            return Some(answer);
        }
    }
    None
}

async fn ask_over_tcp(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, query).await?;
    read_message(&mut stream).await
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
