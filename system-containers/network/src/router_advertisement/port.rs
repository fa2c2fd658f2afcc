//! A search at its post: a packet socket that is open only while it lasts.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::Sender;

use super::packet::{ADVERTISEMENT, Advertisement, HOP_LIMIT};
use super::search::{Found, Search};
use super::{search, solicit};
use crate::listening::{Listening, hand_on};
use crate::sys::{self, Instruction};

/// More than any Ethernet frame without jumbo.
const LARGEST: usize = 2048;

/// ICMPv6 next to the header, of this link, an advertisement. Offsets count from the IPv6 header.
const FILTER: [Instruction; 6] = [
    (0x28, 0, 0, 6),                          // A = protocol and hop limit
    (0x15, 0, 3, 58 << 8 | HOP_LIMIT as u32), // ICMPv6 that has passed no router?
    (0x30, 0, 0, 40),                         // A = type
    (0x15, 0, 1, ADVERTISEMENT as u32),       // an advertisement?
    (0x06, 0, 0, LARGEST as u32),             // let in
    (0x06, 0, 0, 0),                          // leave out
];

/// What came on the link with this number.
pub type Heard = (u32, Advertisement);

/// A search and its socket.
#[derive(Debug)]
pub struct Port {
    link: u32,
    search: Search,
    _listening: Listening<AsyncFd<OwnedFd>>,
}

impl Port {
    /// Opens the socket, within a tokio runtime. What is heard goes to `heard` and is to be given back.
    pub fn open(link: u32, heard: Sender<Heard>, now: Duration) -> io::Result<Self> {
        let socket = sys::watch(sys::packet_socket(link, sys::IPV6, &FILTER)?)?;
        let listening = Listening::begin(socket, |socket| {
            hand_on::<LARGEST, _>(socket, heard, move |bytes| Some((link, Advertisement::decode(bytes)?)))
        });
        Ok(Self { link, search: Search::begin(now), _listening: listening })
    }

    /// The search.
    pub fn search(&self) -> &Search {
        &self.search
    }

    /// Asks if that is due, and says what there is when it is known.
    pub fn tick(&mut self, now: Duration) -> io::Result<Option<Found>> {
        match self.search.tick(now) {
            Some(search::Action::Solicit) => solicit(self.link).map(|()| None),
            Some(search::Action::Found(found)) => Ok(Some(found)),
            None => Ok(None),
        }
    }

    /// Looks at what was heard.
    pub fn hear(&mut self, advertisement: Advertisement, now: Duration) {
        self.search.hear(advertisement, now);
    }
}
