//! What the userland takes at idle, of memory and of wake-ups, and how little memory the machine can have.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Figure;
use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;
use crate::page;
use crate::wait;

/// The steps in which the least memory is looked for, in MiB.
const STEP: u32 = 4;
/// The range that is looked in, in steps.
const RANGE: (u32, u32) = (8, 32);

/// After so long without an event PID 1 is at rest.
const QUIET: Duration = Duration::from_secs(10);

/// The proportional set sizes of all processes while the demo runs and nothing else happens.
///
/// # Errors
/// If the machine does not boot.
pub fn measure_idle(bench: &Bench, demo: &Path) -> Result<Vec<Figure>> {
    let mut machine = bench.machine().disk(demo).forward(8080).start()?;
    machine.wait_until_ready()?;
    serve(&mut machine)?;
    // Requests bring code into PID 1's memory; at rest it must be gone again.
    machine.guest.shell("berth status; berth ps --all; berth images; berth inspect logs; berth boot")?;
    std::thread::sleep(QUIET);
    let status = machine.guest.read("/proc/1/status")?;
    let by_name = proportional(&mut machine, "cd /proc && echo [0-9]*")?;
    let total: u64 = by_name.values().sum();
    ensure!(total > 0, "no process has memory");
    let mebibytes = |kibibytes: u64| format!("{:.2} MiB", kibibytes as f64 / 1024.0);
    let mut figures = vec![Figure::new("userland at idle, PSS", mebibytes(total)).at_most(16.0)];
    figures.extend(by_name.iter().map(|(name, size)| Figure::new(format!("  {name}"), mebibytes(*size))));
    let of_status = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    figures.push(Figure::new("PID 1, resident", of_status("VmRSS:")).at_most(4096.0));
    figures.push(Figure::new("  of its own", of_status("RssAnon:")));
    let free = machine.guest.read("/proc/meminfo")?;
    let available = free.lines().find(|line| line.starts_with("MemAvailable:")).context("MemAvailable")?;
    let available = available.trim_start_matches("MemAvailable:").trim().trim_end_matches(" kB").parse()?;
    figures.push(Figure::new("available of 256 MiB", mebibytes(available)));
    Ok(figures)
}

/// How often PID 1 goes back to sleep, and so was woken, in a minute of the machine's clock while a container runs that does
/// nothing: with the machine's watchdog, which has to be wound up, and without.
///
/// # Errors
/// If the machine does not boot.
pub fn measure_rest(bench: &Bench) -> Result<Vec<Figure>> {
    let with = wake_ups(bench, "")?;
    let without = wake_ups(bench, "[watchdog]\ndevice = \"off\"\n")?;
    Ok(vec![
        Figure::new("PID 1 at rest, wake-ups in 60 s", without.to_string()).at_most(0.0),
        Figure::new("  with a watchdog of 60 s", with.to_string()),
    ])
}

fn wake_ups(bench: &Bench, settings: &str) -> Result<u64> {
    let image = bench.shell_image("localhost/idle:1", "exec sleep 100000")?.docker_archive();
    let configuration = format!("[containers.idle]\nimage = \"localhost/idle:1\"\n{settings}");
    let files = Files::new().with("berth.toml", configuration.as_str()).with("images/idle.tar", image);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.wait_for_leases(1)?;
    std::thread::sleep(QUIET);
    let script = "sleeps() { sed -n 's/^voluntary_ctxt_switches:\t//p' /proc/1/status; }
        before=$(sleeps); sleep 60; echo $(($(sleeps) - before))";
    let counted = machine.guest.run_within(&["/bin/sh", "-c", script], wait::BOOT)?;
    counted.stdout.trim().parse().with_context(|| format!("{counted:?}"))
}

/// The proportional set sizes, in KiB, of the processes whose numbers `list` prints, by the names of their programs.
///
/// # Errors
/// If the machine does not say.
pub(super) fn proportional(machine: &mut Machine, list: &str) -> Result<BTreeMap<String, u64>> {
    // The shell that lists them is gone when they are read; kernel threads have no memory of their own.
    let pids = machine.guest.shell(list)?;
    let mut by_name: BTreeMap<String, u64> = BTreeMap::new();
    for pid in pids.split_whitespace() {
        let Ok(rollup) = machine.guest.read(&format!("/proc/{pid}/smaps_rollup")) else { continue };
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let Some(kibibytes) = line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok()) else {
            continue;
        };
        let arguments = machine.guest.read(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let program = arguments.split('\0').next().unwrap_or_default();
        *by_name.entry(program.rsplit('/').next().unwrap_or_default().to_owned()).or_default() += kibibytes;
    }
    Ok(by_name)
}

/// The least memory in which the machine boots and serves the demo.
///
/// # Errors
/// If it does not even with the most.
pub fn measure_least(bench: &Bench, demo: &Path) -> Result<Vec<Figure>> {
    let works = |memory: u32| -> Result<()> {
        let mut machine = bench.machine().memory(memory).disk(demo).forward(8080).start()?;
        machine.wait_until_ready()?;
        serve(&mut machine)
    };
    let (mut fails, mut suffices) = RANGE;
    works(suffices * STEP).with_context(|| format!("with {} MiB", suffices * STEP))?;
    while suffices - fails > 1 {
        let middle = fails.midpoint(suffices);
        match works(middle * STEP) {
            Ok(()) => suffices = middle,
            Err(_) => fails = middle,
        }
    }
    Ok(vec![Figure::new("least memory that serves the demo", format!("{} MiB", suffices * STEP)).at_most(96.0)])
}

fn serve(machine: &mut Machine) -> Result<()> {
    let address = machine.forwarded(8080)?;
    page::fetch(address, "/", wait::ANSWER).map(drop)
}
