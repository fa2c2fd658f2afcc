//! The kernel's device events, so that nobody has to sleep until a disk appears.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};

/// The multicast group of the kernel's own events; group 2 is udev's (lib/kobject_uevent.c).
const KERNEL_GROUP: u32 = 1;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `add`, `remove`, `change` …
    pub action: String,
    /// `block`, `net`, …
    pub subsystem: String,
    /// The node in /dev, without the folder; empty if there is none.
    pub device: String,
}

/// A subscription to the kernel's events.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// Subscribes. Events from now on are not missed unless the socket's buffer overflows.
    pub fn subscribe() -> nix::Result<Self> {
        let socket = socket::socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self { socket })
    }

    /// Whether a block device has come, gone or changed since the last call. An overflow counts as a yes: look again.
    pub fn block_devices_changed(&self) -> bool {
        let mut changed = false;
        let mut buffer = [0; 8192];
        loop {
            match socket::recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    changed |= buffer.get(..length).and_then(parse).is_some_and(|event| event.subsystem == "block");
                }
                Err(Errno::ENOBUFS) => changed = true,
                Err(Errno::EINTR) => {}
                Err(_) => return changed,
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads `action@path\0KEY=value\0…`; nothing for a message that has another form.
pub fn parse(message: &[u8]) -> Option<Event> {
    let text = std::str::from_utf8(message).ok()?;
    let mut parts = text.split('\0');
    let (action, _path) = parts.next()?.split_once('@')?;
    let mut event = Event { action: action.to_owned(), ..Event::default() };
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        match key {
            "SUBSYSTEM" => event.subsystem = value.to_owned(),
            "DEVNAME" => event.device = value.to_owned(),
            _ => {}
        }
    }
    Some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read() {
        let event = parse(b"add@/devices/pci0/sda\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=sda\0").unwrap();
        assert_eq!(event, Event { action: "add".into(), subsystem: "block".into(), device: "sda".into() });
    }

    #[test]
    fn udevs_messages_are_not_the_kernels() {
        assert_eq!(parse(b"libudev\0\xfe\xed\xca\xfe"), None);
        assert_eq!(parse(b""), None);
    }
}
