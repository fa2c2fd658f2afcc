//! A container by the calls that PID 1 makes: everything in this process, no program of ours is run.
//!
//! The library keeps no list of containers; what PID 1 knows of each is kept here. Only what PID 1 can ask for is here:
//! a case that needs more is one of the command line, and says so by `tool::by_commands`.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_runtime::spec::{Process, Spec, State, Status};
use berth_runtime::{Chain, Created, ExecRequest, Request, Rootfs, Running, Stdio, cgroup, hooks};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions};

use crate::tool::Said;

/// How long what was killed may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// A container to be, to its end.
pub struct Container {
    bundle: PathBuf,
    id: String,
    phase: Phase,
}

enum Phase {
    Absent,
    Created(Spec, Created),
    Running(Spec, Running),
}

/// Why something was refused, in one line.
type Refusal = String;

fn chain(error: impl std::error::Error + 'static) -> Refusal {
    Chain::of(&error).to_string()
}

impl Container {
    pub fn new(bundle: &Path, id: &str) -> Self {
        Self { bundle: bundle.to_owned(), id: id.to_owned(), phase: Phase::Absent }
    }

    /// What the command line would do with these arguments, as far as PID 1 does such things.
    pub fn say(&mut self, arguments: &[&str]) -> Said {
        let done = match arguments {
            ["create", id] if *id == self.id => self.create_with_files().map(|()| (0, String::new())),
            ["start", id] if *id == self.id => self.start().map(|()| (0, String::new())),
            ["run", id] if *id == self.id => self.run(),
            ["exec", "--process", path, id] if *id == self.id => self.exec(&described(Path::new(path))),
            ["exec", "--cwd", cwd, id, command @ ..] if *id == self.id => self.exec_command(Some(cwd), command),
            ["exec", id, command @ ..] if *id == self.id => self.exec_command(None, command),
            ["kill", id, "KILL"] if *id == self.id => self.kill().map(|()| (0, String::new())),
            ["delete", id] | ["delete", "--force", id] if *id == self.id => self.delete().map(|()| (0, String::new())),
            _ => panic!("PID 1 does nothing like {arguments:?}: compare by tool::by_commands"),
        };
        match done {
            Ok((code, out)) => Said { code, out, error: read(&self.bundle.join("stderr")) },
            Err(error) => Said { code: 1, out: read(&self.bundle.join("stdout")), error },
        }
    }

    fn spec(&self) -> Result<Spec, Refusal> {
        let text = std::fs::read(self.bundle.join("config.json")).unwrap();
        berth_runtime::spec::parse(&text).map_err(|error| error.to_string())
    }

    /// Where PID 1 would decide itself; here the configuration does.
    pub fn cgroup(&self, spec: &Spec) -> PathBuf {
        let wanted = spec.linux.as_ref().and_then(|linux| linux.cgroups_path.as_deref());
        Path::new("/sys/fs/cgroup").join(wanted.map_or(self.id.as_str(), |path| path.trim_start_matches('/')))
    }

    fn create(&mut self, stdio: Stdio<'_>, console: Option<BorrowedFd<'_>>) -> Result<(), Refusal> {
        let spec = self.spec()?;
        let root = spec.root.as_ref().ok_or("no root")?;
        let request = Request {
            id: &self.id,
            spec: &spec,
            rootfs: Rootfs::Path(self.bundle.join(&root.path)),
            bundle: self.bundle.clone(),
            cgroup: Some(self.cgroup(&spec)),
            stdio,
            inherited: Vec::new(),
            console,
            keep_keyring: false,
            init: false,
        };
        let created = berth_runtime::create(&request).and_then(berth_runtime::Creating::wait);
        match created {
            Ok(created) => self.phase = Phase::Created(spec, created),
            Err(error) => {
                self.poststop(&spec);
                return Err(chain(error));
            }
        }
        Ok(())
    }

    /// For a container that goes on in the background.
    fn create_with_files(&mut self) -> Result<(), Refusal> {
        let [out, error] = ["stdout", "stderr"].map(|name| File::create(self.bundle.join(name)).unwrap());
        self.create(Stdio { stdin: None, stdout: Some(out.as_fd()), stderr: Some(error.as_fd()) }, None)
    }

    fn start(&mut self) -> Result<(), Refusal> {
        let Phase::Created(spec, created) = std::mem::replace(&mut self.phase, Phase::Absent) else {
            return Err("not created".to_owned());
        };
        let running = created.start().map_err(chain)?;
        let executed = running.wait_executed().map_err(chain);
        let state = self.state(&spec, Status::Running, running.pid);
        let after = spec.hooks.as_ref().map(|hooks| hooks.poststart.clone()).unwrap_or_default();
        self.phase = Phase::Running(spec, running);
        let hooked = executed.and_then(|()| hooks::run("poststart", &after, &state).map_err(chain));
        if hooked.is_err() {
            self.kill()?;
            self.reap();
        }
        hooked
    }

    fn run(&mut self) -> Result<(i32, String), Refusal> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let error = File::create(self.bundle.join("stderr")).unwrap();
        let stdio = Stdio { stdin: None, stdout: Some(writer.as_fd()), stderr: Some(error.as_fd()) };
        self.create(stdio, None)?;
        drop(writer);
        let started = self.start();
        let mut out = Vec::new();
        if started.is_ok() {
            File::from(reader).read_to_end(&mut out).unwrap();
        }
        let code = self.reap();
        self.delete()?;
        started.map(|()| (code, String::from_utf8_lossy(&out).into_owned()))
    }

    /// What a terminal of its own shows.
    pub fn run_in_terminal(&mut self) -> Result<String, Refusal> {
        let (theirs, ours) = berth_terminal::pair().unwrap();
        self.create(Stdio::default(), Some(theirs.as_fd()))?;
        drop(theirs);
        let master = berth_terminal::receive(&ours).unwrap().ok_or("no terminal")?;
        let started = self.start();
        let mut shown = Vec::new();
        // At its end a terminal gives an error, not an end of file.
        let _ = File::from(master).read_to_end(&mut shown);
        self.reap();
        self.delete()?;
        started.map(|()| String::from_utf8_lossy(&shown).into_owned())
    }

    fn exec_command(&self, cwd: Option<&str>, command: &[&str]) -> Result<(i32, String), Refusal> {
        let (spec, ..) = self.process().ok_or("not running")?;
        let mut process = spec.process.clone().unwrap_or_default();
        process.args = command.iter().map(|word| (*word).to_owned()).collect();
        if let Some(cwd) = cwd {
            process.cwd = cwd.into();
        }
        self.exec(&process)
    }

    fn exec(&self, process: &Process) -> Result<(i32, String), Refusal> {
        let (spec, pid, pidfd) = self.process().ok_or("not running")?;
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let error = File::create(self.bundle.join("stderr")).unwrap();
        let request = ExecRequest {
            pid,
            pidfd,
            process,
            seccomp: spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()),
            container: Some(&self.state(spec, Status::Running, pid)),
            cgroup: Some(self.cgroup(spec)),
            stdio: Stdio { stdin: None, stdout: Some(writer.as_fd()), stderr: Some(error.as_fd()) },
            inherited: Vec::new(),
            console: None,
        };
        let created = berth_runtime::exec(&request).and_then(berth_runtime::Creating::wait).map_err(chain)?;
        let running = created.start().map_err(chain)?;
        drop(writer);
        let mut out = Vec::new();
        File::from(reader).read_to_end(&mut out).unwrap();
        let code = end(running.pidfd.as_fd());
        running.wait_executed().map_err(chain)?;
        Ok((code, String::from_utf8_lossy(&out).into_owned()))
    }

    fn process(&self) -> Option<(&Spec, i32, BorrowedFd<'_>)> {
        match &self.phase {
            Phase::Absent => None,
            Phase::Created(spec, created) => Some((spec, created.pid(), created.pidfd())),
            Phase::Running(spec, running) => Some((spec, running.pid, running.pidfd.as_fd())),
        }
    }

    fn kill(&self) -> Result<(), Refusal> {
        let (_, _, pidfd) = self.process().ok_or("not there")?;
        berth_runtime::send_signal(pidfd, Signal::KILL.as_raw()).map_err(chain)
    }

    /// The exit code as a shell counts it.
    fn reap(&self) -> i32 {
        self.process().map_or(0, |(_, _, pidfd)| end(pidfd))
    }

    fn delete(&mut self) -> Result<(), Refusal> {
        if self.process().is_none() {
            return Ok(());
        }
        self.kill()?;
        self.reap();
        let (Phase::Created(spec, _) | Phase::Running(spec, _)) = std::mem::replace(&mut self.phase, Phase::Absent)
        else {
            return Ok(());
        };
        let removal = cgroup::remove_blocking(&self.cgroup(&spec), KILL_LIMIT).map_err(chain)?;
        assert_eq!(removal, cgroup::Removal::Done, "processes are left");
        self.poststop(&spec);
        Ok(())
    }

    fn poststop(&self, spec: &Spec) {
        let Some(hooks) = &spec.hooks else { return };
        let _ = hooks::run_all("poststop", &hooks.poststop, &self.state(spec, Status::Stopped, 0));
    }

    fn state(&self, spec: &Spec, status: Status, pid: i32) -> State {
        let (oci_version, annotations) = (spec.oci_version.clone(), spec.annotations.clone());
        State { oci_version, id: self.id.clone(), status, pid, bundle: self.bundle.clone(), annotations }
    }

    pub fn status(&self) -> &'static str {
        let Some((_, _, pidfd)) = self.process() else { return "none" };
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let ended = rustix::event::poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], Some(&now)).unwrap();
        match &self.phase {
            _ if ended == 1 => "stopped",
            Phase::Created(..) => "created",
            _ => "running",
        }
    }

    pub fn pid(&self) -> i32 {
        self.process().map_or(0, |(_, pid, _)| pid)
    }
}

/// The `process` of a config.json.
fn described(path: &Path) -> Process {
    berth_runtime::spec::parse(&std::fs::read(path).unwrap()).unwrap()
}

/// Waits for the end of a child; 0 for one that was waited for before.
fn end(pidfd: BorrowedFd<'_>) -> i32 {
    match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
        Ok(Some(status)) => {
            status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap()
        }
        _ => 0,
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
