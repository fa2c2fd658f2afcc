//! The client of one link at its post: a UDP socket on port 546 of this link, open only while an answer is awaited.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, sockopt};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::Sender;

use super::client::{Action, Client, Event};
use super::lease::Lease;
use super::message::ServerMessage;
use crate::dhcp::message::Mac;
use crate::listening::Listening;

const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;
/// All_DHCP_Relay_Agents_and_Servers
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// More than any message that fits a packet of the Internet.
const LARGEST: usize = 4096;

/// A message that came on the link with this number.
pub type Heard = (u32, Box<ServerMessage>);

/// What is left to do after sending.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// These addresses and names, and no others.
    Configure(Lease),
    /// Keep it for the next boot.
    Save(Lease),
    /// Do not keep it any longer.
    Forget,
    /// For the log.
    Report(String),
}

/// A client and its socket.
#[derive(Debug)]
pub struct Port {
    link: u32,
    client: Client,
    heard: Sender<Heard>,
    listening: Option<Listening<UdpSocket>>,
}

impl Port {
    /// For the link with this number. What is heard goes to `heard` and is to be given back as an event.
    pub fn new(link: u32, client: Client, heard: Sender<Heard>) -> Self {
        Self { link, client, heard, listening: None }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Takes an event, sends what is to be sent and returns the rest.
    pub fn step(&mut self, link_name: &str, now: Duration, event: Event) -> Vec<Outcome> {
        let actions = self.client.step(now, event);
        let mut outcomes = Vec::new();
        for action in actions {
            match action {
                Action::Send(message) => {
                    if let Err(error) = self.send(link_name, &message.encode()) {
                        outcomes.push(Outcome::Report(format!("cannot send DHCPv6: {error}")));
                    }
                }
                Action::Configure(lease) => outcomes.push(Outcome::Configure(lease)),
                Action::Save(lease) => outcomes.push(Outcome::Save(lease)),
                Action::Forget => outcomes.push(Outcome::Forget),
                Action::Report(text) => outcomes.push(Outcome::Report(text)),
            }
        }
        if !self.client.listens() {
            self.listening = None;
        }
        outcomes
    }

    fn send(&mut self, link_name: &str, message: &[u8]) -> io::Result<()> {
        let listening = match self.listening.take() {
            Some(listening) => listening,
            None => {
                let (link, mac, heard) = (self.link, self.client.mac(), self.heard.clone());
                Listening::begin(open(link_name)?, |socket| hear(link, mac, socket, heard))
            }
        };
        let listening = self.listening.insert(listening);
        let to = SocketAddrV6::new(SERVERS, SERVER_PORT, 0, self.link);
        let to = SockaddrStorage::from(SocketAddr::from(to));
        // Not by tokio, which waits for its first round before it sends.
        match socket::sendto(listening.socket().as_raw_fd(), message, &to, MsgFlags::MSG_NOSIGNAL) {
            // No link-local address yet, or the link went down: the next attempt may have more luck.
            Err(nix::Error::EADDRNOTAVAIL | nix::Error::ENETUNREACH) => Ok(()),
            done => Ok(done.map(|_| ())?),
        }
    }
}

fn open(link_name: &str) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Inet6, SockType::Datagram, flags, None)?;
    socket::setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    socket::setsockopt(&socket, sockopt::BindToDevice, &OsString::from(link_name))?;
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), CLIENT_PORT);
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(any))?;
    UdpSocket::from_std(socket.into())
}

/// Ends when nobody takes the messages.
async fn hear(link: u32, mac: Mac, socket: Arc<UdpSocket>, heard: Sender<Heard>) {
    let mut buffer = vec![0; LARGEST];
    loop {
        // What an earlier message met, such as a port that is closed.
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else { continue };
        let message = buffer.get(..length).and_then(|bytes| ServerMessage::decode(bytes, mac));
        if let Some(message) = message
            && heard.send((link, Box::new(message))).await.is_err()
        {
            return;
        }
    }
}
