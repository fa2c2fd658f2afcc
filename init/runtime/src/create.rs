//! Making a container from an event loop, without ever waiting.
//!
//! ```text
//!            create()            readable: advance()          start()
//! Request ────────────► Creating ───────────────────► Created ────────► Running
//!                          │ Err: everything is undone   │ dropped: the container ends
//! ```
//! [`create`] makes one process, the *launcher*, and returns. The launcher does all that may take time or hang
//! (cgroup, id maps, mounts), makes the container's first process as a child of the caller, and ends. That process
//! sets itself up and waits for the start.
//!
//! The caller must be a single thread, and must reap its children: both the launcher and the container are.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::channel::{self, Message};
use crate::error::{Context, Error, Step, SystemError};
use crate::gate::Gate;
use crate::handover::Descriptor;
use crate::mounts::layers::Layer;
use crate::spec::{Seccomp, Spec, State, Status};
use crate::sys::clone::{self, PidfdNamespace, Side};
use crate::{idmap, launcher};

/// Where a container's root comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rootfs {
    /// A directory.
    Path(PathBuf),
    /// Layers, and what is written on top.
    Overlay {
        /// The uppermost first; at least one.
        layers: Vec<Layer>,
        /// Writable; without it the root cannot be written.
        upper: Option<PathBuf>,
        /// overlayfs's own, on the file system of `upper` and in one directory with it.
        work: Option<PathBuf>,
        /// Whether owners on disk, from 0 up, are to be mapped to the container's user namespace.
        mapped: bool,
    },
}

/// The first three descriptors of the program; /dev/null where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stdio<'a> {
    /// Descriptor 0.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Descriptor 1.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Descriptor 2.
    pub stderr: Option<BorrowedFd<'a>>,
}

/// What is wanted. Only borrowed for the length of [`create`].
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The container's name, for hooks and the session keyring.
    pub id: &'a str,
    /// The configuration. `root.path` is not looked at.
    pub spec: &'a Spec,
    /// The root.
    pub rootfs: Rootfs,
    /// Relative sources of bind mounts are below it; hooks are told of it.
    pub bundle: PathBuf,
    /// A directory of a cgroup2 mount, to be made: `/sys/fs/cgroup/user/web`. Without one the container stays where
    /// the caller is.
    pub cgroup: Option<PathBuf>,
    /// Not used with `process.terminal`.
    pub stdio: Stdio<'a>,
    /// Descriptors for the program, each with the number (3 or above) it gets.
    pub inherited: Vec<(BorrowedFd<'a>, RawFd)>,
    /// With `process.terminal`: a connected stream socket that the terminal's master is sent to.
    pub console: Option<BorrowedFd<'a>>,
    /// Whether the container keeps the caller's session keyring.
    pub keep_keyring: bool,
    /// Whether the first process stays as an init that forwards signals to the program, collects orphans, and ends with
    /// the program's code, or 128 + n for a signal.
    pub init: bool,
}

impl Request<'_> {
    /// The container's state, as hooks get it.
    pub(crate) fn state(&self, status: Status, pid: i32) -> State {
        State {
            oci_version: self.spec.oci_version.clone(),
            id: self.id.to_owned(),
            status,
            pid,
            bundle: self.bundle.clone(),
            annotations: self.spec.annotations.clone(),
        }
    }
}

/// A container that is being made.
#[derive(Debug, Serialize, Deserialize)]
pub struct Creating {
    report: Descriptor,
    gate: Descriptor,
    launcher_pid: i32,
    launcher: Descriptor,
}

/// How far a container has come.
#[derive(Debug)]
pub enum Progress {
    /// Ask again when [`Creating`] is readable.
    Pending(Creating),
    /// It waits for its start.
    Created(Created),
}

/// A container that waits for its start. Dropped, it ends.
#[derive(Debug, Serialize, Deserialize)]
pub struct Created {
    pub(crate) pid: i32,
    pub(crate) pidfd: Descriptor,
    /// For [`Message::Keep`].
    pub(crate) link: Option<Descriptor>,
    pub(crate) gate: Descriptor,
}

/// A container whose program has been told to run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Running {
    /// Of its first process, in the caller's PID namespace.
    pub pid: i32,
    /// Readable when it has ended.
    pub pidfd: Descriptor,
    report: Descriptor,
}

/// What became of the start.
#[derive(Debug)]
pub enum Executed {
    /// Not known yet; ask again when the report is readable.
    Pending,
    /// The program runs, or has run.
    Yes,
    /// It could not be run; the process ends.
    No(Error),
}

/// Begins to make a container. Returns as soon as the launcher is there.
pub fn create(request: &Request<'_>) -> Result<Creating, Error> {
    crate::validate::request(request)?;
    compile_filter(request.spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()))?;
    let (gate, containers_gate) = channel::pair()?;
    begin(request, Gate::Connected(containers_gate), gate)
}

/// Before the launcher is made: the next one finds it done.
pub(crate) fn compile_filter(profile: Option<&Seccomp>) -> Result<(), Error> {
    profile.map(crate::seccomp::compiled).transpose().map(drop).step("compile the seccomp profile")
}

fn begin(request: &Request<'_>, containers_gate: Gate, gate: OwnedFd) -> Result<Creating, Error> {
    begin_with(gate, |report| launcher::run(request, report, containers_gate))
}

/// Makes a launcher process that runs `body`.
pub(crate) fn begin_with(gate: OwnedFd, body: impl FnOnce(OwnedFd)) -> Result<Creating, Error> {
    let (report, launchers_report) = channel::pair()?;
    rustix::io::ioctl_fionbio(&report, true).on("ioctl FIONBIO", "report")?;
    match clone::clone3(0, None).on("clone3", "launcher").step("make the launcher")? {
        Side::Child => {
            body(launchers_report);
            // Bodies end the process themselves; a copy of the caller must never go on as one.
            clone::exit_now(1)
        }
        Side::Parent { pid, pidfd } => {
            Ok(Creating { report: report.into(), gate: gate.into(), launcher_pid: pid, launcher: pidfd.into() })
        }
    }
}

/// Makes a container whose gate is not the caller's, by a launcher, and waits until it is there.
pub(crate) fn through_launcher(
    request: &Request<'_>,
    containers_gate: Gate,
    interrupt: Option<BorrowedFd<'_>>,
) -> Result<Created, Error> {
    let (unused, _) = channel::pair()?;
    begin(request, containers_gate, unused)?.wait_unless(interrupt)
}

impl Creating {
    /// The launcher's process id: a child of the caller that ends by itself and is to be reaped.
    #[must_use]
    pub fn launcher_pid(&self) -> i32 {
        self.launcher_pid
    }

    /// Looks what the launcher has reported. An error means that nothing is left but what ends by itself.
    pub fn advance(self) -> Result<Progress, Error> {
        let process = "launching";
        match channel::receive(self.report.as_fd()) {
            Err(Errno::AGAIN) => Ok(Progress::Pending(self)),
            Err(source) => Err(SystemError { call: "recvmsg", subject: "report".to_owned(), source }.into()),
            Ok(None) => Err(Error::Died { process }),
            Ok(Some((Message::Failed(chain), _))) => Err(Error::Reported(chain)),
            Ok(Some((Message::Undone(chain), descriptors))) => {
                descriptors.iter().for_each(reap_ended);
                Err(Error::Reported(chain))
            }
            Ok(Some((Message::Created { pid }, descriptors))) => {
                let mut descriptors = descriptors.into_iter().map(Descriptor::from);
                let pidfd = descriptors.next().ok_or(Error::Protocol { process })?;
                Ok(Progress::Created(Created { pid, pidfd, link: descriptors.next(), gate: self.gate }))
            }
            Ok(Some(_)) => Err(Error::Protocol { process }),
        }
    }

    /// For a caller without an event loop: waits for the launcher and reaps it.
    pub fn wait(self) -> Result<Created, Error> {
        self.wait_unless(None)
    }

    /// The same, unless `interrupt` becomes readable: then everything is undone.
    pub fn wait_unless(self, interrupt: Option<BorrowedFd<'_>>) -> Result<Created, Error> {
        let launcher = self.launcher.as_fd().try_clone_to_owned().context("dup", || "pidfd")?;
        let mut this = self;
        let result = loop {
            match this.advance() {
                // The launcher sees that nobody wants it any more, undoes what it has done, and ends.
                Ok(Progress::Pending(pending)) => match wait_unless(pending.as_fd(), interrupt) {
                    Ok(()) => this = pending,
                    Err(error) => break Err(error),
                },
                Ok(Progress::Created(created)) => break Ok(created),
                Err(error) => break Err(error),
            }
        };
        let wait = rustix::process::WaitId::PidFd(launcher.as_fd());
        // Somebody else may have reaped it: then there is nothing to wait for.
        let _ = rustix::process::waitid(wait, rustix::process::WaitIdOptions::EXITED);
        result
    }
}

impl AsFd for Creating {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }
}

impl Created {
    /// Of the container's first process, in the caller's PID namespace.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable when it has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The container's network namespace, for whoever puts links into it before the start.
    pub fn network_namespace(&self) -> Result<OwnedFd, Error> {
        Ok(idmap::namespace(self.pid, self.pidfd.as_fd(), PidfdNamespace::Network, "net")?)
    }

    /// Lets the program run. Does not wait for it: see [`Running::executed`].
    pub fn start(self) -> Result<Running, Error> {
        channel::send(self.gate.as_fd(), &Message::Start, &[]).step("start the container")?;
        rustix::io::ioctl_fionbio(&self.gate, true).on("ioctl FIONBIO", "gate")?;
        Ok(Running { pid: self.pid, pidfd: self.pidfd, report: self.gate })
    }
}

impl Running {
    /// Readable when [`Self::executed`] has something to say.
    #[must_use]
    pub fn report(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }

    /// Whether the program could be run. Does not wait.
    #[must_use]
    pub fn executed(&self) -> Executed {
        executed(self.report.as_fd())
    }

    /// For a caller without an event loop: waits until the program runs.
    pub fn wait_executed(&self) -> Result<(), Error> {
        await_executed(self.report.as_fd(), None)
    }

    /// The same, unless `interrupt` becomes readable first.
    pub fn wait_executed_unless(&self, interrupt: BorrowedFd<'_>) -> Result<(), Error> {
        await_executed(self.report.as_fd(), Some(interrupt))
    }

    /// Sends a signal to the first process; one that has ended is fine.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        send_signal(self.pidfd.as_fd(), signal)
    }

    /// Kills the process, which must not have been reaped, and what it has started and left in its process group: it leads
    /// one, as it begins with setsid(2).
    pub fn kill_group(&self) {
        // Whoever is gone already needs no signal.
        let _ = self.signal(Signal::KILL.as_raw());
        if let Some(leader) = Pid::from_raw(self.pid).filter(|leader| *leader != Pid::INIT) {
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Reaps a child that has ended. In a PID namespace an unreaped one keeps the first process from ending.
pub(crate) fn reap_ended(pidfd: &OwnedFd) {
    use rustix::process::{WaitId, WaitIdOptions};
    // The caller's own reaper may have been faster.
    let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

/// What the starter's end of a gate says: the program's exec closes the other one.
fn executed(report: BorrowedFd<'_>) -> Executed {
    match channel::receive(report) {
        Err(Errno::AGAIN) => Executed::Pending,
        Ok(None) => Executed::Yes,
        Ok(Some((Message::Failed(chain), _))) => Executed::No(Error::Reported(chain)),
        Ok(Some(_)) => Executed::No(Error::Protocol { process: "container" }),
        Err(source) => Executed::No(SystemError { call: "recvmsg", subject: "report".to_owned(), source }.into()),
    }
}

pub(crate) fn await_executed(report: BorrowedFd<'_>, interrupt: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    loop {
        match executed(report) {
            Executed::Pending => wait_unless(report, interrupt)?,
            Executed::Yes => return Ok(()),
            Executed::No(error) => return Err(error),
        }
    }
}

/// Sends a signal, by number, to the process of a pidfd; one that has ended is fine.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Error> {
    let named = Signal::from_named_raw(signal);
    let result = match named {
        Some(signal) => rustix::process::pidfd_send_signal(pidfd, signal),
        // Real-time signals have numbers only.
        None => clone::send_signal(pidfd, signal),
    };
    match result {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        failed => Ok(failed.context("pidfd_send_signal", || format!("signal {signal}"))?),
    }
}

/// Waits until a descriptor is readable or its other side is gone; an error if `interrupt` is first.
fn wait_unless(descriptor: BorrowedFd<'_>, interrupt: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    use rustix::event::{PollFd, PollFlags};
    loop {
        let mut polled = vec![PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
        polled.extend(interrupt.map(|interrupt| PollFd::from_borrowed_fd(interrupt, PollFlags::IN)));
        match rustix::event::poll(&mut polled, None) {
            Ok(_) if polled.first().is_some_and(|first| !first.revents().is_empty()) => return Ok(()),
            Ok(_) => return Err(Error::Interrupted),
            Err(Errno::INTR) => {}
            failed => drop(failed.on("poll", "report")?),
        }
    }
}

/// Waits until a descriptor is readable or its other side is gone.
pub(crate) fn wait_readable(descriptor: BorrowedFd<'_>) -> Result<(), SystemError> {
    use rustix::event::{PollFd, PollFlags};
    loop {
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            failed => return failed.map(drop).on("poll", "report"),
        }
    }
}
