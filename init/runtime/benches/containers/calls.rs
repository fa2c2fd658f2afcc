//! Where the time goes, by system call, as strace sees it.
//!
//! Tracing costs about the same for each call, and more than most calls do; the time of the cheapest call is taken off
//! each, so that what is left is close to the call's own.

use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::bundle::VARIANTS;
use crate::measure::{Runtime, figure, skipped};

/// How many kinds of calls are shown.
const SHOWN: usize = 12;

/// Calls that wait for somebody, whose time is not the kernel's work.
const WAITING: &[&str] =
    &["ppoll", "poll", "epoll_wait", "epoll_pwait", "wait4", "waitid", "recvmsg", "recvfrom", "read", "futex"];

/// Number and microseconds of one kind of call.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    calls: u64,
    time: u64,
}

/// The slowest calls of the first runtime, and the sums of all.
pub fn measure(folder: &Path, runtimes: &[Runtime]) -> Result<()> {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        skipped("calls", "strace is not installed");
        return Ok(());
    }
    for runtime in runtimes {
        let totals = trace(folder, runtime)?;
        let calls: u64 = totals.values().map(|total| total.calls).sum();
        figure(&format!("system calls: {}", runtime.name), &calls.to_string(), None);
        if !runtime.name.starts_with("berth-oci") {
            continue;
        }
        let mut slowest: Vec<_> = totals.iter().collect();
        slowest.sort_by_key(|(_, total)| std::cmp::Reverse(total.time));
        for (name, total) in slowest.iter().take(SHOWN) {
            figure(&format!("  {name}, {} times", total.calls), &format!("{} µs", total.time), None);
        }
    }
    Ok(())
}

fn trace(folder: &Path, runtime: &Runtime) -> Result<BTreeMap<String, Total>> {
    let Some(variant) = VARIANTS.first() else { return Ok(BTreeMap::new()) };
    let log = folder.join("trace");
    let mut command = Command::new("strace");
    command.args(["--follow-forks", "--syscall-times=us", "--output"]).arg(&log);
    command.arg(std::env::current_exe()?).arg("on-stage").arg(folder);
    let run = runtime.run(&variant.path(), "trace");
    command.arg(run.get_program()).args(run.get_args());
    if !command.stdin(Stdio::null()).stdout(Stdio::null()).status()?.success() {
        return Err(Error::other(format!("{} has failed under strace", runtime.name)));
    }
    Ok(totals(&std::fs::read_to_string(log)?, &runtime.path.display().to_string()))
}

/// Lines such as `71 openat(…) = 3 <0.000021>`, or `71 <... openat resumed>…) = 3 <0.000021>`, from the runtime's exec on.
fn totals(log: &str, program: &str) -> BTreeMap<String, Total> {
    let begin = format!("execve(\"{program}\"");
    let ours = log.lines().skip_while(|line| !line.contains(&begin));
    let calls: Vec<(&str, u64)> = ours.filter_map(call).collect();
    let tracing = calls.iter().map(|(_, time)| *time).min().unwrap_or_default();
    let mut totals: BTreeMap<String, Total> = BTreeMap::new();
    for (name, time) in calls {
        let total = totals.entry(name.to_owned()).or_default();
        total.calls += 1;
        if !WAITING.contains(&name) {
            total.time += time - tracing;
        }
    }
    totals
}

fn call(line: &str) -> Option<(&str, u64)> {
    let (_, rest) = line.split_once(' ')?;
    let rest = rest.trim_start();
    let name = match rest.strip_prefix("<... ") {
        Some(resumed) => resumed.split(' ').next()?,
        None => rest.split('(').next()?,
    };
    let seconds = line.rsplit_once('<')?.1.strip_suffix('>')?;
    let micro: f64 = seconds.parse::<f64>().ok()? * 1e6;
    Some((name, micro.round() as u64))
}
