//! Namespaces on this host with a process 1 of their own: processes, mounts, network, names, cgroups.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Where this host has cgroup v2, with or without controllers.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// They end, with everything in them, with their owner.
#[derive(Debug)]
pub struct Namespaces {
    unshare: Child,
    /// The root of their cgroups, as this host sees it.
    pub cgroup: PathBuf,
    /// Process 1, as this host counts.
    pub pid: u32,
}

impl Namespaces {
    /// Runs `script` in a shell as process 1; returns when it has become the program of this name.
    ///
    /// # Errors
    /// If this is not root, or that does not happen.
    pub fn start(name: &str, script: &str, arguments: &[&Path], program: &str) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "this needs root");
        let cgroup = make_cgroup(name)?;
        // Enters the cgroup first, so that it is the root of the cgroup namespace.
        let begin = format!("echo $$ > {}/cgroup.procs; exec unshare \"$@\"", cgroup.display());
        let own = ["--fork", "--pid", "--mount", "--net", "--uts", "--ipc", "--cgroup", "--kill-child"];
        let mut command = Command::new("sh");
        command.args(["-c", &begin, "sh"]).args(own).args(["sh", "-c", script, "sh"]).args(arguments);
        let unshare = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("start unshare")?;
        let mut namespaces = Self { unshare, cgroup, pid: 0 };
        namespaces.pid = namespaces.wait_for(program, |it| it.first_process(program))?;
        Ok(namespaces)
    }

    /// A program in all of them.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.pid)).args(["--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup"]);
        command.args(["--root", "--wdns=/", "--"]).args(words);
        command
    }

    /// Asks until there is an answer, or process 1 has ended.
    ///
    /// # Errors
    /// If there is none in time.
    pub fn wait_for<T>(&mut self, what: &str, ask: impl Fn(&Self) -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let last = match ask(self) {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => None,
                Err(error) => Some(error),
            };
            if let Some(status) = self.unshare.try_wait()? {
                bail!("process 1 has ended while {what} was waited for: {status}");
            }
            ensure!(Instant::now() < deadline, "{what} does not come: {last:?}");
            // There is no event for what the other side does.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn first_process(&self, program: &str) -> Result<Option<u32>> {
        let unshare = self.unshare.id();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"))?;
        let Some(pid) = children.split_whitespace().next().and_then(|word| word.parse().ok()) else { return Ok(None) };
        let name = fs::read_to_string(format!("/proc/{pid}/comm"))?;
        Ok((name.trim() == program).then_some(pid))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // Everything in a process namespace ends with its process 1, which `--kill-child` ends, and the mounts with the last
        // process that sees them. Nothing can be put right here if a step fails.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        remove_cgroup(&self.cgroup);
    }
}

/// Standard output of a program that succeeded.
///
/// # Errors
/// If it did not, with what it said.
pub fn succeeded(output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

fn make_cgroup(name: &str) -> Result<PathBuf> {
    let root = CGROUPS.into_iter().map(Path::new).find(|path| path.join("cgroup.controllers").is_file());
    let folder = root.context("this host has no cgroup v2")?.join(format!("{name}.{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

/// From the innermost on. A process that is still ending keeps its cgroup for a moment.
fn remove_cgroup(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while fs::remove_dir(folder).is_err() && folder.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
}
