//! The second start of a container from an image that is present: what the engine does must not grow with the image.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use berth_config::Source;
use berth_control::message::Declaration;
use berth_engine::prepare::{self, Folders};
use berth_engine::store::Store;
use berth_engine::volumes::Places;

use crate::job;
use crate::made::{self, Content, Method};
use crate::measure::{Bar, figure, is_installed, judged, median, run};

/// The two images, by their numbers of files.
const FILES: [usize; 2] = [10, 10_000];

/// How many starts a median is of.
const STARTS: usize = 200;

/// Prints the table's part.
pub fn measure(folder: &Path) -> Result<()> {
    println!("second start from a present image:");
    let mut content = Content::new(2);
    let mut states = Vec::new();
    for files in FILES {
        let made = made::image(
            &folder.join(format!("made-{files}")),
            Method::Gzip,
            &[made::layer(&mut content, "srv", files, 4096)],
        )?;
        let archive = folder.join(format!("{files}.tar"));
        run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&made.folder).arg("."))?;
        let state = folder.join(format!("state-{files}"));
        std::fs::create_dir(&state)?;
        let words = ["import", state.to_str().context("a path")?, archive.to_str().context("a path")?];
        run(job::command(&words)?.env("BERTH_BENCH_COMMIT", "1"))?;
        states.push(state);
    }
    // In turns, after one start that makes what is made once.
    let mut times = [Vec::new(), Vec::new()];
    let mut calls = [None, None];
    for ((state, times), calls) in states.iter().zip(&mut times).zip(&mut calls) {
        let state = state.to_str().context("a path")?;
        let words = |count| ["start".to_owned(), state.to_owned(), "bench:1".to_owned(), count];
        let (_, printed) =
            run(job::command(&words(STARTS.to_string()).each_ref().map(String::as_str))?.env("LC_ALL", "C"))?;
        let nanoseconds = printed.lines().next().unwrap_or_default().parse()?;
        times.push(std::time::Duration::from_nanos(nanoseconds));
        if is_installed("strace") {
            let once = count(&words("1".to_owned()), Path::new(state))?;
            let often = count(&words("11".to_owned()), Path::new(state))?;
            *calls = Some((often - once) / 10.0);
        }
    }
    let [small, large] = times.each_ref().map(|times| median(times).map(|time| time * 1e6));
    let (small, large) = (small.context("a time")?, large.context("a time")?);
    figure("  of 10 files", &format!("{small:.0} us"));
    figure("  of 10,000 files", &format!("{large:.0} us"));
    // A thousand times the files: what grew with them would be far above what the clock wavers by.
    judged("  the one of the other", large / small, &format!("{:.2}", large / small), Bar::AtMost(1.5));
    match calls {
        [Some(small), Some(large)] => {
            figure("  system calls, 10 files", &format!("{small:.0}"));
            judged("  system calls, 10,000 files", large, &format!("{large:.0}"), Bar::AtMost(small + 2.0));
        }
        _ => println!("  strace is not installed: system calls are not counted"),
    }
    Ok(())
}

/// The system calls of a job.
fn count(words: &[String], folder: &Path) -> Result<f64> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let job = job::command(&words)?;
    let table = folder.join("calls");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-U", "calls,name", "-o"]).arg(&table).arg(job.get_program()).args(job.get_args());
    run(&mut strace)?;
    let text = std::fs::read_to_string(&table)?;
    let total = text.lines().rfind(|line| line.trim_end().ends_with("total")).context("strace's total")?;
    Ok(total.split_whitespace().next().context("a number")?.parse()?)
}

/// Prepares a container `times` times, and prints the median in nanoseconds.
pub fn job(state: &Path, image: &str, times: usize) -> Result<()> {
    let store = Store::open(&state.join("images"), "bench")?;
    let (digest, record) = store.resolve(&image.parse()?).with_context(|| format!("no image: {:?}", store.names()))?;
    let text = "[containers.web]\nimage = \"bench:1\"\nvolumes = [\"data:/data\"]\n";
    let read = berth_config::load(&[Source::new("bench", text)]);
    let read = read.map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
    let container = read.configuration.containers.values().next().context("the container")?.clone();
    let declaration = Declaration::new("web", container);
    let places = Places { volumes: state.join("volumes"), user_data: state.to_owned() };
    let folders = Folders { containers: state.join("containers"), places };
    let mut taken = Vec::new();
    for _ in 0..times {
        let begin = Instant::now();
        prepare::container(&store, &folders, &declaration, digest, &record)?;
        taken.push(begin.elapsed());
    }
    let median = median(&taken).context("no time")?;
    println!("{}", (median * 1e9) as u64);
    Ok(())
}
