//! WireGuard's settings over generic netlink (linux/wireguard.h, linux/genetlink.h). The kernel answers while it is asked,
//! so nothing here waits.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use berth_config::{Endpoint, WireGuard, WireGuardKey, WireGuardPeer};
use nix::sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};

use crate::nftables::wire::{self, Attributes, attribute, attributes, error_of};

/// GENL_ID_CTRL: tells the numbers of the others.
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
const DEVICE_INDEX: u16 = 1;
const DEVICE_PRIVATE_KEY: u16 = 3;
const DEVICE_PUBLIC_KEY: u16 = 4;
const DEVICE_FLAGS: u16 = 5;
const DEVICE_LISTEN_PORT: u16 = 6;
const DEVICE_MARK: u16 = 7;
const DEVICE_PEERS: u16 = 8;
const PEER_PUBLIC_KEY: u16 = 1;
const PEER_PRESHARED_KEY: u16 = 2;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_LAST_HANDSHAKE: u16 = 6;
const PEER_SENT: u16 = 8;
const PEER_ALLOWED: u16 = 9;
const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_LENGTH: u16 = 3;
/// WGDEVICE_F_REPLACE_PEERS
const REPLACE_PEERS: u32 = 1;
/// WGPEER_F_REPLACE_ALLOWEDIPS, WGPEER_F_UPDATE_ONLY
const REPLACE_ALLOWED: u32 = 2;
const UPDATE_ONLY: u32 = 4;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const HEADERS: usize = 20;

/// Gives the tunnel with this number its key, port and peers, and no others.
pub fn configure(index: u32, tunnel: &WireGuard, key: &WireGuardKey) -> io::Result<()> {
    let connection = Connection::open()?;
    let mut device = Attributes::default();
    device.bytes(DEVICE_INDEX, &index.to_ne_bytes());
    device.bytes(DEVICE_PRIVATE_KEY, key.bytes());
    device.bytes(DEVICE_FLAGS, &REPLACE_PEERS.to_ne_bytes());
    device.bytes(DEVICE_LISTEN_PORT, &tunnel.listen_port.unwrap_or(0).to_ne_bytes());
    device.bytes(DEVICE_MARK, &tunnel.mark.unwrap_or(0).to_ne_bytes());
    connection.ask(SET_DEVICE, ACKNOWLEDGE, &device)?;
    // One message a peer: an attribute holds 64 KiB at most.
    tunnel.peers.iter().try_for_each(|peer| connection.set_peer(index, |attributes| describe(peer, attributes)))
}

/// Tells the tunnel with this number where a peer is that it has.
pub fn move_peer(index: u32, peer: &WireGuardPeer, address: SocketAddr) -> io::Result<()> {
    let connection = Connection::open()?;
    let update = |attributes: &mut Attributes| {
        attributes.bytes(PEER_PUBLIC_KEY, peer.public_key.bytes());
        attributes.bytes(PEER_FLAGS, &UPDATE_ONLY.to_ne_bytes());
    };
    connection.set_peer(index, |attributes| {
        update(attributes);
        attributes.bytes(PEER_ENDPOINT, &socket_address(address));
        attributes.bytes(PEER_KEEPALIVE, &0_u16.to_ne_bytes());
    })?;
    // The kernel gave up calling it while it was nowhere, and calls when the time between two calls is new.
    connection.set_peer(index, |attributes| {
        update(attributes);
        attributes.bytes(PEER_KEEPALIVE, &keepalive(peer));
    })
}

/// The public key that belongs to the tunnel's private one.
pub fn public_key(index: u32) -> io::Result<WireGuardKey> {
    let mut device = Attributes::default();
    device.bytes(DEVICE_INDEX, &index.to_ne_bytes());
    let answer = Connection::open()?.ask(GET_DEVICE, DUMP, &device)?;
    let key = attribute(answer.get(HEADERS..).unwrap_or_default(), DEVICE_PUBLIC_KEY);
    let key: Option<[u8; 32]> = key.and_then(|bytes| bytes.try_into().ok());
    key.map(WireGuardKey::new).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What has become of a peer.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Who it is.
    pub public_key: WireGuardKey,
    /// When the two have last agreed on keys, in seconds since 1970; nothing if never.
    pub last_handshake: Option<u64>,
    /// How many bytes it was sent, questions for a handshake too.
    pub sent: u64,
    /// Whether it is known where it is.
    pub has_endpoint: bool,
}

/// All peers of the tunnel with this number.
pub fn peers(index: u32) -> io::Result<Vec<Peer>> {
    let mut device = Attributes::default();
    device.bytes(DEVICE_INDEX, &index.to_ne_bytes());
    let connection = Connection::open()?;
    connection.send(GET_DEVICE, DUMP, &device)?;
    let mut found = Vec::new();
    wire::answers(&connection.socket, |message| {
        let list = attribute(message.get(HEADERS..).unwrap_or_default(), DEVICE_PEERS).unwrap_or_default();
        found.extend(attributes(list).filter_map(|(_, peer)| read(peer)));
    })?;
    Ok(found)
}

/// `None` where a message only goes on with a peer's addresses.
fn read(peer: &[u8]) -> Option<Peer> {
    let number = |kind| attribute(peer, kind)?.get(..8)?.try_into().ok().map(u64::from_ne_bytes);
    Some(Peer {
        public_key: WireGuardKey::new(attribute(peer, PEER_PUBLIC_KEY)?.try_into().ok()?),
        last_handshake: number(PEER_LAST_HANDSHAKE).filter(|seconds| *seconds > 0),
        sent: number(PEER_SENT)?,
        has_endpoint: attribute(peer, PEER_ENDPOINT).is_some(),
    })
}

fn describe(peer: &WireGuardPeer, attributes: &mut Attributes) {
    attributes.bytes(PEER_PUBLIC_KEY, peer.public_key.bytes());
    attributes.bytes(PEER_FLAGS, &REPLACE_ALLOWED.to_ne_bytes());
    if let Some(secret) = &peer.preshared_key {
        attributes.bytes(PEER_PRESHARED_KEY, secret.bytes());
    }
    if let Some(address) = peer.endpoint.as_ref().and_then(Endpoint::address) {
        attributes.bytes(PEER_ENDPOINT, &socket_address(address));
    }
    attributes.bytes(PEER_KEEPALIVE, &keepalive(peer));
    attributes.nested(PEER_ALLOWED, |list| {
        for prefix in &peer.allowed_ips {
            list.nested(0, |one| {
                let (family, address) = match prefix.address() {
                    std::net::IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
                    std::net::IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
                };
                one.bytes(ALLOWED_FAMILY, &family_number(family).to_ne_bytes());
                one.bytes(ALLOWED_ADDRESS, &address);
                one.bytes(ALLOWED_LENGTH, &[prefix.length()]);
            });
        }
    });
}

fn keepalive(peer: &WireGuardPeer) -> [u8; 2] {
    let seconds = peer.persistent_keepalive.map_or(0, |time| time.duration().as_secs());
    u16::try_from(seconds).unwrap_or(u16::MAX).to_ne_bytes()
}

fn family_number(family: i32) -> u16 {
    u16::try_from(family).unwrap_or(0)
}

/// A struct sockaddr_in or sockaddr_in6.
fn socket_address(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    match address {
        SocketAddr::V4(address) => {
            bytes.extend(family_number(libc::AF_INET).to_ne_bytes());
            bytes.extend(address.port().to_be_bytes());
            bytes.extend(address.ip().octets());
            bytes.resize(16, 0);
        }
        SocketAddr::V6(address) => {
            bytes.extend(family_number(libc::AF_INET6).to_ne_bytes());
            bytes.extend(address.port().to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(address.ip().octets());
            bytes.extend(address.scope_id().to_ne_bytes());
        }
    }
    bytes
}

struct Connection {
    socket: OwnedFd,
    family: u16,
}

impl Connection {
    fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkGeneric)?;
        socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let mut this = Self { socket, family: CONTROLLER };
        let mut name = Attributes::default();
        name.text(FAMILY_NAME, "wireguard");
        let answer = this.ask(GET_FAMILY, 0, &name)?;
        let number = attribute(answer.get(HEADERS..).unwrap_or_default(), FAMILY_ID);
        let number = number.and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        this.family = number.ok_or(io::ErrorKind::InvalidData)?;
        Ok(this)
    }

    fn send(&self, command: u8, flags: u16, attributes: &Attributes) -> io::Result<()> {
        let bytes = attributes.as_bytes();
        let length = u32::try_from(HEADERS + bytes.len()).unwrap_or(u32::MAX);
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(self.family.to_ne_bytes());
        message.extend((REQUEST | flags).to_ne_bytes());
        message.extend([0; 8]);
        message.extend([command, 1, 0, 0]);
        message.extend(bytes);
        socket::send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        Ok(())
    }

    fn set_peer(&self, index: u32, describe: impl FnOnce(&mut Attributes)) -> io::Result<()> {
        let mut device = Attributes::default();
        device.bytes(DEVICE_INDEX, &index.to_ne_bytes());
        device.nested(DEVICE_PEERS, |peers| {
            peers.nested(0, describe);
        });
        self.ask(SET_DEVICE, ACKNOWLEDGE, &device).map(drop)
    }

    /// Sends one message and returns the first of the answer.
    fn ask(&self, command: u8, flags: u16, attributes: &Attributes) -> io::Result<Vec<u8>> {
        self.send(command, flags, attributes)?;
        let mut buffer = vec![0; 32 * 1024];
        let length = socket::recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        buffer.truncate(length);
        match error_of(&buffer) {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => Ok(buffer),
        }
    }
}
