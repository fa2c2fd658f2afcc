//! The smallest memory limit under which `true` runs.
//!
//! The limit is on a cgroup around the whole command. With cgroup v2 the container's own cgroup is below it, so all of
//! its processes count; with v1's memory controller, which is a tree of its own, they are all in one.

use std::io::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::MountFlags;

use crate::bundle::VARIANTS;
use crate::measure::{Runtime, figure, ratio, run, skipped};

/// Limits in KiB between which the smallest is looked for.
const LEAST: u64 = 64;
const MOST: u64 = 64 << 10;

/// The kernel counts whole pages.
const STEP: u64 = 4;

/// A limit is enough if this many runs in a row succeed.
const ATTEMPTS: usize = 5;

/// Where v1's memory controller is mounted, on the stage.
const VERSION_1: &str = "/run/memory";

/// A cgroup with a limit.
struct Limited {
    processes: PathBuf,
    limit: PathBuf,
}

/// The smallest limit of each runtime.
pub fn measure(runtimes: &[Runtime], _: usize) -> Result<()> {
    let Some(variant) = VARIANTS.first() else { return Ok(()) };
    let Some(limited) = prepare()? else {
        skipped("smallest memory limit", "this machine gives no memory controller");
        return Ok(());
    };
    let program = variant.path().join("rootfs/bin/true");
    let alone = smallest(&limited, &Command::new(&program))?;
    figure("smallest memory limit: true alone", &format!("{alone} KiB"), None);
    let mut ours = None;
    for runtime in runtimes {
        let least = smallest(&limited, &runtime.run(&variant.path(), "bench"))?;
        figure(&format!("smallest memory limit: {}", runtime.name), &format!("{least} KiB"), None);
        let ours = *ours.get_or_insert(least);
        if runtime.name == "crun" {
            ratio("smallest memory limit: of crun", ours as f64, least as f64, 1.0);
        }
    }
    Ok(())
}

/// The smallest limit under which a command succeeds, by halving.
fn smallest(limited: &Limited, command: &Command) -> Result<u64> {
    let (mut too_little, mut enough) = (LEAST, MOST);
    while enough - too_little > STEP {
        let middle = (too_little + enough) / 2 / STEP * STEP;
        if suffices(limited, command, middle)? {
            enough = middle;
        } else {
            too_little = middle;
        }
    }
    Ok(enough)
}

fn suffices(limited: &Limited, command: &Command, kibibytes: u64) -> Result<bool> {
    std::fs::write(&limited.limit, (kibibytes << 10).to_string())?;
    for _ in 0..ATTEMPTS {
        let mut inside = Command::new("/proc/self/exe");
        inside.arg("limited").arg(&limited.processes).arg(command.get_program()).args(command.get_args());
        let (_, ended) = run(&mut inside)?;
        if !ended.success {
            clean_up()?;
            return Ok(false);
        }
    }
    Ok(true)
}

/// A runtime that was killed leaves its container behind, and crun and runc refuse the name while its state is there.
fn clean_up() -> Result<()> {
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

/// A cgroup to be limited, by whichever controller there is.
fn prepare() -> Result<Option<Limited>> {
    let root = Path::new("/sys/fs/cgroup");
    if std::fs::read_to_string(root.join("cgroup.controllers"))?.contains("memory") {
        std::fs::write(root.join("cgroup.subtree_control"), "+memory")?;
        let outer = root.join("berth-bench-limit");
        std::fs::create_dir_all(outer.join("command"))?;
        return Ok(Some(Limited { processes: outer.join("command/cgroup.procs"), limit: outer.join("memory.max") }));
    }
    std::fs::create_dir_all(VERSION_1)?;
    if rustix::mount::mount("memory", VERSION_1, "cgroup", MountFlags::empty(), Some(c"memory")).is_err() {
        return Ok(None);
    }
    let group = Path::new(VERSION_1).join("berth-bench-limit");
    std::fs::create_dir_all(&group)?;
    Ok(Some(Limited { processes: group.join("cgroup.procs"), limit: group.join("memory.limit_in_bytes") }))
}
