//! `run`, from exec to exit, and the memory it takes.

use std::io::Result;
use std::time::Duration;

use crate::bundle::VARIANTS;
use crate::measure::{Runtime, figure, median, milliseconds, ratio, succeed};

/// Of issue 3: how much of each peer's time is allowed.
const BARS: &[(&str, f64)] = &[("crun", 0.6), ("runc", 0.25)];

/// Runs before the first that counts.
const WARM_UP: usize = 5;

/// Times of all runtimes, in turns, for each variant of the bundle.
pub fn measure(runtimes: &[Runtime], runs: usize) -> Result<()> {
    for variant in VARIANTS {
        let mut times = vec![Vec::with_capacity(runs); runtimes.len()];
        for turn in 0..WARM_UP + runs {
            for (runtime, times) in runtimes.iter().zip(&mut times) {
                let (time, _) = succeed(&mut runtime.run(&variant.path(), "bench"))?;
                if turn >= WARM_UP {
                    times.push(time);
                }
            }
        }
        let medians: Vec<Duration> = times.iter().map(|times| median(times)).collect();
        for (runtime, time) in runtimes.iter().zip(&medians) {
            figure(&format!("run, {}: {}", variant.name, runtime.name), &milliseconds(*time), None);
        }
        let Some(ours) = medians.first() else { continue };
        for (runtime, time) in runtimes.iter().zip(&medians) {
            if let Some((_, bar)) = BARS.iter().find(|(name, _)| *name == runtime.name) {
                let name = format!("run, {}: of {}", variant.name, runtime.name);
                ratio(&name, ours.as_secs_f64(), time.as_secs_f64(), *bar);
            }
        }
    }
    Ok(())
}

/// The largest resident set of the command and of those it waits for.
///
/// The kernel counts what a process had before its exec as well, so a runtime that needs less than this program would
/// look as if it needed as much: the line of `true` alone says how much that is.
pub fn measure_memory(runtimes: &[Runtime], _: usize) -> Result<()> {
    let Some(variant) = VARIANTS.first() else { return Ok(()) };
    let (_, floor) = succeed(&mut std::process::Command::new(variant.path().join("rootfs/bin/true")))?;
    figure("peak resident memory: true alone", &format!("{} KiB", floor.peak), None);
    let mut ours = None;
    for runtime in runtimes {
        let (_, ended) = succeed(&mut runtime.run(&variant.path(), "bench"))?;
        figure(&format!("peak resident memory: {}", runtime.name), &format!("{} KiB", ended.peak), None);
        let ours = *ours.get_or_insert(ended.peak);
        if runtime.name == "crun" {
            ratio("peak resident memory: of crun", ours as f64, ended.peak as f64, 1.0);
        }
    }
    Ok(())
}
