//! How fast output becomes a log and a log becomes lines again, beside `cat` doing the same with a plain file.
//!
//! `cargo bench -p berth-logs` prints a table. The container, the program and `cat` share one processor; questions are
//! asked from it too. The program is the shipped one: this binary starts itself as it.

#[allow(dead_code, reason = "tests use the rest")]
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use berth_config::{Logs, Size};
use berth_control::channel::{CHANNEL_VARIABLE, Channel};
use berth_control::logs::{Answer, Query};
use berth_control::message::Stream;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use support::{Init, all, ask};

/// What the container prints, in bytes.
const TOTAL: usize = 256 << 20;

/// What it prints at once.
const WRITE: usize = 64 * 1024;

/// How often everything is measured; the median counts.
const ROUNDS: usize = 3;

fn main() -> ExitCode {
    if let Some(directory) = std::env::var_os("BERTH_BENCH_LOGS").map(PathBuf::from) {
        return berth_logs::serve(directory.join("logs"), &socket(&directory));
    }
    let mut processor = CpuSet::new();
    processor.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &processor).unwrap();
    let text = text();
    let mut figures: Vec<[f64; 9]> = Vec::new();
    for _ in 0..ROUNDS {
        let directory = tempfile::tempdir().unwrap();
        let floor = cat(directory.path(), &text);
        let [kept, own, stored] = keep(directory.path(), &text);
        let [cat_back, back, back_own, last, since] = ask_back(directory.path());
        figures.push([floor, kept, own, stored, cat_back, back, back_own, last, since]);
    }
    let median = |column: usize| {
        let mut values: Vec<f64> = figures.iter().map(|row| row[column]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let [floor, kept, own, stored, cat_back, back, back_own, last, since] = std::array::from_fn(median);
    println!("container to file through cat, one core           {floor:6.0} MB/s");
    println!("container to log, one core                        {kept:6.0} MB/s   {:.2} of cat", kept / floor);
    println!("  of the program's own time                       {own:6.0} MB/s");
    println!("  kept on the disk of what came                   {stored:6.3}");
    println!("file to reader through cat, one core              {cat_back:6.0} MB/s");
    println!("log to reader, one core, with times and streams   {back:6.0} MB/s   {:.2} of cat", back / cat_back);
    println!("  of the program's own time                       {back_own:6.0} MB/s");
    println!("  the last 10 lines                               {last:6.2} ms");
    println!("  those of the last millisecond                   {since:6.2} ms");
    ExitCode::SUCCESS
}

/// Lines as a web server prints them, some 4 MiB: long enough that no block repeats another.
fn text() -> Vec<u8> {
    let mut text = Vec::new();
    let mut random: u32 = 1;
    while text.len() < 64 * WRITE {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [a, b, c, d] = random.to_be_bytes();
        let (path, status) = (u16::from_be_bytes([a, b]), if c > 250 { 500 } else { 200 });
        writeln!(
            text,
            "10.0.{a}.{b} - - \"GET /item/{path}?page={c} HTTP/1.1\" {status} {} \"curl/8.{d}\"",
            random >> 12
        )
        .unwrap();
    }
    text.truncate(64 * WRITE);
    text
}

/// A container that prints everything; when it is done.
fn print(text: &[u8]) -> (std::io::PipeReader, std::thread::JoinHandle<()>) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let text = text.to_vec();
    let thread = std::thread::spawn(move || {
        text.chunks(WRITE).cycle().take(TOTAL / WRITE).for_each(|chunk| writer.write_all(chunk).unwrap());
    });
    (reader, thread)
}

fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

fn cat(directory: &Path, text: &[u8]) -> f64 {
    let begin = Instant::now();
    let (reader, printing) = print(text);
    let file = File::create(directory.join("plain")).unwrap();
    let mut cat = Command::new("cat").stdin(reader).stdout(file).spawn().unwrap();
    printing.join().unwrap();
    cat.wait().unwrap();
    rate(TOTAL as u64, begin.elapsed())
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("logs.sock")
}

fn program(directory: &Path) -> (Child, Init) {
    let (init, theirs) = Channel::pair().unwrap();
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .env("BERTH_BENCH_LOGS", directory)
        .env(CHANNEL_VARIABLE, theirs.as_fd().as_raw_fd().to_string())
        .spawn()
        .unwrap();
    drop(theirs);
    let init = Init::new(init);
    init.limit(Logs { size: Size::from_bytes(2 << 30), total: Some(Size::from_bytes(4 << 30)), ..Logs::default() });
    (child, init)
}

/// The time that a process has had, from /proc.
fn processor_time(child: &Child) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{}/schedstat", child.id())).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn keep(directory: &Path, text: &[u8]) -> [f64; 3] {
    let (mut child, init) = program(directory);
    let begin = Instant::now();
    let (reader, printing) = print(text);
    init.offer("web", Stream::Stdout, &reader);
    drop(reader);
    printing.join().unwrap();
    // All of it is in the log when its last line can be asked for.
    let (_, mut lines) = ask(&socket(directory), &Query { tail: Some(1), ..all("web", false) });
    lines.read_to_end(&mut Vec::new()).unwrap();
    let time = begin.elapsed();
    let own = processor_time(&child);
    // The rest is compressed when nothing is left but the file that grows.
    let files = || std::fs::read_dir(directory.join("logs/web")).unwrap().flatten();
    while files().filter(|file| file.path().extension().is_some_and(|found| found != "zst")).count() > 1 {
        std::thread::yield_now();
    }
    let stored: u64 = files().map(|file| file.metadata().unwrap().len()).sum();
    child.kill().unwrap();
    child.wait().unwrap();
    [rate(TOTAL as u64, time), rate(TOTAL as u64, own), stored as f64 / TOTAL as f64]
}

fn ask_back(directory: &Path) -> [f64; 5] {
    let read = |mut from: Box<dyn Read>| {
        let mut buffer = vec![0; 1 << 16];
        let mut bytes = 0;
        loop {
            match from.read(&mut buffer).unwrap() {
                0 => return bytes,
                count => bytes += count as u64,
            }
        }
    };
    let begin = Instant::now();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut cat = Command::new("cat").arg(directory.join("plain")).stdout(writer).spawn().unwrap();
    let plain = rate(read(Box::new(reader)), begin.elapsed());
    cat.wait().unwrap();

    let (mut child, _init) = program(directory);
    let asked = |query: &Query| {
        let begin = Instant::now();
        let (answer, lines) = ask(&socket(directory), query);
        assert_eq!(answer, Answer::Coming);
        (read(Box::new(lines)), begin.elapsed())
    };
    let before = processor_time(&child);
    let (bytes, time) = asked(&all("web", false));
    let own = processor_time(&child) - before;
    assert!(bytes > TOTAL as u64, "all lines come, with their times");
    let (last, last_time) = asked(&Query { tail: Some(10), ..all("web", false) });
    assert!(last > 0);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64;
    let (_, since_time) = asked(&Query { since_us: Some(now - 1_000), ..all("web", false) });
    child.kill().unwrap();
    child.wait().unwrap();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    // What the container printed counts, as for cat, not the times before the lines.
    [plain, rate(TOTAL as u64, time), rate(TOTAL as u64, own), millis(last_time), millis(since_time)]
}
