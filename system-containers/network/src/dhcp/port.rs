//! The client of one link at its post: what [`Client::step`] decides is sent and heard here. What it decides about
//! addresses and files is returned.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{self, MsgFlags};
use std::os::fd::AsRawFd;
use tokio::sync::mpsc::Sender;

use super::client::{Action, Client, Event};
use super::lease::Lease;
use super::message::{ClientMessage, ServerMessage};
use super::socket::{PacketSocket, connect};
use crate::listening::Listening;

/// A message that came on the link with this number.
pub type Heard = (u32, Box<ServerMessage>);

/// What is left to do after sending.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Addresses and routes of this lease are to be there.
    Configure(Lease),
    /// And of this one no longer.
    Unconfigure(Lease),
    /// Write it to the store.
    Save(Lease),
    /// Remove it from the store.
    Forget,
    /// For the log.
    Report(String),
}

/// A client and its sockets.
#[derive(Debug)]
pub struct Port {
    link: u32,
    client: Client,
    heard: Sender<Heard>,
    listening: Option<Listening<PacketSocket>>,
    renewal: Option<UdpSocket>,
}

impl Port {
    /// For the link with this number. What is heard goes to `heard` and is to be given back as an event.
    pub fn new(link: u32, client: Client, heard: Sender<Heard>) -> Self {
        Self { link, client, heard, listening: None, renewal: None }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What servers are told of the machine's name from now on; nothing if it has none.
    pub fn call_itself(&mut self, host_name: Option<String>) {
        self.client.call_itself(host_name);
    }

    /// Takes an event, sends what is to be sent and returns the rest.
    pub fn step(&mut self, link_name: &str, now: Duration, event: Event) -> Vec<Outcome> {
        let actions = self.client.step(now, event);
        let mut outcomes = Vec::new();
        if let Err(error) = self.listen() {
            outcomes.push(Outcome::Report(format!("cannot listen for DHCP: {error}")));
        }
        for action in actions {
            let sent = match action {
                Action::Broadcast(message) => self.broadcast(&message),
                Action::Unicast(message) => self.unicast(link_name, &message),
                Action::Configure(lease) => {
                    outcomes.push(Outcome::Configure(lease));
                    Ok(())
                }
                Action::Unconfigure(lease) => {
                    outcomes.push(Outcome::Unconfigure(lease));
                    Ok(())
                }
                Action::Save(lease) => {
                    outcomes.push(Outcome::Save(lease));
                    Ok(())
                }
                Action::Forget => {
                    outcomes.push(Outcome::Forget);
                    Ok(())
                }
                Action::Report(text) => {
                    outcomes.push(Outcome::Report(text));
                    Ok(())
                }
            };
            if let Err(error) = sent {
                outcomes.push(Outcome::Report(format!("cannot send DHCP: {error}")));
            }
        }
        outcomes
    }

    /// Opens and closes the sockets as the client's state wants them.
    fn listen(&mut self) -> io::Result<()> {
        if !self.client.listens() {
            self.listening = None;
            self.renewal = None;
        } else if self.listening.is_none() {
            let (link, heard) = (self.link, self.heard.clone());
            self.listening = Some(Listening::begin(PacketSocket::open(link)?, |socket| hear(link, socket, heard)));
        }
        Ok(())
    }

    fn broadcast(&self, message: &ClientMessage) -> io::Result<()> {
        match &self.listening {
            Some(listening) => listening.socket().broadcast(message.address, &message.encode()),
            // What is not answered: an address is declined.
            None => PacketSocket::open(self.link)?.broadcast(message.address, &message.encode()),
        }
    }

    fn unicast(&mut self, link_name: &str, message: &ClientMessage) -> io::Result<()> {
        let lease = self.client.lease().ok_or(io::ErrorKind::NotConnected)?;
        let socket = match self.renewal.take() {
            Some(socket) => socket,
            None => connect(link_name, lease.address, lease.server)?,
        };
        let socket = self.renewal.insert(socket);
        socket::send(socket.as_fd().as_raw_fd(), &message.encode(), MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }
}

/// Ends when the socket does (its link has gone) or nobody takes the messages.
async fn hear(link: u32, socket: Arc<PacketSocket>, heard: Sender<Heard>) {
    loop {
        match socket.receive().await {
            Ok(message) => {
                if heard.send((link, Box::new(message))).await.is_err() {
                    return;
                }
            }
            // The link is down for a moment: the socket stays and hears again when it is up.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
            Err(_) => return,
        }
    }
}
