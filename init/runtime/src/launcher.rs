//! Makes the container's first process, with the host's privileges.
//!
//! ```text
//!   caller ──clone──► launcher ──clone (CLONE_PARENT, into the cgroup)──► container's process
//!     │                  │ ids, trees of the host ─────────────────────────►│ sets itself up
//!     │                  │◄──────────────────────────────── ready or failed │
//!     │◄── pidfd or why ─┘ ends                                             │ waits at the gate
//!     └── start ───────────────────────────────────────────────────────────►│ program
//! ```
//! The launcher joins namespaces, so that the container's process is born in them; is where an id-mapped overlay is
//! put together; and undoes everything if the container does not come to be. It may wait and may hang: nobody
//! waits for it but an event loop.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::capabilities::Sets;
use crate::cgroup::Cgroup;
use crate::channel::{self, Message};
use crate::create::{Request, Rootfs};
use crate::error::{Chain, Context, Error, Step, SystemError};
use crate::gate::Gate;
use crate::holdings::Holdings;
use crate::mounts::{self, Sources, attach};
use crate::namespaces::{Namespaces, flag};
use crate::process::{self, waits_for_launcher};
use crate::seccomp::Filter;
use crate::spec::{Linux, NamespaceKind, Status};
use crate::sys::clone::{self, Side};
use crate::sys::privileges;
use crate::{descriptors, hooks, idmap, limits, netdevices, seccomp};

/// A container's process that waits at its gate.
#[derive(Debug)]
pub(crate) struct Launched {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// To the process: for [`Message::Keep`], and closed if that is not said.
    pub link: OwnedFd,
}

/// Whose process the launcher is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A process of its own, made for this.
    Own,
    /// The caller itself: a command line that is about to end, or waits for the container.
    Caller,
}

/// The launcher process. Never returns, and so never drops what it has of its parent's.
pub(crate) fn run(request: &Request<'_>, report: OwnedFd, gate: Gate) -> ! {
    let mut kept = request.descriptors();
    kept.extend([report.as_fd(), gate.as_fd()]);
    let isolated = descriptors::close_all_but(&kept).map_err(Failure::from);
    let result = isolated.and_then(|()| launch(request, &gate, Place::Own, Some(report.as_fd())));
    let code = match result {
        Ok(launched) => {
            let message = Message::Created { pid: launched.pid };
            let mut descriptors = vec![launched.pidfd.as_fd()];
            descriptors.extend(gate.outlives_the_caller().then_some(launched.link.as_fd()));
            match channel::send(report.as_fd(), &message, &descriptors) {
                Ok(()) => 0,
                // Nobody wants it any more. The container's process learns of it at its gate.
                Err(_) => 1,
            }
        }
        Err(failure) => {
            report_failure(report.as_fd(), &failure);
            1
        }
    };
    clone::exit_now(code)
}

/// Why there is no process.
#[derive(Debug)]
pub(crate) struct Failure {
    pub error: Error,
    /// The process that was to be, if it came that far: it has ended and waits to be reaped by the caller.
    pub process: Option<OwnedFd>,
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), process: None }
    }
}

/// Tells the caller.
pub(crate) fn report_failure(report: BorrowedFd<'_>, failure: &Failure) {
    let chain = Chain::of(&failure.error);
    // If the caller is gone, there is nobody to tell.
    let _ = match &failure.process {
        Some(process) => channel::send(report, &Message::Undone(chain), &[process.as_fd()]),
        None => channel::send(report, &Message::Failed(chain), &[]),
    };
}

/// Ends a process that has failed, and waits for its end: only then its cgroup can be removed.
pub(crate) fn undo(pidfd: OwnedFd, error: Error) -> Failure {
    // It may have ended by itself.
    let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
    // After the signal its end is certain.
    let _ = crate::create::wait_readable(pidfd.as_fd());
    Failure { error, process: Some(pidfd) }
}

/// Makes the process and waits until it is set up. On failure nothing is left. `caller` is the caller's end: if it
/// closes, or has something to say (it is told of a signal), the container is not wanted any more.
pub(crate) fn launch(
    request: &Request<'_>,
    gate: &Gate,
    place: Place,
    caller: Option<BorrowedFd<'_>>,
) -> Result<Launched, Failure> {
    let empty = Linux::default();
    let linux = request.spec.linux.as_ref().unwrap_or(&empty);
    let namespaces = Namespaces::open(&linux.namespaces)?;
    let filter = linux.seccomp.as_ref().map(seccomp::compiled).transpose().step("compile the seccomp profile")?;
    let holdings = Holdings::prepare(request, linux, filter.as_deref(), &namespaces)?;
    let result = launch_into(request, gate, place, caller, &namespaces, filter.as_deref(), &holdings);
    if result.is_err() {
        holdings.discard();
    }
    result
}

fn launch_into(
    request: &Request<'_>,
    gate: &Gate,
    place: Place,
    caller: Option<BorrowedFd<'_>>,
    namespaces: &Namespaces,
    filter: Option<&Filter>,
    holdings: &Holdings,
) -> Result<Launched, Failure> {
    if let Rootfs::Overlay { layers, .. } = &request.rootfs {
        // Before any namespace is left: others are to find them.
        mounts::layers::mount(layers).step("mount the image's layers")?;
    }
    let mut sources = None;
    let empty = BTreeMap::new();
    let devices = request.spec.linux.as_ref().map_or(&empty, |linux| &linux.net_devices);
    let host = if devices.is_empty() { None } else { Some(netdevices::Side::own()?) };
    let into = holdings.cgroup.as_ref();
    let admission = into.filter(|_| namespaces.launcher_joins_cgroup()).map(Cgroup::admission).transpose()?;
    if namespaces.any_joined() {
        // Once in the user namespace, this process has no way to the host's files.
        if let Some(user) = namespaces.joined(NamespaceKind::User) {
            sources = Some(open_sources(request, Some(user))?);
        }
        namespaces.join().step("join namespaces")?;
    }
    let (ours, theirs) = channel::pair()?;
    let own_user_namespace = namespaces.has(NamespaceKind::User);
    let sets = capability_sets(request, own_user_namespace)?;
    let parent = if place == Place::Own { libc::CLONE_PARENT as u64 } else { 0 };
    let agent = holdings.agent.as_ref().map(AsFd::as_fd);
    let administrator = privileges::is_administrator();
    let context = process::Context { request, namespaces, filter, agent, sets, administrator, launcher: theirs, gate };
    let into = into.filter(|_| admission.is_none()).map(AsFd::as_fd);
    let side = clone::clone3(namespaces.clone_flags() | parent, into)
        .on("clone3", "the container's process")
        .step("make the container's process")?;
    let (pid, pidfd) = match side {
        Side::Child => process::run(context),
        Side::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(context);
    let launched = Launched { pid, pidfd, link: ours };
    let admitted = admission.map_or(Ok(()), |cgroup| admit(cgroup.as_fd(), pid));
    let placed = admitted.and_then(|()| holdings.assign(pid));
    let mut moved = None;
    let result = placed.and_then(|()| {
        if let Some(host) = &host {
            let joined = namespaces.joined(NamespaceKind::Network);
            let target = netdevices::namespace_of(joined, pid, launched.pidfd.as_fd())?;
            moved = Some(netdevices::move_in(host, target, devices).step("move linux.netDevices")?);
        }
        supervise(request, &launched, namespaces, holdings, sources, caller)
    });
    match result {
        Ok(()) => Ok(launched),
        Err(error) => {
            let failure = undo(launched.pidfd, error);
            if let (Some(host), Some(moved)) = (&host, &moved) {
                moved.give_back(host);
            }
            Err(failure)
        }
    }
}

/// Moves a process that waits for its ids into its cgroup.
fn admit(cgroup: BorrowedFd<'_>, pid: i32) -> Result<(), Error> {
    let written = rustix::io::write(cgroup, pid.to_string().as_bytes()).map(drop);
    written.on("write", "cgroup.procs").step("move the container's process into its cgroup")
}

/// What a container in its own user namespace gets is not bounded by what the caller has.
fn capability_sets(request: &Request<'_>, own_user_namespace: bool) -> Result<Sets, Error> {
    let wanted = request.spec.process.as_ref().and_then(|process| process.capabilities.as_ref());
    let available =
        if own_user_namespace { u64::MAX } else { privileges::permitted_capabilities().on("capget", "own process")? };
    Ok(Sets::from_spec(wanted, available))
}

/// From the birth of the container's process until it waits at the gate.
fn supervise(
    request: &Request<'_>,
    launched: &Launched,
    namespaces: &Namespaces,
    holdings: &Holdings,
    sources: Option<Sources>,
    caller: Option<BorrowedFd<'_>>,
) -> Result<(), Error> {
    let process = launched.link.as_fd();
    let empty = Linux::default();
    let linux = request.spec.linux.as_ref().unwrap_or(&empty);
    let pid = launched.pid;
    if namespaces.is_new(NamespaceKind::User) {
        idmap::write(pid, &linux.uid_mappings, &linux.gid_mappings).step("map ids")?;
        if privileges::is_administrator() {
            let user = idmap::user_namespace(pid, launched.pidfd.as_fd())?;
            send_trees(process, &open_sources(request, Some(user.as_fd()))?)?;
        } else {
            // Only the process itself, root of its namespace, can open them; and only before it goes on it is open to
            // its own user.
            set_oom_score(request, pid)?;
            send_none(process)?;
        }
    } else if let Some(sources) = sources {
        send_trees(process, &sources)?;
    } else if waits_for_launcher(request.spec) {
        send_trees(process, &open_sources(request, None)?)?;
    }
    holdings.restrict_devices_late(linux)?;
    loop {
        match next_report(process, caller)? {
            Message::Ready => break,
            Message::RunHooks => {
                run_hooks(request, pid, caller)?;
                channel::send(process, &Message::HooksDone, &[])?;
            }
            _ => return Err(Error::Protocol { process: "container" }),
        }
    }
    if let Some(program) = &request.spec.process {
        limits::apply(pid, &program.rlimits).step("set resource limits")?;
        limits::prioritize(pid, program)?;
    }
    if privileges::is_administrator() || !namespaces.is_new(NamespaceKind::User) {
        set_oom_score(request, pid)?;
    }
    Ok(())
}

fn set_oom_score(request: &Request<'_>, pid: i32) -> Result<(), Error> {
    let Some(score) = request.spec.process.as_ref().and_then(|program| program.oom_score_adj) else { return Ok(()) };
    idmap::write_file(&format!("/proc/{pid}/oom_score_adj"), score.to_string().as_bytes()).step("set the OOM score")
}

/// A process that has failed is no longer there to receive: what it said is worth more than that.
fn send_trees(process: BorrowedFd<'_>, sources: &Sources) -> Result<(), Error> {
    unless_gone(channel::send_trees(process, &sources.descriptors()))
}

/// The word to go on without.
fn send_none(process: BorrowedFd<'_>) -> Result<(), Error> {
    unless_gone(channel::send_trees(process, &[]))
}

fn unless_gone(sent: Result<(), SystemError>) -> Result<(), Error> {
    match sent {
        Err(SystemError { source: Errno::PIPE | Errno::CONNRESET, .. }) => Ok(()),
        result => result.step("hand over the mounts"),
    }
}

fn open_sources(request: &Request<'_>, user: Option<BorrowedFd<'_>>) -> Result<Sources, Error> {
    if matches!(request.rootfs, Rootfs::Overlay { mapped: true, .. }) && user.is_some() {
        clone::unshare(flag(NamespaceKind::Mount)).on("unshare", "mount namespace of the launcher")?;
        let slash = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).on("open", "/")?;
        attach::set_propagation(slash.as_fd(), libc::MS_PRIVATE, true, "/")?;
    }
    Sources::open(request.spec, &request.rootfs, &request.bundle, user).step("prepare mounts")
}

/// The hooks of the runtime's namespaces.
fn run_hooks(request: &Request<'_>, pid: i32, caller: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    let Some(hooks) = &request.spec.hooks else { return Ok(()) };
    let state = request.state(Status::Creating, pid);
    hooks::run_until("prestart", &hooks.prestart, &state, caller)?;
    hooks::run_until("createRuntime", &hooks.create_runtime, &state, caller)?;
    Ok(())
}

/// Waits until a process says that it is ready for its start.
pub(crate) fn expect_ready(process: BorrowedFd<'_>, caller: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    match next_report(process, caller)? {
        Message::Ready => Ok(()),
        _ => Err(Error::Protocol { process: "container" }),
    }
}

/// Waits for the next report of the container's process.
fn next_report(process: BorrowedFd<'_>, caller: Option<BorrowedFd<'_>>) -> Result<Message, Error> {
    wait(process, caller)?;
    match channel::receive(process).on("recvmsg", "report")? {
        Some((Message::Failed(chain), _)) => Err(Error::Reported(chain)),
        Some((message, _)) => Ok(message),
        None => Err(Error::Died { process: "container" }),
    }
}

/// Waits until the container's process has said something, or nobody cares any more.
fn wait(process: BorrowedFd<'_>, caller: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    loop {
        let mut polled = vec![PollFd::from_borrowed_fd(process, PollFlags::IN)];
        polled.extend(caller.map(|caller| PollFd::from_borrowed_fd(caller, PollFlags::IN)));
        match rustix::event::poll(&mut polled, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            failed => drop(failed.on("poll", "report")?),
        }
        let mut events = polled.iter().map(PollFd::revents);
        if events.next().is_some_and(|events| !events.is_empty()) {
            return Ok(());
        }
        match events.next() {
            Some(events) if events.contains(PollFlags::HUP) => return Err(Error::Died { process: "calling" }),
            Some(events) if !events.is_empty() => return Err(Error::Interrupted),
            _ => {}
        }
    }
}
