//! Putting a filter in force, and handing its listener to whoever answers SCMP_ACT_NOTIFY.
//!
//! The agent is connected to by the launcher, which sees the paths of the host; the process that installs the filter
//! sends the listener itself, right afterwards. So the one call that must not wait for an answer is sendmsg(2).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::Filter;
use crate::error::{Context, Error, Step, SystemError};
use crate::spec::{ContainerProcessState, Seccomp, State};

/// Connects to the agent of a profile, if the filter has need of one.
pub(crate) fn connect(filter: &Filter, profile: &Seccomp) -> Result<Option<OwnedFd>, Error> {
    let Some(path) = profile.listener_path.as_ref().filter(|_| filter.notifies()) else { return Ok(None) };
    let name = || path.display().to_string();
    let connected = || -> Result<OwnedFd, SystemError> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .context("socket", name)?;
        let address = SocketAddrUnix::new(path).context("connect", name)?;
        rustix::net::connect(&socket, &address).context("connect", name)?;
        Ok(socket)
    };
    connected().step("reach linux.seccomp.listenerPath").map(Some)
}

/// A filter, and what its agent is to know.
#[derive(Debug)]
pub(crate) struct Installer<'a> {
    pub filter: &'a Filter,
    /// Connected, and closed when it has been told; none where nobody is asked.
    pub agent: Option<OwnedFd>,
    /// `listenerMetadata`.
    pub metadata: Option<&'a str>,
    /// The container's state at the moment of the installation.
    pub state: Option<State>,
    /// The process that installs the filter, as the host sees it.
    pub pid: i32,
}

impl Installer<'_> {
    /// Puts the filter in force for the calling process, for good.
    pub(crate) fn install(self) -> Result<(), Error> {
        // Whatever can be prepared is: from the filter on, every call may have to be answered.
        let state = |state: State| ContainerProcessState {
            oci_version: state.oci_version.clone(),
            fds: vec!["seccompFd".to_owned()],
            pid: self.pid,
            metadata: self.metadata.map(str::to_owned),
            state,
        };
        let text = self.state.filter(|_| self.agent.is_some()).map(state);
        let text = serde_json::to_vec(&text).unwrap_or_default();
        let listener = self.filter.install().step("install the seccomp filter")?;
        match (listener, self.agent) {
            (Some(listener), Some(agent)) => {
                send(agent.as_fd(), &text, listener.as_fd()).step("send the seccomp listener")
            }
            _ => Ok(()),
        }
    }
}

/// The descriptor goes with the first bytes.
fn send(agent: BorrowedFd<'_>, text: &[u8], listener: BorrowedFd<'_>) -> Result<(), SystemError> {
    let mut rest = text;
    let descriptors = [listener];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    while !rest.is_empty() {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if rest.len() == text.len() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(Errno::NOBUFS).on("sendmsg", "the seccomp agent");
        }
        match rustix::net::sendmsg(agent, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            failed => drop(failed.on("sendmsg", "the seccomp agent")?),
        }
    }
    Ok(())
}
