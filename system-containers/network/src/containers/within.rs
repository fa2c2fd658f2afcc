//! The resolver of containers that are on no bridge: it listens on an address of their own loopback, where the questions
//! come from inside their namespace.
//!
//! The sockets have ports that nobody chooses, and a table in the container leads port 53 of that address there: the
//! container itself may have port 53, as a name server does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use super::Containers;
use super::attachment::Attachment;
use super::namespace::{self, NamespaceError};
use crate::dns::server::{Served, Within};
use crate::nftables::expression::{Expressions, FIRST, Header, Meta};
use crate::nftables::ruleset::{TABLE, add};
use crate::nftables::wire::{Batch, Connection, Family, Kind};
use crate::{report, resolver};

/// As with Docker.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// The numbers of TCP and UDP.
const TCP: u8 = 6;
const UDP: u8 = 17;
const LENGTH: u32 = 4;

impl Containers {
    /// Answers a container that is on no bridge, if it is not answered yet. Where that is not possible it asks the host's
    /// servers itself.
    pub(super) async fn answer_within(&mut self, attachment: &Attachment, namespace: OwnedFd) {
        let name = &attachment.wanted.name;
        let Some(cable) = attachment.cables.first().filter(|_| attachment.is_away()) else { return };
        if self.resolvers.is_within(name) {
            return;
        }
        let served = Served {
            network: cable.network.clone(),
            bridge: String::new(),
            addresses: Vec::new(),
            open: attachment.way_out.is_some(),
            client: Some(IpAddr::V4(cable.ipv4)),
        };
        match namespace::within(namespace, async |_| open()).await {
            Ok(sockets) => self.resolvers.serve_within(name, served, sockets),
            Err(error) => report::say(format_args!("{name}: answer names in it: {}", report::chain(&error))),
        }
    }
}

/// Opens the sockets in this thread's namespace, and lets the address lead to them.
fn open() -> Result<Within, NamespaceError> {
    let any = SocketAddr::from((ADDRESS, 0));
    let opened = || {
        let sockets = Within { udp: UdpSocket::bind(any)?, tcp: TcpListener::bind(any)? };
        sockets.udp.set_nonblocking(true)?;
        sockets.tcp.set_nonblocking(true)?;
        let ports = [(UDP, sockets.udp.local_addr()?.port()), (TCP, sockets.tcp.local_addr()?.port())];
        Connection::open()?.commit(table(ports))?;
        Ok(sockets)
    };
    opened().map_err(NamespaceError::Resolver)
}

/// Takes the place of what an earlier run of this program left.
fn table(ports: [(u8, u16); 2]) -> Batch {
    let mut batch = Batch::new();
    batch.of(Family::Ipv4);
    for kind in [Kind::NewTable, Kind::DeleteTable, Kind::NewTable] {
        batch.message(kind, |table| {
            table.text(1, TABLE);
        });
    }
    batch.message(Kind::NewChain, |chain| {
        chain.text(1, TABLE).text(3, "output").text(7, "nat");
        chain.nested(4, |place| {
            place.number(1, 3).number(2, (-100_i32).cast_unsigned());
        });
    });
    for (protocol, port) in ports {
        let to_resolver =
            Expressions::new().payload(Header::Network, 16, LENGTH, FIRST).equal(FIRST, &ADDRESS.octets());
        let to_resolver = to_resolver.meta(Meta::Protocol, FIRST).equal(FIRST, &[protocol]);
        let to_resolver =
            to_resolver.payload(Header::Transport, 2, 2, FIRST).equal(FIRST, &resolver::PORT.to_be_bytes());
        let loaded = to_resolver.load(FIRST, &ADDRESS.octets()).load(FIRST.after(LENGTH), &port.to_be_bytes());
        add(&mut batch, "output", loaded.redirect(2, Some(LENGTH)));
    }
    batch
}
