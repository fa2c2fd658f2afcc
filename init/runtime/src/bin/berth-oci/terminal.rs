//! The sockets that a terminal and a pidfd are sent to. pidfds go the same way.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use berth_terminal::Proxy;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::container::Failure;

fn failed(call: &'static str, subject: &Path) -> impl FnOnce(rustix::io::Errno) -> Failure {
    let subject = subject.display().to_string();
    move |source| berth_runtime::SystemError { call, subject, source }.into()
}

/// Whether there is somebody for the terminal's other end: a command that ends at once is nobody. And nobody can want
/// the end of a terminal that is not there.
pub fn check(terminal: bool, detached: bool, socket: bool) -> Result<(), Failure> {
    let wrong = |must: &str| Err(Failure::Option { option: "--console-socket", must: must.to_owned() });
    match (terminal, socket) {
        (true, false) if detached => wrong("is needed for a terminal that this command does not stay for"),
        (false, true) => wrong("is only for a process with a terminal"),
        _ => Ok(()),
    }
}

/// The other end of `--console-socket`.
pub fn connect(path: &Path) -> Result<OwnedFd, Failure> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(failed("socket", path))?;
    let address = SocketAddrUnix::new(path).map_err(failed("connect", path))?;
    rustix::net::connect(&socket, &address).map_err(failed("connect", path))?;
    Ok(socket)
}

/// Sends a process's pidfd, as runc does: one message with the descriptor and a name.
pub fn send_pidfd(path: &Path, pidfd: BorrowedFd<'_>) -> Result<(), Failure> {
    let socket = connect(path)?;
    let descriptors = [pidfd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(failed("sendmsg", path)(rustix::io::Errno::NOBUFS));
    }
    let name = [IoSlice::new(b"pidfd")];
    rustix::net::sendmsg(&socket, &name, &mut control, SendFlags::NOSIGNAL).map_err(failed("sendmsg", path))?;
    Ok(())
}

/// The container's end, and ours.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Failure> {
    berth_terminal::pair().map_err(failed("socketpair", Path::new("for the terminal")))
}

/// Drives the terminal whose master the container's process has sent. It has our own terminal's size from here on: to
/// be called before the program starts, which may look at once.
pub fn drive(socket: &OwnedFd) -> Result<Proxy, Failure> {
    let received = berth_terminal::receive(socket).and_then(|master| master.ok_or(rustix::io::Errno::BADMSG));
    received.map(|master| Proxy::new(master, true)).map_err(failed("recvmsg", Path::new("the terminal")))
}
