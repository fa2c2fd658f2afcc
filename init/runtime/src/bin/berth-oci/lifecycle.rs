//! create, start, run, kill, delete.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

use berth_runtime::spec::{Spec, State, Status};
use berth_runtime::{Request, Rootfs, Stdio, cgroup, detached, hooks, resctrl};
use rustix::io::Errno;

use crate::activation::{self, Readiness};
use crate::arguments::{Create, Delete, Kill, Run};
use crate::cgroups::await_event;
use crate::container::{self, Failure, during, status_name};
use crate::log::Log;
use crate::signals;
use crate::store::{Record, Store, process_start_time, timestamp};
use crate::terminal;

/// How long processes that were killed may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A container under way: what is to be undone if it does not come to be.
struct Claim<'a> {
    store: &'a Store,
    options: &'a Create,
    record: Record,
}

impl<'a> Claim<'a> {
    /// `listeners` is how many of the descriptors that the container gets are sockets of systemd's.
    fn new(store: &'a Store, log: &Log, options: &'a Create, listeners: i32) -> Result<Self, Failure> {
        if options.no_pivot {
            return Err(Failure::NoPivot);
        }
        let (bundle, spec) = container::bundle(&options.bundle)?;
        berth_runtime::check(&spec)?;
        let root = spec
            .root
            .as_ref()
            .ok_or_else(|| Failure::Option { option: "root", must: "must be in config.json".to_owned() })?;
        let rootfs = bundle.join(&root.path);
        let rootfs = rootfs.canonicalize().map_err(during("find the root", &rootfs))?;
        if !rootfs.is_dir() {
            let must = format!("must be a directory, not {}", rootfs.display());
            return Err(Failure::Option { option: "root.path", must });
        }
        let record = Record {
            id: options.id.clone(),
            pid: 0,
            start_time: 0,
            cgroup: container::cgroup(&spec, &options.id)?,
            bundle,
            rootfs,
            created: timestamp(SystemTime::now()),
            owner: owner(),
            spec,
        };
        if let Some(process) = &record.spec.process {
            container::warn_of_capabilities(log, &record.spec, process);
        }
        let directory = store.claim(&options.id)?;
        let mut this = Self { store, options, record };
        if let Some(cgroup) = &this.record.cgroup
            && let Err(error) = store.note_cgroup(&options.id, cgroup)
        {
            return Err(this.undo(log, error));
        }
        activation::announce_listeners(&mut this.record.spec, listeners);
        if activation::is_awaited()
            && let Err(error) = activation::prepare(&mut this.record.spec, &directory)
        {
            return Err(this.undo(log, error));
        }
        Ok(this)
    }

    fn request<'b>(&'b self, console: Option<BorrowedFd<'b>>, inherited: &'b [OwnedFd]) -> Request<'b> {
        let terminal = console.is_some();
        Request {
            id: &self.record.id,
            spec: &self.record.spec,
            rootfs: Rootfs::Path(self.record.rootfs.clone()),
            bundle: self.record.bundle.clone(),
            cgroup: self.record.cgroup.clone(),
            stdio: if terminal { Stdio::default() } else { own_stdio() },
            inherited: inherited.iter().map(AsFd::as_fd).zip(3..).collect(),
            console,
            keep_keyring: self.options.no_new_keyring,
            // config.json has no word for it: who wants one there names it in `args`.
            init: false,
        }
    }

    /// The process is there.
    fn settle(&mut self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<(), Failure> {
        self.record.pid = pid;
        self.record.start_time = process_start_time(pid).unwrap_or_default();
        self.store.save(&self.record)?;
        self.store.forget_cgroup(&self.record.id)?;
        if let Some(socket) = &self.options.pidfd_socket {
            terminal::send_pidfd(socket, pidfd)?;
        }
        write_pid_file(self.options.pid_file.as_deref(), pid)
    }

    /// Takes everything back; the first error is the one to hear of.
    fn undo(&self, log: &Log, error: Failure) -> Failure {
        // Before there is a process the library has taken everything back, and a cgroup that is still there is
        // somebody else's.
        if self.record.pid > 0 {
            // Without a cgroup nothing else would end it.
            let _ = signals::send(self.record.pid, rustix::process::Signal::KILL.as_raw());
            if let Some(path) = &self.record.cgroup {
                let _ = cgroup::remove_blocking(path, KILL_LIMIT);
            }
        }
        let _ = self.store.forget(&self.record.id);
        // "Continue the lifecycle at step 12": with the hooks of the end.
        poststop(log, &self.record);
        error
    }
}

fn owner() -> String {
    let uid = rustix::process::getuid();
    if uid.is_root() { "root".to_owned() } else { uid.as_raw().to_string() }
}

/// The command's own.
pub fn own_stdio() -> Stdio<'static> {
    Stdio {
        stdin: Some(rustix::stdio::stdin()),
        stdout: Some(rustix::stdio::stdout()),
        stderr: Some(rustix::stdio::stderr()),
    }
}

/// Writes the file in one step, as those who wait for it expect.
pub fn write_pid_file(path: Option<&Path>, pid: i32) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    std::fs::write(&new, pid.to_string()).map_err(during("write", &new))?;
    std::fs::rename(&new, path).map_err(during("rename", path))
}

pub fn create(store: &Store, log: &Log, options: &Create) -> Result<u8, Failure> {
    let listeners = activation::listeners();
    let inherited = signals::inherited(listeners + options.preserve_fds)?;
    let interruption = signals::interruption()?;
    let mut claim = Claim::new(store, log, options, listeners)?;
    let console = options.console_socket.as_deref().map(terminal::connect).transpose();
    let result = console.and_then(|console| {
        let gate = detached::gate(&store.gate(&options.id)?)?;
        let request = claim.request(console.as_ref().map(AsFd::as_fd), &inherited);
        Ok(detached::create(&request, gate, Some(interruption.as_fd()))?)
    });
    let result = result.and_then(|waiting| {
        claim.settle(waiting.pid, waiting.pidfd.as_fd())?;
        Ok(waiting.keep()?)
    });
    result.map(|()| 0).map_err(|error| claim.undo(log, error))
}

pub fn start(store: &Store, id: &str) -> Result<u8, Failure> {
    let record = store.load(id)?;
    match store.status(&record) {
        Status::Created => {}
        status => return Err(Failure::State { action: "start", status: status_name(status) }),
    }
    if record.spec.process.is_none() {
        // Seen here the container stays as it is, created.
        return Err(Failure::Option { option: "process", must: "must be in config.json to start".to_owned() });
    }
    let gate = store.gate(id)?;
    let readiness = Readiness::open(&store.directory(id)?, record.pid)?;
    let waiting = readiness.map(|readiness| Ok::<_, Failure>((readiness, signals::open(record.pid)?))).transpose()?;
    let started = detached::start(&gate);
    // Whatever came of it, it is no longer waiting.
    std::fs::remove_file(&gate).map_err(during("remove", &gate))?;
    started?;
    if let Err(error) = poststart(&record) {
        signals::send(record.pid, rustix::process::Signal::KILL.as_raw())?;
        signals::await_end(record.pid, record.start_time, KILL_LIMIT)?;
        return Err(error);
    }
    if let Some((readiness, pidfd)) = waiting {
        readiness.wait(pidfd.as_fd(), signals::interruption()?.as_fd())?;
    }
    Ok(0)
}

/// The specification: a failure stops the container, and is the command's error.
fn poststart(record: &Record) -> Result<(), Failure> {
    let Some(hooks) = record.spec.hooks.as_ref().filter(|hooks| !hooks.poststart.is_empty()) else { return Ok(()) };
    hooks::run("poststart", &hooks.poststart, &state(record, Status::Running))?;
    Ok(())
}

pub fn state(record: &Record, status: Status) -> State {
    State {
        oci_version: record.spec.oci_version.clone(),
        id: record.id.clone(),
        status,
        pid: if status == Status::Stopped { 0 } else { record.pid },
        bundle: record.bundle.clone(),
        annotations: record.spec.annotations.clone(),
    }
}

pub fn run(store: &Store, log: &Log, options: &Run) -> Result<u8, Failure> {
    let listeners = activation::listeners();
    let inherited = signals::inherited(listeners + options.create.preserve_fds)?;
    signals::block_all();
    let interruption = signals::interruption()?;
    let mut claim = Claim::new(store, log, &options.create, listeners)?;
    let wants_terminal = terminal_wanted(&claim.record.spec);
    let result = (|| -> Result<u8, Failure> {
        terminal::check(wants_terminal, options.detach, options.create.console_socket.is_some())?;
        let (console, ours) = match (&options.create.console_socket, wants_terminal) {
            (Some(path), _) => (Some(terminal::connect(path)?), None),
            (None, true) => terminal::pair().map(|(theirs, ours)| (Some(theirs), Some(ours)))?,
            (None, false) => (None, None),
        };
        let request = claim.request(console.as_ref().map(AsFd::as_fd), &inherited);
        let created = detached::create_connected(&request, Some(interruption.as_fd()))?;
        drop(console);
        let proxy = ours.map(|ours| terminal::drive(&ours)).transpose()?;
        let pidfd = created.pidfd().try_clone_to_owned().map_err(during("dup", Path::new("pidfd")))?;
        claim.settle(created.pid(), pidfd.as_fd())?;
        let readiness = Readiness::open(&store.directory(&claim.record.id)?, created.pid())?;
        let running = created.start()?;
        running.wait_executed_unless(interruption.as_fd())?;
        poststart(&claim.record)?;
        if options.detach {
            readiness.map_or(Ok(()), |readiness| readiness.wait(running.pidfd.as_fd(), interruption.as_fd()))?;
            return Ok(0);
        }
        let code = signals::wait_for(running.pidfd.as_fd(), proxy, readiness)?;
        if !options.keep {
            destroy(store, log, &claim.record)?;
        }
        Ok(code)
    })();
    result.map_err(|error| claim.undo(log, error))
}

pub fn terminal_wanted(spec: &Spec) -> bool {
    spec.process.as_ref().is_some_and(|process| process.terminal)
}

pub fn kill(store: &Store, options: &Kill) -> Result<u8, Failure> {
    let record = store.load(&options.id)?;
    let signal = signals::parse(&options.signal).ok_or_else(|| Failure::Signal { signal: options.signal.clone() })?;
    if options.all {
        if let Some(cgroup) = &record.cgroup {
            for pid in crate::processes::of(cgroup) {
                signals::send(pid, signal)?;
            }
        }
        return Ok(0);
    }
    if store.status(&record) == Status::Stopped {
        return Err(Failure::NotRunning);
    }
    signals::send(record.pid, signal)?;
    Ok(0)
}

pub fn delete(store: &Store, log: &Log, options: &Delete) -> Result<u8, Failure> {
    let record = match store.load(&options.id) {
        Err(Failure::NotFound { .. }) if options.force => return delete_unfinished(store, &options.id),
        result => result?,
    };
    match store.status(&record) {
        Status::Stopped => {}
        Status::Created => signals::send(record.pid, rustix::process::Signal::KILL.as_raw())?,
        status if !options.force => {
            return Err(Failure::NotStopped { id: options.id.clone(), status: status_name(status) });
        }
        _ => signals::send(record.pid, rustix::process::Signal::KILL.as_raw())?,
    }
    signals::await_end(record.pid, record.start_time, KILL_LIMIT)?;
    destroy(store, log, &record)?;
    Ok(0)
}

/// What a `create` that was killed has left, if anything.
fn delete_unfinished(store: &Store, id: &str) -> Result<u8, Failure> {
    if !store.directory(id)?.exists() {
        return Ok(0);
    }
    if let Some(cgroup) = store.noted_cgroup(id)? {
        // Its processes end with that of the create. Any others are none of this container's.
        match await_event(&cgroup.join("cgroup.events"), "populated 0") {
            Err(Failure::File { source, .. }) if is_gone(&source) => {}
            result => result?,
        }
        if cgroup::remove(&cgroup)? == cgroup::Removal::Busy {
            return Err(Failure::Survivors);
        }
    }
    store.forget(id)?;
    Ok(0)
}

/// Whether a cgroup's file is not there any more, or its cgroup has gone since it was opened.
fn is_gone(error: &std::io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOENT | Errno::NODEV))
}

/// Removes a container whose first process has ended.
fn destroy(store: &Store, log: &Log, record: &Record) -> Result<(), Failure> {
    if let Some(path) = &record.cgroup
        && cgroup::remove_blocking(path, KILL_LIMIT)? == cgroup::Removal::Busy
    {
        return Err(Failure::Survivors);
    }
    if let Some(rdt) = record.spec.linux.as_ref().and_then(|linux| linux.intel_rdt.as_ref()) {
        resctrl::remove(rdt, &record.id).map_err(berth_runtime::Error::from)?;
    }
    store.forget(&record.id)?;
    poststop(log, record);
    Ok(())
}

/// The specification: failures are logged, and do not keep anything from going on.
fn poststop(log: &Log, record: &Record) {
    let Some(hooks) = &record.spec.hooks else { return };
    for failure in hooks::run_all("poststop", &hooks.poststop, &state(record, Status::Stopped)) {
        log.warning(&format!("warning: {}", Failure::from(failure).chain()));
    }
}
