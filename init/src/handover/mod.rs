//! How PID 1 becomes its next program: at `berth reexec`, and after a defect.
//!
//! ```text
//!  each round of the loop: what has changed ──▶ record (a memfd)
//!  reexec, panic, SIGSEGV … ──▶ seal the record, keep descriptors, execve(/proc/self/exe) ──▶ resume
//!  reexec of another program ──▶ it says that it takes over [`FORMAT`] ──▶ the same with it
//! ```
//! execve(2) leaves the process its children, its descriptors and its place as process 1. What they mean is in the
//! [`record`], which is complete at the end of each round; a defect in the middle of a round loses that round, and
//! [`resume`] puts right what it had begun. Programs that crash one after the other end in [`minimal`].

pub mod minimal;
pub mod record;
pub mod resume;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use self::record::{Batch, Key, Record};
use crate::sys::crash::{self, Way};

/// The argument that tells a program that it is not the first one; the record's number follows.
pub const RESUME: &str = "--resume";

/// What another program is asked with before it takes over, as its only argument.
pub const ASK: &str = "--takes-over";

/// What it answers on its standard output, followed by its [`FORMAT`].
pub const ANSWER: &str = "berth handover format";

/// Of the record. One more whenever a program that knows the earlier one could not go on with what is written.
pub const FORMAT: u32 = 2;

/// So many defects within [`LOOP_TIME`] are a loop.
const LOOP: usize = 4;

/// See [`LOOP`].
const LOOP_TIME: Duration = Duration::from_secs(120);

/// Why a program ended that did not want to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    /// When the next one began, on [`crate::clock`].
    pub noticed: Duration,
    /// A signal's name, or what the panic said.
    pub reason: String,
}

/// Reads what has descriptors and may have closed them in the round that the defect has ended, which the record does not know
/// of: what cannot be taken over is not there any more, and nothing else is lost with it. For `deserialize_with`.
pub fn if_there<'de, D: Deserializer<'de>, T: DeserializeOwned>(written: D) -> Result<Option<T>, D::Error> {
    let written = Option::<serde_json::Value>::deserialize(written)?;
    Ok(written.and_then(|value| serde_json::from_value(value).ok()))
}

/// The same of several.
pub fn those_there<'de, D, T>(written: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let written = BTreeMap::<String, serde_json::Value>::deserialize(written)?;
    let there = written.into_iter().filter_map(|(name, value)| Some((name, serde_json::from_value(value).ok()?)));
    Ok(there.collect())
}

/// Whether these defects follow so close on one another that the next program would have the same.
pub fn is_loop(crashes: &[Crash], now: Duration) -> bool {
    crashes.iter().filter(|crash| now.saturating_sub(crash.noticed) < LOOP_TIME).count() >= LOOP
}

/// The record of this program, and what is not written again because it is as it was.
#[derive(Debug)]
pub struct Handover {
    record: Record,
    /// Always the same number, whichever file the record is in.
    slot: OwnedFd,
    machine: Vec<u8>,
    /// How many steps of the timeline are in the record.
    pub(crate) steps: usize,
    /// What the next program has to know of defects.
    crashes: Vec<Crash>,
    /// Whether it has to be written anew as a whole: something is missing in it, or it was sealed in vain.
    stale: bool,
}

impl Handover {
    /// Begins the record with what the last program has left, if anything, and from now on takes a defect for a reason to
    /// become the next program.
    pub fn begin(crashes: Vec<Crash>, inherited: &BTreeMap<Key, Vec<u8>>) -> nix::Result<Self> {
        let mut handover = Self::new(crashes)?;
        let slot = handover.slot.as_raw_fd();
        let arguments = ["init", RESUME, &slot.to_string()];
        let arguments = arguments.into_iter().filter_map(|text| CString::new(text).ok()).collect();
        let last_words = crash::SIGNALS.iter().map(|(number, name)| (*number, last_words(name))).collect();
        crash::arm(Way::new(slot, berth_runtime::handover::highest, arguments, last_words)?)?;
        let mut batch = Batch::default();
        inherited.iter().for_each(|(key, json)| batch.put_text(*key, json));
        handover.put_crashes(&mut batch);
        handover.commit(&batch);
        Ok(handover)
    }

    fn new(crashes: Vec<Crash>) -> nix::Result<Self> {
        let record = Record::new()?;
        let slot = record.as_fd().try_clone_to_owned().map_err(|_| nix::Error::last())?;
        Ok(Self { record, slot, machine: Vec::new(), steps: 0, crashes, stale: false })
    }

    fn put_crashes(&self, batch: &mut Batch) {
        for (number, crash) in (0..).zip(&self.crashes) {
            batch.put(Key::Crash(number), crash);
        }
    }

    /// The record is of no use any more: the next one is going to be a new one.
    pub fn spoil(&mut self) {
        self.stale = true;
    }

    /// The beginning of a batch; `true` if all that there is has to follow, as it is going to be a record of its own.
    pub fn begin_batch(&mut self) -> (Batch, bool) {
        let mut batch = Batch::default();
        if self.stale {
            (self.machine, self.steps) = (Vec::new(), 0);
            self.put_crashes(&mut batch);
        }
        (batch, self.stale)
    }

    /// What has happened to the programs before this one.
    pub fn crashes(&self) -> &[Crash] {
        &self.crashes
    }

    /// Adds what is told of the machine, unless it is what was told before.
    pub fn put_machine(&mut self, batch: &mut Batch, machine: &impl Serialize) {
        let text = serde_json::to_vec(machine).unwrap_or_default();
        if text != self.machine && !text.is_empty() {
            batch.put_text(Key::Machine, &text);
            self.machine = text;
        }
    }

    /// Writes the batch; what was dropped is closed then, and not before. A record that cannot be written is told of; the
    /// machine runs on without.
    pub fn commit(&mut self, batch: &Batch) {
        match self.write(batch) {
            Ok(()) => drop(berth_runtime::handover::take_dropped()),
            Err(error) => {
                log::error!("write down what the next program is to know: {error}");
                self.spoil();
            }
        }
    }

    fn write(&mut self, batch: &Batch) -> std::io::Result<()> {
        if self.stale {
            let mut record = Record::new()?;
            record.write(batch)?;
            self.replace(record)?;
            self.stale = false;
        } else {
            self.record.write(batch)?;
            if self.record.is_wasteful() {
                self.replace(self.record.renewed()?)?;
            }
        }
        crash::set_end(self.record.length());
        Ok(())
    }

    fn replace(&mut self, record: Record) -> nix::Result<()> {
        nix::unistd::dup3(record.as_fd(), &mut self.slot, nix::fcntl::OFlag::O_CLOEXEC)?;
        self.record = record;
        Ok(())
    }
}

/// The entry that says why a program ended, ready to be written.
fn last_words(reason: &str) -> Vec<u8> {
    let mut batch = Batch::default();
    batch.put(Key::LastWords, &reason);
    batch.bytes().to_vec()
}

/// Becomes the next program because this one has a defect. Returns if that is not possible.
pub fn leave_after_defect(reason: &str) {
    let error = crash::leave(&last_words(reason), None);
    log::error!("PID 1 cannot execute itself anew: {error}");
}

/// Becomes the next program because somebody wants it, another one if there is one. Returns the reason if that is not
/// possible.
pub fn leave(program: Option<OwnedFd>) -> nix::Error {
    crash::leave(&[], program.as_ref().map(AsFd::as_fd))
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use berth_runtime::handover::Descriptor;

    use super::*;

    #[test]
    fn what_was_closed_in_the_round_of_a_defect_takes_nothing_else_along() {
        #[derive(Deserialize)]
        struct Facts {
            #[serde(deserialize_with = "those_there")]
            waiting: BTreeMap<String, Descriptor>,
            #[serde(default, deserialize_with = "if_there")]
            timer: Option<Descriptor>,
            more: u32,
        }
        // As the last program leaves them: one is open over execve(2), one is not there any more.
        let open = || nix::unistd::dup(std::io::pipe().unwrap().0).unwrap().into_raw_fd();
        let closed = i32::MAX;
        let written = serde_json::json!({ "waiting": { "a": open(), "b": closed }, "timer": closed, "more": 1 });
        let facts: Facts = serde_json::from_value(written).unwrap();
        assert_eq!((facts.waiting.into_keys().collect::<Vec<_>>(), facts.more), (vec!["a".to_owned()], 1));
        assert!(facts.timer.is_none());
        let facts: Facts =
            serde_json::from_value(serde_json::json!({ "waiting": {}, "timer": open(), "more": 2 })).unwrap();
        assert!(facts.timer.is_some());
    }

    /// A record that ends as at an exec, which then fails.
    fn seal(handover: &Handover) {
        use nix::fcntl::{FcntlArg, SealFlag, fcntl};
        let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        fcntl(&handover.slot, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    }

    #[test]
    fn a_record_that_was_sealed_in_vain_is_written_anew_as_a_whole() {
        let crash = Crash { noticed: Duration::ZERO, reason: "SIGSEGV".into() };
        let mut handover = Handover::new(vec![crash]).unwrap();
        let put = |handover: &mut Handover, number| {
            let (mut batch, everything) = handover.begin_batch();
            handover.put_machine(&mut batch, &"same");
            batch.put(Key::Container(number), &number);
            handover.commit(&batch);
            everything
        };
        assert!(!put(&mut handover, 1));
        seal(&handover);
        assert!(!put(&mut handover, 2));
        assert!(put(&mut handover, 3));
        assert!(!put(&mut handover, 4));
        let mut file = std::fs::File::from(handover.slot.try_clone().unwrap());
        std::io::Seek::rewind(&mut file).unwrap();
        let keys: Vec<Key> = record::read(file).unwrap().into_keys().collect();
        assert_eq!(keys, [Key::Machine, Key::Container(3), Key::Container(4), Key::Crash(0)]);
    }

    #[test]
    fn defects_that_are_far_apart_are_no_loop() {
        let crash = |seconds| Crash { noticed: Duration::from_secs(seconds), reason: "SIGSEGV".into() };
        let now = Duration::from_secs(1000);
        assert!(!is_loop(&[crash(100), crash(300), crash(998), crash(999)], now));
        assert!(!is_loop(&[crash(997), crash(998), crash(999)], now));
        assert!(is_loop(&[crash(950), crash(960), crash(998), crash(999)], now));
    }
}
