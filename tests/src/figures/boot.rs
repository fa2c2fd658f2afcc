//! The time from power-on to the demo's first instruction, against a boot of the same kernel from the same disk that
//! does nothing but switch off.
//!
//! The reference runs busybox's `poweroff -f` as process 1, from the same root through the same firmware and boot
//! loader: only grub.cfg on a copy of the disk is changed. The host's clock takes both times. The machine's own clock
//! says how long before its "ready" line the demo's program was executed; that difference is taken off the host's
//! time of the line.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gptman::GPT;

use super::{Figure, median};
use crate::bench::Bench;
use crate::disks;
use crate::machine::{Firmware, Machine, Mark, READY};
use crate::wait;

/// Boots and compares; `runs` of each kind, in turns.
///
/// # Errors
/// If a machine does not boot.
pub fn measure(bench: &Bench, demo: &Path, runs: usize) -> Result<Vec<Figure>> {
    let reference_disk = bench.path("reference.img");
    disks::copy_sparse(&bench.artifacts().disk, &reference_disk, None)?;
    only_power_off(&reference_disk)?;
    let system_disk = bench.path("measured.img");
    disks::copy_sparse(&bench.artifacts().disk, &system_disk, None)?;
    // Formats the state and unpacks the demo, which only the first boot does.
    let first = full_run(bench, &system_disk, demo)?;

    let (mut reference, mut full, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..runs {
        let without = reference_run(bench, &reference_disk, demo)?;
        let with = full_run(bench, &system_disk, demo)?;
        ratios.push(with.first_instruction.as_secs_f64() / without.as_secs_f64());
        reference.push(without);
        full.push(with.first_instruction);
        last = Some(with);
    }
    let last = last.context("at least one run")?;
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let of = |times: &[Duration]| median(times).map_or_else(String::new, seconds);
    let mut figures = vec![
        Figure::new("power-on to power-off, kernel only", of(&reference)),
        Figure::new("power-on to the demo's first instruction", of(&full)),
        Figure::new("ratio of the two, median", format!("{:.2}", median(&ratios).unwrap_or_default())).at_most(1.4),
        Figure::new("the same on the very first boot", seconds(first.first_instruction)),
        Figure::new("  firmware, boot loader (of the last boot)", seconds(last.before_kernel)),
        Figure::new("  kernel to PID 1", seconds(last.kernel)),
        Figure::new("  PID 1 to the demo's first instruction", seconds(last.init)),
        Figure::new("  PID 1 to ready", seconds(last.ready)),
    ];
    figures.extend(last.steps.iter().map(|(name, start, took)| {
        Figure::new(format!("    {name}"), format!("{:.0} + {:.1} ms", *start as f64 / 1e3, *took as f64 / 1e3))
    }));
    Ok(figures)
}

fn machine(bench: &Bench, disk: &Path, demo: &Path) -> Result<Machine> {
    bench.machine().firmware(Firmware::SeaBios).system_disk(disk).disk(demo).forward(8080).start()
}

fn reference_run(bench: &Bench, disk: &Path, demo: &Path) -> Result<Duration> {
    let mut machine = machine(bench, disk, demo)?;
    machine.wait_until_off(wait::BOOT)?;
    let took = machine.running_for();
    ensure!(!machine.console.text().contains("berth: "), "the reference run started Berth");
    Ok(took)
}

/// A boot of the full system, by the host's clock and the machine's.
struct Run {
    first_instruction: Duration,
    before_kernel: Duration,
    kernel: Duration,
    init: Duration,
    ready: Duration,
    /// Name, start and duration in microseconds.
    steps: Vec<(String, u64, u64)>,
}

fn full_run(bench: &Bench, disk: &Path, demo: &Path) -> Result<Run> {
    let mut machine = machine(bench, disk, demo)?;
    let line = machine.console.wait_for(Mark::default(), wait::BOOT, READY)?;
    let ready_by_host = machine.running_for();
    let ready = stamp(&line).with_context(|| format!("no time in {line:?}"))?;
    let web = machine.guest.container("web")?;
    let started = Duration::from_micros(web["started_us"].as_u64().context("started_us")?);
    let timeline = machine.guest.berth(&["boot"])?;
    let steps = timeline.as_array().into_iter().flatten().map(|step| {
        let microseconds = |key: &str| step[key].as_u64().unwrap_or_default();
        let name = step["name"].as_str().unwrap_or_default().to_owned();
        (name, microseconds("start_us"), microseconds("duration_us"))
    });
    let steps: Vec<(String, u64, u64)> = steps.collect();
    let init = Duration::from_micros(steps.iter().map(|(_, start, _)| *start).min().context("a timeline")?);
    machine.guest.shutdown("powerdown")?;
    machine.wait_until_off(wait::ANSWER)?;
    let before_kernel = ready_by_host.saturating_sub(ready);
    Ok(Run {
        first_instruction: before_kernel + started,
        before_kernel,
        kernel: init,
        init: started.saturating_sub(init),
        ready: ready.saturating_sub(init),
        steps,
    })
}

/// The time since the kernel's start in a line such as `[    1.234567] berth: ready`.
fn stamp(line: &str) -> Option<Duration> {
    let (_, rest) = line.split_once('[')?;
    let (seconds, _) = rest.split_once(']')?;
    seconds.trim().parse().ok().map(Duration::from_secs_f64)
}

/// Makes the boot loader of `disk` start a kernel whose process 1 is `busybox poweroff -f`.
fn only_power_off(disk: &Path) -> Result<()> {
    let mut file = File::options().read(true).write(true).open(disk)?;
    let table = GPT::find_from(&mut file)?;
    let boot = table.iter().find(|(_, partition)| partition.partition_name.as_str() == "berth-boot");
    let (_, boot) = boot.context("the disk has no partition berth-boot")?;
    let (start, length) = (boot.starting_lba * table.sector_size, boot.size()? * table.sector_size);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    (&mut file).take(length).read_to_end(&mut bytes)?;
    {
        let volume = fatfs::FileSystem::new(Cursor::new(&mut bytes[..]), fatfs::FsOptions::new())?;
        let mut configuration = String::new();
        volume.root_dir().open_file("grub/grub.cfg")?.read_to_string(&mut configuration)?;
        let lines = configuration.lines().map(|line| {
            let kernel = line.trim_start().starts_with("linux ");
            let arguments = if kernel { " init=/usr/bin/busybox -- poweroff -f" } else { "" };
            format!("{line}{arguments}\n")
        });
        let changed: String = lines.collect();
        ensure!(changed.contains("poweroff -f"), "grub.cfg starts no kernel");
        let mut target = volume.root_dir().create_file("grub/grub.cfg")?;
        target.truncate()?;
        target.write_all(changed.as_bytes())?;
        drop(target);
        volume.unmount()?;
    }
    file.seek(SeekFrom::Start(start))?;
    Ok(file.write_all(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_s_time_is_read_from_its_line() {
        assert_eq!(stamp("[    1.250000] berth: ready"), Some(Duration::from_millis(1250)));
        assert_eq!(stamp("berth: ready"), None);
    }
}
