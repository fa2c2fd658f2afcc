//! `linux.netDevices`: moving network devices of the host into the container's network namespace.
//!
//! The kernel keeps a device's hardware address and MTU on the way, but takes it down and drops its addresses; those
//! that are permanent and global are given back, and the device is set up, by a socket inside. The launcher does all
//! of it with the host's privileges, before the container's process goes on. If the container does not come to be,
//! the devices come back.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, SystemError};
use crate::netlink::{CREATE, DUMP, EXCLUSIVE, GET_ADDRESS, GET_LINK, NEW_ADDRESS, NEW_LINK, Netlink, Reply, Request};
use crate::spec::NetDevice;
use crate::sys::clone::setns;

/// Attributes of linux/if_link.h.
const LINK_NAME: u16 = 3;
const LINK_NAMESPACE: u16 = 28;
const LINK_NEW_INDEX: u16 = 49;
/// `struct ifinfomsg`: its size, and where the index and the flags are.
const LINK_SIZE: usize = 16;
const LINK_INDEX: usize = 4;
const LINK_FLAGS: usize = 8;
const UP: u32 = 1;

/// Attributes of linux/if_addr.h that go along: address, local, broadcast, priority of its route.
const ADDRESS_KEPT: [u16; 4] = [1, 2, 4, 9];
const ADDRESS_FLAGS: u16 = 8;
/// `struct ifaddrmsg`.
const ADDRESS_SIZE: usize = 8;
/// `IFA_F_PERMANENT`, and the flags that somebody chose and not the kernel: NODAD, HOMEADDRESS, NOPREFIXROUTE,
/// MCAUTOJOIN.
const PERMANENT: u32 = 0x80;
const CHOSEN: u32 = 0x02 | 0x10 | 0x200 | 0x400;

/// Why a device cannot be moved.
#[derive(Debug, thiserror::Error)]
pub enum NetDeviceError {
    /// The host has none of the name.
    #[error("linux.netDevices[\"{name}\"] is not a network device of the runtime's network namespace")]
    Missing {
        /// As given.
        name: String,
    },
    /// The container has one of the name.
    #[error(
        "linux.netDevices[\"{name}\"].name must not be {taken}, which the container's network namespace has already"
    )]
    Taken {
        /// On the host.
        name: String,
        /// As wanted.
        taken: String,
    },
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// Whether the kernel would take a device's name (dev_valid_name of net/core/dev.c), and one at most to be numbered.
fn is_name(name: &str, template: bool) -> bool {
    let plain = !name.is_empty() && name.len() < 16 && name != "." && name != "..";
    let characters = name.bytes().all(|byte| byte != b'/' && byte != b':' && !byte.is_ascii_whitespace() && byte != 0);
    let percent = name.matches('%').count();
    plain && characters && (percent == 0 || template && percent == 1 && name.ends_with("%d"))
}

/// Refuses names that cannot be.
pub(crate) fn check(devices: &BTreeMap<String, NetDevice>) -> Result<(), Error> {
    for (name, device) in devices {
        let must = "must be the name of a network device: 1 to 15 characters, no slash, colon or space";
        if !is_name(name, false) {
            return Err(Error::configuration(format!("linux.netDevices[{name:?}]"), must));
        }
        if device.name.as_ref().is_some_and(|wanted| !wanted.is_empty() && !is_name(wanted, true)) {
            return Err(Error::configuration(format!("linux.netDevices[{name:?}].name"), must));
        }
    }
    Ok(())
}

/// A network namespace and a socket in it.
#[derive(Debug)]
pub(crate) struct Side {
    netlink: Netlink,
    namespace: OwnedFd,
}

impl Side {
    /// The caller's own.
    pub(crate) fn own() -> Result<Self, SystemError> {
        let path = "/proc/self/ns/net";
        let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).on("open", path)?;
        Ok(Self { netlink: Netlink::open()?, namespace })
    }

    /// Another one; the caller is in it for the moment.
    fn within(namespace: OwnedFd) -> Result<Self, SystemError> {
        let kind = crate::namespaces::flag(crate::spec::NamespaceKind::Network);
        let path = "/proc/self/ns/net";
        let own = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).on("open", path)?;
        setns(namespace.as_fd(), kind).on("setns", "the container's network namespace")?;
        let netlink = Netlink::open();
        setns(own.as_fd(), kind).on("setns", "the own network namespace")?;
        Ok(Self { netlink: netlink?, namespace })
    }

    /// The device of a name: its index, and whether it is up.
    fn find(&self, name: &str) -> Result<Option<(u32, bool)>, SystemError> {
        let request = Request::new(GET_LINK, 0, &[0; LINK_SIZE]).with(LINK_NAME, &text(name));
        match self.netlink.ask(request) {
            Ok(replies) => Ok(replies.first().and_then(|link| Some((link.word(LINK_INDEX)?, is_up(link))))),
            Err(Errno::NODEV) => Ok(None),
            failed => failed.map(|_| None).on("netlink", name),
        }
    }

    /// An index that no device here has.
    fn free_index(&self) -> Result<u32, SystemError> {
        let links = self.netlink.ask(Request::new(GET_LINK, DUMP, &[0; LINK_SIZE])).on("netlink", "list links")?;
        Ok(links.iter().filter_map(|link| link.word(LINK_INDEX)).max().unwrap_or_default() + 1)
    }

    /// What is to be kept of a device's addresses.
    fn addresses(&self, index: u32) -> Result<Vec<Reply>, SystemError> {
        let request = Request::new(GET_ADDRESS, DUMP, &[0; ADDRESS_SIZE]);
        let mut all = self.netlink.ask(request).on("netlink", "list addresses")?;
        all.retain(|address| address.kind == NEW_ADDRESS && address.word(4) == Some(index) && is_kept(address));
        Ok(all)
    }

    fn set_up(&self, index: u32, name: &str) -> Result<(), SystemError> {
        let request = Request::new(NEW_LINK, 0, &link(index, UP));
        self.netlink.ask(request).map(drop).context("netlink", || format!("set {name} up"))
    }

    fn add(&self, address: &Reply, index: u32, name: &str) -> Result<(), SystemError> {
        self.netlink.ask(renewed(address, index)).map(drop).context("netlink", || format!("add an address to {name}"))
    }
}

/// One device that has been moved.
#[derive(Debug)]
struct Entry {
    name: String,
    index: u32,
    was_up: bool,
    addresses: Vec<Reply>,
}

/// Devices that have been moved.
#[derive(Debug)]
pub(crate) struct Moved {
    inside: Side,
    entries: Vec<Entry>,
}

/// Moves devices from the host into a namespace. On failure those that were moved come back.
pub(crate) fn move_in(
    host: &Side,
    namespace: OwnedFd,
    devices: &BTreeMap<String, NetDevice>,
) -> Result<Moved, NetDeviceError> {
    let mut moved = Moved { inside: Side::within(namespace)?, entries: Vec::new() };
    for (name, device) in devices {
        let wanted = device.name.as_deref().filter(|wanted| !wanted.is_empty()).unwrap_or(name);
        if let Err(error) = moved.take(host, name, wanted) {
            moved.give_back(host);
            return Err(error);
        }
    }
    Ok(moved)
}

impl Moved {
    fn take(&mut self, host: &Side, name: &str, wanted: &str) -> Result<(), NetDeviceError> {
        let (index, was_up) = host.find(name)?.ok_or_else(|| NetDeviceError::Missing { name: name.to_owned() })?;
        if !wanted.contains('%') && self.inside.find(wanted)?.is_some() {
            return Err(NetDeviceError::Taken { name: name.to_owned(), taken: wanted.to_owned() });
        }
        let addresses = host.addresses(index)?;
        let new_index = relocate(host, &self.inside, index, wanted)?;
        self.entries.push(Entry { name: name.to_owned(), index: new_index, was_up, addresses: addresses.clone() });
        for address in &addresses {
            self.inside.add(address, new_index, wanted)?;
        }
        Ok(self.inside.set_up(new_index, wanted)?)
    }

    /// After a failure that is reported already: the devices are the host's again, as they were.
    pub(crate) fn give_back(&self, host: &Side) {
        for entry in &self.entries {
            // Each device by itself: one that does not come back is no reason to keep the others.
            let Ok(index) = relocate(&self.inside, host, entry.index, &entry.name) else { continue };
            for address in &entry.addresses {
                let _ = host.add(address, index, &entry.name);
            }
            if entry.was_up {
                let _ = host.set_up(index, &entry.name);
            }
        }
    }
}

/// Moves and renames a device in one step; gives its new index.
fn relocate(from: &Side, to: &Side, index: u32, wanted: &str) -> Result<u32, SystemError> {
    let new_index = to.free_index()?;
    let request = Request::new(NEW_LINK, 0, &link(index, 0))
        .with(LINK_NAMESPACE, &to.namespace.as_raw_fd().to_ne_bytes())
        .with(LINK_NEW_INDEX, &new_index.to_ne_bytes())
        .with(LINK_NAME, &text(wanted));
    from.netlink.ask(request).context("netlink", || format!("move a network device to be {wanted}"))?;
    Ok(new_index)
}

/// The network namespace of a container.
pub(crate) fn namespace_of(
    joined: Option<BorrowedFd<'_>>,
    pid: i32,
    pidfd: BorrowedFd<'_>,
) -> Result<OwnedFd, SystemError> {
    match joined {
        Some(namespace) => namespace.try_clone_to_owned().context("dup", || "network namespace"),
        None => crate::idmap::namespace(pid, pidfd, crate::sys::clone::PidfdNamespace::Network, "net"),
    }
}

fn is_up(link: &Reply) -> bool {
    link.word(LINK_FLAGS).is_some_and(|flags| flags & UP != 0)
}

/// `struct ifinfomsg` that changes the flags named, and nothing without any.
fn link(index: u32, flags: u32) -> [u8; LINK_SIZE] {
    let words = [0, index, flags, flags];
    let mut bytes = [0; LINK_SIZE];
    for (target, byte) in bytes.iter_mut().zip(words.iter().flat_map(|word| word.to_ne_bytes())) {
        *target = byte;
    }
    bytes
}

fn text(name: &str) -> Vec<u8> {
    name.bytes().chain([0]).collect()
}

fn flags_of(address: &Reply) -> u32 {
    let long = address.attributes(ADDRESS_SIZE).into_iter().find(|(kind, _)| *kind == ADDRESS_FLAGS);
    let long = long.and_then(|(_, value)| value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)));
    long.unwrap_or_else(|| address.body.get(2).copied().unwrap_or_default().into())
}

/// Permanent and of global scope (RT_SCOPE_UNIVERSE is 0).
fn is_kept(address: &Reply) -> bool {
    flags_of(address) & PERMANENT != 0 && address.body.get(3) == Some(&0)
}

/// The request that gives an address to a device again.
fn renewed(address: &Reply, index: u32) -> Request {
    let mut fixed = [0; ADDRESS_SIZE];
    let head = address.body.iter().take(4).copied().chain(index.to_ne_bytes());
    for (target, byte) in fixed.iter_mut().zip(head) {
        *target = byte;
    }
    let flags = flags_of(address) & CHOSEN;
    fixed[2] = 0;
    let request = Request::new(NEW_ADDRESS, CREATE | EXCLUSIVE, &fixed).with(ADDRESS_FLAGS, &flags.to_ne_bytes());
    let attributes = address.attributes(ADDRESS_SIZE).into_iter().filter(|(kind, _)| ADDRESS_KEPT.contains(kind));
    attributes.fold(request, |request, (kind, value)| request.with(kind, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels_and_only_the_new_one_may_be_numbered() {
        for name in ["eth0", "a", "a.b-c_d", "123456789012345"] {
            assert!(is_name(name, false), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a:b", "a b", "1234567890123456", "eth%d", "a\0"] {
            assert!(!is_name(name, false), "{name}");
        }
        assert!(is_name("eth%d", true) && !is_name("eth%s", true) && !is_name("%d%d", true));
    }

    #[test]
    fn an_address_is_kept_if_it_is_permanent_and_global() {
        let address = |flags: u8, scope: u8| Reply { kind: NEW_ADDRESS, body: vec![2, 24, flags, scope, 5, 0, 0, 0] };
        assert!(is_kept(&address(0x80, 0)));
        assert!(!is_kept(&address(0, 0)) && !is_kept(&address(0x80, 253)));
    }
}
