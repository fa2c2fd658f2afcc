//! Resolvers and search domains from IPv6 router advertisements (RFC 8106).
//!
//! The kernel does the rest of an advertisement (addresses, routes, MTU) and hands on the options it has no use for as
//! RTM_NEWNDUSEROPT messages. rtnetlink's types do not know that message; it is a header and the option as it came
//! from the network, so reading takes any bytes. [`kept`] is what holds of it; [`search`] finds out which routers there
//! are behind another cable, from whole advertisements as [`packet`] reads them, at its [`port`].

mod kept;
pub mod packet;
pub mod port;
pub mod search;

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrIn6, sockopt,
};
use tokio::io::unix::AsyncFd;

pub use self::kept::Kept;
use crate::dhcp::message::{compressed_name, is_domain_name};
use crate::nftables::wire::header;
use crate::sys;

/// RTNLGRP_ND_USEROPT is group 20 (linux/rtnetlink.h); groups are a bit mask in the address.
const GROUP: u32 = 1 << 19;
const RTM_NEWNDUSEROPT: u16 = 68;
const ROUTER_SOLICITATION: u8 = 133;
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;
const NETLINK_HEADER: usize = 16;
const OPTION_HEADER: usize = 16;
/// The most entries that are taken from one option.
const LIST_LIMIT: usize = 16;

/// What an advertisement says about names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// The index of the link it came on.
    pub link: u32,
    /// How long it holds; zero takes it back.
    pub lifetime: Duration,
    /// Resolvers.
    pub dns_servers: Vec<Ipv6Addr>,
    /// Domains to search.
    pub search: Vec<String>,
}

/// Hears what the kernel hands on.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
}

impl Listener {
    /// Opens it, within a tokio runtime.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
        Ok(Self { socket: sys::watch(socket)? })
    }

    /// The next options about names. Lost messages are no matter: routers repeat themselves.
    pub async fn receive(&self) -> io::Result<Vec<Advertised>> {
        let mut buffer = [0; 8192];
        loop {
            let mut ready = self.socket.readable().await?;
            let result = ready.try_io(|socket| Ok(socket::recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?));
            match result {
                Err(_) => {}
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Ok(Err(error)) => return Err(error),
                Ok(Ok(length)) => {
                    let advertised = messages(buffer.get(..length).unwrap_or_default());
                    if !advertised.is_empty() {
                        return Ok(advertised);
                    }
                }
            }
        }
    }
}

/// Asks the routers on a link for an advertisement (RFC 4861, 4.1). Where there is no address yet to ask from, the kernel
/// does so when there is one.
pub fn solicit(link: u32) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Inet6, SockType::Raw, flags, SockProtocol::IcmpV6)?;
    socket::setsockopt(&socket, sockopt::Ipv6MulticastHops, &packet::HOP_LIMIT.into())?;
    // The kernel fills in the checksum.
    let message = [ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    let routers = SockaddrIn6::from(SocketAddrV6::new(ALL_ROUTERS, 0, 0, link));
    match socket::sendto(socket.as_raw_fd(), &message, &routers, MsgFlags::empty()) {
        Ok(_) | Err(Errno::EADDRNOTAVAIL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The netlink messages of a buffer.
pub fn messages(mut buffer: &[u8]) -> Vec<Advertised> {
    let mut advertised = Vec::new();
    while let Some((length, kind)) = buffer.get(..NETLINK_HEADER).and_then(header) {
        let Some(message) = buffer.get(NETLINK_HEADER..length) else { break };
        if kind == RTM_NEWNDUSEROPT {
            advertised.extend(options(message));
        }
        buffer = buffer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    advertised
}

/// A struct nduseroptmsg (linux/rtnetlink.h) and the options behind it.
fn options(message: &[u8]) -> Vec<Advertised> {
    let read = || {
        let length = usize::from(u16::from_ne_bytes(message.get(2..4)?.try_into().ok()?));
        let link = i32::from_ne_bytes(message.get(4..8)?.try_into().ok()?);
        let known = *message.get(8)? == packet::ADVERTISEMENT;
        let options = message.get(OPTION_HEADER..OPTION_HEADER + length)?;
        known.then_some((u32::try_from(link).ok()?, options))
    };
    let Some((link, mut rest)) = read() else { return Vec::new() };
    let mut advertised = Vec::new();
    while let [kind, units, ..] = rest {
        let Some((option, following)) = rest.split_at_checked(usize::from(*units) * 8).filter(|_| *units > 0) else {
            break;
        };
        advertised.extend(names(link, *kind, option));
        rest = following;
    }
    advertised
}

fn names(link: u32, kind: u8, option: &[u8]) -> Option<Advertised> {
    let lifetime = Duration::from_secs(u64::from(u32::from_be_bytes(option.get(4..8)?.try_into().ok()?)));
    let value = option.get(8..)?;
    let mut advertised = Advertised { link, lifetime, dns_servers: Vec::new(), search: Vec::new() };
    match kind {
        RDNSS => {
            let addresses = value.chunks_exact(16).filter_map(|bytes| <[u8; 16]>::try_from(bytes).ok());
            let usable = |address: &Ipv6Addr| !address.is_unspecified() && !address.is_multicast();
            advertised.dns_servers = addresses.map(Ipv6Addr::from).filter(usable).take(LIST_LIMIT).collect();
        }
        DNSSL => {
            let mut position = 0;
            while let Some((name, next)) = compressed_name(value, position) {
                if is_domain_name(&name) && advertised.search.len() < LIST_LIMIT {
                    advertised.search.push(name);
                }
                position = next;
            }
        }
        _ => return None,
    }
    Some(advertised)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(option: &[u8]) -> Vec<u8> {
        let length = u16::try_from(option.len()).unwrap();
        let total = u32::try_from(32 + option.len()).unwrap();
        let mut bytes = total.to_ne_bytes().to_vec();
        bytes.extend(RTM_NEWNDUSEROPT.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([10, 0]);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(3_i32.to_ne_bytes());
        bytes.extend([packet::ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(option);
        bytes
    }

    #[test]
    fn resolvers_and_domains_are_read() {
        let server: Ipv6Addr = "fd00::53".parse().unwrap();
        let rdnss = [&[RDNSS, 3, 0, 0, 0, 0, 2, 88][..], &server.octets()].concat();
        let dnssl = [&[DNSSL, 3, 0, 0, 0, 0, 2, 88][..], b"\x03lab\x03org\x00\0\0\0\0\0\0\0"].concat();
        let read = messages(&[message(&rdnss), message(&dnssl)].concat());
        assert_eq!(read[0].dns_servers, [server]);
        assert_eq!((read[0].link, read[0].lifetime), (3, Duration::from_secs(600)));
        assert_eq!(read[1].search, ["lab.org"]);
    }

    #[test]
    fn an_option_of_no_length_ends_the_reading() {
        assert!(messages(&message(&[RDNSS, 0, 0, 0])).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            messages(&bytes);
            for advertised in messages(&message(&bytes)) {
                prop_assert!(advertised.search.iter().all(|name| is_domain_name(name)));
            }
        }
    }
}
