//! The smallest memory limit under which `true` runs.
//!
//! The limit is on a cgroup around the whole command. With cgroup v2 the container's own cgroup is below it, so all of
//! its processes count; with v1's memory controller, which is a tree of its own, they are all in one.

use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use berth_runtime::cgroup;
use rustix::event::{PollFd, PollFlags};
use rustix::mount::MountFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::bundle::VARIANTS;
use crate::measure::{Runtime, figure, median, ratio, run, skipped};

/// Limits in KiB between which the smallest is looked for.
const LEAST: u64 = 64;
const MOST: u64 = 64 << 10;

/// The kernel counts whole pages.
const STEP: u64 = 4;

/// How often each is searched for: what the kernel charges depends on which processor has pages in stock.
const TURNS: usize = 9;

/// A limit is enough if this many runs in a row succeed.
const ATTEMPTS: usize = 5;

/// How long what was killed for want of memory may take to be gone.
const REMOVAL: Duration = Duration::from_secs(10);

/// Where v1's memory controller is mounted, on the stage.
const VERSION_1: &str = "/run/memory";

/// Where cgroups with a limit can be made, a new one for every trial: what is left of an earlier trial is still counted
/// in the old one.
struct Place {
    parent: PathBuf,
    /// Below the cgroup that is limited: where its processes go.
    processes: &'static str,
    limit: &'static str,
}

/// The smallest limit of each runtime.
pub fn measure(runtimes: &[Runtime], _: usize) -> Result<()> {
    let Some(variant) = VARIANTS.first() else { return Ok(()) };
    let Some(place) = prepare()? else {
        skipped("smallest memory limit", "this machine gives no memory controller");
        return Ok(());
    };
    let alone = Command::new(variant.path().join("rootfs/bin/true"));
    let commands: Vec<Command> = runtimes.iter().map(|runtime| runtime.run(&variant.path(), "bench")).collect();
    let mut limits = vec![Vec::new(); commands.len() + 1];
    for _ in 0..TURNS {
        for (command, limits) in std::iter::once(&alone).chain(&commands).zip(&mut limits) {
            limits.push(smallest(&place, command)?);
        }
    }
    let names = std::iter::once("true alone").chain(runtimes.iter().map(|runtime| runtime.name.as_str()));
    let medians: Vec<u64> = limits.iter().map(|limits| median(limits)).collect();
    for (name, least) in names.zip(&medians) {
        figure(&format!("smallest memory limit: {name}"), &format!("{least} KiB"), None);
    }
    let crun = runtimes.iter().position(|runtime| runtime.name == "crun");
    if let (Some(ours), Some(theirs)) = (medians.get(1), crun.and_then(|position| medians.get(position + 1))) {
        ratio("smallest memory limit: of crun", *ours as f64, *theirs as f64, 1.0);
    }
    Ok(())
}

/// The smallest limit under which a command succeeds, by halving.
fn smallest(place: &Place, command: &Command) -> Result<u64> {
    let (mut too_little, mut enough) = (LEAST, MOST);
    while enough - too_little > STEP {
        let middle = (too_little + enough) / 2 / STEP * STEP;
        if suffices(place, command, middle)? {
            enough = middle;
        } else {
            too_little = middle;
        }
    }
    Ok(enough)
}

fn suffices(place: &Place, command: &Command, kibibytes: u64) -> Result<bool> {
    for attempt in 0..ATTEMPTS {
        let group = place.parent.join(format!("berth-bench-{}-{kibibytes}-{attempt}", std::process::id()));
        std::fs::create_dir(&group)?;
        let processes = group.join(place.processes);
        let inner = processes.parent().filter(|inner| *inner != group);
        inner.map_or(Ok(()), std::fs::create_dir)?;
        std::fs::write(group.join(place.limit), (kibibytes << 10).to_string())?;
        let mut inside = Command::new("/proc/self/exe");
        inside.arg("limited").arg(&processes).arg(command.get_program()).args(command.get_args());
        let enough = run(&mut inside)?.1.success;
        if !enough {
            clean_up()?;
        }
        end_all(&processes)?;
        inner.map_or(Ok(()), std::fs::remove_dir)?;
        std::fs::remove_dir(&group)?;
        if !enough {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Ends what is left in a cgroup, and waits for it: v1 has nothing for that, and these are nobody's children.
fn end_all(processes: &Path) -> Result<()> {
    for line in std::fs::read_to_string(processes)?.lines() {
        let Some(pid) = line.parse().ok().and_then(Pid::from_raw) else { continue };
        let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
        // It may have ended by itself.
        let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
        rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None)?;
    }
    Ok(())
}

/// A runtime that was killed leaves its container behind, and the name is taken while its state and cgroup are there.
fn clean_up() -> Result<()> {
    cgroup::remove_blocking(Path::new("/sys/fs/cgroup/bench"), REMOVAL).map_err(Error::other)?;
    for entry in std::fs::read_dir("/run")? {
        let path = entry?.path();
        if path != Path::new(VERSION_1) {
            std::fs::remove_dir_all(path.join("bench")).or_else(missing)?;
        }
    }
    Ok(())
}

fn missing(error: std::io::Error) -> Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// By whichever controller there is.
fn prepare() -> Result<Option<Place>> {
    let root = Path::new("/sys/fs/cgroup");
    if std::fs::read_to_string(root.join("cgroup.controllers"))?.contains("memory") {
        std::fs::write(root.join("cgroup.subtree_control"), "+memory")?;
        return Ok(Some(Place { parent: root.to_owned(), processes: "command/cgroup.procs", limit: "memory.max" }));
    }
    std::fs::create_dir_all(VERSION_1)?;
    if rustix::mount::mount("memory", VERSION_1, "cgroup", MountFlags::empty(), Some(c"memory")).is_err() {
        return Ok(None);
    }
    Ok(Some(Place { parent: VERSION_1.into(), processes: "cgroup.procs", limit: "memory.limit_in_bytes" }))
}
