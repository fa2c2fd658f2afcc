//! Answers over UDP, which nobody ever waits for.
//!
//! An answer to an address that nobody has stays in the socket for seconds, until the kernel gives up asking for the
//! neighbour. Who forges its questions' addresses could so fill the socket, and nobody else would get an answer. So it has
//! room for more than one neighbour's queue, and those who are no containers get only a part of that.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{self, MsgFlags, SockaddrStorage, sockopt};

use crate::sys;

/// Of which the kernel makes the double (socket(7)). A neighbour's queue has 208 KiB at most (`unres_qlen_bytes`).
const ROOM: usize = 512 << 10;
/// What of the doubled room may wait before strangers get nothing.
const STRANGERS: usize = ROOM / 2;

/// Gives a socket the room for its answers.
pub fn make_room(socket: &impl AsFd) -> io::Result<()> {
    Ok(socket::setsockopt(socket, sockopt::SndBufForce, &ROOM)?)
}

/// Sends an answer, or leaves it: who does not get it asks again. `known`: whether a container of ours has the address.
pub fn send<S: AsFd + AsRawFd>(socket: &S, answer: &[u8], to: SocketAddr, known: bool) {
    if !known && sys::unsent(socket.as_fd()).is_ok_and(|waiting| waiting > STRANGERS) {
        return;
    }
    let to = SockaddrStorage::from(to);
    let _lost = socket::sendto(socket.as_raw_fd(), answer, &to, MsgFlags::MSG_DONTWAIT);
}
