//! A detector at its post: a packet socket that is open only while the question is.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::pin;
use std::time::Duration;

use nix::sys::socket::{self, MsgFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

use super::detector::{Action, Detector};
use super::packet::Packet;
use crate::dhcp::message::Mac;
use crate::listening::{Listening, hand_on};
use crate::sys;

/// Lets everything in: the socket's protocol is ARP.
const FILTER: [sys::Instruction; 1] = [(0x06, 0, 0, 64)];

/// Of [`ask`].
const QUICK_PROBES: u32 = 2;
const QUICK_WAIT: Duration = Duration::from_millis(150);

/// A packet that came on the link with this number.
pub type Heard = (u32, Packet);

/// A detector and its socket.
#[derive(Debug)]
pub struct Port {
    link: u32,
    detector: Detector,
    listening: Listening<AsyncFd<OwnedFd>>,
}

impl Port {
    /// Opens the socket, within a tokio runtime. What is heard goes to `heard` and is to be given back.
    pub fn open(link: u32, detector: Detector, heard: Sender<Heard>) -> io::Result<Self> {
        let socket = sys::watch(sys::packet_socket(link, sys::ARP, &FILTER)?)?;
        let address = detector.address();
        let is_about = move |packet: &Packet| [packet.sender, packet.target].contains(&address);
        let listening = Listening::begin(socket, |socket| {
            hand_on::<64, _>(socket, heard, move |bytes| Some((link, Packet::decode(bytes).filter(is_about)?)))
        });
        Ok(Self { link, detector, listening })
    }

    /// The detector.
    pub fn detector(&self) -> &Detector {
        &self.detector
    }

    /// Sends what is due, and says whether the address is free now.
    pub fn tick(&mut self, now: Duration) -> io::Result<bool> {
        let mut is_free = false;
        for action in self.detector.tick(now) {
            match action {
                Action::Send(packet) => {
                    sys::send_packet(
                        self.listening.socket().as_fd(),
                        (self.link, sys::ARP),
                        [0xff; 6],
                        &packet.encode(),
                    )?;
                }
                Action::Free => is_free = true,
                Action::Taken(_) => {}
            }
        }
        Ok(is_free)
    }

    /// Looks at what was heard.
    pub fn hear(&mut self, packet: &Packet) -> Option<Action> {
        self.detector.hear(packet)
    }
}

/// Asks for a moment whether a machine has the address, and who. Enough for one that is there and awake; the six seconds of
/// RFC 5227 are too much for the start of a container.
pub async fn ask(link: u32, mac: Mac, address: Ipv4Addr) -> io::Result<Option<Mac>> {
    let socket = sys::watch(sys::packet_socket(link, sys::ARP, &FILTER)?)?;
    let probe = Packet { sender_mac: mac, sender: Ipv4Addr::UNSPECIFIED, target: address }.encode();
    let answer = async {
        let mut buffer = [0; 64];
        loop {
            let mut ready = socket.readable().await?;
            let heard = ready.try_io(|socket| Ok(socket::recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?));
            let Ok(length) = heard else { continue };
            let packet = buffer.get(..length?).and_then(Packet::decode);
            if let Some(packet) = packet.filter(|packet| packet.sender == address && packet.sender_mac != mac) {
                return Ok(packet.sender_mac);
            }
        }
    };
    let mut answer = pin!(answer);
    for _ in 0..QUICK_PROBES {
        sys::send_packet(socket.as_fd(), (link, sys::ARP), [0xff; 6], &probe)?;
        if let Ok(answer) = timeout(QUICK_WAIT, &mut answer).await {
            return answer.map(Some);
        }
    }
    Ok(None)
}
