//! The beginning of a program that is not PID 1's first one.

use std::collections::BTreeMap;
use std::fs::File;

use berth_control::message::Reply;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

use super::record::{self, Key};
use super::{Crash, RESUME, is_loop};
use crate::clock;
use crate::command_line::CommandLine;
use crate::machine::{Machine, SIGNALS};

/// What the last program has left.
#[derive(Debug)]
pub struct Inheritance {
    entries: BTreeMap<Key, Vec<u8>>,
    /// The defects so far; the last one is why this program began, if `crashed`.
    pub crashes: Vec<Crash>,
    /// Whether the last program had a defect.
    pub crashed: bool,
}

/// A program that cannot go on as PID 1 is to.
#[derive(Debug)]
pub struct Hopeless {
    /// Why, in one sentence.
    pub reason: String,
    /// The defects so far.
    pub crashes: Vec<Crash>,
    /// What the last program has left, as far as that can be tried again.
    pub entries: BTreeMap<Key, Vec<u8>>,
}

/// The number of the record, if the arguments say that there is one.
pub fn record_number() -> Option<i32> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == RESUME).then(|| arguments.next()?.to_str()?.parse().ok())?
}

/// Reads what the last program has left.
pub fn inherit(number: i32) -> Result<Inheritance, Hopeless> {
    let fail = |reason: String| Hopeless {
        reason: format!("read what the last program has left: {reason}"),
        crashes: Vec::new(),
        entries: BTreeMap::new(),
    };
    // An exec out of a signal handler leaves that signal blocked. What PID 1 acts on stays so: it may have come just now.
    let mask: SigSet = SIGNALS.into_iter().collect();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None).map_err(|error| fail(error.to_string()))?;
    let record = berth_runtime::handover::adopt(number).map_err(|error| fail(error.to_string()))?;
    let mut entries = record::read(File::from(record)).map_err(|error| fail(error.to_string()))?;
    let texts = entries.extract_if(.., |key, _| matches!(key, Key::Crash(_)));
    let mut crashes: Vec<Crash> = texts.filter_map(|(_, json)| serde_json::from_slice(&json).ok()).collect();
    let last_words = entries.remove(&Key::LastWords).and_then(|json| serde_json::from_slice(&json).ok());
    let crashed = last_words.is_some();
    let now = clock::since_boot();
    crashes.extend(last_words.map(|reason| Crash { noticed: now, reason }));
    if crashed && is_loop(&crashes, now) {
        return Err(Hopeless { reason: "PID 1 crashes again and again".to_owned(), crashes, entries });
    }
    Ok(Inheritance { entries, crashes, crashed })
}

/// Goes on where the last program was.
pub fn resume(machine: &mut Machine, inheritance: Inheritance) -> Result<(), Hopeless> {
    let Inheritance { entries, crashes, crashed } = inheritance;
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    machine.command_line = CommandLine::parse(&line);
    let start_us = clock::microseconds();
    let last = crashes.last().filter(|_| crashed).map(|crash| crash.reason.clone());
    machine.begin_handover(crashes.clone(), &entries);
    if let Err(reason) = machine.take_over(entries) {
        let reason = format!("take over from the last program: {reason}");
        return Err(Hopeless { reason, crashes, entries: BTreeMap::new() });
    }
    close_unclaimed();
    machine.watch_again();
    if let Err(error) = machine.watch_power_buttons().and(machine.watch_devices()) {
        log::error!("watch power buttons and devices: {error}");
    }
    if let Err(error) = machine.watch_pressure() {
        log::error!("watch the memory of user containers: {error}");
    }
    // Before the news of a defect, after which nobody waits for answers any more.
    machine.answer_reexecution(&Reply::Done);
    machine.reap();
    machine.supervisor.put_right();
    crate::boot::declare_missing(machine);
    if crashed {
        machine.supervisor.catch_up();
    }
    let kept = machine.supervisor.list().iter().filter(|container| container.pid().is_some()).count();
    let cause = last.map_or_else(|| "as was wanted".to_owned(), |reason| format!("after a defect ({reason})"));
    machine.timeline.record("execute PID 1 anew", start_us, Ok(format!("{cause}; {kept} containers run on")));
    // A disk may have come in between.
    machine.look_for_user_data();
    Ok(())
}

/// Closes what nobody has taken over: descriptors of the last program that it did not write down.
fn close_unclaimed() {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers {
        // EBADF: it is ours.
        drop(berth_runtime::handover::adopt(number));
    }
}
