//! Running commands by the clock, and the table.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// How often everything is run; the median counts.
pub const ROUNDS: usize = 3;

/// One run of a command that must succeed: the time, and what it printed.
pub fn run(command: &mut Command) -> Result<(Duration, String)> {
    let begin = Instant::now();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    let time = begin.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok((time, String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// The time by the clock, and the processor's time of the processes that were waited for meanwhile. Other work on the machine
/// changes the latter little.
#[derive(Clone, Copy)]
pub struct Cost {
    /// By the clock.
    pub time: Duration,
    /// Of the processors.
    pub processor: Duration,
}

/// What something costs that starts processes and waits for them.
pub fn cost(of: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let (before, begin) = (processor()?, Instant::now());
    of()?;
    Ok(Cost { time: begin.elapsed(), processor: processor()?.saturating_sub(before) })
}

/// The processor's time of all processes that were waited for, in steps of 10 ms (proc_pid_stat(5): cutime and cstime).
fn processor() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name may have anything in it.
    let (_, fields) = stat.rsplit_once(')').context("a name")?;
    let mut ticks = 0;
    for field in fields.split_whitespace().skip(13).take(2) {
        ticks += field.parse::<u64>()?;
    }
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// Whether a program is installed.
pub fn is_installed(program: &str) -> bool {
    let found = |path: &std::path::PathBuf| path.join(program).is_file();
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| found(&folder)))
}

/// A command on these processors only, such as `0` or `0,1`.
pub fn on(processors: &str, command: &Command) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", processors]).arg(command.get_program()).args(command.get_args());
    pinned
}

/// Writes back what earlier runs have left, so that it does not cost the next one.
pub fn settle(folder: &Path) -> Result<()> {
    rustix::fs::syncfs(std::fs::File::open(folder)?).context("sync")
}

/// An empty folder of that name.
pub fn fresh(folder: &Path, name: &str) -> Result<std::path::PathBuf> {
    let path = folder.join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    std::fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
    settle(folder)?;
    Ok(path)
}

/// The middle of some times in seconds; none of none.
pub fn median(times: &[Duration]) -> Option<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).map(Duration::as_secs_f64)
}

/// What a figure must be.
#[derive(Clone, Copy)]
pub enum Bar {
    /// Nothing.
    None,
    AtMost(f64),
    Below(f64),
    AtLeast(f64),
}

/// Whether a figure has missed its bar.
static MISSED: AtomicBool = AtomicBool::new(false);

/// Whether any figure has, of those that were printed.
pub fn has_missed() -> bool {
    MISSED.load(Ordering::Relaxed)
}

/// One line of the table, without a bar.
pub fn figure(name: &str, value: &str) {
    println!("{name:<58} {value:>12}");
}

/// One line of the table. What is rounded for people's eyes is judged as it is.
pub fn judged(name: &str, value: f64, text: &str, bar: Bar) {
    let (is_met, words) = match bar {
        Bar::None => return figure(name, text),
        Bar::AtMost(most) => (value <= most, format!("at most {most}")),
        Bar::Below(limit) => (value < limit, format!("below {limit}")),
        Bar::AtLeast(least) => (value >= least, format!("at least {least}")),
    };
    MISSED.fetch_or(!is_met, Ordering::Relaxed);
    println!("{name:<58} {text:>12}   bar: {words}{}", if is_met { "" } else { ", MISSED" });
}

/// A time in the table.
pub fn seconds(name: &str, value: Option<f64>) {
    figure(name, &value.map_or_else(|| "skipped".to_owned(), |value| format!("{value:.3} s")));
}

/// One time of another.
pub fn ratio(name: &str, of: Option<f64>, to: Option<f64>, bar: Bar) {
    if let (Some(of), Some(to)) = (of, to) {
        judged(name, of / to, &format!("{:.2}", of / to), bar);
    }
}
