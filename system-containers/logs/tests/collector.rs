//! The collector over its real socket and pipes, with a PID 1 that only hands out pipes.

mod support;

use std::fs::File;
use std::io::{BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use berth_config::{Logs, Size};
use berth_control::channel::Channel;
use berth_control::logs::{Answer, Query};
use berth_control::message::Stream;
use berth_logs::collector::Collector;
use support::{Init, all, ask, has_ended};
use tempfile::TempDir;

/// A running collector.
struct Machine {
    init: Init,
    directory: TempDir,
}

impl Machine {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let logs = directory.path().join("logs");
        Self::start_in(directory, &logs)
    }

    fn start_in(directory: TempDir, logs: &Path) -> Self {
        let (init, theirs) = Channel::pair().unwrap();
        let (logs, socket) = (logs.to_owned(), directory.path().join("logs.sock"));
        std::thread::spawn(move || Collector::new(theirs, logs, &socket).unwrap().run().unwrap());
        let init = Init::new(init);
        init.limit(Logs::default());
        Self { init, directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("logs.sock")
    }

    /// The end that a container would write to.
    fn pipe(&self, container: &str, stream: Stream) -> File {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        self.init.offer(container, stream, reader);
        File::from(writer)
    }

    fn ask(&self, query: &Query) -> BufReader<File> {
        let (answer, lines) = ask(&self.socket(), query);
        assert_eq!(answer, Answer::Coming);
        lines
    }

    /// Follows a container from its beginning.
    fn follow(&self, container: &str) -> BufReader<File> {
        self.ask(&all(container, true))
    }
}

fn next(lines: &mut BufReader<File>) -> (Stream, String) {
    let (_, stream, text) = support::next(lines).expect("the log has ended");
    (stream, text)
}

#[test]
fn what_a_container_prints_comes_to_a_follower_and_is_kept() {
    let machine = Machine::start();
    let mut followed = machine.follow("web");
    let mut output = machine.pipe("web", Stream::Stdout);
    let mut errors = machine.pipe("web", Stream::Stderr);
    output.write_all(b"hello\n").unwrap();
    assert_eq!(next(&mut followed), (Stream::Stdout, "hello".into()));
    errors.write_all(b"oh\n").unwrap();
    assert_eq!(next(&mut followed), (Stream::Stderr, "oh".into()));

    let mut kept = machine.ask(&all("web", false));
    assert_eq!(next(&mut kept).1, "hello");
    assert_eq!(next(&mut kept).1, "oh");
    assert!(has_ended(&mut kept), "a query that does not follow ends");
}

#[test]
fn the_last_words_of_a_run_are_a_line_of_their_own() {
    let machine = Machine::start();
    let mut followed = machine.follow("job");
    let mut output = machine.pipe("job", Stream::Stdout);
    output.write_all(b"no such file").unwrap();
    machine.init.end_run("job");
    assert_eq!(next(&mut followed), (Stream::Stdout, "no such file".into()));
    output.write_all(b"again\n").unwrap();
    machine.init.end_run("job");
    assert_eq!(next(&mut followed).1, "again");
    let mut kept = machine.ask(&all("job", false));
    assert_eq!([next(&mut kept).1, next(&mut kept).1], ["no such file", "again"]);
    assert!(has_ended(&mut kept), "an end of a whole line is none");
}

#[test]
fn a_follower_ends_when_its_container_is_removed_and_the_next_of_the_name_is_another_one() {
    let machine = Machine::start();
    let (mut followed, mut stuck) = (machine.follow("job"), machine.follow("job"));
    let mut output = machine.pipe("job", Stream::Stdout);
    output.write_all(b"last words\n").unwrap();
    assert_eq!(next(&mut followed).1, "last words");
    // More than the pipe of one who does not read takes.
    let text = "x".repeat(1_000);
    for number in 0..1_000 {
        writeln!(output, "{number} {text}").unwrap();
        assert_eq!(next(&mut followed).1, format!("{number} {text}"));
    }
    machine.init.end_run("job");
    machine.init.forget("job");
    assert!(has_ended(&mut followed));
    // Who is answered after that finds nothing.
    assert!(has_ended(&mut machine.ask(&all("job", false))));
    assert!(!machine.directory.path().join("logs/job").exists());

    let mut output = machine.pipe("job", Stream::Stdout);
    output.write_all(b"first words\n").unwrap();
    let mut followed = machine.follow("job");
    assert_eq!(next(&mut followed).1, "first words");
    let mut lines = Vec::new();
    while let Some((_, _, text)) = support::next(&mut stuck) {
        lines.push(text);
    }
    assert_eq!(lines.first().map(String::as_str), Some("last words"));
    assert!(lines.last().unwrap().contains("lines are missing here"), "{:?}", lines.last());
}

#[test]
fn who_follows_until_a_moment_gets_what_comes_before_it_and_then_the_end() {
    let now = || u64::try_from(UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap();
    let machine = Machine::start();
    let query = Query { until_us: Some(now() + 5_000_000), ..all("web", true) };
    let mut followed = machine.ask(&query);
    let mut output = machine.pipe("web", Stream::Stdout);
    output.write_all(b"before\n").unwrap();
    assert_eq!(next(&mut followed).1, "before");
    // Also if nothing is printed then.
    assert!(has_ended(&mut followed));
    assert!(query.until_us.is_some_and(|until_us| until_us < now()));
    // What is printed later is for others.
    let mut everything = machine.follow("web");
    output.write_all(b"behind\n").unwrap();
    assert_eq!((next(&mut everything).1, next(&mut everything).1), ("before".into(), "behind".into()));
    let mut until_then = machine.ask(&query);
    assert_eq!(next(&mut until_then).1, "before");
    assert!(has_ended(&mut until_then));
}

#[test]
fn who_follows_a_container_that_is_no_longer_declared_gets_all_and_the_end() {
    let machine = Machine::start();
    let mut followed = machine.follow("web");
    let mut output = machine.pipe("web", Stream::Stdout);
    output.write_all(b"last words\n").unwrap();
    machine.init.end_run("web");
    machine.init.end("web");
    assert_eq!(next(&mut followed).1, "last words");
    assert!(has_ended(&mut followed));
    // The log stays, and another container of that name goes on in it.
    machine.pipe("web", Stream::Stdout).write_all(b"first words\n").unwrap();
    let mut followed = machine.follow("web");
    assert_eq!([next(&mut followed).1, next(&mut followed).1], ["last words", "first words"]);
}

#[test]
fn a_tail_has_the_last_lines() {
    let machine = Machine::start();
    let mut followed = machine.follow("web");
    let mut output = machine.pipe("web", Stream::Stdout);
    output.write_all(b"one\ntwo\nthree\n").unwrap();
    for _ in 0..3 {
        next(&mut followed);
    }
    let mut last = machine.ask(&Query { tail: Some(1), ..all("web", false) });
    assert_eq!(next(&mut last).1, "three");
    let mut none = machine.ask(&Query { since_us: Some(u64::MAX), ..all("web", false) });
    assert!(has_ended(&mut none));
}

#[test]
fn readers_of_containers_leave_room_for_the_machine_and_for_each_other() {
    let machine = Machine::start();
    let mut readers = Vec::new();
    let mut takes = |asked_by: Option<&str>| {
        let query = Query { asked_by: asked_by.map(str::to_owned), ..all("web", true) };
        let (answer, lines) = ask(&machine.socket(), &query);
        readers.push(lines);
        answer == Answer::Coming
    };
    assert_eq!((0..20).filter(|_| takes(Some("greedy"))).count(), 16);
    let others = (0..9).map(|number| format!("c{number}"));
    let taken: usize = others.map(|name| (0..16).filter(|_| takes(Some(&name))).count()).sum();
    assert_eq!(taken, 80, "what containers have together");
    assert_eq!((0..40).filter(|_| takes(None)).count(), 32);
}

#[test]
fn every_line_of_fifty_chatty_containers_is_there_in_order() {
    const LINES: usize = 2_000;
    let machine = Machine::start();
    let writers: Vec<_> = (0..50)
        .map(|number| {
            let mut output = machine.pipe(&format!("c{number}"), Stream::Stdout);
            std::thread::spawn(move || {
                for line in 0..LINES {
                    writeln!(output, "{number} {line}").unwrap();
                }
            })
        })
        .collect();
    for number in 0..50 {
        let mut followed = machine.follow(&format!("c{number}"));
        for line in 0..LINES {
            assert_eq!(next(&mut followed).1, format!("{number} {line}"));
        }
    }
    for writer in writers {
        writer.join().unwrap();
    }
}

#[test]
fn a_follower_gets_every_line_over_many_rotations() {
    let machine = Machine::start();
    let mut output = machine.pipe("web", Stream::Stdout);
    let mut followed = machine.follow("web");
    let text = "x".repeat(1_000);
    for number in 0..4_000 {
        // One at a time, so that the reader is never two files behind.
        writeln!(output, "{number} {text}").unwrap();
        assert_eq!(next(&mut followed).1, format!("{number} {text}"));
    }
}

#[test]
fn a_reader_that_does_not_read_holds_up_nobody() {
    let machine = Machine::start();
    let _stuck = machine.follow("web");
    let mut output = machine.pipe("web", Stream::Stdout);
    let text = "x".repeat(1_000);
    for number in 0..5_000 {
        writeln!(output, "{number} {text}").unwrap();
    }
    let mut other = machine.follow("other");
    machine.pipe("other", Stream::Stdout).write_all(b"here\n").unwrap();
    assert_eq!(next(&mut other).1, "here");
}

#[test]
fn a_name_that_leaves_the_folder_is_refused() {
    let machine = Machine::start();
    for name in ["../web", "", ".", "a/b", ".hidden"] {
        let (answer, _) = ask(&machine.socket(), &all(name, false));
        assert!(matches!(answer, Answer::Refused(_)), "{name}");
    }
    machine.pipe("../web", Stream::Stdout);
    let mut followed = machine.follow("web");
    machine.pipe("web", Stream::Stdout).write_all(b"still here\n").unwrap();
    assert_eq!(next(&mut followed).1, "still here");
    assert!(!machine.directory.path().join("web").exists());
}

/// A machine whose logs lie on a tmpfs of so many KiB, in a mount namespace of this test's own; `None` if that is not
/// possible here.
fn on_small_disk(size: u32) -> Option<(Machine, PathBuf)> {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    let directory = tempfile::tempdir().unwrap();
    let logs = directory.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    let own = unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)
        .and_then(|()| mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>))
        .and_then(|()| {
            mount(Some("tmpfs"), &logs, Some("tmpfs"), MsFlags::empty(), Some(format!("size={size}k").as_str()))
        });
    if let Err(error) = own {
        berth_tests::skips::skip(&format!("no mount namespace of its own: {error}"));
        return None;
    }
    Some((Machine::start_in(directory, &logs), logs))
}

#[test]
fn on_a_full_disk_the_oldest_makes_room_for_the_newest() {
    let Some((machine, _)) = on_small_disk(400) else { return };
    machine.init.limit(Logs {
        size: Size::from_bytes(512 << 10),
        total: Some(Size::from_bytes(1 << 30)),
        ..Logs::default()
    });
    let mut output = machine.pipe("web", Stream::Stdout);
    // Text that hardly compresses: Marsaglia's xorshift.
    let mut random: u128 = 88_172_645_463_325_252;
    for number in 0..50_000 {
        random ^= random << 23;
        random ^= random >> 17;
        writeln!(output, "{number} {random:032x}{:032x}", random.wrapping_mul(0x9E37_79B9_7F4A_7C15)).unwrap();
    }
    let mut followed = machine.follow("web");
    let mut lines = Vec::new();
    loop {
        let (stream, text) = next(&mut followed);
        assert_eq!(stream, Stream::Stdout, "{text}");
        let number: u32 = text.split_once(' ').map_or(0, |(number, _)| number.parse().unwrap_or(0));
        lines.push(number);
        if number == 49_999 {
            break;
        }
    }
    // The first one may be the end of a line that went.
    let whole = lines.get(1..).unwrap();
    assert!(whole.len() > 1_000 && whole.is_sorted_by(|one, next| one + 1 == *next), "{} lines", lines.len());
}

#[test]
fn a_full_disk_drops_lines_and_tells_how_many() {
    let Some((machine, logs)) = on_small_disk(256) else { return };
    let filler = logs.join("filler");
    let mut followed = machine.follow("web");
    let mut output = machine.pipe("web", Stream::Stdout);
    output.write_all(b"before\n").unwrap();
    assert_eq!(next(&mut followed).1, "before");

    // Full: what the log's file has left in its page is all there is.
    let mut full = File::create(&filler).unwrap();
    while full.write(&[0; 4096]).is_ok() {}
    let text = "x".repeat(1_000);
    for number in 0..1_000 {
        writeln!(output, "{number} {text}").unwrap();
    }
    drop(output);
    // A container that can print goes on: the pipe took a megabyte. Then there is room again.
    let mut other = machine.pipe("web", Stream::Stdout);
    std::fs::remove_file(&filler).unwrap();
    drop(full);
    other.write_all(b"after\n").unwrap();
    let mut dropped = String::new();
    loop {
        let (stream, text) = next(&mut followed);
        if stream == Stream::Stderr {
            dropped = text;
        } else if text == "after" {
            break;
        }
    }
    assert!(dropped.contains("lines were dropped"), "{dropped}");
}

#[test]
fn the_collector_ends_with_its_channel() {
    let (init, theirs) = Channel::pair().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let collector = Collector::new(theirs, directory.path().join("logs"), &directory.path().join("s")).unwrap();
    drop(init);
    collector.run().unwrap();
}

#[test]
fn who_is_told_to_end_takes_what_is_in_the_pipes_first() {
    let directory = tempfile::tempdir().unwrap();
    let (init, theirs) = Channel::pair().unwrap();
    let logs = directory.path().join("logs");
    let collector = Collector::new(theirs, logs.clone(), &directory.path().join("s")).unwrap();
    let init = Init::new(init);
    let mut outputs = Vec::new();
    // More than epoll tells at once.
    for number in 0..100 {
        let (reader, mut writer) = std::io::pipe().unwrap();
        init.offer(&format!("c{number}"), Stream::Stdout, &reader);
        writer.write_all(format!("the last words of {number}\n").as_bytes()).unwrap();
        // As PID 1 keeps both ends.
        outputs.push((reader, writer));
    }
    // To this thread alone, which fetches it from a descriptor since the collector was made.
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
    collector.run().unwrap();
    for number in 0..100 {
        let files = std::fs::read_dir(logs.join(format!("c{number}"))).unwrap().flatten();
        let kept: Vec<u8> = files.flat_map(|file| std::fs::read(file.path()).unwrap()).collect();
        assert!(String::from_utf8_lossy(&kept).contains(&format!("the last words of {number}\n")), "{number}");
    }
}

#[test]
fn a_pipe_that_comes_twice_is_no_trouble() {
    let machine = Machine::start();
    let mut followed = machine.follow("web");
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let copy: OwnedFd = reader.try_clone().unwrap();
    for pipe in [&reader, &copy] {
        machine.init.offer("web", Stream::Stdout, pipe);
    }
    File::from(writer).write_all(b"once\n").unwrap();
    assert_eq!(next(&mut followed).1, "once");
}
