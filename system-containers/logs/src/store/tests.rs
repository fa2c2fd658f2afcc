//! What is kept and for how long, by a clock that the tests set.

use super::*;
use berth_config::TimeSpan;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::time::UNIX_EPOCH;

use crate::frame::HEADER;

const DAY: Duration = Duration::from_secs(86_400);

struct Machine {
    store: Store,
    began: Instant,
    passed: Duration,
    directory: tempfile::TempDir,
}

impl Machine {
    fn new(limits: Logs) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("logs")).unwrap();
        let mut machine = Self { store, began: Instant::now(), passed: Duration::ZERO, directory };
        let now = machine.now();
        machine.store.set_limits(&limits, now);
        machine
    }

    fn now(&self) -> Moment {
        let wall_us = 1_800_000_000_000_000 + u64::try_from(self.passed.as_micros()).unwrap();
        Moment { wall_us, monotonic: self.began + self.passed }
    }

    /// Time goes by, and what is due is done.
    fn pass(&mut self, time: Duration) {
        self.passed += time;
        self.store.work(self.now());
        self.wait_for_disk();
    }

    fn wait_for_disk(&mut self) {
        while self.store.syncer().is_busy() {
            poll(&mut [PollFd::new(self.store.syncer().as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
            self.store.synced(self.now());
        }
    }

    /// A container prints so many bytes that do not compress well.
    fn print(&mut self, name: &str, bytes: usize) {
        let mut random: u64 = 88_172_645_463_325_252;
        let line = |_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            format!("{random:020}\n")
        };
        let text: String = (0..1024).map(line).collect();
        for _ in 0..bytes / text.len() {
            self.store.append(name, Kind::Output(Stream::Stdout), text.as_bytes(), self.now()).unwrap();
        }
    }

    /// Another program finds what this one has left.
    fn restart(&mut self, limits: &Logs) {
        let directory = self.directory.path().join("logs");
        let last = UNIX_EPOCH + Duration::from_micros(self.now().wall_us) - DAY;
        let folders = std::fs::read_dir(&directory).unwrap();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
        for path in files.map(|file| file.unwrap().path()).filter(|path| path.extension() == Some("frames".as_ref())) {
            std::fs::File::options().write(true).open(path).unwrap().set_modified(last).unwrap();
        }
        self.store = Store::open(directory).unwrap();
        self.store.set_limits(limits, self.now());
    }

    /// Compresses everything that is full.
    fn compress(&mut self) {
        while self.store.compaction.is_pending() {
            self.store.compress(self.now());
        }
    }

    fn stored(&mut self, name: &str) -> u64 {
        let on_disk = std::fs::read_dir(self.directory.path().join("logs").join(name));
        let sizes = on_disk.into_iter().flatten().map(|file| file.unwrap().metadata().unwrap().len());
        let stored = self.store.log(name).stored();
        assert_eq!(sizes.sum::<u64>(), stored);
        stored
    }

    fn beginning(&mut self, name: &str) -> u64 {
        self.store.log(name).beginning()
    }
}

fn limits(size: u64, total: u64) -> Logs {
    Logs { size: Size::from_bytes(size), total: Some(Size::from_bytes(total)), ..Logs::default() }
}

#[test]
fn a_log_stays_within_its_size_and_keeps_the_newest() {
    let mut machine = Machine::new(limits(1 << 20, 1 << 30));
    machine.print("web", 5 << 20);
    assert!(machine.stored("web") <= (1 << 20) + SMALLEST_SEGMENT, "{}", machine.stored("web"));
    let (beginning, end) = (machine.beginning("web"), machine.store.log("web").end());
    assert!(beginning > 0 && end > 5_000_000, "{beginning} to {end}");
}

#[test]
fn what_is_compressed_makes_room_for_more() {
    let mut machine = Machine::new(limits(4 << 20, 1 << 30));
    let mut raw = Machine::new(limits(4 << 20, 1 << 30));
    for _ in 0..12 {
        machine.print("web", 1 << 20);
        machine.compress();
        raw.print("web", 1 << 20);
    }
    assert!(machine.beginning("web") < raw.beginning("web"));
    assert!(machine.stored("web") <= 5 << 20);
}

#[test]
fn of_too_much_in_all_the_largest_log_loses_first() {
    let mut machine = Machine::new(limits(64 << 20, 6 << 20));
    machine.print("quiet", 1 << 19);
    machine.print("chatty", 20 << 20);
    machine.pass(Duration::from_secs(1));
    assert_eq!(machine.beginning("quiet"), 0);
    assert!(machine.beginning("chatty") > 0);
    machine.compress();
    machine.pass(Duration::from_secs(1));
    let all = machine.stored("quiet") + machine.stored("chatty");
    assert!(all <= 6 << 20, "{all}");
}

#[test]
fn lines_go_when_they_are_too_old_and_the_wait_for_it_is_one_sleep() {
    let mut machine = Machine::new(Logs { age: TimeSpan::from_seconds(7 * 86_400).unwrap(), ..Logs::default() });
    machine.print("web", 1 << 16);
    machine.pass(Duration::from_secs(1));
    let now = machine.now();
    // Asleep until the line is too old: no wake-ups in between.
    machine.store.set_limits(&Logs { age: TimeSpan::from_seconds(7 * 86_400).unwrap(), ..Logs::default() }, now);
    let left = machine.store.deadline(now.monotonic).unwrap() - now.monotonic;
    assert!(left > 6 * DAY && left <= 7 * DAY, "{left:?}");
    machine.pass(left - Duration::from_secs(5));
    assert!(machine.stored("web") > 0);
    machine.pass(Duration::from_secs(10));
    assert_eq!(machine.stored("web"), 0);
    assert_eq!(machine.store.deadline(machine.now().monotonic), None);
}

#[test]
fn a_line_a_day_goes_after_its_age_like_any_other() {
    let limits = || Logs { age: TimeSpan::from_seconds(8 * 86_400).unwrap(), ..Logs::default() };
    for is_restarted in [false, true] {
        let mut machine = Machine::new(limits());
        for _ in 0..40 {
            machine.store.append("web", Kind::Output(Stream::Stdout), b"line\n", machine.now()).unwrap();
            machine.compress();
            machine.pass(DAY);
            if is_restarted {
                machine.restart(&limits());
            }
        }
        let frame = (HEADER + b"line\n".len()) as u64;
        let kept = (machine.store.log("web").end() - machine.beginning("web")) / frame;
        // Those of eight days, and at most of an eighth more.
        assert!((8..=10).contains(&kept), "{kept} lines of 40 days are kept, restarted: {is_restarted}");
    }
}

#[test]
fn what_is_written_goes_to_the_disk_within_half_a_second_and_once() {
    let mut machine = Machine::new(Logs::default());
    let expires = machine.store.deadline(machine.began);
    assert_eq!(expires, None, "nothing is to be done without any log");
    machine.print("web", 1 << 16);
    assert_eq!(machine.store.deadline(machine.began), Some(machine.began + SYNC_DELAY));
    machine.pass(SYNC_DELAY);
    let next = machine.store.deadline(machine.now().monotonic).unwrap();
    assert!(next > machine.now().monotonic + DAY, "only its age is left to wait for");
    assert!(machine.store.log("web").take_unsynced().is_empty());
}

#[test]
fn a_segment_that_may_be_on_the_disk_is_exchanged_only_for_one_that_is() {
    let mut machine = Machine::new(Logs::default());
    machine.print("web", 1 << 19);
    machine.pass(SYNC_DELAY);
    machine.print("web", 2 << 20);
    let forms = |machine: &mut Machine| -> Vec<bool> {
        machine.store.log("web").segments().iter().map(|segment| segment.form == crate::segment::Form::Sealed).collect()
    };
    machine.compress();
    let before = forms(&mut machine);
    assert_eq!(before.first(), Some(&false), "some of it was on the disk before");
    assert_eq!(before.get(1), Some(&true), "nothing of it was");
    machine.pass(SYNC_DELAY);
    assert_eq!(forms(&mut machine).first(), Some(&true));
    machine.stored("web");
}

#[test]
fn a_log_that_is_forgotten_leaves_nothing() {
    let mut machine = Machine::new(Logs::default());
    for _ in 0..2 {
        machine.print("job", 3 << 20);
        machine.print("web", 1 << 20);
        machine.store.forget("job");
        machine.pass(Duration::from_secs(1));
        while machine.store.deadline(machine.now().monotonic) == Some(machine.now().monotonic) {
            machine.store.compress(machine.now());
        }
        assert_eq!(machine.store.log("job").stored(), 0);
        assert!(machine.store.log("web").stored() > 0);
        assert!(!machine.directory.path().join("logs/job").exists());
    }
    // One that never was is no mistake.
    machine.store.forget("nobody");
}
