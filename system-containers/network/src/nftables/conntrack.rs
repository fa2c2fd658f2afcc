//! Connections that the kernel follows (linux/netfilter/nfnetlink_conntrack.h), as far as they are to be forgotten.
//!
//! Where a connection leads is decided with its first packet, and holds as long as packets come: over UDP, which has no end,
//! for ever. One whose container has gone, or whose port leads elsewhere now, is forgotten; its next packet begins it anew.
//!
//! There may be hundreds of thousands: all are read once, whatever is to go, and never kept.

use std::collections::BTreeSet;
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
/// CTA_PROTO_NUM, and what says in CTA_FILTER that it is compared (CTA_FILTER_F_CTA_PROTO_NUM).
const NUMBER: u16 = 1;
const BY_NUMBER: u32 = 1 << 3;
const UDP: u8 = 17;
/// AF_INET, AF_INET6.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// How many go at a time: of one that has ended by itself the kernel says so, and that for all of them fits into a tenth of
/// the socket's buffer.
const AT_ONCE: u32 = 1000;

/// A way of UDP through the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// Whom it is sent to; `None` for all addresses.
    pub address: Option<IpAddr>,
    /// Likewise: the first and the last.
    pub ports: Option<(u16, u16)>,
    /// Whom it is handed to.
    pub to: IpAddr,
    /// Likewise; several lead to the same ones, of which it is the first.
    pub to_port: Option<u16>,
}

/// Where one begins: its address and ports, and whether it is of IPv4.
pub type Beginning = (Option<IpAddr>, Option<(u16, u16)>, bool);

impl Way {
    /// Where it begins.
    pub fn beginning(&self) -> Beginning {
        (self.address, self.ports, self.to.is_ipv4())
    }

    fn is_range(&self) -> bool {
        self.ports.is_some_and(|(first, last)| first != last)
    }
}

fn has_port(ports: Option<(u16, u16)>, port: u16) -> bool {
    ports.is_some_and(|(first, last)| (first..=last).contains(&port))
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
    let wanted = Wanted::of(gone)?;
    wanted.families.iter().try_for_each(|family| sweep(connection, *family, &wanted))
}

/// All that is to go, to be found by what a connection has.
#[derive(Debug, Default)]
struct Wanted {
    families: BTreeSet<u8>,
    addresses: BTreeSet<IpAddr>,
    ways: BTreeSet<Way>,
    beginnings: BTreeSet<Beginning>,
    /// Of these, those of several ports, which are few.
    way_ranges: Vec<Way>,
    beginning_ranges: Vec<Beginning>,
    /// The machine's addresses, where it matters.
    own: BTreeSet<IpAddr>,
}

impl Wanted {
    fn of(gone: impl IntoIterator<Item = Gone>) -> io::Result<Self> {
        let mut this = Self::default();
        for each in gone {
            let ipv4 = match each {
                Gone::Address(address) => {
                    this.addresses.insert(address);
                    address.is_ipv4()
                }
                Gone::Way(way) => {
                    this.ways.insert(way);
                    way.to.is_ipv4()
                }
                Gone::Beginning(way) => {
                    this.beginnings.insert(way.beginning());
                    way.to.is_ipv4()
                }
            };
            this.families.insert(if ipv4 { IPV4 } else { IPV6 });
        }
        this.way_ranges = this.ways.iter().filter(|way| way.is_range()).copied().collect();
        let is_range = |it: &&Beginning| it.1.is_some_and(|(first, last)| first != last);
        this.beginning_ranges = this.beginnings.iter().filter(is_range).copied().collect();
        if this.beginnings.iter().any(|(address, ..)| address.is_none()) {
            this.own = own_addresses()?;
        }
        Ok(this)
    }

    fn has(&self, original: &Packets, reply: &Packets) -> bool {
        if self.addresses.contains(&original.source) || self.addresses.contains(&reply.source) {
            return true;
        }
        let (Some((_, port)), Some((to_port, _))) = (original.udp, reply.udp) else { return false };
        let (address, to) = (original.destination, reply.source);
        // What goes elsewhere by the same port passes the machine, or comes from it.
        let to_machine = || address.is_loopback() || self.own.contains(&address);
        let one = Some((port, port));
        let begins = |it: Option<IpAddr>| {
            let in_range = |range: &Beginning| range.0 == it && range.2 == address.is_ipv4() && has_port(range.1, port);
            self.beginnings.contains(&(it, one, address.is_ipv4())) || self.beginning_ranges.iter().any(in_range)
        };
        let goes = |address, ports, to_port| self.ways.contains(&Way { address, ports, to, to_port });
        let goes_by_range = |it: Option<IpAddr>| {
            let leads = |way: &Way| (way.address, way.to) == (it, to) && has_port(way.ports, port);
            port == to_port && self.way_ranges.iter().any(leads)
        };
        [Some(address), None].into_iter().any(|it| {
            goes(it, one, Some(to_port))
                || goes(it, None, None)
                || goes_by_range(it)
                || begins(it) && (it.is_some() || to_machine())
        })
    }
}

/// All that the machine has, those of the containers' bridges too.
fn own_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let address = |storage: SockaddrStorage| {
        let ipv4 = storage.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        ipv4.or_else(|| storage.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    };
    Ok(getifaddrs()?.filter_map(|link| link.address.and_then(address)).collect())
}

/// The packets of one direction.
#[derive(Debug)]
struct Packets {
    source: IpAddr,
    destination: IpAddr,
    /// Of UDP: the source's port and the destination's.
    udp: Option<(u16, u16)>,
}

impl Packets {
    fn read(message: &[u8], direction: u16) -> Option<Self> {
        let tuple = attribute(message, direction)?;
        let (ip, protocol) = (attribute(tuple, IP)?, attribute(tuple, PROTOCOL)?);
        // CTA_IP_V4_SRC and CTA_IP_V4_DST, or those of IPv6 two further; CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT.
        let address = |kind| match attribute(ip, kind) {
            Some(bytes) => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
            None => Some(IpAddr::from(<[u8; 16]>::try_from(attribute(ip, kind + 2)?).ok()?)),
        };
        let port = |kind| Some(u16::from_be_bytes(attribute(protocol, kind)?.try_into().ok()?));
        let udp = attribute(protocol, NUMBER).filter(|number| **number == [UDP]).and_then(|_| port(2).zip(port(3)));
        Some(Self { source: address(1)?, destination: address(2)?, udp })
    }
}

/// Reads all connections of a family, and deletes those that are wanted as they come.
fn sweep(connection: &Connection, family: u8, wanted: &Wanted) -> io::Result<()> {
    // Its answers would come among those that are read.
    let deleting = Connection::open()?;
    // One that has ended by itself is no error.
    let delete = |batch: &Batch| deleting.send(batch, Some(libc::ENOENT));
    let (mut deletions, mut done) = (Batch::loose(), Ok(()));
    let mut request = Batch::loose();
    request.dump(GET, family, &question(wanted));
    connection.read(&request, |message| {
        let both = Packets::read(message, ORIGINAL).zip(Packets::read(message, REPLY));
        if done.is_err() || !both.is_some_and(|(original, reply)| wanted.has(&original, &reply)) {
            return;
        }
        let mut found = Attributes::default();
        for kind in [ORIGINAL, ID] {
            if let Some(value) = attribute(message, kind) {
                found.bytes(kind, value);
            }
        }
        deletions.request(DELETE, family, &found);
        if deletions.count() >= AT_ONCE {
            done = delete(&std::mem::replace(&mut deletions, Batch::loose()));
        }
    })?;
    done?;
    if deletions.is_empty() { Ok(()) } else { delete(&deletions) }
}

/// The kernel leaves out what is not UDP where nothing else is wanted.
fn question(wanted: &Wanted) -> Attributes {
    let mut question = Attributes::default();
    if wanted.addresses.is_empty() {
        question.nested(ORIGINAL, |tuple| {
            tuple.nested(IP, |_| {}).nested(PROTOCOL, |protocol| {
                protocol.bytes(NUMBER, &[UDP]);
            });
        });
        question.nested(FILTER, |filter| {
            filter.bytes(ORIGINAL, &BY_NUMBER.to_ne_bytes());
        });
    }
    question
}
