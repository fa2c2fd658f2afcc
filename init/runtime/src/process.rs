//! The container's first process, from its birth to its program.
//!
//! [`set_up`] and [`finish`] are the whole story, a step a line. Everything fails into one report: to the launcher
//! before the process is ready, to whoever starts it afterwards.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;

use crate::capabilities::Sets;
use crate::channel::{self, Message};
use crate::create::Request;
use crate::error::{Context as _, Error, Step};
use crate::gate::{Gate, give_up};
use crate::init::Init;
use crate::labels::Labels;
use crate::mounts::container::{Surroundings, attach_all, procfs};
use crate::mounts::{Sources, attach, need_launcher};
use crate::namespaces::Namespaces;
use crate::program::Program;
use crate::rootfs::{Kind, Masks, Root};
use crate::seccomp::{Filter, Installer};
use crate::spec::{Linux, NamespaceKind, Process, Spec, Status};
use crate::sys::{clone, privileges};
use crate::{descriptors, devices, hooks, identity, idmap, limits, sysctl, terminal};

/// What the process needs to know. A copy of the launcher's memory; its descriptors are closed without its owners
/// knowing, so it must never be dropped.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub request: &'a Request<'a>,
    pub namespaces: &'a Namespaces,
    pub filter: Option<&'a Filter>,
    /// Who answers SCMP_ACT_NOTIFY.
    pub agent: Option<BorrowedFd<'a>>,
    pub sets: Sets,
    /// Whether the launcher has rights over the host.
    pub administrator: bool,
    pub launcher: OwnedFd,
    pub gate: &'a Gate,
}

/// What is left of the caller's descriptors.
struct Ends {
    launcher: OwnedFd,
    gate: Gate,
    console: Option<OwnedFd>,
    agent: Option<OwnedFd>,
}

/// What is there when the process is set up.
struct Prepared<'a> {
    /// None if the configuration has none.
    program: Option<Program>,
    labels: Option<Labels>,
    init: Option<Init>,
    /// A filter that comes last of all.
    filter: Option<Installer<'a>>,
}

/// Never returns: it becomes the program, or ends.
pub(crate) fn run(context: Context<'_>) -> ! {
    let context = std::mem::ManuallyDrop::new(context);
    let mut ends = match isolate(&context) {
        Ok(ends) => ends,
        Err(error) => give_up(context.launcher.as_fd(), &error),
    };
    let prepared = match set_up(&context, &mut ends) {
        Ok(prepared) => prepared,
        Err(error) => give_up(ends.launcher.as_fd(), &error),
    };
    if channel::send(ends.launcher.as_fd(), &Message::Ready, &[]).is_err() {
        clone::exit_now(1);
    }
    if ends.gate.outlives_the_caller() && !is_kept(ends.launcher.as_fd()) {
        clone::exit_now(1);
    }
    drop(ends.launcher);
    let Some(starter) = ends.gate.wait() else { clone::exit_now(1) };
    match finish(&context, prepared) {
        Ok(never) => match never {},
        Err(error) => give_up(starter.as_fd(), &error),
    }
}

/// Waits until who makes the container has put down that it is there. If that process ends before, nobody could find
/// the container.
fn is_kept(launcher: BorrowedFd<'_>) -> bool {
    matches!(channel::receive(launcher), Ok(Some((Message::Keep, _))))
}

/// Away from the caller: its signals, its session, its descriptors.
fn isolate(context: &Context<'_>) -> Result<Ends, Error> {
    let request = context.request;
    // Whoever is not root must reach /proc/PID/uid_map, which belongs to root otherwise; until the ids are mapped the
    // process has nothing that its user does not have.
    let mapped_by_user = context.namespaces.is_new(NamespaceKind::User) && !context.administrator;
    privileges::set_dumpable(mapped_by_user).on("prctl", "PR_SET_DUMPABLE")?;
    clone::reset_signals();
    rustix::process::setsid().on("setsid", "the container's process")?;
    context.namespaces.join_late().step("join namespaces")?;
    let kept = [Some(context.launcher.as_fd()), Some(context.gate.as_fd()), request.console, context.agent];
    let [launcher, gate, console, agent] = descriptors::arrange(request.stdio, &request.inherited, kept)?;
    let process = "launching";
    match (launcher, gate.map(|gate| context.gate.moved(gate))) {
        (Some(launcher), Some(gate)) => Ok(Ends { launcher, gate, console, agent }),
        _ => Err(Error::Died { process }),
    }
}

/// Everything up to the start.
fn set_up<'a>(context: &Context<'a>, ends: &mut Ends) -> Result<Prepared<'a>, Error> {
    let request = context.request;
    let spec = request.spec;
    let empty = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&empty);
    let user_namespace = context.namespaces.has(NamespaceKind::User);
    let nothing = Process { cwd: "/".to_owned(), ..Process::default() };
    let process = spec.process.as_ref().unwrap_or(&nothing);

    context.namespaces.enter_late().step("enter namespaces")?;
    set_time_offsets(linux).step("set time offsets")?;
    let received = if user_namespace || waits_for_launcher(spec) {
        channel::receive_trees(ends.launcher.as_fd())?
    } else {
        Vec::new()
    };
    if user_namespace {
        identity::become_root().step("become root of the user namespace")?;
        privileges::set_dumpable(false).on("prctl", "PR_SET_DUMPABLE")?;
    }
    let sources = match Sources::received(received) {
        Some(sources) => sources,
        None => Sources::open(spec, &request.rootfs, &request.bundle, None).step("prepare mounts")?,
    };
    join_keyring(request).step("join a session keyring")?;

    let root = Root::attach(sources.root).step("attach the root")?;
    let mut masks = Masks::new(linux.mount_label.as_ref()).step("prepare masks")?;
    let surroundings = surroundings(context);
    let mut mounted = attach_all(&root, &spec.mounts, sources.binds, surroundings).step("set up mounts")?;
    devices::populate(&root, &spec.mounts, &linux.devices, user_namespace).step("set up devices")?;
    if let Some(console) = &ends.console {
        set_up_terminal(&root, process, console.as_fd()).step("set up the terminal")?;
    }
    make_working_directory(&root, process)?;
    mounted.finish().step("set up mounts")?;
    bring_up_loopback(context.namespaces).step("bring up the loopback")?;
    set_names(spec).step("set host name")?;
    if !linux.sysctl.is_empty() {
        sysctl::set(linux, &procfs(mounted.procfs)?).step("set sysctl")?;
    }
    for path in &linux.readonly_paths {
        root.make_read_only(path).step("make paths read-only")?;
    }
    for path in &linux.masked_paths {
        root.mask(path, &mut masks).step("mask paths")?;
    }
    let pid = own_pid(context)?;
    run_hooks(request, ends.launcher.as_fd())?;
    let labels = open_labels(process)?;
    let init = request.init.then(Init::prepare).transpose()?;
    root.enter().step("enter the root")?;
    finish_root(spec, &root).step("finish the root")?;
    drop((root, masks));

    if let Some(personality) = &linux.personality {
        limits::personality(personality).step("set the personality")?;
    }
    if let Some(policy) = &linux.memory_policy {
        limits::memory_policy(policy).step("set the memory policy")?;
    }
    let program = spec.process.as_ref().map(Program::prepare).transpose()?;
    let filter = installer(context, process, ends.agent.take(), pid);
    let filter = identity::restrict(context.sets, process, filter)?;
    program.iter().try_for_each(Program::check)?;
    Ok(Prepared { program, labels, init, filter })
}

/// Whether there is something that only the launcher can do; the mounts that it sends are the word to go on. With a
/// user namespace there always is.
pub(crate) fn waits_for_launcher(spec: &Spec) -> bool {
    need_launcher(&spec.mounts) || spec.linux.as_ref().is_some_and(|linux| !linux.net_devices.is_empty())
}

/// Its own process id as the host sees it, where a seccomp agent is told; by the host's /proc, which is still there.
fn own_pid(context: &Context<'_>) -> Result<i32, Error> {
    if context.agent.is_none() {
        return Ok(0);
    }
    let own = rustix::fs::readlink("/proc/self", Vec::new()).on("readlink", "/proc/self")?;
    Ok(own.to_str().ok().and_then(|pid| pid.parse().ok()).unwrap_or_default())
}

fn installer<'a>(context: &Context<'a>, process: &Process, agent: Option<OwnedFd>, pid: i32) -> Option<Installer<'a>> {
    let request = context.request;
    let profile = request.spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    let metadata = profile.and_then(|profile| profile.listener_metadata.as_deref());
    // With no_new_privs it is installed after the start.
    let status = if process.no_new_privileges { Status::Created } else { Status::Creating };
    context.filter.map(|filter| Installer { filter, agent, metadata, state: Some(request.state(status, pid)), pid })
}

/// By the host's /proc, which is still there.
fn open_labels(process: &Process) -> Result<Option<Labels>, Error> {
    if !Labels::are_wanted(process) {
        return Ok(None);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let procfs = rustix::fs::open("/proc", flags, rustix::fs::Mode::empty()).on("open", "/proc")?;
    Labels::open(process, procfs.as_fd()).map(Some)
}

/// The hooks before the root is exchanged: those of the runtime's namespaces by the launcher, then those of the
/// container's.
fn run_hooks(request: &Request<'_>, launcher: BorrowedFd<'_>) -> Result<(), Error> {
    let Some(hooks) = &request.spec.hooks else { return Ok(()) };
    if !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty() {
        channel::send(launcher, &Message::RunHooks, &[])?;
        match channel::receive(launcher).on("recvmsg", "hooks")? {
            Some((Message::HooksDone, _)) => {}
            _ => return Err(Error::Died { process: "launching" }),
        }
    }
    let state = request.state(Status::Creating, pid_inside());
    // The launcher says nothing meanwhile; but it may end.
    Ok(hooks::run_until("createContainer", &hooks.create_container, &state, Some(launcher))?)
}

/// The specification: for hooks in the container's namespaces the pid is as seen there.
fn pid_inside() -> i32 {
    rustix::process::getpid().as_raw_pid()
}

/// After the start: what has to be last.
fn finish(context: &Context<'_>, prepared: Prepared<'_>) -> Result<std::convert::Infallible, Error> {
    let Prepared { program, labels, init, filter } = prepared;
    let program = program.ok_or_else(|| Error::configuration("process", "is needed to start a container"))?;
    if let Some(hooks) = &context.request.spec.hooks {
        hooks::run("startContainer", &hooks.start_container, &context.request.state(Status::Created, pid_inside()))?;
    }
    if let Some(labels) = labels {
        labels.apply()?;
    }
    if let Some(filter) = filter {
        filter.install()?;
    }
    // What is to come with the program's exec comes with the fork before it.
    init.map_or(Ok(()), Init::stay_behind)?;
    program.execute()
}

/// Of the time namespace just made, which nobody is in before the program. By the host's /proc, whose file is still
/// this process's own: its ids are not set yet.
fn set_time_offsets(linux: &Linux) -> Result<(), Error> {
    for (clock, offset) in &linux.time_offsets {
        let line = format!("{clock} {} {}", offset.secs, offset.nanosecs);
        idmap::write_file("/proc/self/timens_offsets", line.as_bytes())?;
    }
    Ok(())
}

fn set_up_terminal(root: &Root, process: &Process, console: BorrowedFd<'_>) -> Result<(), Error> {
    let terminal = terminal::make(root.as_fd(), process, console)?;
    terminal::mount_console(root, terminal.as_fd())?;
    Ok(terminal::take(terminal.as_fd())?)
}

fn join_keyring(request: &Request<'_>) -> Result<(), Error> {
    if request.keep_keyring {
        return Ok(());
    }
    let name = CString::new(format!("_ses.{}", request.id)).unwrap_or_default();
    match privileges::join_session_keyring(&name) {
        // No keyrings in this kernel: none to leak.
        Ok(()) | Err(rustix::io::Errno::NOSYS) => Ok(()),
        failed => Ok(failed.on("keyctl", request.id)?),
    }
}

fn surroundings<'a>(context: &Context<'a>) -> Surroundings<'a> {
    Surroundings {
        own_cgroup_namespace: context.namespaces.has(NamespaceKind::Cgroup),
        cgroup: context.request.cgroup.as_deref(),
        own_network_namespace: context.namespaces.has(NamespaceKind::Network),
        label: context.request.spec.linux.as_ref().and_then(|linux| linux.mount_label.as_ref()),
    }
}

/// As runc and crun do: images name directories that they do not have.
fn make_working_directory(root: &Root, process: &Process) -> Result<(), Error> {
    if process.cwd != "/" {
        // A root that cannot be written is told by chdir, if the directory is really missing.
        let _ = root.mount_point(&process.cwd, Kind::Directory);
    }
    Ok(())
}

/// A network namespace begins with a loopback that is down. runc and crun bring it up too.
fn bring_up_loopback(namespaces: &Namespaces) -> Result<(), Error> {
    if namespaces.is_new(NamespaceKind::Network) {
        crate::sys::network::bring_up_loopback().on("ioctl SIOCSIFFLAGS", "lo")?;
    }
    Ok(())
}

fn set_names(spec: &Spec) -> Result<(), Error> {
    if let Some(name) = &spec.hostname {
        rustix::system::sethostname(name.as_bytes()).on("sethostname", name)?;
    }
    if let Some(name) = &spec.domainname {
        rustix::system::setdomainname(name.as_bytes()).on("setdomainname", name)?;
    }
    Ok(())
}

fn finish_root(spec: &Spec, root: &Root) -> Result<(), Error> {
    if spec.root.as_ref().is_some_and(|root| root.readonly) {
        attach::make_read_only(root, false, "/")?;
    }
    let propagation = spec.linux.as_ref().and_then(|linux| linux.rootfs_propagation.as_deref());
    let kind = match propagation {
        None | Some("slave" | "rslave" | "private" | "rprivate") => return Ok(()),
        Some("shared" | "rshared") => libc::MS_SHARED,
        Some("unbindable" | "runbindable") => libc::MS_UNBINDABLE,
        Some(other) => {
            let must = format!("must be shared, slave, private or unbindable, not {other}");
            return Err(Error::configuration("linux.rootfsPropagation", must));
        }
    };
    let recursive = propagation.is_some_and(|word| word.starts_with('r'));
    Ok(attach::set_propagation(root.as_fd(), kind, recursive, "/")?)
}
