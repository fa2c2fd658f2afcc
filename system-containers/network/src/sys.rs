//! The system calls that nix does not have: packet sockets, and what waits in a socket. And what tokio asks a promise for.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use berth_control::channel::Channel;
use tokio::io::unix::AsyncFd;

/// ETH_P_IP in network byte order, as packet(7) wants it.
#[allow(clippy::cast_possible_truncation)]
pub const IPV4: u16 = (libc::ETH_P_IP as u16).to_be();
/// ETH_P_IPV6 likewise.
#[allow(clippy::cast_possible_truncation)]
pub const IPV6: u16 = (libc::ETH_P_IPV6 as u16).to_be();
/// ETH_P_ARP likewise.
#[allow(clippy::cast_possible_truncation)]
pub const ARP: u16 = (libc::ETH_P_ARP as u16).to_be();

/// One instruction of a classic BPF program: code, jump if true, jump if false, operand (linux/filter.h).
pub type Instruction = (u16, u8, u8, u32);

/// Owns one open descriptor, always the same, as long as it lives.
pub trait OwnsOne: AsRawFd {}
impl OwnsOne for OwnedFd {}
impl OwnsOne for Channel {}

/// Lets a descriptor be awaited, within a tokio runtime.
pub fn watch<T: OwnsOne>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `register` wants a descriptor that is open and the same until the AsyncFd is dropped. Both types that
    // implement `OwnsOne` own theirs, give out borrows only and never replace it.
    Ok(unsafe { AsyncFd::register(inner)? })
}

/// A non-blocking packet(7) socket for the packets of one protocol on one link, without their Ethernet header, that lets
/// in what the filter returns more than 0 for.
pub fn packet_socket(link: u32, protocol: u16, filter: &[Instruction]) -> io::Result<OwnedFd> {
    // Protocol 0: nothing arrives before the filter is in place and bind(2) names the protocol.
    // SAFETY: socket(2) takes three integers and touches no memory of ours.
    let number =
        unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number was just returned by socket(2), so it is open and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let mut program: Vec<libc::sock_filter> =
        filter.iter().map(|(code, jt, jf, k)| libc::sock_filter { code: *code, jt: *jt, jf: *jf, k: *k }).collect();
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: `program` lives to the end of this function, its length is that of the vector it points to (which is
    // shadowed, not dropped), and the kernel copies both during the call (socket(7), SO_ATTACH_FILTER).
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length_of::<libc::sock_fprog>(),
        )
    };
    check(result)?;
    let address = link_address(link, protocol, [0; 6]);
    // SAFETY: the pointer is to a live sockaddr_ll and the length is its size (packet(7)).
    let result =
        unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length_of::<libc::sockaddr_ll>()) };
    check(result)?;
    Ok(socket)
}

/// Sends a packet of a protocol on a link to a hardware address.
pub fn send_packet(socket: BorrowedFd<'_>, (link, protocol): (u32, u16), to: [u8; 6], packet: &[u8]) -> io::Result<()> {
    let address = link_address(link, protocol, to);
    // SAFETY: `packet` is live for its length, the address pointer is to a live sockaddr_ll of the given size, and the
    // kernel only reads both (sendto(2), packet(7)).
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            libc::MSG_NOSIGNAL,
            (&raw const address).cast(),
            length_of::<libc::sockaddr_ll>(),
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How many bytes of memory wait in a UDP socket to be sent.
pub fn unsent(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut waiting: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ of a socket, writes one int to where the pointer leads, which is live (udp(7)).
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) })?;
    Ok(usize::try_from(waiting).unwrap_or(0))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[allow(clippy::cast_possible_truncation)]
const fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

fn link_address(link: u32, protocol: u16, to: [u8; 6]) -> libc::sockaddr_ll {
    let mut address = [0; 8];
    address.iter_mut().zip(to).for_each(|(to, from)| *to = from);
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: protocol,
        sll_ifindex: link.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: address,
    }
}
