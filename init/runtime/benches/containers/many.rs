//! Many containers at once, on two processors.

use std::io::{Error, Result};
use std::time::{Duration, Instant};

use rustix::thread::CpuSet;

use crate::bundle::VARIANTS;
use crate::measure::{Runtime, errors, figure, median, milliseconds, ratio, spawn};
use crate::sys;

/// Of issue 3: so many, in this much of crun's time.
const CONTAINERS: usize = 500;
const BAR: f64 = 0.6;

/// How often each runtime has its turn.
const TURNS: usize = 3;

/// Wall time from the first start to the last end; a container that fails is an error.
pub fn measure(runtimes: &[Runtime], _: usize) -> Result<()> {
    let all = rustix::thread::sched_getaffinity(None)?;
    let mut two = CpuSet::new();
    (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).take(2).for_each(|cpu| two.set(cpu));
    rustix::thread::sched_setaffinity(None, &two)?;
    let compared: Vec<&Runtime> = runtimes.iter().filter(|runtime| runtime.name != "runc").collect();
    let mut times = vec![Vec::new(); compared.len()];
    for _ in 0..TURNS {
        for (runtime, times) in compared.iter().zip(&mut times) {
            times.push(at_once(runtime)?);
        }
    }
    rustix::thread::sched_setaffinity(None, &all)?;
    let medians: Vec<Duration> = times.iter().map(|times| median(times)).collect();
    for (runtime, time) in compared.iter().zip(&medians) {
        figure(&format!("{CONTAINERS} at once: {}", runtime.name), &milliseconds(*time), None);
    }
    for (runtime, time) in compared.iter().zip(&medians) {
        if let (Some(ours), "crun") = (medians.first(), runtime.name.as_str()) {
            ratio(&format!("{CONTAINERS} at once: of crun"), ours.as_secs_f64(), time.as_secs_f64(), BAR);
        }
    }
    Ok(())
}

fn at_once(runtime: &Runtime) -> Result<Duration> {
    let Some(variant) = VARIANTS.first() else { return Ok(Duration::ZERO) };
    let begin = Instant::now();
    for number in 0..CONTAINERS {
        spawn(&mut runtime.run(&variant.path(), &format!("bench-{number}")))?;
    }
    let mut failed = 0;
    for _ in 0..CONTAINERS {
        failed += usize::from(!sys::wait(-1)?.success);
    }
    if failed > 0 {
        return Err(Error::other(format!("{failed} containers of {} have failed: {}", runtime.name, errors())));
    }
    Ok(begin.elapsed())
}
