//! Addresses of IPv6 of containers on a link of the machine itself, which other machines there may have: the kernel looks for
//! those while the container has its address already (RFC 4429), and tells what it finds only in the container's namespace.
//!
//! A socket in there hears it, for as long as the container is attached: an address is looked for again whenever the link has
//! come back. Must not believe anybody but the kernel, as a container may send to the socket as well.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sys::socket::{self, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::AbortHandle;

use super::Containers;
use super::attachment::Attachment;
use super::namespace::{self, NamespaceError};
use crate::link::{self, Link};
use crate::nftables::wire::header;
use crate::{report, sys};

/// What waits to be handled; who hears more waits with it.
const HEARD_LIMIT: usize = 16;
/// RTMGRP_IPV6_IFADDR (linux/rtnetlink.h).
const GROUP: u32 = 0x100;
/// NLMSG_GOODSIZE is less.
const BUFFER: usize = 32 << 10;

/// Which run of which container: its name, and the inode of its namespace.
type Run = (String, u64);

/// What others have of the addresses of a container.
#[derive(Debug)]
pub struct Taken {
    of: Run,
    addresses: BTreeSet<Ipv6Addr>,
}

#[derive(Debug)]
struct Watched {
    namespace: u64,
    task: AbortHandle,
    taken: BTreeSet<Ipv6Addr>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All that are watched, by container.
#[derive(Debug)]
pub struct Lookouts {
    watched: BTreeMap<String, Watched>,
    heard: Sender<Taken>,
}

impl Lookouts {
    /// None yet; what is heard is to be given back to [`Containers::note_taken`].
    pub fn new() -> (Self, Receiver<Taken>) {
        let (heard, receiver) = channel(HEARD_LIMIT);
        (Self { watched: BTreeMap::new(), heard }, receiver)
    }

    /// A container has gone, and its namespace is to go too.
    pub fn leave(&mut self, container: &str) {
        self.watched.remove(container);
    }
}

impl Containers {
    /// Begins to listen for what becomes of a container's addresses, if they are not all on bridges and it is not done yet.
    pub(super) async fn look_out(&mut self, attachment: &Attachment, namespace: OwnedFd) {
        let name = &attachment.wanted.name;
        let own: BTreeSet<Ipv6Addr> =
            attachment.cables.iter().filter(|cable| !cable.bridged).map(|cable| cable.ipv6).collect();
        let run = attachment.namespace;
        if own.is_empty() || self.lookouts.watched.get(name).is_some_and(|watched| watched.namespace == run) {
            return;
        }
        let opened = namespace::within(namespace, async |_| open().map_err(NamespaceError::Lookout)).await;
        match opened.and_then(|socket| sys::watch(socket).map_err(NamespaceError::Lookout)) {
            Ok(socket) => {
                let task = tokio::spawn(listen(socket, (name.clone(), run), own, self.lookouts.heard.clone()));
                let watched = Watched { namespace: run, task: task.abort_handle(), taken: BTreeSet::new() };
                self.lookouts.watched.insert(name.clone(), watched);
            }
            Err(error) => report::say(format_args!("{name}: {}", report::chain(&error))),
        }
    }

    /// Notes what others have of the addresses of a container, and says what is new of it.
    pub fn note_taken(&mut self, Taken { of: (name, run), addresses }: Taken) {
        // One of before may have been on its way.
        let Some(watched) = self.lookouts.watched.get_mut(&name).filter(|it| it.namespace == run) else { return };
        let before = std::mem::replace(&mut watched.taken, addresses);
        let Some(attachment) = self.attachments.get(&name) else { return };
        for address in watched.taken.difference(&before) {
            let network = attachment.cables.iter().find(|cable| cable.ipv6 == *address).map(|cable| &cable.network);
            report::say(taken_text(*address, &name, network.map_or("", String::as_str)));
        }
    }

    /// The addresses of containers on a link of the machine that others there have, for people.
    pub fn taken(&self, link: &Link) -> Vec<String> {
        let is_on = |network: &str| {
            let parent = self.networks.get(network).and_then(|network| network.settings.parent.as_ref());
            parent.is_some_and(|parent| parent.as_str() == link.name)
        };
        let mut found = Vec::new();
        for (name, watched) in self.lookouts.watched.iter().filter(|(_, watched)| !watched.taken.is_empty()) {
            let cables = self.attachments.get(name).into_iter().flat_map(|attachment| &attachment.cables);
            let taken = cables.filter(|cable| watched.taken.contains(&cable.ipv6) && is_on(&cable.network));
            found.extend(taken.map(|cable| taken_text(cable.ipv6, name, &cable.network)));
        }
        found
    }
}

fn taken_text(address: Ipv6Addr, container: &str, network: &str) -> String {
    format!(
        "container {container} does not use its address {address} in network {network}, which another machine has: give one of the two \
         another"
    )
}

/// Opens the socket in this thread's namespace.
fn open() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(socket::AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
    Ok(socket)
}

/// Asks for all addresses: the answer comes as what is told of each later.
fn ask(socket: &OwnedFd) -> io::Result<()> {
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Inet6;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetAddress(request));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket::send(socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
    Ok(())
}

/// Tells each change of what others have of a container's `own` addresses.
async fn listen(socket: AsyncFd<OwnedFd>, of: Run, own: BTreeSet<Ipv6Addr>, heard: Sender<Taken>) {
    let mut failed = ask(socket.get_ref()).err();
    let (mut taken, mut told) = (BTreeSet::new(), BTreeSet::new());
    while failed.is_none() {
        match receive(&socket).await {
            Ok(bytes) => {
                for (message, there) in messages(&bytes) {
                    link::note_taken(&mut taken, &message, there);
                }
                taken.retain(|address| own.contains(address));
            }
            // More happened than the socket could hold.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                taken.clear();
                failed = ask(socket.get_ref()).err();
                continue;
            }
            Err(error) => failed = Some(error),
        }
        if taken != told {
            told.clone_from(&taken);
            // Nobody takes it when the program ends.
            let _ended = heard.send(Taken { of: of.clone(), addresses: taken.clone() }).await;
        }
    }
    if let Some(error) = failed {
        report::say(format_args!("{}: hear what becomes of its addresses: {error}", of.0));
    }
}

/// The next that the kernel says.
async fn receive(socket: &AsyncFd<OwnedFd>) -> io::Result<Vec<u8>> {
    loop {
        let mut ready = socket.readable().await?;
        let mut buffer = vec![0; BUFFER];
        let received = ready.try_io(|socket| Ok(socket::recvfrom::<NetlinkAddr>(socket.as_raw_fd(), &mut buffer)?));
        match received {
            Err(_) => {}
            Ok(Err(error)) => return Err(error),
            Ok(Ok((length, from))) => {
                if from.is_some_and(|from| from.pid() == 0) {
                    buffer.truncate(length);
                    return Ok(buffer);
                }
            }
        }
    }
}

/// What a buffer says of addresses, and whether each is there.
fn messages(mut buffer: &[u8]) -> Vec<(AddressMessage, bool)> {
    let mut found = Vec::new();
    while let Some((length, _)) = header(buffer) {
        let Some(message) = buffer.get(..length) else { break };
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address))) => found.push((address, true)),
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(address))) => found.push((address, false)),
            _ => {}
        }
        buffer = buffer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::{AddressAttribute, AddressFlags};

    use super::*;

    #[test]
    fn what_is_cut_off_or_about_something_else_is_left_out() {
        let mut address = AddressMessage::default();
        address.header.family = AddressFamily::Inet6;
        address.attributes = vec![
            AddressAttribute::Address("2001:db8::77".parse().unwrap()),
            AddressAttribute::Flags(AddressFlags::Dadfailed | AddressFlags::Tentative | AddressFlags::Permanent),
        ];
        let bytes = |message: RouteNetlinkMessage| {
            let mut message = NetlinkMessage::from(message);
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            bytes
        };
        let there = bytes(RouteNetlinkMessage::NewAddress(address.clone()));
        let gone = bytes(RouteNetlinkMessage::DelAddress(address.clone()));
        let other = bytes(RouteNetlinkMessage::GetAddress(AddressMessage::default()));
        let all = [&there[..], &other, &gone].concat();
        assert_eq!(messages(&all), [(address.clone(), true), (address.clone(), false)]);
        assert_eq!(messages(&all[..all.len() - 1]), [(address.clone(), true)]);
        assert_eq!(messages(&[0; 40]), []);
        let mut taken = BTreeSet::new();
        link::note_taken(&mut taken, &address, true);
        assert_eq!(taken, ["2001:db8::77".parse().unwrap()].into());
    }
}
