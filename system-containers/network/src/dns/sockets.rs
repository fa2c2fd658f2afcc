//! The sockets that names are asked at: each hears only what comes in on one link, for an address of the machine could be reached
//! on any.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
use tokio::net::{TcpListener, UdpSocket};

use super::outbox;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Opens those of an address, within a tokio runtime.
pub fn open(address: SocketAddr, link: &str) -> io::Result<(UdpSocket, TcpListener)> {
    let udp = bound(address, link, SockType::Datagram)?;
    outbox::make_room(&udp)?;
    let tcp = bound(address, link, SockType::Stream)?;
    socket::listen(&tcp, socket::Backlog::new(BACKLOG)?)?;
    Ok((UdpSocket::from_std(udp.into())?, TcpListener::from_std(tcp.into())?))
}

/// Whether the machine has no such address.
pub fn is_no_address(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

/// Why names are not answered there, for people.
pub fn reason(address: SocketAddr, error: &io::Error) -> String {
    let (ip, port) = (address.ip(), address.port());
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => format!(
            "names are not answered at {ip}: another program has port {port} there or of all addresses; let it listen on its own"
        ),
        _ => format!("names are not answered at {ip}, port {port}: {error}"),
    }
}

fn bound(address: SocketAddr, link: &str, kind: SockType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    socket::setsockopt(&socket, sockopt::BindToDevice, &OsString::from(link))?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}
