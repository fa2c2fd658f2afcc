//! The files: two a container, `current` and `previous`, each at most [`FILE_SIZE`].
//!
//! ```text
//! append ──► current ──full──► previous ──replaced──► gone
//! ```
//!
//! A file holds whole records only: an append that the disk has no room for is undone. What was dropped is counted and
//! told in the log as soon as there is room. Files are numbered by generation for as long as this program runs, so that
//! a reader can go on in the next one after a rotation.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::PathBuf;

use berth_control::logs::Line;
use berth_control::message::Stream;

/// The most that a file may have, in bytes. Two a container hold some 20,000 lines: what a person scrolls back
/// through. A thousand containers that print without end then have 2 GiB, a small state partition's.
pub const FILE_SIZE: u64 = 1024 * 1024;

/// The log of one container.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    current: Option<File>,
    length: u64,
    generation: u64,
    dropped: u64,
}

/// A place in a log: before the byte at `offset` of the file of this generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Which file.
    pub generation: u64,
    /// In bytes.
    pub offset: u64,
}

impl Log {
    /// The log that is kept in this folder, which need not be there.
    pub fn new(directory: PathBuf) -> Self {
        // The generation before is that of `previous`.
        Self { directory, current: None, length: 0, generation: 1, dropped: 0 }
    }

    /// How many lines were dropped and not told of yet.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Appends records, or drops all of them.
    pub fn append(&mut self, records: &[u8], now_us: u64) -> io::Result<()> {
        let appended = self.try_append(records, now_us);
        if appended.is_err() {
            let lines = records.iter().filter(|byte| **byte == b'\n').count();
            self.dropped = self.dropped.saturating_add(u64::try_from(lines).unwrap_or(u64::MAX));
        }
        appended
    }

    fn try_append(&mut self, records: &[u8], now_us: u64) -> io::Result<()> {
        self.open()?;
        if self.length > 0 && self.length.saturating_add(records.len() as u64) > FILE_SIZE {
            self.rotate()?;
        }
        if self.dropped > 0 {
            let text =
                format!("berth: {} lines were dropped here, there was no room for them on the disk", self.dropped);
            let mut notice = Vec::new();
            let line = Line { time_us: now_us, stream: Stream::Stderr, partial: false, text: text.as_bytes() };
            line.write(&mut notice);
            self.write(&notice)?;
            self.dropped = 0;
        }
        self.write(records)
    }

    /// All or nothing.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &self.current else { return Err(io::ErrorKind::NotFound.into()) };
        match file.write_all_at(bytes, self.length) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // If even this fails the file ends in half a record, which readers take for no line.
                let _ = file.set_len(self.length);
                Err(error)
            }
        }
    }

    fn open(&mut self) -> io::Result<()> {
        if self.current.is_some() {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(self.path())?;
        self.length = whole_records(&file)?;
        file.set_len(self.length)?;
        self.current = Some(file);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        fs::rename(self.path(), self.directory.join("previous"))?;
        self.current = None;
        self.length = 0;
        self.generation += 1;
        self.open()
    }

    fn path(&self) -> PathBuf {
        self.directory.join("current")
    }

    /// Behind the last record.
    pub fn end(&mut self) -> Position {
        // What cannot be opened is empty.
        let _ = self.open_existing();
        Position { generation: self.generation, offset: self.length }
    }

    /// Before the first record.
    fn beginning(&self) -> Position {
        Position { generation: self.generation - 1, offset: 0 }
    }

    /// Opens what is there and makes nothing.
    fn open_existing(&mut self) -> io::Result<()> {
        if self.path().exists() { self.open() } else { Ok(()) }
    }

    /// The file of a generation, to read; `None` if it is gone or was never there.
    pub fn file(&self, generation: u64) -> Option<File> {
        match self.generation.checked_sub(generation) {
            Some(0) => self.current.as_ref().and_then(|file| file.try_clone().ok()),
            Some(1) => File::open(self.directory.join("previous")).ok(),
            _ => None,
        }
    }

    /// Where to begin reading so that at most `tail` records come, none of them older than `since_us`.
    pub fn find(&mut self, tail: Option<u64>, since_us: Option<u64>) -> Position {
        let end = self.end();
        let mut start = self.beginning();
        if tail.is_none() && since_us.is_none() {
            return start;
        }
        let mut missing = tail;
        for generation in [end.generation, end.generation - 1] {
            let limit = if generation == end.generation { end.offset } else { FILE_SIZE };
            let bytes = self.file(generation).and_then(|file| read_up_to(&file, limit).ok()).unwrap_or_default();
            let offset = first_wanted(&bytes, &mut missing, since_us);
            start = Position { generation, offset };
            if offset > 0 || missing == Some(0) {
                break;
            }
        }
        start
    }
}

/// From the end of a file backwards: where the first record begins that is wanted. Takes from `missing`.
fn first_wanted(bytes: &[u8], missing: &mut Option<u64>, since_us: Option<u64>) -> u64 {
    let mut start = bytes.len();
    while start > 0 && *missing != Some(0) {
        let before = bytes.get(..start - 1).unwrap_or_default();
        let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let record = bytes.get(begin..start - 1).unwrap_or_default();
        let old = since_us.is_some_and(|since| Line::parse(record).is_ok_and(|line| line.time_us < since));
        if old {
            *missing = Some(0);
            break;
        }
        start = begin;
        if let Some(missing) = missing {
            *missing -= 1;
        }
    }
    start as u64
}

fn read_up_to(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len().min(limit);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The length of a file up to its last line break: power may have failed in the middle of a record.
fn whole_records(file: &File) -> io::Result<u64> {
    let bytes = read_up_to(file, FILE_SIZE.saturating_mul(2))?;
    Ok(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn text(log: &Log, position: Position) -> String {
        let mut text = String::new();
        let mut offset = position.offset as usize;
        for generation in position.generation..=log.generation {
            let mut content = String::new();
            if let Ok(mut file) =
                File::open(log.directory.join(if generation == log.generation { "current" } else { "previous" }))
            {
                file.read_to_string(&mut content).unwrap();
            }
            text.push_str(&content[offset.min(content.len())..]);
            offset = 0;
        }
        text
    }

    fn log() -> (tempfile::TempDir, Log) {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::new(directory.path().join("web"));
        (directory, log)
    }

    #[test]
    fn the_last_lines_are_found_across_both_files() {
        let (_directory, mut log) = log();
        log.append(b"1 o a\n2 o b\n", 0).unwrap();
        log.rotate().unwrap();
        log.append(b"3 o c\n4 o d\n", 0).unwrap();
        for (tail, expected) in [(0, ""), (1, "4 o d\n"), (2, "3 o c\n4 o d\n"), (3, "2 o b\n3 o c\n4 o d\n")] {
            let position = log.find(Some(tail), None);
            assert_eq!(text(&log, position), expected, "{tail}");
        }
        let all = log.find(Some(99), None);
        assert_eq!(text(&log, all), "1 o a\n2 o b\n3 o c\n4 o d\n");
        let all = log.find(None, None);
        assert_eq!(text(&log, all), "1 o a\n2 o b\n3 o c\n4 o d\n");
    }

    #[test]
    fn lines_since_a_moment_are_found() {
        let (_directory, mut log) = log();
        log.append(b"1 o a\n2 o b\n", 0).unwrap();
        log.rotate().unwrap();
        log.append(b"3 o c\n4 o d\n", 0).unwrap();
        for (since, tail, expected) in [
            (4, None, "4 o d\n"),
            (3, None, "3 o c\n4 o d\n"),
            (2, None, "2 o b\n3 o c\n4 o d\n"),
            (1, Some(1), "4 o d\n"),
            (9, None, ""),
        ] {
            let position = log.find(tail, Some(since));
            assert_eq!(text(&log, position), expected, "{since}");
        }
    }

    #[test]
    fn a_log_never_has_more_than_two_files_of_the_limit() {
        let (directory, mut log) = log();
        let record = format!("1 o {}\n", "x".repeat(1019));
        for _ in 0..5_000 {
            log.append(record.as_bytes(), 0).unwrap();
        }
        let sizes: Vec<u64> = fs::read_dir(directory.path().join("web"))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len(), 2);
        assert!(sizes.iter().all(|size| *size <= FILE_SIZE) && sizes.contains(&FILE_SIZE), "{sizes:?}");
    }

    #[test]
    fn what_a_power_cut_left_of_a_record_is_taken_off() {
        let (directory, mut log) = log();
        log.append(b"1 o a\n", 0).unwrap();
        let path = directory.path().join("web/current");
        fs::write(&path, b"1 o a\n2 o hal").unwrap();
        let mut log = Log::new(directory.path().join("web"));
        log.append(b"3 o c\n", 0).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "1 o a\n3 o c\n");
    }

    #[test]
    fn what_was_dropped_is_counted_and_told() {
        let (directory, mut log) = log();
        // A file where the folder should be.
        fs::write(directory.path().join("web"), "").unwrap();
        assert!(log.append(b"1 o a\n2 o b\n", 0).is_err());
        assert!(log.append(b"3 o c\n", 0).is_err());
        assert_eq!(log.dropped(), 3);
        fs::remove_file(directory.path().join("web")).unwrap();
        log.append(b"4 o d\n", 9).unwrap();
        assert_eq!(log.dropped(), 0);
        let kept = fs::read_to_string(directory.path().join("web/current")).unwrap();
        assert!(kept.starts_with("9 e berth: 3 lines were dropped") && kept.ends_with("\n4 o d\n"), "{kept}");
    }
}
