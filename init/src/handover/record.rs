//! What the next program is to know, written down as it changes: a file in memory that outlives this one.
//!
//! Entries are appended, and the last one of a key counts; an entry without content means that there is none any more.
//! What is written together is one write(2), so a crash finds all of it or nothing. A file that has grown to twice what
//! is valid in it is written anew.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Serialize;

/// Key and length of an entry: kind, number, length.
const HEADER: usize = 12;

/// Below this size a file is not worth writing anew, in bytes.
const SMALL: u64 = 256 * 1024;

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// What there is one of.
    Machine,
    /// What the configuration says.
    Configuration,
    /// The boot's steps.
    Timeline,
    /// The container with this number.
    Container(u32),
    /// The execution with this number.
    Execution(u32),
    /// The task with this number.
    Task(u32),
    /// Defects of programs before the one that wrote this.
    Crash(u32),
    /// The defect of the program that wrote this.
    LastWords,
}

impl Key {
    fn to_numbers(self) -> (u32, u32) {
        match self {
            Self::Machine => (0, 0),
            Self::Configuration => (1, 0),
            Self::Timeline => (2, 0),
            Self::Container(number) => (3, number),
            Self::Execution(number) => (4, number),
            Self::Task(number) => (5, number),
            Self::Crash(number) => (6, number),
            Self::LastWords => (7, 0),
        }
    }

    fn from_numbers(kind: u32, number: u32) -> Option<Self> {
        match kind {
            0 => Some(Self::Machine),
            1 => Some(Self::Configuration),
            2 => Some(Self::Timeline),
            3 => Some(Self::Container(number)),
            4 => Some(Self::Execution(number)),
            5 => Some(Self::Task(number)),
            6 => Some(Self::Crash(number)),
            7 => Some(Self::LastWords),
            _ => None,
        }
    }
}

/// Entries that are going to be written together.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each content is in `bytes`.
    places: Vec<(Key, usize, usize)>,
}

impl Batch {
    /// This key has this content from now on. What cannot be written as JSON is left as it was, and logged: that is a
    /// defect, but only the next program misses it.
    pub fn put(&mut self, key: Key, content: &impl Serialize) {
        match serde_json::to_vec(content) {
            Ok(content) => self.put_text(key, &content),
            Err(error) => log::error!("write down {key:?}: {error}"),
        }
    }

    /// The same for content that is JSON already.
    pub fn put_text(&mut self, key: Key, content: &[u8]) {
        let (kind, number) = key.to_numbers();
        let length = u32::try_from(content.len()).unwrap_or_default();
        for number in [kind, number, length] {
            self.bytes.extend(number.to_le_bytes());
        }
        self.places.push((key, self.bytes.len(), content.len()));
        self.bytes.extend(content);
    }

    /// This key has no content any more.
    pub fn remove(&mut self, key: Key) {
        self.put_text(key, b"");
    }

    /// The entries as they are written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The file, and where in it what is valid is.
#[derive(Debug)]
pub struct Record {
    file: File,
    length: u64,
    valid: u64,
    places: BTreeMap<Key, (u64, usize)>,
}

impl Record {
    /// An empty one.
    pub fn new() -> nix::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create("berth-handover", flags)?);
        Ok(Self { file, length: 0, valid: 0, places: BTreeMap::new() })
    }

    /// Writes all of the batch or nothing of it.
    pub fn write(&mut self, batch: &Batch) -> std::io::Result<()> {
        if batch.bytes.is_empty() {
            return Ok(());
        }
        self.file.write_all_at(&batch.bytes, self.length)?;
        for (key, place, length) in &batch.places {
            let old = self.places.remove(key).map_or(0, |(_, length)| length + HEADER);
            self.valid = self.valid.saturating_sub(old as u64);
            if *length > 0 {
                self.places.insert(*key, (self.length + *place as u64, *length));
                self.valid += (*length + HEADER) as u64;
            }
        }
        self.length += batch.bytes.len() as u64;
        Ok(())
    }

    /// In bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether it is time for [`Self::renewed`].
    pub fn is_wasteful(&self) -> bool {
        self.length > SMALL && self.length > self.valid.saturating_mul(2)
    }

    /// A new file with what is valid in this one.
    pub fn renewed(&self) -> std::io::Result<Self> {
        let mut batch = Batch::default();
        for (key, (place, length)) in &self.places {
            let mut content = vec![0; *length];
            self.file.read_exact_at(&mut content, *place)?;
            batch.put_text(*key, &content);
        }
        let mut renewed = Self::new()?;
        renewed.write(&batch)?;
        Ok(renewed)
    }
}

impl AsFd for Record {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The valid entries of a file that another program has written. What a crash has cut off is left out.
pub fn read(mut file: File) -> std::io::Result<BTreeMap<Key, Vec<u8>>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut entries = BTreeMap::new();
    let mut rest = bytes.as_slice();
    while let Some((key, content, after)) = first_entry(rest) {
        rest = after;
        match key {
            Some(key) if content.is_empty() => drop(entries.remove(&key)),
            Some(key) => drop(entries.insert(key, content.to_vec())),
            // From a program that knows more than this one.
            None => {}
        }
    }
    Ok(entries)
}

fn first_entry(bytes: &[u8]) -> Option<(Option<Key>, &[u8], &[u8])> {
    let (kind, rest) = first_number(bytes)?;
    let (number, rest) = first_number(rest)?;
    let (length, rest) = first_number(rest)?;
    let (content, rest) = rest.split_at_checked(length as usize)?;
    Some((Key::from_numbers(kind, number), content, rest))
}

fn first_number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use super::*;

    fn entries(record: &Record) -> BTreeMap<Key, Vec<u8>> {
        let mut file = record.file.try_clone().unwrap();
        file.rewind().unwrap();
        read(file).unwrap()
    }

    fn write(record: &mut Record, fill: impl FnOnce(&mut Batch)) {
        let mut batch = Batch::default();
        fill(&mut batch);
        record.write(&batch).unwrap();
    }

    #[test]
    fn the_last_entry_of_a_key_counts() {
        let mut record = Record::new().unwrap();
        write(&mut record, |batch| {
            batch.put(Key::Machine, &1);
            batch.put(Key::Container(7), &"a");
            batch.put(Key::Container(8), &"b");
        });
        write(&mut record, |batch| {
            batch.put(Key::Container(7), &"c");
            batch.remove(Key::Container(8));
        });
        let expected = [(Key::Machine, b"1".to_vec()), (Key::Container(7), b"\"c\"".to_vec())];
        assert_eq!(entries(&record), BTreeMap::from(expected));
    }

    #[test]
    fn what_was_cut_off_is_left_out() {
        let mut record = Record::new().unwrap();
        write(&mut record, |batch| batch.put(Key::Machine, &"whole"));
        let whole = record.length;
        write(&mut record, |batch| batch.put(Key::Machine, &"torn"));
        for length in (whole..record.length).rev() {
            record.file.set_len(length).unwrap();
            assert_eq!(entries(&record)[&Key::Machine], b"\"whole\"", "{length}");
        }
    }

    #[test]
    fn a_file_that_was_written_anew_says_the_same() {
        let mut record = Record::new().unwrap();
        let long = "x".repeat(10_000);
        for number in 0..1000 {
            write(&mut record, |batch| {
                batch.put(Key::Container(number % 5), &(number, &long));
                batch.put(Key::Task(number), &number);
                batch.remove(Key::Task(number));
            });
            if record.is_wasteful() {
                let renewed = record.renewed().unwrap();
                assert_eq!(entries(&renewed), entries(&record));
                assert_eq!((renewed.valid, renewed.length), (record.valid, record.valid));
                record = renewed;
            }
        }
        assert!(record.length < SMALL * 2, "{}", record.length);
        assert_eq!(entries(&record).len(), 5);
    }

    #[test]
    fn every_key_survives_its_numbers() {
        use Key::{Configuration, Container, Crash, Execution, LastWords, Machine, Task, Timeline};
        let numbered = [Container(1), Execution(2), Task(u32::MAX), Crash(4)];
        for key in numbered.into_iter().chain([Machine, Configuration, Timeline, LastWords]) {
            let (kind, number) = key.to_numbers();
            assert_eq!(Key::from_numbers(kind, number), Some(key));
        }
    }
}
