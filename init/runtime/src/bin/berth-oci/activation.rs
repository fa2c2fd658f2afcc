//! Under systemd: sockets handed down by LISTEN_FDS, and the word to NOTIFY_SOCKET that the service is ready
//! (sd_listen_fds(3), sd_notify(3)).
//!
//! The container never gets the host's socket. It gets one of its own in a directory of the state, made when its
//! program starts; of what it says there only the word that it is ready goes on, with the process id that the host
//! knows it by.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use berth_runtime::spec::{Mount, Spec};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::container::{Failure, during};

/// Where the container finds its socket; runc's choice.
const INSIDE: &str = "/run/notify";
const SOCKET: &str = "notify.sock";

/// How many sockets this command was handed, from descriptor 3 up. Those that were meant for another process are none.
pub fn listeners() -> i32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    listeners_of(number("LISTEN_PID"), number("LISTEN_FDS"), std::process::id())
}

fn listeners_of(pid: Option<i32>, count: Option<i32>, own: u32) -> i32 {
    let for_us = pid.and_then(|pid| u32::try_from(pid).ok()) == Some(own);
    count.filter(|count| for_us && (1..=1024).contains(count)).unwrap_or_default()
}

/// Passes sockets on: to the container's first process.
pub fn announce_listeners(spec: &mut Spec, count: i32) {
    let Some(process) = spec.process.as_mut().filter(|_| count > 0) else { return };
    process.env.retain(|variable| !variable.starts_with("LISTEN_"));
    process.env.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()]);
    process.env.extend(std::env::var("LISTEN_FDNAMES").ok().map(|names| format!("LISTEN_FDNAMES={names}")));
}

/// Whether somebody waits for the service to be ready.
pub fn is_awaited() -> bool {
    host_socket().is_some()
}

fn host_socket() -> Option<String> {
    std::env::var("NOTIFY_SOCKET").ok().filter(|address| !address.is_empty())
}

/// The directory that the container sees of the state's.
fn directory(state: &Path) -> PathBuf {
    state.join("notify")
}

/// Gives the container a place for its socket.
pub fn prepare(spec: &mut Spec, state: &Path) -> Result<(), Failure> {
    let source = directory(state);
    std::fs::create_dir(&source).map_err(during("create", &source))?;
    let options = ["bind", "nosuid", "nodev", "noexec", "ro"].map(str::to_owned).to_vec();
    spec.mounts.push(Mount {
        destination: INSIDE.to_owned(),
        kind: Some("bind".to_owned()),
        source: Some(source.display().to_string()),
        options: Some(options),
        ..Mount::default()
    });
    if let Some(process) = &mut spec.process {
        process.env.retain(|variable| !variable.starts_with("NOTIFY_SOCKET="));
        process.env.push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
    }
    Ok(())
}

/// The container's socket, and the host's.
#[derive(Debug)]
pub struct Readiness {
    socket: UnixDatagram,
    host: String,
    pid: i32,
    told: bool,
}

impl Readiness {
    /// Before the program starts. None where nobody waits, or the container was created without.
    pub fn open(state: &Path, pid: i32) -> Result<Option<Self>, Failure> {
        let Some(host) = host_socket().filter(|_| directory(state).exists()) else { return Ok(None) };
        let path = directory(state).join(SOCKET);
        let socket = UnixDatagram::bind(&path).map_err(during("bind", &path))?;
        socket.set_nonblocking(true).map_err(during("set up", &path))?;
        // The program may be anybody.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).map_err(during("chmod", &path))?;
        Ok(Some(Self { socket, host, pid, told: false }))
    }

    /// Takes what has come; passes on that the container is ready, once.
    pub fn pass_on(&mut self) -> Result<(), Failure> {
        let mut buffer = [0; 4096];
        // An error is that nothing more has come, or that of a sender: either way there is nothing to read.
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let ready =
                buffer.get(..length).unwrap_or_default().split(|byte| *byte == b'\n').any(|line| line == b"READY=1");
            if ready && !self.told {
                self.tell()?;
                self.told = true;
            }
        }
        Ok(())
    }

    fn tell(&self) -> Result<(), Failure> {
        let path = Path::new(&self.host);
        let address = match self.host.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(path),
        };
        let message = format!("MAINPID={}\nREADY=1\n", self.pid);
        let own = UnixDatagram::unbound().map_err(during("open a socket for", path))?;
        address.and_then(|address| own.send_to_addr(message.as_bytes(), &address)).map_err(during("tell", path))?;
        Ok(())
    }

    /// For a command that does not stay: until the container is ready or has ended, or somebody wants it to end.
    pub fn wait(mut self, pidfd: BorrowedFd<'_>, interruption: BorrowedFd<'_>) -> Result<(), Failure> {
        while !self.told {
            let mut polled = [
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::from_borrowed_fd(pidfd, PollFlags::IN),
                PollFd::from_borrowed_fd(interruption, PollFlags::IN),
            ];
            match rustix::event::poll(&mut polled, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(during("wait for", Path::new(&self.host))(errno.into())),
            }
            let [_, ended, interrupted] = polled.map(|polled| !polled.revents().is_empty());
            self.pass_on()?;
            if interrupted && !self.told {
                return Err(berth_runtime::Error::Interrupted.into());
            }
            if ended {
                break;
            }
        }
        Ok(())
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_for_another_process_are_none() {
        assert_eq!(listeners_of(Some(7), Some(2), 7), 2);
        assert_eq!(listeners_of(Some(8), Some(2), 7), 0);
        assert_eq!(listeners_of(None, Some(2), 7), 0);
        assert_eq!(listeners_of(Some(7), Some(-2), 7), 0);
        assert_eq!(listeners_of(Some(7), None, 7), 0);
    }
}
