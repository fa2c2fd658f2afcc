//! One of the runtimes with a bundle of its own, and the comparison of all of them.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use rustix::event::{PollFd, PollFlags};
use serde_json::Value;

use crate::bundle::Bundle;
use crate::library::Container;

/// The runtimes, those under test first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// berth-oci.
    Berth,
    /// The calls that PID 1 makes.
    Library,
    Crun,
    Runc,
}

pub use Runtime::{Crun, Library, Runc};

impl Runtime {
    pub const ALL: [Self; 4] = [Self::Berth, Self::Library, Self::Crun, Self::Runc];

    /// As `--by` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Berth => "berth-oci",
            Self::Library => "library",
            Self::Crun => "crun",
            Self::Runc => "runc",
        }
    }

    /// Whether it is ours: what it does must be right.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Berth | Self::Library)
    }

    fn program(self) -> &'static str {
        match self {
            Self::Berth => "/usr/bin/berth-oci",
            Self::Library => panic!("PID 1 runs no command: compare by tool::by_commands"),
            Self::Crun => "/usr/bin/crun",
            Self::Runc => "/usr/sbin/runc",
        }
    }
}

/// Who takes part in this run.
static CHOSEN: OnceLock<Vec<Runtime>> = OnceLock::new();

/// Whether the case at hand compared anybody, and the library.
static COMPARED: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

/// Says who takes part; once.
pub fn choose(runtimes: Vec<Runtime>) {
    CHOSEN.set(runtimes).unwrap();
}

/// Why the case at hand cannot be run.
static SKIPPED: Mutex<Option<String>> = Mutex::new(None);

/// The case cannot be run, and is reported as ignored, unless it has compared something all the same.
pub fn skip(reason: &str) {
    *SKIPPED.lock().unwrap() = Some(reason.to_owned());
}

/// Whether runc takes no part although a case of the command line needs it; the case is skipped then.
pub fn skip_without_runc() -> bool {
    let chosen = CHOSEN.get().unwrap();
    let skips = !chosen.contains(&Runc);
    if skips && chosen.contains(&Runtime::Berth) {
        skip("needs runc");
    }
    skips
}

/// Why the case that has just ended could not be run. Forgets it.
pub fn skipped() -> Option<String> {
    SKIPPED.lock().unwrap().take()
}

/// Who took part in the case that has just ended: anybody at all, and the library. Forgets it.
pub fn compared() -> (bool, bool) {
    let [anybody, library] = COMPARED.each_ref().map(|flag| flag.swap(false, Ordering::Relaxed));
    (anybody, library)
}

/// A runtime, a bundle for it alone, and a container's name.
pub struct Tool {
    pub runtime: Runtime,
    pub bundle: PathBuf,
    pub id: String,
    /// The container, where no command keeps it.
    container: RefCell<Container>,
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
        let container = RefCell::new(Container::new(&directory, &id));
        Self { runtime, bundle: directory, id, container }
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
        if self.runtime == Library {
            return self.container.borrow_mut().say(arguments);
        }
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

    /// The same with descriptors 3 and up open.
    pub fn finish_with_descriptors(&self, mut command: Command, count: i32) -> Said {
        // As many again, so that nothing of the standard library's has those numbers.
        let _occupied: Vec<_> = (0..3 + count).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        crate::machine::open_from_three(&mut command, count);
        self.finish(command)
    }

    /// Waits until the container's cgroup has so many processes.
    pub fn await_processes(&self, count: usize) {
        let processes = || std::fs::read_to_string(self.cgroup().join("cgroup.procs")).unwrap_or_default();
        let begin = std::time::Instant::now();
        while processes().lines().count() < count {
            assert!(begin.elapsed().as_secs() < 20, "{:?}: no {count} processes", self.runtime);
            std::thread::yield_now();
        }
    }

    /// The container from create to delete; what its program printed, then how it ended.
    pub fn run(&self) -> String {
        let said = if self.runtime == Library {
            self.say(&["run", &self.id])
        } else {
            let output = self.command(&["run", &self.id]).output().unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), error: text(&output.stderr) }
        };
        if std::env::var_os("BERTH_SHOW_ERRORS").is_some() {
            eprintln!("{:?}: {}", self.runtime, said.error);
        }
        match said.code {
            0 => said.out,
            // A runtime's own words differ; that it has any, and that the program's do not, is what counts.
            1 | 255 if said.out.is_empty() && !said.error.is_empty() => "refused\n".to_owned(),
            code => format!("{}exit {code}\n", said.out),
        }
    }

    /// Runs the container in a terminal; everything that it showed.
    pub fn in_terminal(&self) -> String {
        if self.runtime == Library {
            return self.container.borrow_mut().run_in_terminal().unwrap_or_default();
        }
        self.say_in_terminal(&["run", &self.id])
    }

    /// Runs a command in a terminal; everything that it showed.
    pub fn say_in_terminal(&self, arguments: &[&str]) -> String {
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
        if self.runtime == Library {
            return self.container.borrow().status().to_owned();
        }
        self.query()["status"].as_str().unwrap_or("none").to_owned()
    }

    /// The container's first process on the host.
    pub fn pid(&self) -> i32 {
        if self.runtime == Library {
            return self.container.borrow().pid();
        }
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

/// Lets every runtime be observed and compares: ours must show what is `expected`, and so must those of the peers that
/// are not named in `differing` with the reason.
pub fn agree(bundle: &Bundle, expected: &str, differing: &[(Runtime, &str)], observe: impl Fn(&Tool) -> String) {
    compare(&Runtime::ALL, bundle, expected, differing, observe);
}

/// The same of what only a command line has: it says nothing of the calls that PID 1 makes.
pub fn by_commands(bundle: &Bundle, expected: &str, differing: &[(Runtime, &str)], observe: impl Fn(&Tool) -> String) {
    compare(&[Runtime::Berth, Crun, Runc], bundle, expected, differing, observe);
}

fn compare(
    concerned: &[Runtime],
    bundle: &Bundle,
    expected: &str,
    differing: &[(Runtime, &str)],
    observe: impl Fn(&Tool) -> String,
) {
    let chosen = CHOSEN.get().unwrap();
    let mut seen = Vec::new();
    for runtime in concerned.iter().copied().filter(|runtime| chosen.contains(runtime)) {
        COMPARED[0].store(true, Ordering::Relaxed);
        COMPARED[1].fetch_or(runtime == Library, Ordering::Relaxed);
        seen.push((runtime, observe(&Tool::of(runtime, bundle))));
    }
    for (runtime, text) in &seen {
        match differing.iter().find(|(differs, _)| differs == runtime) {
            None => assert_eq!(text, expected, "by {runtime:?}; all: {seen:#?}"),
            Some((_, reason)) if text == expected => eprintln!("{runtime:?} no longer differs: {reason}"),
            Some(_) => {}
        }
    }
}
