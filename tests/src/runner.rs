//! Running cases side by side, as far as memory and processors go, and reporting them.

use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::artifacts::Artifacts;
use crate::bench::{Bench, Skipped};

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// `group/what-it-shows`.
    pub name: &'static str,
    /// The memory of its largest machine in MiB.
    pub memory: u64,
    /// What it does.
    pub run: fn(&Bench) -> Result<()>,
}

/// How many cases went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// As they should.
    pub passed: usize,
    /// Not.
    pub failed: usize,
    /// Not at all.
    pub skipped: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// How many cases run at once, and in how much memory.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Cases at once.
    pub jobs: usize,
    /// The memory of all their machines in MiB.
    pub memory: u64,
}

/// What QEMU itself needs beside its guest's memory, in MiB: translated code most of all.
const QEMU_OVERHEAD: u64 = 250;

impl Capacity {
    /// What this host has to give: one case a processor, and two thirds of the memory that is free.
    #[must_use]
    pub fn of_this_host(jobs: Option<usize>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let information = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let available = information.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kibibytes: u64 = available.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        Self { jobs: jobs.unwrap_or(processors).max(1), memory: kibibytes / 1024 * 2 / 3 }
    }
}

enum Verdict {
    Passed,
    Failed { error: String, console: String },
    Skipped { reason: String },
}

/// What a case says of the cases that it ran itself.
#[derive(Default)]
struct Inner {
    notes: Vec<String>,
    tally: Tally,
}

struct Queue {
    waiting: Vec<Case>,
    memory: u64,
    running: usize,
    tally: Tally,
}

struct Shared<'a> {
    queue: Mutex<Queue>,
    freed: Condvar,
    artifacts: &'a Artifacts,
    accelerator: &'static str,
    folder: &'a Path,
    print: &'a (dyn Fn(&str) + Sync),
}

/// Runs `cases` and hands `print` a line for each when it is over, and more for one that failed.
///
/// # Errors
/// If the folder for their files cannot be made.
pub fn run(
    cases: &[Case],
    artifacts: &Artifacts,
    accelerator: &'static str,
    capacity: Capacity,
    print: &(dyn Fn(&str) + Sync),
) -> Result<Tally> {
    let folder = tempfile::Builder::new().prefix("berth-tests.").tempdir().context("make a folder")?;
    // Taken from the end.
    let waiting = cases.iter().rev().copied().collect();
    let queue = Queue { waiting, memory: capacity.memory, running: 0, tally: Tally::default() };
    let shared = Shared {
        queue: Mutex::new(queue),
        freed: Condvar::new(),
        artifacts,
        accelerator,
        folder: folder.path(),
        print,
    };
    std::thread::scope(|scope| {
        for _ in 0..capacity.jobs.min(cases.len()) {
            scope.spawn(|| shared.work());
        }
    });
    let tally = shared.lock().tally;
    Ok(tally)
}

impl Shared<'_> {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(case) = self.take() {
            let started = Instant::now();
            let (verdict, inner) = self.run_one(&case);
            let mut queue = self.lock();
            queue.memory += case.memory + QEMU_OVERHEAD;
            queue.running -= 1;
            queue.tally += inner.tally;
            (self.print)(&report(&case, &verdict, &inner.notes, started.elapsed(), &mut queue.tally));
            self.freed.notify_all();
        }
    }

    /// The next case for which there is memory. One that needs more than there is runs alone.
    fn take(&self) -> Option<Case> {
        let mut queue = self.lock();
        loop {
            let needed = queue.waiting.last()?.memory + QEMU_OVERHEAD;
            if queue.memory >= needed || queue.running == 0 {
                queue.memory = queue.memory.saturating_sub(needed);
                queue.running += 1;
                return queue.waiting.pop();
            }
            queue = self.freed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run_one(&self, case: &Case) -> (Verdict, Inner) {
        let folder = self.folder.join(case.name.replace('/', "-"));
        if let Err(error) = std::fs::create_dir(&folder) {
            let error = format!("make {}: {error}", folder.display());
            return (Verdict::Failed { error, console: String::new() }, Inner::default());
        }
        let bench = Bench::new(self.artifacts, self.accelerator, &folder);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (case.run)(&bench)));
        let verdict = match outcome {
            Ok(Ok(())) => Verdict::Passed,
            Ok(Err(error)) => match error.downcast_ref::<Skipped>() {
                Some(skipped) => Verdict::Skipped { reason: skipped.reason.clone() },
                None => Verdict::Failed { error: format!("{error:#}"), console: bench.console_tail() },
            },
            Err(_) => {
                Verdict::Failed { error: "the case panicked, see above".to_owned(), console: bench.console_tail() }
            }
        };
        if matches!(verdict, Verdict::Failed { .. }) {
            let kept = self.artifacts.out.join("test-logs").join(case.name.replace('/', "-"));
            if let Err(error) = bench.keep_logs(&kept) {
                eprintln!("{error:#}");
            }
        }
        // The disks of the case; what is left goes with the folder of the whole run.
        let _ = std::fs::remove_dir_all(&folder);
        (verdict, Inner { notes: bench.notes(), tally: bench.counted() })
    }
}

fn report(case: &Case, verdict: &Verdict, notes: &[String], took: Duration, tally: &mut Tally) -> String {
    let mut text = String::new();
    let seconds = took.as_secs_f64();
    match verdict {
        Verdict::Passed => {
            tally.passed += 1;
            text.push_str(&format!("passed   {:<52} {seconds:6.1} s\n", case.name));
        }
        Verdict::Skipped { reason } => {
            tally.skipped += 1;
            text.push_str(&format!("skipped  {:<52} {reason}\n", case.name));
        }
        Verdict::Failed { error, console } => {
            tally.failed += 1;
            text.push_str(&format!("FAILED   {:<52} {seconds:6.1} s\n         {error}\n", case.name));
            for line in console.lines() {
                text.push_str(&format!("         | {line}\n"));
            }
        }
    }
    for note in notes {
        text.push_str(&format!("         {note}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn artifacts(folder: &Path) -> Artifacts {
        let out = folder.to_owned();
        let (disk, kernel, busybox) = (out.join("disk"), out.join("kernel"), out.join("busybox"));
        Artifacts { disk, kernel, busybox, out, command_line: String::new() }
    }

    #[test]
    fn every_case_is_counted_by_what_came_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let skipped = |_: &Bench| Err(Skipped { reason: "nothing to try".to_owned() }.into());
        let cases = [
            Case { name: "a/passes", memory: 1, run: |_| Ok(()) },
            Case { name: "a/fails", memory: 1, run: |_| anyhow::bail!("as it should") },
            Case { name: "a/panics", memory: 1, run: |_| panic!("as it should") },
            Case { name: "a/skips", memory: 1, run: skipped },
        ];
        let capacity = Capacity { jobs: 3, memory: 10_000 };
        let printed = Mutex::new(String::new());
        let print = |text: &str| printed.lock().unwrap().push_str(text);
        let tally = run(&cases, &artifacts(folder.path()), "tcg", capacity, &print).unwrap();
        assert_eq!(tally.to_string(), "1 passed, 2 failed, 1 skipped");
        let printed = printed.into_inner().unwrap();
        assert!(printed.contains("a/fails") && printed.contains("\n         as it should\n"), "{printed}");
        assert!(printed.contains("nothing to try"), "{printed}");
    }

    #[test]
    fn memory_bounds_how_many_run_at_once() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        fn count(_: &Bench) -> Result<()> {
            MOST.fetch_max(RUNNING.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
        let names: [&'static str; 4] = ["m/1", "m/2", "m/3", "m/4"];
        let cases = names.map(|name| Case { name, memory: 1000, run: count });
        let folder = tempfile::tempdir().unwrap();
        for (memory, most) in [(QEMU_OVERHEAD + 1000, 1), (10, 1), (100_000, 4)] {
            MOST.store(0, Ordering::SeqCst);
            let tally = run(&cases, &artifacts(folder.path()), "tcg", Capacity { jobs: 4, memory }, &|_| ()).unwrap();
            assert_eq!(tally.passed, 4);
            assert!(MOST.load(Ordering::SeqCst) <= most);
        }
    }
}
