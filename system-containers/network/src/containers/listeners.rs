//! What of the machine itself is in the way of a published port: a program that listens there, or a tunnel. Its packets
//! would come to the container, and it would hear nothing any more.
//!
//! The kernel is asked once for the listeners of a protocol (sock_diag(7)), however many ports are wanted, and for those of a
//! single port only, so that it costs the same whatever else there is. Who only waits for an answer must not be taken for a
//! listener: over UDP, a port of those that the kernel gives away itself counts only where it is a tunnel's.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;

use berth_config::Protocol;
use berth_control::message::Port;
use netlink_packet_route::address::AddressAttribute;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};

use super::conflicts::{Opening, PortError};
use super::{AttachError, Containers};
use crate::nftables::wire;
use crate::{report, resolver};

/// SOCK_DIAG_BY_FAMILY, with NLM_F_REQUEST and NLM_F_DUMP.
const BY_FAMILY: u16 = 20;
const DUMP: u16 = 0x301;
/// TCP_LISTEN, and what a socket of UDP has that is connected to nobody (TCP_CLOSE), as bits.
const LISTENS: u32 = 1 << 10;
const UNCONNECTED: u32 = 1 << 7;
const HEADER: usize = 16;
/// In struct inet_diag_msg, behind the header: the socket's own port and address, its user, the end.
const OWN_PORT: usize = HEADER + 4;
const ADDRESS: usize = HEADER + 8;
const USER: usize = HEADER + 64;
const END: usize = HEADER + 72;
/// The first and the last port that the kernel gives to who names none.
const GIVEN_AWAY: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// A socket of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    address: IpAddr,
    port: u16,
    user: u32,
}

/// Of which families the machine may still get addresses: a container that starts with the machine is there before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Nobody has given some link one yet.
    pub ipv4: bool,
    /// Likewise.
    pub ipv6: bool,
}

impl Awaited {
    fn may_be(self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

impl Containers {
    /// Finds ports that the machine has in use itself, and addresses that it has not and will not get.
    pub(super) async fn check_machine(&self, ports: &[Port], awaited: Awaited) -> Result<(), AttachError> {
        let openings = ports.iter().map(Opening::of).collect::<Result<Vec<_>, _>>()?;
        let to_find = |it: &IpAddr| !it.is_unspecified() && !it.is_loopback() && !awaited.may_be(*it);
        let named: BTreeSet<IpAddr> = openings.iter().filter_map(|it| it.address).filter(to_find).collect();
        if !named.is_empty()
            && let Some(address) = named.difference(&self.addresses().await?).next()
        {
            return Err(PortError::Address { address: address.to_string() }.into());
        }
        self.tunnel(&openings)?;
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let openings: Vec<Opening> = openings.iter().filter(|it| it.protocol == protocol).copied().collect();
            self.programs(protocol, &openings)?;
        }
        Ok(())
    }

    /// Asks the kernel: what was noticed of addresses may be of a moment ago.
    async fn addresses(&self) -> Result<BTreeSet<IpAddr>, AttachError> {
        let address = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Local(own) | AddressAttribute::Address(own) => Some(*own),
            _ => None,
        };
        Ok(self.netlink.addresses().await?.iter().flat_map(|message| &message.attributes).filter_map(address).collect())
    }

    /// Finds ports of tunnels.
    fn tunnel(&self, openings: &[Opening]) -> Result<(), PortError> {
        for opening in openings.iter().filter(|it| it.protocol == Protocol::Udp) {
            if let Some((port, name)) = self.tunnels.range(opening.first..=opening.last).next() {
                return Err(PortError::Listening { port: opening.text(*port), owner: format!("the tunnel {name}") });
            }
        }
        Ok(())
    }

    /// Finds ports of programs.
    fn programs(&self, protocol: Protocol, openings: &[Opening]) -> Result<(), PortError> {
        let only = match openings {
            [] => return Ok(()),
            [one] if one.first == one.last => Some(one.first),
            _ => None,
        };
        let found = listeners(protocol, only).unwrap_or_else(|error| {
            report::say(format_args!("look for who listens on ports of {protocol}: {error}"));
            Vec::new()
        });
        let given_away = Some(given_away()).filter(|_| protocol == Protocol::Udp);
        let waits_for_answers = |port| given_away.as_ref().is_some_and(|range| range.contains(&port));
        for Listener { address, port, user } in found {
            let meets = |it: &&Opening| it.contains(port) && meets(address, it.address);
            let is_ours = port == resolver::PORT && self.is_own(address);
            if let Some(opening) = openings.iter().find(meets).filter(|_| !is_ours && !waits_for_answers(port)) {
                let owner = format!("a program of the machine itself, which listens on {address} (user {user})");
                return Err(PortError::Listening { port: opening.text(port), owner });
            }
        }
        Ok(())
    }

    /// Whether our own resolver listens there, which containers and the machine reach all the same.
    fn is_own(&self, address: IpAddr) -> bool {
        let of_network = |subnets: &super::subnet::Subnets| address == subnets.gateway4 || address == subnets.gateway6;
        address == resolver::LOCAL || self.networks.live().any(|(_, network)| of_network(&network.subnets))
    }
}

/// Whether a listener gets packets for what is wanted, `None` for all addresses. One on `::` mostly hears IPv4 as well.
fn meets(listener: IpAddr, wanted: Option<IpAddr>) -> bool {
    let Some(wanted) = wanted else { return true };
    let one_family = listener.is_ipv4() == wanted.is_ipv4();
    listener == wanted
        || listener.is_unspecified() && (one_family || listener.is_ipv6())
        || wanted.is_unspecified() && one_family
}

#[expect(clippy::reversed_empty_ranges, reason = "none where it is not known")]
fn given_away() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string(GIVEN_AWAY).unwrap_or_default();
    let mut bounds = text.split_whitespace().filter_map(|word| word.parse::<u16>().ok());
    bounds.next().zip(bounds.next()).map_or(1..=0, |(first, last)| first..=last)
}

/// All that listen on a port, or on any, of both families.
fn listeners(protocol: Protocol, port: Option<u16>) -> io::Result<Vec<Listener>> {
    let states = if protocol == Protocol::Tcp { LISTENS } else { UNCONNECTED };
    let socket =
        socket::socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        // struct nlmsghdr, and struct inet_diag_req_v2 with nothing but family, protocol, states and the port.
        let mut request = [&72_u32.to_ne_bytes()[..], &BY_FAMILY.to_ne_bytes(), &DUMP.to_ne_bytes(), &[0; 8]].concat();
        request.extend([u8::try_from(family).unwrap_or(0), protocol.number(), 0, 0]);
        request.extend(states.to_ne_bytes());
        request.extend(port.unwrap_or(0).to_be_bytes());
        request.resize(72, 0);
        socket::send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
        wire::answers(&socket, |message| found.extend(listener(message)))?;
    }
    Ok(found)
}

fn listener(message: &[u8]) -> Option<Listener> {
    let message = message.get(..END)?;
    let (port, user) = (message.get(OWN_PORT..OWN_PORT + 2)?, message.get(USER..USER + 4)?);
    let address = message.get(ADDRESS..ADDRESS + 16)?;
    let address = match i32::from(*message.get(HEADER)?) {
        libc::AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(address.get(..4)?).ok()?).into(),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?)).to_canonical(),
    };
    let port = u16::from_be_bytes(port.try_into().ok()?);
    Some(Listener { address, port, user: u32::from_ne_bytes(user.try_into().ok()?) })
}
