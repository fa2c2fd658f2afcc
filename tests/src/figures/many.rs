//! A machine full of containers: how fast they start beside the bare library's, how fast they are listed, what each costs
//! beside itself.
//!
//! It has one processor, so that an emulated one counts its instructions (see [`crate::machine`]): what is measured by
//! the machine's own clock is then of a processor of 250 million instructions a second, and does not depend on what
//! else the host has to do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Figure, library, median, memory};
use crate::bench::Bench;
use crate::disks::Files;
use crate::host;
use crate::machine::Machine;

/// How many.
const COUNT: u32 = 1000;

/// The machine's memory in MiB.
const MEMORY: u32 = 1024;

/// How many the bare library starts.
const BARE: u32 = 200;

/// How often they are listed.
const LISTS: u32 = 9;

/// The longest that the start of all may take; emulated processors need minutes.
const LIMIT: Duration = Duration::from_secs(1800);

const IMAGE: &str = "localhost/a:1";

/// Starts all of them and measures.
///
/// # Errors
/// If one of them does not run.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let obstacle = host::obstacle();
    let mut description = bench.machine().memory(MEMORY).disk_size(4 << 30);
    if obstacle.is_none() {
        description = description.disk(&library::stage(bench)?);
    }
    let archive = bench.image(IMAGE, &["/bin/sleep", "1000000"])?.docker_archive();
    let files = Files::new().with("berth.toml", configuration(1)).with("images/a.tar", archive);
    let mut machine = description.user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.wait()?;
    let (least, one) = (userland(&mut machine)?, time_of_list(&mut machine)?);
    let library = match obstacle {
        None => Some(library::rate_in_machine(&mut machine, BARE)?),
        Some(_) => None,
    };
    let began = Instant::now();
    let rate = start(&mut machine)?;
    let took = began.elapsed();
    let list = time_of_list(&mut machine)?;
    let each = userland(&mut machine)?.saturating_sub(least) / u64::from(COUNT - 1);
    let mut figures = vec![
        Figure::new(format!("{COUNT} containers in {MEMORY} MiB run after"), format!("{:.1} s", took.as_secs_f64())),
        Figure::new("  a second of the machine's clock", format!("{rate:.2}")),
    ];
    match library {
        Some(library) => {
            figures.push(Figure::new("  the bare library there, one after the other", format!("{library:.2}")));
            figures.push(Figure::new("  ratio of the two", format!("{:.2}", rate / library)).at_least(0.7));
        }
        None => {
            figures.push(Figure::new("  of the bare library's", format!("skipped: {}", obstacle.unwrap_or_default())))
        }
    }
    figures.extend([
        Figure::new("listing one, by the machine's clock", milliseconds(one)),
        Figure::new("listing them, by the machine's clock", milliseconds(list)).at_most(50.0),
        Figure::new("userland of each further one, PSS", format!("{each} KiB")).at_most(64.0),
    ]);
    Ok(figures)
}

/// Without a network, as the library starts them.
fn configuration(count: u32) -> String {
    format!("[containers.a]\nimage = \"{IMAGE}\"\nnetwork_mode = \"none\"\nreplicas = {count}\n")
}

/// Starts what is missing of them; how many a second by the machine's clock.
fn start(machine: &mut Machine) -> Result<f64> {
    machine.guest.write("/run/many.toml", &configuration(COUNT))?;
    // Not `berth ps` again and again: PID 1 would have to answer meanwhile.
    let script = format!(
        "t=$(date +%s%N); berth apply /run/many.toml >/dev/null || exit 1
         until [ $(cat /sys/fs/cgroup/user/pids.current) -ge {COUNT} ]; do sleep 1; done
         until [ $(berth ps --quiet --filter status=running --filter ancestor={IMAGE} | wc -l) = {COUNT} ]; do sleep 1; done
         echo $(( ($(date +%s%N) - t) / 1000000 ))"
    );
    let output = machine.guest.run_within(&["sh", "-c", &script], LIMIT)?;
    ensure!(output.code == 0, "{output:?}");
    let took: f64 = output.stdout.trim().parse()?;
    Ok(f64::from(COUNT - 1) * 1000.0 / took)
}

/// In microseconds of the machine's clock.
fn time_of_list(machine: &mut Machine) -> Result<u64> {
    let script = format!(
        "i=0; while [ $i -lt {LISTS} ]; do i=$((i + 1))
         t=$(date +%s%N); berth ps >/dev/null || exit 1; echo $(( ($(date +%s%N) - t) / 1000 )); done"
    );
    let times: Vec<u64> = machine.guest.shell(&script)?.lines().filter_map(|line| line.trim().parse().ok()).collect();
    median(&times).context("no time")
}

fn milliseconds(microseconds: u64) -> String {
    format!("{:.1} ms", microseconds as f64 / 1000.0)
}

/// Of PID 1 and all system containers, in KiB.
fn userland(machine: &mut Machine) -> Result<u64> {
    let by_name = memory::proportional(machine, "echo 1; cat /sys/fs/cgroup/system/*/cgroup.procs")?;
    Ok(by_name.values().sum())
}
