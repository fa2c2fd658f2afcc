//! Connections that the kernel follows (linux/netfilter/nfnetlink_conntrack.h), as far as they are to be forgotten.
//!
//! Where a connection leads is decided with its first packet, and holds as long as packets come: over UDP, which has no end,
//! for ever. One whose container has gone, or whose port leads elsewhere now, is forgotten; its next packet begins it anew.

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use super::wire::{Attributes, Batch, Connection, attribute};

/// NFNL_SUBSYS_CTNETLINK with IPCTNL_MSG_CT_GET and IPCTNL_MSG_CT_DELETE.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
/// CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID, CTA_FILTER.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const FILTER: u16 = 25;
/// CTA_TUPLE_IP, CTA_TUPLE_PROTO.
const IP: u16 = 1;
const PROTOCOL: u16 = 2;
const UDP: u8 = 17;
/// AF_INET, AF_INET6.
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// A way of UDP through the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// Whom it is sent to; `None` for all addresses.
    pub address: Option<IpAddr>,
    /// Likewise.
    pub port: Option<u16>,
    /// Whom it is handed to.
    pub to: IpAddr,
    /// Likewise.
    pub to_port: Option<u16>,
}

impl Way {
    /// Whether both begin at the same place.
    pub fn begins_as(&self, other: &Self) -> bool {
        (self.address, self.port, self.to.is_ipv4()) == (other.address, other.port, other.to.is_ipv4())
    }
}

/// Which connections are forgotten.
#[derive(Clone, Copy, Debug)]
pub enum Gone {
    /// All that the address began or answers.
    Address(IpAddr),
    /// Those that go this way.
    Way(Way),
    /// Those to the machine itself that begin as this way does, wherever they lead.
    Beginning(Way),
}

/// Forgets them. The kernel answers while it is asked, so this does not wait.
pub fn forget(connection: &Connection, gone: impl IntoIterator<Item = Gone>) -> io::Result<()> {
    let mut batch = Batch::loose();
    for each in gone {
        let nothing = End::default;
        let from = |address| End { source: Some(address), ..End::default() };
        let begins = |way: &Way| End { destination: way.address, ports: Some((None, way.port)), ..End::default() };
        match each {
            Gone::Address(address) => {
                find(connection, address.is_ipv4(), &[from(address), nothing()], &mut batch)?;
                find(connection, address.is_ipv4(), &[nothing(), from(address)], &mut batch)?;
            }
            Gone::Way(way) => {
                let answers = End { ports: Some((way.to_port, None)), ..from(way.to) };
                find(connection, way.to.is_ipv4(), &[begins(&way), answers], &mut batch)?;
            }
            Gone::Beginning(way) => {
                let ipv4 = way.to.is_ipv4();
                // What goes elsewhere by the same port passes the machine, or comes from it.
                let to = way.address.map_or_else(own_addresses, |address| Ok(vec![address]))?;
                for address in to.into_iter().filter(|address| address.is_ipv4() == ipv4) {
                    let begins = begins(&Way { address: Some(address), ..way });
                    find(connection, ipv4, &[begins, nothing()], &mut batch)?;
                }
            }
        }
    }
    match if batch.is_empty() { Ok(()) } else { connection.send(&batch) } {
        // It has ended by itself.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done,
    }
}

/// All that the machine has, those of the containers' bridges too.
fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let address = |storage: SockaddrStorage| {
        let ipv4 = storage.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        ipv4.or_else(|| storage.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    };
    Ok(getifaddrs()?.filter_map(|link| link.address.and_then(address)).collect())
}

/// What is compared of the packets of one direction.
#[derive(Default)]
struct End {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    /// Of UDP: the source's and the destination's.
    ports: Option<(Option<u16>, Option<u16>)>,
}

/// A part of it: in which attribute, as which, its place among CTA_FILTER_F_*, its value.
type Part = (u16, u16, u32, Vec<u8>);

impl End {
    fn parts(&self) -> Vec<Part> {
        let address = |kind: u16, bit, address: Option<IpAddr>| match address? {
            IpAddr::V4(address) => Some((IP, kind, bit, address.octets().to_vec())),
            IpAddr::V6(address) => Some((IP, kind + 2, bit, address.octets().to_vec())),
        };
        let port = |kind, bit, port: Option<u16>| Some((PROTOCOL, kind, bit, port?.to_be_bytes().to_vec()));
        let (source, destination) = self.ports.unwrap_or_default();
        let all = [
            address(1, 1 << 0, self.source),
            address(2, 1 << 1, self.destination),
            self.ports.map(|_| (PROTOCOL, 1, 1 << 3, vec![UDP])),
            port(2, 1 << 4, source),
            port(3, 1 << 5, destination),
        ];
        all.into_iter().flatten().collect()
    }
}

/// Adds messages that delete the connections whose directions are both so. The kernel is told what it is to look for, so
/// that not all of them have to be read, but for addresses of IPv6: Linux 6.18 was seen to take those that differ.
fn find(connection: &Connection, ipv4: bool, ends: &[End; 2], deletions: &mut Batch) -> io::Result<()> {
    let family = if ipv4 { IPV4 } else { IPV6 };
    let both = [(ORIGINAL, &ends[0]), (REPLY, &ends[1])].map(|(kind, end)| (kind, end.parts()));
    let mut request = Batch::loose();
    request.dump(GET, family, &question(ipv4, &both));
    connection.read(&request, |message| {
        let fits = |(kind, parts): &(u16, Vec<Part>)| {
            let tuple = attribute(message, *kind).unwrap_or_default();
            let value = |outer, inner| attribute(attribute(tuple, outer)?, inner);
            parts.iter().all(|(outer, inner, _, wanted)| value(*outer, *inner) == Some(wanted))
        };
        if both.iter().all(fits) {
            let mut found = Attributes::default();
            for kind in [ORIGINAL, ID] {
                if let Some(value) = attribute(message, kind) {
                    found.bytes(kind, value);
                }
            }
            deletions.request(DELETE, family, &found);
        }
    })
}

fn question(ipv4: bool, both: &[(u16, Vec<Part>)]) -> Attributes {
    let mut question = Attributes::default();
    let mut flags = Vec::new();
    for (kind, parts) in both {
        let parts: Vec<&Part> = parts.iter().filter(|(outer, ..)| ipv4 || *outer != IP).collect();
        flags.push((*kind, parts.iter().fold(0_u32, |flags, (_, _, flag, _)| flags | flag)));
        question.nested(*kind, |tuple| {
            for group in [IP, PROTOCOL] {
                tuple.nested(group, |inner| {
                    for (_, kind, _, value) in parts.iter().filter(|(outer, ..)| *outer == group) {
                        inner.bytes(*kind, value);
                    }
                });
            }
        });
    }
    question.nested(FILTER, |filter| {
        for (kind, flags) in flags {
            filter.bytes(kind, &flags.to_ne_bytes());
        }
    });
    question
}
