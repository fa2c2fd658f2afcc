//! A further process in a running container, in the same shape as [`crate::create()`]: a launcher joins the container's
//! namespaces and makes the process in them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::capabilities::Sets;
use crate::channel::{self, Message};
use crate::create::{Creating, Stdio, begin_with};
use crate::error::{Context as _, Error, Step};
use crate::gate::{Gate, give_up};
use crate::labels::Labels;
use crate::launcher::Failure;
use crate::program::Program;
use crate::seccomp::{Filter, Installer};
use crate::spec::{NamespaceKind, Process, Seccomp, State};
use crate::sys::clone::{self, Side};
use crate::sys::privileges;
use crate::{descriptors, identity, idmap, launcher, limits, namespaces, seccomp, terminal};

/// What is wanted. Only borrowed for the length of [`exec`].
#[derive(Clone, Debug)]
pub struct ExecRequest<'a> {
    /// The container's first process, in the caller's PID namespace.
    pub pid: i32,
    /// The same process: so that its number is not somebody else's by now.
    pub pidfd: BorrowedFd<'a>,
    /// What runs.
    pub process: &'a Process,
    /// The container's filter.
    pub seccomp: Option<&'a Seccomp>,
    /// The container, for who answers SCMP_ACT_NOTIFY; needed with a profile that asks somebody.
    pub container: Option<&'a State>,
    /// The container's cgroup.
    pub cgroup: Option<PathBuf>,
    /// Not used with `process.terminal`.
    pub stdio: Stdio<'a>,
    /// Descriptors for the program, each with the number (3 or above) it gets.
    pub inherited: Vec<(BorrowedFd<'a>, RawFd)>,
    /// With `process.terminal`: a connected stream socket that the terminal's master is sent to.
    pub console: Option<BorrowedFd<'a>>,
}

/// Begins to make a process in a container. Advance and start it as a container.
pub fn exec(request: &ExecRequest<'_>) -> Result<Creating, Error> {
    crate::validate::process(request.process)?;
    crate::create::compile_filter(request.seccomp)?;
    let (gate, process_gate) = channel::pair()?;
    begin_with(gate, |report| run(request, report, Gate::Connected(process_gate)))
}

/// The launcher process.
fn run(request: &ExecRequest<'_>, report: OwnedFd, gate: Gate) -> ! {
    let code = match launch(request, &gate, report.as_fd()) {
        Ok((pid, pidfd)) => {
            let sent = channel::send(report.as_fd(), &Message::Created { pid }, &[pidfd.as_fd()]);
            i32::from(sent.is_err())
        }
        Err(failure) => {
            launcher::report_failure(report.as_fd(), &failure);
            1
        }
    };
    clone::exit_now(code)
}

fn launch(request: &ExecRequest<'_>, gate: &Gate, caller: BorrowedFd<'_>) -> Result<(i32, OwnedFd), Failure> {
    let process = request.process;
    let filter = request.seccomp.map(seccomp::compiled).transpose().step("compile the seccomp profile")?;
    let agent = filter.as_deref().map(|filter| connect_agent(request, filter)).transpose()?.flatten();
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    // The host's: inside, the name may mean anything.
    let null = rustix::fs::open("/dev/null", flags, Mode::empty()).on("open", "/dev/null")?;
    let mut kept: Vec<BorrowedFd<'_>> = [request.stdio.stdin, request.stdio.stdout, request.stdio.stderr]
        .into_iter()
        .flatten()
        .chain(request.console)
        .chain(request.inherited.iter().map(|(descriptor, _)| *descriptor))
        .collect();
    let procfs = match Labels::are_wanted(process) || agent.is_some() {
        true => Some(rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).on("open", "/proc")?),
        false => None,
    };
    kept.extend([caller, gate.as_fd(), request.pidfd, null.as_fd()]);
    kept.extend(procfs.iter().chain(&agent).map(AsFd::as_fd));
    descriptors::close_all_but(&kept)?;
    privileges::set_dumpable(false).on("prctl", "PR_SET_DUMPABLE")?;
    let cgroup = match &request.cgroup {
        Some(path) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Some(rustix::fs::open(path, flags, Mode::empty()).context("open", || path.display().to_string())?)
        }
        None => None,
    };
    set_inherited(process)?;
    let joined = differing_namespaces(request)?;
    let user_namespace = joined & namespaces::flag(NamespaceKind::User) != 0;
    let available = match user_namespace {
        true => u64::MAX,
        false => privileges::permitted_capabilities().on("capget", "own process")?,
    };
    let sets = Sets::from_spec(process.capabilities.as_ref(), available);
    // With the `nsdelegate` option of cgroup2 the kernel lets nobody reach over the border of a cgroup namespace, so the
    // new process joins that one itself, once it is in the cgroup.
    let cgroup_namespace = joined & namespaces::flag(NamespaceKind::Cgroup);
    let others = joined & !cgroup_namespace;
    clone::setns(request.pidfd, others).on("setns", "the container's namespaces").step("join the container")?;
    let (ours, theirs) = channel::pair()?;
    let (procfs, agent) = (procfs.as_ref().map(AsFd::as_fd), agent.as_ref().map(AsFd::as_fd));
    let filter = filter.as_deref();
    let null = null.as_fd();
    let context = Context {
        request,
        gate,
        launcher: theirs,
        null,
        procfs,
        agent,
        filter,
        sets,
        user_namespace,
        cgroup_namespace,
    };
    let side = clone::clone3(libc::CLONE_PARENT as u64, cgroup.as_ref().map(AsFd::as_fd))
        .on("clone3", "a process in the container")
        .step("make the process")?;
    let (pid, pidfd) = match side {
        Side::Child => become_process(context),
        Side::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(context);
    match launcher::expect_ready(ours.as_fd(), Some(caller)) {
        Ok(()) => Ok((pid, pidfd)),
        Err(error) => Err(launcher::undo(pidfd, error)),
    }
}

/// The connection to the filter's agent, if it has one.
fn connect_agent(request: &ExecRequest<'_>, filter: &Filter) -> Result<Option<OwnedFd>, Error> {
    match request.seccomp {
        Some(profile) if request.container.is_some() => seccomp::connect(filter, profile),
        _ if filter.notifies() => {
            let must = "needs the container's state to be given with the request";
            Err(Error::configuration("linux.seccomp.listenerPath", must))
        }
        _ => Ok(None),
    }
}

/// What the process inherits, because the launcher has no right to it once it has joined the container.
fn set_inherited(process: &Process) -> Result<(), Error> {
    limits::apply(0, &process.rlimits).step("set resource limits")?;
    if let Some(score) = process.oom_score_adj {
        idmap::write_file("/proc/self/oom_score_adj", score.to_string().as_bytes()).step("set the OOM score")?;
    }
    let affinity = process.exec_cpu_affinity.as_ref();
    match affinity.and_then(|affinity| affinity.initial.as_deref()) {
        Some(initial) => limits::pin(initial).step("set the initial CPU affinity"),
        None => Ok(()),
    }
}

/// The kinds in which the container is elsewhere; joining one's own user namespace is refused by the kernel.
fn differing_namespaces(request: &ExecRequest<'_>) -> Result<u64, Error> {
    const NAMES: [(NamespaceKind, &str); 8] = [
        (NamespaceKind::User, "user"),
        (NamespaceKind::Mount, "mnt"),
        (NamespaceKind::Pid, "pid"),
        (NamespaceKind::Network, "net"),
        (NamespaceKind::Ipc, "ipc"),
        (NamespaceKind::Uts, "uts"),
        (NamespaceKind::Cgroup, "cgroup"),
        (NamespaceKind::Time, "time"),
    ];
    let mut flags = 0;
    for (kind, name) in NAMES {
        let identity = |path: String| {
            rustix::fs::stat(&path).map(|stat| (stat.st_dev, stat.st_ino)).map_err(|errno| (errno, path))
        };
        let own = identity(format!("/proc/self/ns/{name}"));
        match (own, identity(format!("/proc/{}/ns/{name}", request.pid))) {
            (Ok(own), Ok(theirs)) if own != theirs => flags |= namespaces::flag(kind),
            (Ok(_), Err((errno, path))) => drop(Err::<(), _>(errno).on("stat", &path).step("join the container")?),
            _ => {}
        }
    }
    // The numbers above were the container's only if it still is.
    let alive = clone::send_signal(request.pidfd, 0);
    alive.on("pidfd_send_signal", "the container's first process").step("join the container")?;
    Ok(flags)
}

/// What the new process needs to know. A copy of the launcher's memory; its descriptors are closed without its owners
/// knowing, so it must never be dropped.
struct Context<'a> {
    request: &'a ExecRequest<'a>,
    gate: &'a Gate,
    launcher: OwnedFd,
    null: BorrowedFd<'a>,
    /// The host's, where the program is to have labels.
    procfs: Option<BorrowedFd<'a>>,
    /// Who answers SCMP_ACT_NOTIFY.
    agent: Option<BorrowedFd<'a>>,
    filter: Option<&'a Filter>,
    sets: Sets,
    /// Whether the container has one of its own.
    user_namespace: bool,
    /// The flag of the namespace that is still to be joined; 0 if there is none.
    cgroup_namespace: u64,
}

fn join_cgroup_namespace(context: &Context<'_>) -> Result<(), Error> {
    if context.cgroup_namespace == 0 {
        return Ok(());
    }
    let joined = clone::setns(context.request.pidfd, context.cgroup_namespace);
    joined.on("setns", "the container's cgroup namespace").step("join the container")
}

/// The new process. Never returns.
fn become_process(context: Context<'_>) -> ! {
    let context = std::mem::ManuallyDrop::new(context);
    let request = context.request;
    if let Err(error) = join_cgroup_namespace(&context) {
        give_up(context.launcher.as_fd(), &error);
    }
    let stdio = Stdio {
        stdin: request.stdio.stdin.or(Some(context.null)),
        stdout: request.stdio.stdout.or(Some(context.null)),
        stderr: request.stdio.stderr.or(Some(context.null)),
    };
    let (launcher, gate) = (Some(context.launcher.as_fd()), Some(context.gate.as_fd()));
    let kept = [launcher, gate, request.console, context.procfs, context.agent];
    let (launcher, gate, ends) = match descriptors::arrange(stdio, &request.inherited, kept) {
        Ok([Some(launcher), Some(gate), console, procfs, agent]) => {
            (launcher, context.gate.moved(gate), Ends { console, procfs, agent })
        }
        Ok(_) => give_up(context.launcher.as_fd(), &Error::Died { process: "launching" }),
        Err(error) => give_up(context.launcher.as_fd(), &error.into()),
    };
    let prepared = match set_up(&context, ends) {
        Ok(prepared) => prepared,
        Err(error) => give_up(launcher.as_fd(), &error),
    };
    if channel::send(launcher.as_fd(), &Message::Ready, &[]).is_err() {
        clone::exit_now(1);
    }
    drop(launcher);
    let Some(starter) = gate.wait() else { clone::exit_now(1) };
    match finish(prepared) {
        Ok(never) => match never {},
        Err(error) => give_up(starter.as_fd(), &error),
    }
}

/// What is left of the launcher's descriptors, besides those of the report and the gate.
struct Ends {
    console: Option<OwnedFd>,
    procfs: Option<OwnedFd>,
    agent: Option<OwnedFd>,
}

/// What is there when the process is set up.
struct Prepared<'a> {
    program: Program,
    labels: Option<Labels>,
    /// A filter that comes last of all.
    filter: Option<Installer<'a>>,
}

fn set_up<'a>(context: &Context<'a>, ends: Ends) -> Result<Prepared<'a>, Error> {
    let process = context.request.process;
    clone::reset_signals();
    match rustix::process::setsid() {
        Ok(_) | Err(Errno::PERM) => {}
        failed => drop(failed.on("setsid", "the process")?),
    }
    if let Some(console) = ends.console {
        if context.user_namespace {
            // Here it is nobody yet, and the terminal belongs to whom its opener is.
            identity::become_root().step("become root of the user namespace")?;
        }
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).on("open", "/")?;
        let terminal = terminal::make(root.as_fd(), process, console.as_fd()).step("set up the terminal")?;
        terminal::take(terminal.as_fd()).step("set up the terminal")?;
    }
    if let Some(last) = process.exec_cpu_affinity.as_ref().and_then(|affinity| affinity.last.as_deref()) {
        limits::pin(last).step("set the final CPU affinity")?;
    }
    limits::prioritize(0, process)?;
    // The caller's would come along otherwise.
    privileges::leave_session_keyring().on("keyctl", "the process").step("join a session keyring")?;
    let (mut labels, mut pid) = (None, 0);
    if let Some(procfs) = &ends.procfs {
        labels = Labels::are_wanted(process).then(|| Labels::open(process, procfs.as_fd())).transpose()?;
        let own = rustix::fs::readlinkat(procfs, "self", Vec::new()).on("readlink", "/proc/self")?;
        pid = own.to_str().ok().and_then(|pid| pid.parse().ok()).unwrap_or_default();
    }
    let program = Program::prepare(process)?;
    let metadata = context.request.seccomp.and_then(|profile| profile.listener_metadata.as_deref());
    let state = || context.request.container.cloned();
    let filter = context.filter.map(|filter| Installer { filter, agent: ends.agent, metadata, state: state(), pid });
    let filter = identity::restrict(context.sets, process, filter)?;
    program.check()?;
    Ok(Prepared { program, labels, filter })
}

/// After the start: what has to be last.
fn finish(prepared: Prepared<'_>) -> Result<std::convert::Infallible, Error> {
    if let Some(labels) = prepared.labels {
        labels.apply()?;
    }
    if let Some(filter) = prepared.filter {
        filter.install()?;
    }
    prepared.program.execute()
}
