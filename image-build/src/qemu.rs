//! `make run`: the image in QEMU with the demo's disk, and whether KVM can be trusted with it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::step;
use crate::digest::{self, Key};
use crate::workspace::{Workspace, shown};
use crate::{demo, image, kernel};

/// How long a kernel under KVM may take to its first line. It needs well under a second; on machines whose KVM does not
/// work it never comes.
const PROBE_TIME: Duration = Duration::from_secs(10);

/// The first line of every kernel.
const FIRST_LINE: &str = "Linux version";

/// Size of the disk that the machine runs from: larger than the image, so that the state grows as on a real disk.
const RUN_DISK: u64 = 1 << 30;

/// Builds what is needed and becomes QEMU on this terminal.
///
/// # Errors
/// If a build fails or QEMU cannot be started.
pub fn run(workspace: &Workspace) -> Result<()> {
    let image = image::build(workspace, &workspace.out()?)?;
    let data = demo::build(workspace)?;
    let disk = run_disk(workspace, &image)?;
    let accelerator = accelerator(workspace)?;
    step(&format!("starting QEMU ({accelerator}); http://127.0.0.1:8080/ is the demo's page, Ctrl-A X ends it"));
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", accelerator, "-cpu", if accelerator == "kvm" { "host" } else { "max" }]);
    command.args(["-m", "256M", "-smp", "2", "-display", "none", "-serial", "mon:stdio", "-no-reboot"]);
    command.arg("-drive").arg(format!("file={},format=raw,if=virtio", disk.display()));
    command.arg("-drive").arg(format!("file={},format=raw,if=virtio", data.display()));
    command.args(["-nic", "user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:8080-:8080"]);
    command.args(["-device", "virtio-rng-pci"]);
    Err(command.exec()).context("start qemu-system-x86_64")
}

/// The disk of `make run`: a copy of the image that keeps its state from run to run, until the image changes.
fn run_disk(workspace: &Workspace, image: &Path) -> Result<PathBuf> {
    let out = workspace.out()?;
    let (disk, mark) = (out.join("run.img"), out.join("run.img.from"));
    let identity = digest::of_file(image)?;
    let earlier = match fs::read_to_string(&mark) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        text => Some(text.with_context(|| format!("read {}", mark.display()))?),
    };
    if disk.is_file() && earlier.as_deref() == Some(identity.as_str()) {
        return Ok(disk);
    }
    step(&format!(
        "{} is a fresh copy of the image; it keeps its state until the image changes",
        shown(workspace, &disk)
    ));
    fs::copy(image, &disk).with_context(|| format!("copy the image to {}", disk.display()))?;
    let file = File::options().write(true).open(&disk).with_context(|| format!("open {}", disk.display()))?;
    file.set_len(RUN_DISK).with_context(|| format!("grow {}", disk.display()))?;
    fs::write(&mark, identity).with_context(|| format!("write {}", mark.display()))?;
    Ok(disk)
}

/// `kvm` if it boots this kernel on this machine, `tcg` otherwise. The answer is kept until kernel or machine changes.
///
/// # Errors
/// If the kernel cannot be built or the cache cannot be written.
pub fn accelerator(workspace: &Workspace) -> Result<&'static str> {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok("tcg");
    }
    let kernel = kernel::build(workspace)?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the host's boot_id")?;
    let key = Key::new("kvm").part("kernel", &kernel.key).part("boot", boot.trim()).finish();
    let entry = workspace.cache.entry_or("kvm", &key, |folder| {
        step("trying KVM with this kernel");
        let works = kvm_boots(&kernel.image)?;
        step(if works { "KVM works" } else { "KVM does not boot this kernel here; QEMU will emulate" });
        fs::write(folder.join("accelerator"), if works { "kvm" } else { "tcg" }).context("keep the answer")
    })?;
    let answer = fs::read_to_string(entry.join("accelerator")).context("read the answer about KVM")?;
    Ok(if answer == "kvm" { "kvm" } else { "tcg" })
}

/// Boots the kernel without a root under KVM and waits for its first line.
fn kvm_boots(kernel: &Path) -> Result<bool> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "kvm", "-cpu", "host", "-m", "256M", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    command.args(["-nodefaults", "-append", "console=ttyS0 panic=-1", "-kernel"]).arg(kernel);
    says(command, FIRST_LINE, PROBE_TIME)
}

/// Does the command print a line with `text` before `time` is over? It does not outlive the answer.
fn says(mut command: Command, text: &'static str, time: Duration) -> Result<bool> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = Guarded(command.spawn().with_context(|| format!("start {name}"))?);
    let console = child.0.stdout.take().context("the output of a child")?;
    let (found, wait) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(console).split(b'\n').map_while(Result::ok);
        let said = lines.any(|line| String::from_utf8_lossy(&line).contains(text));
        // Nobody listens any more when the time is over: then the answer is known.
        let _ = found.send(said);
    });
    Ok(wait.recv_timeout(time).unwrap_or(false))
}

/// A child that does not outlive us.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_kernel_that_starts_is_heard_while_it_runs() {
        let long = Duration::from_secs(60);
        assert!(says(shell("echo SeaBIOS; echo '[0.0] Linux version 6'; exec sleep 60"), FIRST_LINE, long).unwrap());
    }

    #[test]
    fn one_that_hangs_or_dies_is_not() {
        assert!(!says(shell("echo SeaBIOS; exec sleep 60"), FIRST_LINE, Duration::from_millis(200)).unwrap());
        assert!(!says(shell("exit 1"), FIRST_LINE, Duration::from_secs(60)).unwrap());
    }
}
