//! The library as PID 1 uses it: create, start, wait and delete inside one process. And the floor below everything.

use std::io::{Error, Result};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_runtime::spec::Spec;
use berth_runtime::{Chain, Progress, Request, Rootfs, Running, Stdio, cgroup};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, WaitId, WaitIdOptions};

use crate::bundle::{VARIANTS, Variant};
use crate::measure::{Runtime, figure, median, milliseconds, ratio, succeed};
use crate::sys;

/// Where the containers of the library go.
const CGROUP: &str = "/sys/fs/cgroup/berth-bench";

/// Of issue 3: the library's time, of crun's `run`.
const BAR: f64 = 0.4;

/// The namespaces of the plain bundle: mount, cgroup, uts, ipc, pid, network.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// In turns with crun's `run`, and with a bare clone of the same namespaces.
pub fn measure(runtimes: &[Runtime], runs: usize) -> Result<()> {
    let crun = runtimes.iter().find(|runtime| runtime.name == "crun");
    for variant in VARIANTS {
        let spec: Spec = serde_json::from_slice(&std::fs::read(variant.path().join("config.json"))?)?;
        let (mut library, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            library.push(once(&spec, *variant)?);
            if let Some(crun) = crun {
                theirs.push(succeed(&mut crun.run(&variant.path(), "bench"))?.0);
            }
        }
        let name = format!("library, {}", variant.name);
        figure(&name, &milliseconds(median(&library)), None);
        if crun.is_some() {
            ratio(&format!("{name}: of crun's run"), seconds(&library), seconds(&theirs), BAR);
        }
    }
    let Some(plain) = VARIANTS.first() else { return Ok(()) };
    let program = plain.path().join("rootfs/bin/true").display().to_string();
    let floor = |flags| (0..runs).map(|_| sys::clone_and_execute(&program, flags)).collect::<Result<Vec<Duration>>>();
    figure("floor: clone3, exec of true, wait", &milliseconds(median(&floor(0)?)), None);
    figure("floor: the same with the plain bundle's namespaces", &milliseconds(median(&floor(NAMESPACES)?)), None);
    Ok(())
}

/// Starts of containers that stay, one after the other: what a supervisor on top of the library cannot be faster than.
pub fn measure_starts(_: &[Runtime], runs: usize) -> Result<()> {
    let Some(variant) = VARIANTS.last() else { return Ok(()) };
    let mut spec: Spec = serde_json::from_slice(&std::fs::read(variant.path().join("config.json"))?)?;
    let begin = Instant::now();
    let mut started = Vec::new();
    for number in 0..runs {
        started.push(start(&spec, *variant, number)?);
        // The kernel lets each user have 200 keyrings only (keyrings(7)), and a supervisor gives each container its own.
        if let Some(linux) = spec.linux.as_mut() {
            linux.uid_mappings.iter_mut().for_each(|mapping| mapping.host_id += 1);
        }
    }
    let rate = runs as f64 / begin.elapsed().as_secs_f64();
    for (number, running) in started.iter().enumerate() {
        rustix::process::waitid(WaitId::PidFd(running.pidfd.as_fd()), WaitIdOptions::EXITED)?;
        cgroup::remove(&place(number)).map_err(Error::other)?;
    }
    figure(&format!("library, {}: starts a second", variant.name), &format!("{rate:.0}"), None);
    Ok(())
}

fn place(number: usize) -> PathBuf {
    PathBuf::from(format!("{CGROUP}-{number}"))
}

fn start(spec: &Spec, variant: Variant, number: usize) -> Result<Running> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    let request = request(spec, variant, null.as_fd(), place(number));
    let (running, launcher) = begin(&request)?;
    rustix::process::waitid(WaitId::Pid(launcher), WaitIdOptions::EXITED)?;
    running.wait_executed().map_err(failed)?;
    Ok(running)
}

fn seconds(times: &[Duration]) -> f64 {
    median(times).as_secs_f64()
}

/// One container, from nothing to nothing.
fn once(spec: &Spec, variant: Variant) -> Result<Duration> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    let request = request(spec, variant, null.as_fd(), CGROUP.into());
    let began = Instant::now();
    let (running, launcher) = begin(&request)?;
    rustix::process::waitid(WaitId::Pid(launcher), WaitIdOptions::EXITED)?;
    rustix::process::waitid(WaitId::PidFd(running.pidfd.as_fd()), WaitIdOptions::EXITED)?;
    running.wait_executed().map_err(failed)?;
    match cgroup::remove(Path::new(CGROUP)).map_err(Error::other)? {
        cgroup::Removal::Done => Ok(began.elapsed()),
        cgroup::Removal::Busy => Err(Error::other("a process is left in the cgroup")),
    }
}

fn request<'a>(spec: &'a Spec, variant: Variant, null: BorrowedFd<'a>, cgroup: PathBuf) -> Request<'a> {
    let null = Some(null);
    Request {
        id: "bench",
        spec,
        rootfs: Rootfs::Path(variant.path().join("rootfs")),
        bundle: variant.path(),
        cgroup: Some(cgroup),
        stdio: Stdio { stdin: null, stdout: null, stderr: null },
        inherited: Vec::new(),
        console: None,
        keep_keyring: false,
        init: false,
    }
}

fn failed(error: berth_runtime::Error) -> Error {
    Error::other(Chain::of(&error).to_string())
}

/// Up to the first instruction, which may not have been reached yet. With the launcher, which is to be collected.
fn begin(request: &Request<'_>) -> Result<(Running, Pid)> {
    let mut creating = berth_runtime::create(request).map_err(failed)?;
    let launcher = Pid::from_raw(creating.launcher_pid()).ok_or_else(|| Error::other("no launcher"))?;
    let created = loop {
        // As an event loop does: it has other things to do than to wait for the launcher's end.
        rustix::event::poll(&mut [PollFd::new(&creating, PollFlags::IN)], None)?;
        match creating.advance().map_err(failed)? {
            Progress::Pending(pending) => creating = pending,
            Progress::Created(created) => break created,
        }
    };
    Ok((created.start().map_err(failed)?, launcher))
}
