//! Containers for a command line: made in place, started by another process later.
//!
//! There is no event loop to keep free, so the calling process is the launcher itself where it can be: one process
//! less for every container. Everything here waits.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::channel::{self, Message};
use crate::create::{Created, Request, Rootfs, await_executed, reap_ended, through_launcher};
use crate::error::{Context, Error, Step};
use crate::gate::Gate;
use crate::handover::Descriptor;
use crate::launcher::{self, Launched, Place};

/// A container's first process, a child of the caller. Dropped, it ends.
#[derive(Debug)]
pub struct Waiting {
    /// In the caller's PID namespace.
    pub pid: i32,
    /// Readable when it has ended.
    pub pidfd: Descriptor,
    link: Descriptor,
}

impl Waiting {
    /// The container is where others find it, and the caller may end: from here on it waits for [`start`], whatever
    /// becomes of the caller. If it was killed in the meantime, that is for others to see.
    pub fn keep(self) -> Result<(), Error> {
        match channel::send(self.link.as_fd(), &Message::Keep, &[]) {
            Err(error) if error.source == Errno::PIPE => Ok(()),
            result => result.step("let go of the container"),
        }
    }
}

/// Makes a container that waits for [`start`] on `gate`, a socket of [`gate`].
///
/// Where `interrupt` becomes readable before it is there (a signalfd, say), everything is undone.
pub fn create(request: &Request<'_>, gate: OwnedFd, interrupt: Option<BorrowedFd<'_>>) -> Result<Waiting, Error> {
    crate::validate::request(request)?;
    if changes_caller(request) {
        let created = through_launcher(request, Gate::Listening(gate), interrupt)?;
        let link = created.link.ok_or(Error::Protocol { process: "launching" })?;
        return Ok(Waiting { pid: created.pid, pidfd: created.pidfd, link });
    }
    let Launched { pid, pidfd, link } = in_place(request, &Gate::Listening(gate), interrupt)?;
    Ok(Waiting { pid, pidfd: pidfd.into(), link: link.into() })
}

/// Makes a container that the caller itself starts, and is the parent of. For `interrupt` see [`create`].
pub fn create_connected(request: &Request<'_>, interrupt: Option<BorrowedFd<'_>>) -> Result<Created, Error> {
    crate::validate::request(request)?;
    if changes_caller(request) {
        return crate::create::create(request)?.wait_unless(interrupt);
    }
    let (gate, containers_gate) = channel::pair()?;
    let launched = in_place(request, &Gate::Connected(containers_gate), interrupt)?;
    Ok(Created { pid: launched.pid, pidfd: launched.pidfd.into(), link: None, gate: gate.into() })
}

/// Joining namespaces, and mounts for the sake of an overlay, would change the calling process.
fn changes_caller(request: &Request<'_>) -> bool {
    let mut namespaces = request.spec.linux.iter().flat_map(|linux| &linux.namespaces);
    namespaces.any(|namespace| namespace.path.is_some())
        || matches!(request.rootfs, Rootfs::Overlay { mapped: true, .. })
}

fn in_place(request: &Request<'_>, gate: &Gate, interrupt: Option<BorrowedFd<'_>>) -> Result<Launched, Error> {
    launcher::launch(request, gate, Place::Caller, interrupt).map_err(|failure| {
        failure.process.iter().for_each(reap_ended);
        failure.error
    })
}

/// A socket for [`create`] that can be found at `path`. Only root can connect.
pub fn gate(path: &Path) -> Result<OwnedFd, Error> {
    let name = || path.display().to_string();
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .context("socket", name)?;
    let address = SocketAddrUnix::new(path).context("bind", name)?;
    rustix::net::bind(&socket, &address).context("bind", name)?;
    rustix::net::listen(&socket, 1).context("listen", name)?;
    Ok(socket)
}

/// Lets the container whose gate is at `path` run its program, and waits until it does.
pub fn start(path: &Path) -> Result<(), Error> {
    let name = || path.display().to_string();
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .context("socket", name)?;
    let address = SocketAddrUnix::new(path).context("connect", name)?;
    rustix::net::connect(&socket, &address).context("connect", name).step("start the container")?;
    channel::send(socket.as_fd(), &Message::Start, &[]).step("start the container")?;
    await_executed(socket.as_fd(), None)
}
