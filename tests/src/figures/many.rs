//! A machine full of containers: how fast they start, how fast they are listed, what each costs beside itself.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Figure, median, memory};
use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;

/// How many.
const COUNT: u32 = 1000;

/// The machine's memory in MiB.
const MEMORY: u32 = 1024;

/// The longest that the start of all may take; emulated processors need minutes.
const LIMIT: Duration = Duration::from_secs(1800);

/// Starts all of them and measures.
///
/// # Errors
/// If one of them does not run.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let least = userland(&mut start(bench, 1)?)?;
    let began = Instant::now();
    let mut machine = start(bench, COUNT)?;
    let took = began.elapsed();
    let mut times = Vec::new();
    for _ in 0..5 {
        let text =
            machine.guest.shell("t=$(date +%s%N); berth ps >/dev/null; echo $(( ($(date +%s%N) - t) / 1000 ))")?;
        times.push(text.trim().parse::<u64>()?);
    }
    let most = userland(&mut machine)?;
    let each = most.saturating_sub(least) / u64::from(COUNT - 1);
    let list = median(&times).context("no time")?;
    Ok(vec![
        Figure::new(format!("{COUNT} containers in {MEMORY} MiB run after"), format!("{:.1} s", took.as_secs_f64())),
        Figure::new("listing them", format!("{:.1} ms", list as f64 / 1000.0)).with_bar("50 ms"),
        Figure::new("userland of each further one, PSS", format!("{each} KiB")).with_bar("64 KiB"),
    ])
}

fn start(bench: &Bench, count: u32) -> Result<Machine> {
    let archive = bench.shell_image("localhost/a:1", "exec sleep 1000000")?.docker_archive();
    let configuration = format!("[containers.a]\nimage = \"localhost/a:1\"\nreplicas = {count}\n");
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().memory(MEMORY).processors(2).disk_size(4 << 30).user_data(&files)?.start()?;
    machine.wait_until_settled()?;
    machine.guest.wait()?;
    let all = format!("until [ $(berth ps --json | grep -c '\"state\": \"running\"') = {count} ]; do sleep 1; done");
    let waited = machine.guest.run_within(&["sh", "-c", &all], LIMIT)?;
    ensure!(waited.code == 0, "{waited:?}");
    Ok(machine)
}

/// Of PID 1 and all system containers, in KiB.
fn userland(machine: &mut Machine) -> Result<u64> {
    let by_name = memory::proportional(machine, "echo 1; cat /sys/fs/cgroup/system/*/cgroup.procs")?;
    Ok(by_name.values().sum())
}
