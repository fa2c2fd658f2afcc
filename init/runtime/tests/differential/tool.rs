//! One of the three runtimes with a bundle of its own, and the comparison of all three.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::event::{PollFd, PollFlags};
use serde_json::Value;

use crate::bundle::Bundle;

/// The runtimes, the one under test first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    Berth,
    Crun,
    Runc,
}

pub use Runtime::{Crun, Runc};

impl Runtime {
    fn program(self) -> &'static str {
        match self {
            Self::Berth => "/usr/bin/berth-oci",
            Self::Crun => "/usr/bin/crun",
            Self::Runc => "/usr/sbin/runc",
        }
    }
}

/// A runtime, a bundle for it alone, and a container's name.
pub struct Tool {
    pub runtime: Runtime,
    pub bundle: PathBuf,
    pub id: String,
}

/// What a program printed and its exit code.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub error: String,
}

impl Tool {
    /// A runtime with a bundle of its own.
    pub fn of(runtime: Runtime, bundle: &Bundle) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("differential-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = Path::new("/tmp").join(&id);
        bundle.write(&directory);
        Self { runtime, bundle: directory, id }
    }

    /// The same runtime with another container.
    pub fn another(&self, bundle: &Bundle) -> Self {
        Self::of(self.runtime, bundle)
    }

    /// A command with a state directory and an environment of its own.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.runtime.program());
        command.env_clear().env("PATH", "/usr/bin:/usr/sbin").current_dir(&self.bundle);
        command.arg("--root").arg(self.state()).args(arguments).stdin(Stdio::null());
        command
    }

    fn state(&self) -> PathBuf {
        Path::new("/run").join(&self.id)
    }

    /// Runs a command to its end. With files for output: a container may keep a pipe open.
    pub fn say(&self, arguments: &[&str]) -> Said {
        self.finish(self.command(arguments))
    }

    /// The same for a command that was changed.
    pub fn finish(&self, mut command: Command) -> Said {
        let [out, error] = ["stdout", "stderr"].map(|name| self.bundle.join(name));
        let file = |path: &Path| Stdio::from(std::fs::File::create(path).unwrap());
        let status = command.stdout(file(&out)).stderr(file(&error)).status().unwrap();
        let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        Said { code: status.code().unwrap_or(-1), out: read(&out), error: read(&error) }
    }

    /// The container from create to delete; what its program printed, then how it ended.
    pub fn run(&self) -> String {
        let output: Output = self.command(&["run", &self.id]).output().unwrap();
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return text;
        }
        let _ = writeln!(text, "exit {}", output.status.code().unwrap_or(-1));
        // A runtime's own words differ; that it has any, and that the program's do not, is what counts.
        if !output.stderr.is_empty() && (text == "exit 1\n" || text == "exit 255\n") {
            text = "refused\n".to_owned();
        }
        if std::env::var_os("BERTH_SHOW_ERRORS").is_some() {
            eprintln!("{:?}: {}", self.runtime, String::from_utf8_lossy(&output.stderr));
        }
        text
    }

    /// Runs a command in a terminal; everything that it showed.
    pub fn in_terminal(&self, arguments: &[&str]) -> String {
        use rustix::pty::OpenptFlags;
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let size = rustix::termios::Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        let side = || Stdio::from(terminal.try_clone().unwrap());
        let mut command = self.command(arguments);
        let mut child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        drop((command, terminal));
        let mut shown = Vec::new();
        // At its end a terminal gives an error, not an end of file.
        let _ = std::io::Read::read_to_end(&mut std::fs::File::from(master), &mut shown);
        child.wait().unwrap();
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// `create` and `start`; the container goes on in the background.
    pub fn start(&self) {
        for arguments in [["create", self.id.as_str()], ["start", self.id.as_str()]] {
            let said = self.say(&arguments);
            assert_eq!(said.code, 0, "{:?} {arguments:?}: {}", self.runtime, said.error);
        }
    }

    /// What the programs of the container and its hooks wrote to the file `notes` in /notes.
    pub fn notes(&self) -> String {
        std::fs::read_to_string(self.bundle.join("notes/notes")).unwrap_or_default()
    }

    /// The container's cgroup.
    pub fn cgroup(&self) -> PathBuf {
        Path::new("/sys/fs/cgroup").join(&self.id)
    }

    /// `state` as JSON.
    pub fn query(&self) -> Value {
        serde_json::from_str(&self.say(&["state", &self.id]).out).unwrap_or_default()
    }

    pub fn status(&self) -> String {
        self.query()["status"].as_str().unwrap_or("none").to_owned()
    }

    /// The container's first process on the host.
    pub fn pid(&self) -> i32 {
        self.query()["pid"].as_i64().unwrap_or_default().try_into().unwrap()
    }

    /// Waits until the container's first process has ended.
    pub fn await_end(&self) {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid()) else { return };
        let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
        let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
        let ready = rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).unwrap();
        assert_eq!(ready, 1, "{:?}: the container did not end", self.runtime);
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // Whatever a failed case has left.
        let _ = self.say(&["delete", "--force", &self.id]);
        let _ = std::fs::remove_dir(self.cgroup());
        let _ = std::fs::remove_dir_all(&self.bundle);
        let _ = std::fs::remove_dir_all(self.state());
    }
}

/// Lets every runtime be observed and compares: berth-oci's must be `expected`, and so must those of the peers that
/// are not named in `differing` with the reason.
pub fn agree(bundle: &Bundle, expected: &str, differing: &[(Runtime, &str)], observe: impl Fn(&Tool) -> String) {
    let seen = [Runtime::Berth, Crun, Runc].map(|runtime| (runtime, observe(&Tool::of(runtime, bundle))));
    for (runtime, text) in &seen {
        match differing.iter().find(|(differs, _)| differs == runtime) {
            None => assert_eq!(text, expected, "by {runtime:?}; all three: {seen:#?}"),
            Some((_, reason)) if text == expected => eprintln!("{runtime:?} no longer differs: {reason}"),
            Some(_) => {}
        }
    }
}

/// The same where what is right depends on the machine: berth-oci's is what the peers' is.
pub fn same(bundle: &Bundle, differing: &[(Runtime, &str)], observe: impl Fn(&Tool) -> String) {
    let model = if differing.iter().any(|(runtime, _)| *runtime == Crun) { Runc } else { Crun };
    let expected = observe(&Tool::of(model, bundle));
    assert!(!expected.is_empty(), "{model:?} shows nothing");
    agree(bundle, &expected, differing, observe);
}
