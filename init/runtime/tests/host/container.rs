//! Containers for tests: the host's programs on an otherwise empty root, output by pipe.
#![allow(unsafe_code)]

use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use berth_runtime::spec::{
    Capabilities, IdMapping, Linux, Mount, Namespace, NamespaceKind, Process, Resources, Root, Spec, State, Status,
};
use berth_runtime::{Created, Error, Request, Rootfs, Running, Stdio};
use rustix::process::{WaitId, WaitIdOptions};

const CGROUPS: &str = "/sys/fs/cgroup";

/// A mount namespace in which cgroup v2 is where Berth has it, and a network namespace for tests with devices.
pub fn enter_private_machine() {
    let kinds = rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::NEWNET;
    // SAFETY: unshare(2) of the mount namespace is unsafe only for what other threads share; there are none.
    unsafe { rustix::thread::unshare_unsafe(kinds) }.unwrap();
    let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
    rustix::mount::mount("cgroup2", CGROUPS, "cgroup2", rustix::mount::MountFlags::empty(), None).unwrap();
}

/// A container to be, with everything that a test may change.
pub struct Case {
    pub spec: Spec,
    pub rootfs: Rootfs,
    pub cgroup: PathBuf,
    pub directory: tempfile::TempDir,
    pub inherited: Vec<(OwnedFd, i32)>,
    pub init: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub output: String,
    /// As a shell counts it.
    pub code: i32,
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: Some(kind.into()),
        source: Some(source.into()),
        options: Some(options.iter().map(|option| (*option).to_owned()).collect()),
        ..Mount::default()
    }
}

impl Case {
    /// Runs a script with the host's shell, in new namespaces of all kinds but user and time.
    pub fn new(script: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let root = directory.path().join("rootfs");
        std::fs::create_dir(&root).unwrap();
        for link in ["bin", "lib", "lib64", "sbin"] {
            std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link)).unwrap();
        }
        let kinds = ["pid", "network", "mount", "ipc", "uts", "cgroup"];
        let namespaces =
            kinds.iter().map(|kind| Namespace { kind: serde_json::from_value((*kind).into()).unwrap(), path: None });
        let all: Vec<String> = berth_runtime::capability_names().iter().map(|name| (*name).to_owned()).collect();
        let process = Process {
            args: vec!["/bin/sh".into(), "-c".into(), script.into()],
            env: vec!["PATH=/bin:/sbin".into()],
            cwd: "/".into(),
            capabilities: Some(Capabilities {
                bounding: all.clone(),
                effective: all.clone(),
                permitted: all,
                ..Capabilities::default()
            }),
            ..Process::default()
        };
        let spec = Spec {
            oci_version: "1.2.0".into(),
            process: Some(process),
            root: Some(Root { path: "rootfs".into(), readonly: false }),
            hostname: Some("berth-test".into()),
            mounts: vec![
                mount("/usr", "bind", "/usr", &["rbind", "ro"]),
                mount("/proc", "proc", "proc", &[]),
                mount("/dev", "tmpfs", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
                mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666"]),
                mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777"]),
                mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
                mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
                mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
            ],
            linux: Some(Linux { namespaces: namespaces.collect(), ..Linux::default() }),
            ..Spec::default()
        };
        let cgroup = Path::new(CGROUPS).join(format!("berth-test-{}/{number}", std::process::id()));
        Self { spec, rootfs: Rootfs::Path(root), cgroup, directory, inherited: Vec::new(), init: false }
    }

    /// The same in a user namespace that begins at 100000.
    pub fn unprivileged(script: &str) -> Self {
        let mut case = Self::new(script);
        let linux = case.linux();
        linux.namespaces.push(Namespace { kind: NamespaceKind::User, path: None });
        linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: 100_000, size: 65_536 }];
        linux.gid_mappings = linux.uid_mappings.clone();
        // A plain root is not mapped: its owners on disk are those of the container.
        std::os::unix::fs::chown(case.root(), Some(100_000), Some(100_000)).unwrap();
        case
    }

    pub fn process(&mut self) -> &mut Process {
        self.spec.process.as_mut().unwrap()
    }

    pub fn linux(&mut self) -> &mut Linux {
        self.spec.linux.as_mut().unwrap()
    }

    pub fn resources(&mut self) -> &mut Resources {
        self.linux().resources.get_or_insert_default()
    }

    pub fn bind(&mut self, source: &Path, destination: &str, options: &[&str]) {
        self.spec.mounts.push(mount(destination, "bind", source.to_str().unwrap(), options));
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("rootfs")
    }

    /// Until it waits for its start; the reading end is of its output.
    pub fn create(&self) -> Result<(Created, OwnedFd), Error> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let stdio = Stdio { stdin: None, stdout: Some(writer.as_fd()), stderr: Some(writer.as_fd()) };
        let request = Request {
            id: "test",
            spec: &self.spec,
            rootfs: self.rootfs.clone(),
            bundle: self.directory.path().to_owned(),
            cgroup: Some(self.cgroup.clone()),
            stdio,
            inherited: self.inherited.iter().map(|(descriptor, number)| (descriptor.as_fd(), *number)).collect(),
            console: None,
            keep_keyring: false,
            init: self.init,
        };
        Ok((berth_runtime::create(&request)?.wait()?, reader))
    }

    /// From nothing to nothing.
    pub fn run(&self) -> Outcome {
        let (created, reader) = self.create().unwrap_or_else(|error| panic!("{}", chain(&error)));
        let running = created.start().unwrap();
        let output = read(reader);
        let code = end(&running);
        if let Err(error) = running.wait_executed() {
            panic!("{}", chain(&error));
        }
        self.remove();
        Outcome { output, code }
    }

    /// Runs a further process in a container that is running or created.
    pub fn exec(&self, created: (i32, std::os::fd::BorrowedFd<'_>), process: &Process) -> Result<Outcome, Error> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let state = State {
            oci_version: self.spec.oci_version.clone(),
            id: "test".into(),
            status: Status::Running,
            pid: created.0,
            bundle: self.directory.path().into(),
            annotations: Default::default(),
        };
        let request = berth_runtime::ExecRequest {
            pid: created.0,
            pidfd: created.1,
            process,
            seccomp: self.spec.linux.as_ref().unwrap().seccomp.as_ref(),
            container: Some(&state),
            cgroup: Some(self.cgroup.clone()),
            stdio: Stdio { stdin: None, stdout: Some(writer.as_fd()), stderr: Some(writer.as_fd()) },
            inherited: Vec::new(),
            console: None,
        };
        let running = berth_runtime::exec(&request)?.wait()?.start()?;
        drop(writer);
        let output = read(reader);
        let code = end(&running);
        running.wait_executed()?;
        Ok(Outcome { output, code })
    }

    /// The text of the error that it must end with.
    pub fn fails(&self) -> String {
        let text = chain(&self.create().map(drop).unwrap_err());
        assert!(!self.cgroup.exists(), "a failed create has left its cgroup behind: {text}");
        text
    }

    pub fn remove(&self) {
        let done = berth_runtime::cgroup::remove_blocking(&self.cgroup, Duration::from_secs(5)).unwrap();
        assert_eq!(done, berth_runtime::cgroup::Removal::Done);
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        // The directory of this run's cgroups; not empty while another case of this run has one.
        let _ = std::fs::remove_dir(self.cgroup.parent().unwrap());
    }
}

/// Everything until nobody can write any more.
pub fn read(reader: OwnedFd) -> String {
    let mut output = String::new();
    std::fs::File::from(reader).read_to_string(&mut output).unwrap();
    output
}

/// Waits for the end.
pub fn end(running: &Running) -> i32 {
    let status = rustix::process::waitid(WaitId::PidFd(running.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap()
}

pub fn chain(error: &Error) -> String {
    berth_runtime::Chain::of(error).to_string()
}

/// How many descriptors this process has.
pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A copy of a descriptor that survives exec, as a careless caller would have it.
pub fn inheritable(descriptor: impl AsFd) -> OwnedFd {
    let copy = rustix::io::dup(descriptor).unwrap();
    assert!(copy.as_raw_fd() > 2);
    copy
}
