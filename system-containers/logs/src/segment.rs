//! The files of a log: segments, each named by how many bytes of frames the log had before it.
//!
//! ```text
//!             full                compressed, then renamed
//! N.frames ────────► N.frames ────────────────────────────► N.zst ──too old, too many──► gone
//! (the last: grows)              N.new
//! ```
//!
//! A crash leaves at most one of them twice, as frames and compressed: the compressed one is taken if it is whole.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use berth_control::clock::is_plausible;

use crate::sealed::Sealed;

/// What is in a segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Frames as they came.
    Frames,
    /// See [`crate::sealed`].
    Sealed,
}

/// One file of a log.
#[derive(Debug)]
pub struct Segment {
    /// The place of its first byte in the log.
    pub start: u64,
    /// How many bytes its file has.
    pub stored: u64,
    /// When something was first added to it, in microseconds since 1970; 0 if that is not known.
    pub first_us: u64,
    /// The same, as far as this program has seen it: not put off by a step of the machine's clock.
    pub begun: Option<Instant>,
    /// When something was last added to it, in microseconds since 1970.
    pub last_us: u64,
    /// The same, if it was this program that added it: not put off by a step of the machine's clock.
    pub touched: Option<Instant>,
    /// What is in it.
    pub form: Form,
    /// The file, if not all of it is on the disk.
    pub unsynced: Option<Arc<File>>,
    /// Some of it is on the disk, or may be.
    pub synced: bool,
}

impl Segment {
    /// A file that has just been made.
    pub fn new(start: u64) -> Self {
        Self {
            start,
            stored: 0,
            first_us: 0,
            begun: None,
            last_us: 0,
            touched: None,
            form: Form::Frames,
            unsynced: None,
            synced: false,
        }
    }

    /// Its file.
    pub fn path(&self, directory: &Path) -> PathBuf {
        path(directory, self.start, extension(self.form))
    }

    /// How long ago something was last added, in microseconds. By a clock that is wrong, or was wrong then, nothing is old.
    pub fn age_us(&self, now_us: u64, now: Instant) -> u64 {
        let age_us = passed_us(self.last_us, now_us);
        self.touched.map_or(age_us, |touched| since_us(touched, now).min(age_us))
    }

    /// How long ago something was first added, in microseconds, as far as that is known.
    pub fn first_age_us(&self, now_us: u64, now: Instant) -> u64 {
        self.begun.map_or_else(|| passed_us(self.first_us, now_us), |begun| since_us(begun, now))
    }

    /// Something was added.
    pub fn grow(&mut self, stored: u64, now_us: u64, now: Instant) {
        if self.stored == 0 {
            (self.first_us, self.begun) = (now_us, Some(now));
        }
        (self.stored, self.last_us, self.touched) = (stored, now_us, Some(now));
    }
}

/// Between two times by the machine's clock.
fn passed_us(then_us: u64, now_us: u64) -> u64 {
    let is_known = [now_us, then_us].iter().all(|time_us| is_plausible(time_us / 1_000_000));
    if is_known { now_us.saturating_sub(then_us) } else { 0 }
}

fn since_us(then: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(then).as_micros()).unwrap_or(u64::MAX)
}

/// The file into which a segment is compressed.
pub fn unfinished_path(directory: &Path, start: u64) -> PathBuf {
    path(directory, start, "new")
}

fn path(directory: &Path, start: u64, extension: &str) -> PathBuf {
    directory.join(format!("{start:016x}.{extension}"))
}

fn extension(form: Form) -> &'static str {
    match form {
        Form::Frames => "frames",
        Form::Sealed => "zst",
    }
}

/// The segments that are in a folder, in their order. Removes what a crash has left.
pub fn scan(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut segments: Vec<Segment> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((number, extension)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        let Ok(start) = u64::from_str_radix(number, 16) else { continue };
        let form = match extension {
            "frames" => Form::Frames,
            "zst" => Form::Sealed,
            "new" => {
                fs::remove_file(entry.path())?;
                continue;
            }
            _ => continue,
        };
        let metadata = entry.metadata()?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let last_us = u64::try_from(modified.as_micros()).unwrap_or(u64::MAX);
        let stored = metadata.len();
        segments.push(Segment { stored, last_us, form, synced: true, ..Segment::new(start) });
    }
    // Of two with the same start the compressed one comes last.
    segments.sort_by_key(|segment| (segment.start, segment.form == Form::Sealed));
    let mut kept: Vec<Segment> = Vec::with_capacity(segments.len());
    for segment in segments {
        match kept.last() {
            Some(twin) if twin.start == segment.start => {
                if File::open(segment.path(directory)).and_then(Sealed::open).is_ok() {
                    fs::remove_file(twin.path(directory))?;
                    kept.pop();
                    kept.push(segment);
                } else {
                    fs::remove_file(segment.path(directory))?;
                }
            }
            _ => kept.push(segment),
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;
    use crate::frame::tests::frame;
    use berth_control::message::Stream;
    use std::time::Duration;

    /// A time in that year, in microseconds since 1970.
    const IN_2026_US: u64 = 1_795_305_600_000_000;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn copy(file: &File, path: &Path) {
        io::copy(&mut { file }, &mut File::create(path).unwrap()).unwrap();
    }

    #[test]
    fn a_crash_at_any_step_of_the_exchange_leaves_each_segment_once() {
        let frames = frame(Kind::Output(Stream::Stdout), 1, b"hello\n");
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let sealed = crate::sealed::seal(&frames, [false; 2]);
        io::Seek::rewind(&mut { &sealed }).unwrap();
        for (both, expected) in [(false, "0000000000000010.frames"), (true, "0000000000000010.zst")] {
            fs::write(file("0000000000000010.frames"), &frames).unwrap();
            fs::write(file("0000000000000010.new"), b"half").unwrap();
            if both {
                copy(&sealed, &file("0000000000000010.zst"));
            }
            let segments = scan(directory.path()).unwrap();
            assert_eq!(segments.iter().map(|segment| segment.start).collect::<Vec<_>>(), [16]);
            assert_eq!(names(directory.path()), [expected]);
        }
    }

    #[test]
    fn a_torn_compressed_file_is_not_taken_for_its_frames() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("0000000000000010.frames"), b"").unwrap();
        fs::write(directory.path().join("0000000000000010.zst"), b"torn").unwrap();
        let segments = scan(directory.path()).unwrap();
        assert_eq!(segments.first().map(|segment| segment.form), Some(Form::Frames));
        assert_eq!(names(directory.path()), ["0000000000000010.frames"]);
    }

    #[test]
    fn a_step_of_the_clock_makes_nothing_old_that_was_just_written() {
        let now = Instant::now();
        let then = IN_2026_US + 10;
        let mut segment = Segment { last_us: then, ..Segment::new(0) };
        assert_eq!(segment.age_us(then + 1_000_000_000, now), 1_000_000_000);
        segment.touched = Some(now);
        assert_eq!(segment.age_us(then + 1_000_000_000, now + Duration::from_secs(2)), 2_000_000);
        assert_eq!(segment.age_us(then - 5, now), 0, "a clock that was set back");
    }

    #[test]
    fn by_a_wrong_clock_nothing_is_old() {
        let century_us = 100 * 31_556_952 * 1_000_000;
        let of = |last_us| Segment { last_us, ..Segment::new(0) };
        assert_eq!(of(IN_2026_US).age_us(IN_2026_US + century_us, Instant::now()), 0, "it is far ahead");
        assert_eq!(of(10).age_us(IN_2026_US, Instant::now()), 0, "it was not set yet");
    }
}
