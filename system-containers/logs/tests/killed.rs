//! The program is killed at any moment while containers print: each of their lines is there, once and in order.

#[allow(dead_code, reason = "other tests use the rest")]
mod support;

use std::io::{PipeReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use berth_config::{Logs, Size};
use berth_control::channel::{CHANNEL_VARIABLE, Channel};
use berth_control::logs::{Answer, Query};
use berth_control::message::Stream;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use support::{Init, all, ask, next};

const KILLS: u64 = 120;

/// What containers print between two kills, at most, in lines.
const LINES: u64 = 4_000;

/// One in so many programs lives until it has compressed something.
const LONG_LIVES: u64 = 20;

/// Says to a child that it is the program, and where its files are.
const DIRECTORY: &str = "BERTH_TEST_LOGS";

const TEST: &str = "no_line_is_lost_and_none_comes_twice";

const CONTAINERS: [&str; 3] = ["web", "db", "cache"];
const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// Marsaglia's xorshift: the same points again with the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// What all containers have printed, and whether they are to stop.
#[derive(Default)]
struct Progress {
    lines: AtomicU64,
    stop: AtomicBool,
}

/// One output of a container: PID 1 holds the read end.
struct Output {
    container: &'static str,
    stream: Stream,
    reader: PipeReader,
    writer: JoinHandle<u64>,
}

impl Output {
    fn new(container: &'static str, stream: Stream, progress: &Arc<Progress>, seed: u64) -> Self {
        let (reader, mut pipe) = std::io::pipe().unwrap();
        let (progress, mut random) = (Arc::clone(progress), Random(seed));
        let writer = std::thread::spawn(move || {
            let mut number = 0;
            while !progress.stop.load(Ordering::Relaxed) {
                // Some in two pieces, some longer than a record, some than the pipe.
                let length = match random.below(500) {
                    0 => random.below(100_000),
                    1..20 => random.below(2_000),
                    _ => random.below(100),
                };
                let line = format!("{number} {}\n", "x".repeat(usize::try_from(length).unwrap()));
                let (first, second) = line.split_at(usize::try_from(random.below(line.len() as u64)).unwrap());
                pipe.write_all(first.as_bytes()).unwrap();
                pipe.write_all(second.as_bytes()).unwrap();
                number += 1;
                progress.lines.fetch_add(1, Ordering::Relaxed);
            }
            number
        });
        Self { container, stream, reader, writer }
    }
}

struct Program {
    child: Child,
    /// It ends with its channel.
    _init: Init,
}

impl Program {
    fn start(directory: &Path, outputs: &[Output]) -> Self {
        let (init, theirs) = Channel::pair().unwrap();
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        // This program plays the part itself, so that it is never an older one.
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", TEST, "--nocapture"]).env(DIRECTORY, directory).stdout(Stdio::null());
        let child = command.env(CHANNEL_VARIABLE, theirs.as_fd().as_raw_fd().to_string()).spawn().unwrap();
        drop(theirs);
        let init = Init::new(init);
        init.limit(Logs { size: Size::from_bytes(1 << 30), total: Some(Size::from_bytes(8 << 30)), ..Logs::default() });
        for output in outputs {
            init.offer(output.container, output.stream, &output.reader);
        }
        Self { child, _init: init }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("logs.sock")
}

#[test]
fn no_line_is_lost_and_none_comes_twice() {
    if let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) {
        berth_logs::serve(directory.join("logs"), &socket(&directory));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut random = Random(seed);
    let progress = Arc::new(Progress::default());
    let outputs: Vec<Output> = CONTAINERS
        .into_iter()
        .flat_map(|container| STREAMS.map(|stream| (container, stream)))
        .map(|(container, stream)| Output::new(container, stream, &progress, random.below(u64::MAX) | 1))
        .collect();
    for kill in 0..KILLS {
        let compressed = count(&directory.path().join("logs"), "zst");
        let program = Program::start(directory.path(), &outputs);
        let enough = progress.lines.load(Ordering::Relaxed) + random.below(LINES);
        while progress.lines.load(Ordering::Relaxed) < enough {
            std::thread::yield_now();
        }
        // What a predecessor left is compressed once it is known to be on the disk.
        while kill % LONG_LIVES == LONG_LIVES - 1 && count(&directory.path().join("logs"), "zst") <= compressed {
            std::thread::yield_now();
        }
        program.kill();
    }
    // The last writers may wait for somebody who reads.
    progress.stop.store(true, Ordering::Relaxed);
    let last = Program::start(directory.path(), &outputs);
    let mut printed = Vec::new();
    for Output { container, stream, reader, writer } in outputs {
        printed.push((container, stream, writer.join().unwrap()));
        // With the writer gone the pipe ends once it is empty.
        drop(reader);
    }
    for (container, stream, printed) in printed {
        let (answer, mut lines) =
            ask(&socket(directory.path()), &Query { stream: Some(stream), ..all(container, true) });
        assert_eq!(answer, Answer::Coming);
        for number in 0..printed {
            let (_, of, text) = next(&mut lines).unwrap();
            assert_eq!(of, stream);
            let (first, rest) = text.split_once(' ').unwrap_or((&text, ""));
            assert!(first == number.to_string(), "{container}: {first} where {number} should be, seed {seed}");
            assert!(rest.bytes().all(|byte| byte == b'x'), "{container}: line {number} is torn, seed {seed}");
        }
    }
    last.kill();
}

/// How many files of this kind all logs have. Those may come and go in the meantime.
fn count(directory: &Path, extension: &str) -> usize {
    let logs = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|log| log.path());
    logs.flat_map(|log| std::fs::read_dir(log).into_iter().flatten().flatten())
        .filter(|file| file.path().extension().is_some_and(|found| found == extension))
        .count()
}
