//! When user containers count as ready, if that is later than their start: `readiness`.
//!
//! A container that is to say so gets a datagram socket, in which PID 1 listens for `READY=1` (sd_notify(3)); it stops to
//! listen once that has come, or after [`MESSAGES`] others, so that nobody can keep it busy. A port is looked at with
//! growing pauses until somebody listens.

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::Duration;

use berth_config::ReadyWhen;
use berth_runtime::handover::Descriptor;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, recv, socket};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::container::{Container, State};
use super::listening::listens;
use super::user_spec::files_folder;
use crate::reactor::{Reactor, Token};

/// Where a container finds its socket.
pub(super) const NOTIFY_SOCKET: &str = "/run/berth/notify.sock";

/// So many messages without `READY=1` are enough. Programs send a handful.
const MESSAGES: u32 = 256;

/// So much of a message is read, in bytes; systemd's limit.
const MESSAGE: usize = 4096;

/// How long a container may take to become ready before that is a problem: as long as a whole boot.
const PATIENCE: Duration = Duration::from_secs(120);

/// The first pause between two looks at a port; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a container that runs has not done yet.
#[derive(Debug, Serialize, Deserialize)]
pub enum Awaited {
    /// To say that it is ready.
    Notice {
        /// Where it says so.
        socket: Descriptor,
        /// So many further messages are read.
        left: u32,
    },
    /// To listen.
    Port {
        /// Where.
        port: u16,
        /// When it is looked at next.
        until: Duration,
        /// Before the look after that.
        pause: Duration,
    },
}

impl Awaited {
    /// When something has to be done about it.
    pub fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Notice { .. } => None,
            Self::Port { until, .. } => Some(*until),
        }
    }

    /// Waits for what it waits for.
    pub(super) fn watch(&self, reactor: &Reactor, id: u32) -> nix::Result<()> {
        match self {
            Self::Notice { left: 0, .. } | Self::Port { .. } => Ok(()),
            Self::Notice { socket, .. } => reactor.add(socket, Token::Readiness(id)),
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::Notice { .. } => "has not said READY=1 on its NOTIFY_SOCKET yet".to_owned(),
            Self::Port { port, .. } => format!("does not listen on port {port} yet"),
        }
    }
}

/// Where the socket of a container is on the machine.
pub(super) fn socket_path(name: &str) -> PathBuf {
    files_folder(name).join("notify.sock")
}

/// Makes the socket, if the container is to have one, before it is set up.
pub(super) fn listen(container: &Container) -> Result<Option<Awaited>, String> {
    if container.user().is_none_or(|user| user.readiness != ReadyWhen::Notify) {
        return Ok(None);
    }
    let path = socket_path(&container.name);
    let failed = |error: std::io::Error| format!("make {}: {error}", path.display());
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let make = || {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        bind(socket.as_raw_fd(), &nix::sys::socket::UnixAddr::new(&path)?)?;
        // Nobody but the container finds it, and in there any user's process may be the one that is ready. What bind(2) makes
        // follows the umask.
        fchmodat(nix::fcntl::AT_FDCWD, &path, Mode::from_bits_truncate(0o666), FchmodatFlags::FollowSymlink)?;
        Ok(socket)
    };
    let socket = make().map_err(|error: Errno| failed(error.into()))?;
    Ok(Some(Awaited::Notice { socket: socket.into(), left: MESSAGES }))
}

impl Supervisor {
    /// A container's program runs: whether that is all it takes.
    pub(super) fn await_readiness(&mut self, id: u32) {
        let now = self.now;
        let Some(container) = self.containers.get_mut(id) else { return };
        if let Some(ReadyWhen::Listening(port)) = container.user().map(|user| user.readiness) {
            container.awaited = Some(Awaited::Port { port: port.get(), until: now, pause: FIRST_PAUSE });
        }
        if let Some(awaited) = &container.awaited {
            container.reason = awaited.reason();
        }
    }

    /// Something has come over a container's socket.
    pub fn readiness(&mut self, id: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(Awaited::Notice { socket, left }) = container.awaited.as_mut() else { return };
        let ready = said_ready(socket, left);
        if *left == 0 && !ready {
            self.reactor.remove(&*socket);
            container.reason = format!("has sent {MESSAGES} messages to its NOTIFY_SOCKET, and READY=1 in none");
            return self.is_overdue(id);
        }
        if ready {
            self.is_ready(id);
        }
    }

    /// The time of the look at a container's port has come.
    pub(super) fn look_at_port(&mut self, id: u32) {
        let now = self.now;
        let Some(container) = self.containers.get_mut(id) else { return };
        let State::Running(running) = &container.state else { return };
        let Some(Awaited::Port { port, until, pause }) = container.awaited.as_mut() else { return };
        if listens(running.pid, *port) {
            return self.is_ready(id);
        }
        *until = now + *pause;
        *pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }

    /// A container is not going to become ready, or not as soon as it should.
    pub(super) fn is_overdue(&mut self, id: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.overdue = true;
        log::warn!("container {} {}", container.name, container.what_is_overdue());
        self.changed(id);
    }

    pub(super) fn is_ready(&mut self, id: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.give_up_waiting(&self.reactor);
        container.ready = true;
        container.tried = true;
        container.reason.clear();
        log::info!("container {} is ready", container.name);
        self.tell_serving(id);
        self.changed(id);
    }
}

impl Container {
    /// Whether it runs and has not come so far that others may count on it.
    pub(super) fn is_getting_ready(&self) -> bool {
        matches!(self.state, State::Running(_)) && self.awaited.is_some() && !self.ready
    }

    /// When it has taken too long to become ready, unless that is known; on [`crate::clock`].
    pub(super) fn overdue_at(&self) -> Option<Duration> {
        let is_awaited = matches!(self.state, State::Running(_)) && !self.ready && !self.overdue;
        is_awaited.then(|| Duration::from_micros(self.started_us).saturating_add(PATIENCE))
    }

    /// Whether it still runs without being ready, though it has had the time for that.
    pub(super) fn is_late_for_work(&self) -> bool {
        self.overdue && !self.ready && matches!(self.state, State::Running(_))
    }

    /// What is wrong with one that is overdue.
    pub(super) fn what_is_overdue(&self) -> String {
        let separator = if self.reason.is_empty() { "" } else { ": " };
        format!("runs and has not become ready{separator}{}", self.reason)
    }

    /// Whether its port is to be looked at now.
    pub(super) fn is_due_for_a_look(&self, now: Duration) -> bool {
        self.awaited.as_ref().and_then(Awaited::deadline).is_some_and(|deadline| deadline <= now)
    }

    /// Waits for its readiness no longer.
    pub(super) fn give_up_waiting(&mut self, reactor: &Reactor) {
        if let Some(Awaited::Notice { socket, .. }) = self.awaited.take() {
            reactor.remove(&socket);
            // The name stays, as a mount of the container: who writes there learns that nobody listens.
        }
    }
}

/// Reads what has come, and no more than may come.
fn said_ready(socket: &Descriptor, left: &mut u32) -> bool {
    let mut message = [0; MESSAGE];
    while *left > 0 {
        // What is longer is cut off.
        let Ok(length) = recv(socket.as_fd().as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) else { return false };
        *left -= 1;
        let text = message.get(..length).unwrap_or_default();
        if text.split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use berth_control::message::ContainerState::{Running, Starting, Waiting};

    use super::*;
    use crate::supervisor::world::World;

    fn world(readiness: &str) -> World {
        let mut world = World::new(&format!(
            "[containers.db]\nimage = 'a'\nnetwork_mode = 'none'\nreadiness = '{readiness}'\n\
             [containers.web]\nimage = 'a'\nnetwork_mode = 'none'\ndepends_on = ['db']\n"
        ));
        world.prepare("db");
        world.prepare("web");
        world
    }

    /// Runs `db` with a socket in place of the one that the launcher makes.
    fn with_socket() -> (World, UnixDatagram, u32) {
        let mut world = world("notify");
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let container = world.supervisor.find_mut("db").unwrap();
        let id = container.id;
        container.awaited = Some(Awaited::Notice { socket: std::os::fd::OwnedFd::from(ours).into(), left: MESSAGES });
        world.run("db");
        assert_eq!((world.state("db"), world.state("web")), (Starting, Waiting));
        (world, theirs, id)
    }

    #[test]
    fn who_depends_on_a_container_waits_until_it_says_that_it_is_ready() {
        let (mut world, socket, id) = with_socket();
        assert_eq!(world.reason("web"), "waits for db, which is not ready yet");
        socket.send(b"STATUS=reads its tables\nREADY=10").unwrap();
        world.supervisor.readiness(id);
        assert_eq!(world.state("db"), Starting);
        socket.send(b"MAINPID=1\nREADY=1\n").unwrap();
        world.supervisor.readiness(id);
        world.supervisor.settle();
        assert_eq!((world.state("db"), world.reason("db"), world.state("web")), (Running, "", Starting));
        assert!(socket.send(b"WATCHDOG=1").is_err(), "somebody listens still");
    }

    #[test]
    fn a_container_that_only_chatters_is_not_listened_to_for_ever() {
        let (mut world, socket, id) = with_socket();
        socket.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while world.reason("db").contains("yet") {
            while socket.send(b"STATUS=x").is_ok() {
                sent += 1;
            }
            world.supervisor.readiness(id);
            assert!(sent < 10 * MESSAGES, "{}", world.reason("db"));
        }
        assert!(world.reason("db").contains("READY=1 in none"), "{}", world.reason("db"));
        let problems = world.supervisor.problems();
        assert!(problems[0].starts_with("container db: runs and has not become ready: has sent 256"), "{problems:?}");
        assert_eq!((world.state("db"), world.state("web")), (Starting, Waiting));
        assert_eq!(world.supervisor.reactor.wait(Some(Duration::ZERO)).unwrap(), []);
    }

    #[test]
    fn who_does_not_become_ready_in_time_is_a_problem_and_so_is_who_waits_for_it() {
        let (mut world, socket, id) = with_socket();
        let late = world.supervisor.deadline().unwrap();
        assert_eq!(late - world.supervisor.now, PATIENCE);
        world.pass(PATIENCE - Duration::from_secs(1));
        assert_eq!(world.supervisor.problems(), [""; 0]);
        world.pass(Duration::from_secs(1));
        let expected = [
            "container db: runs and has not become ready: has not said READY=1 on its NOTIFY_SOCKET yet",
            "container web: waits for db, which is not ready yet",
        ];
        assert_eq!((world.supervisor.problems(), world.state("db")), (expected.map(str::to_owned).to_vec(), Starting));
        assert_eq!(world.supervisor.deadline(), None, "it is told once");
        socket.send(b"READY=1").unwrap();
        world.supervisor.readiness(id);
        world.supervisor.settle();
        assert_eq!((world.supervisor.problems(), world.state("web")), (Vec::new(), Starting));
    }

    #[test]
    fn each_run_has_its_own_time_to_become_ready() {
        let (mut world, _socket, _) = with_socket();
        world.pass(PATIENCE);
        world.end("db", 1);
        let after_end = world.supervisor.problems();
        assert!(!after_end.iter().any(|problem| problem.contains("has not become ready")), "{after_end:?}");
        world.pass(Duration::from_secs(1));
        let container = world.supervisor.find_mut("db").unwrap();
        assert!(!container.overdue && matches!(container.state, State::Creating { .. }));
    }

    #[test]
    fn a_run_that_ends_is_waited_for_no_longer() {
        let (mut world, socket, _) = with_socket();
        world.end("db", 1);
        assert!(world.supervisor.find("db").unwrap().awaited.is_none());
        assert!(socket.send(b"READY=1").is_err());
    }

    #[test]
    fn a_port_is_looked_at_with_growing_pauses_until_somebody_listens() {
        // Not the first one, which nobody connects to.
        let listener = std::net::TcpListener::bind("127.4.3.2:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut world = world(&format!("listening:{}", address.port()));
        world.run("db");
        // Its network is this test's own.
        let running = format!("{{\"pid\":{},\"pidfd\":{},\"report\":{}}}", std::process::id(), dup(), dup());
        world.supervisor.find_mut("db").unwrap().state = State::Running(serde_json::from_str(&running).unwrap());
        let mut looks = vec![world.supervisor.now];
        let mut listener = None;
        while world.state("db") == Starting {
            let due = world.supervisor.deadline().unwrap();
            world.pass(due.saturating_sub(world.supervisor.now));
            looks.push(world.supervisor.now);
            if looks.len() == 10 {
                listener = Some(std::net::TcpListener::bind(address).unwrap());
            }
            assert!(looks.len() < 100, "nobody sees that {listener:?} listens");
        }
        world.supervisor.settle();
        assert_eq!((world.state("db"), world.state("web")), (Running, Starting));
        let pauses: Vec<Duration> = looks.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses[..3], [20, 40, 80].map(Duration::from_millis), "{pauses:?}");
        assert_eq!(pauses.iter().max(), Some(&LONGEST_PAUSE));
    }

    /// Some descriptor that a program before this one has left.
    fn dup() -> i32 {
        use std::os::fd::IntoRawFd;
        let file = std::fs::File::open("/dev/null").unwrap();
        nix::unistd::dup(&file).unwrap().into_raw_fd()
    }
}
