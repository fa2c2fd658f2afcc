//! The next program in the same process: what the last one has written down, and the descriptors that it has left.

use std::cell::Cell;
use std::os::fd::{AsRawFd, RawFd};

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::sys::crash;

/// What a program has written down of its containers.
#[derive(Debug, PartialEq)]
pub struct Record {
    configuration: (Configuration, berth_config::Locations),
    facts: String,
    pub containers: BTreeMap<u32, String>,
    executions: BTreeMap<u32, String>,
    next: (u32, u32),
}

/// Gives this thread descriptors of its own, once, so that the other tests' are not in the way.
pub fn be_alone() {
    thread_local!(static ALONE: Cell<bool> = const { Cell::new(false) });
    if ALONE.replace(true) {
        return;
    }
    unshare(CloneFlags::CLONE_FILES).unwrap();
    // EBADF: the folder that was listed.
    numbers().for_each(|number| nix::unistd::close(number).unwrap_or_default());
}

/// Of this thread's descriptors, but for the first three.
fn numbers() -> impl Iterator<Item = RawFd> {
    let names = std::fs::read_dir("/proc/thread-self/fd").unwrap().map(|entry| entry.unwrap().file_name());
    let numbers: Vec<RawFd> = names.map(|name| name.to_str().unwrap().parse().unwrap()).collect();
    numbers.into_iter().filter(|number| *number > 2)
}

impl World {
    /// At the end of a round.
    pub fn write_down(&self) -> Record {
        fn texts<T: serde::Serialize>(registry: &Registry<T>) -> BTreeMap<u32, String> {
            registry.iter().map(|(number, entry)| (*number, serde_json::to_string(entry).unwrap())).collect()
        }
        let supervisor = &self.supervisor;
        let (containers, executions) = (texts(&supervisor.containers), texts(&supervisor.executions));
        drop(berth_runtime::handover::take_dropped());
        let next = (supervisor.containers.next(), supervisor.executions.next());
        let configuration = (supervisor.configuration.clone(), supervisor.locations.clone());
        Record { configuration, facts: serde_json::to_string(&supervisor.facts).unwrap(), containers, executions, next }
    }

    /// The next program begins; `others` are the test's own descriptors. After [`be_alone`].
    pub fn resume(&mut self, record: &Record, others: &[RawFd]) {
        fn entries<T: serde::de::DeserializeOwned>(texts: &BTreeMap<u32, String>, next: u32) -> Registry<T> {
            let read = texts.iter().map(|(number, text)| (*number, serde_json::from_str(text).ok()));
            Registry::restore(read.collect(), next)
        }
        let own = self.services.each_ref().map(|(_, channel)| channel.as_raw_fd());
        let own = [&own[..], &[self.ended.as_raw_fd()], others].concat();
        let mut next = Supervisor::new(Rc::new(Reactor::new().unwrap()));
        std::mem::swap(&mut next, &mut self.supervisor);
        let Supervisor { reactor, containers, executions, facts, now, wall, launcher, .. } = next;
        // What the last program has closed by its exec, and nothing else.
        drop(reactor);
        std::mem::forget((containers, executions, facts, berth_runtime::handover::take_dropped()));
        crash::close_on_exec(numbers().max().unwrap(), false);
        let supervisor = &mut self.supervisor;
        supervisor.reactor = Rc::new(Reactor::new().unwrap());
        (supervisor.configuration, supervisor.locations) = record.configuration.clone();
        (supervisor.now, supervisor.wall, supervisor.launcher) = (now, wall, launcher);
        supervisor.facts = serde_json::from_str(&record.facts).unwrap();
        supervisor.containers = entries(&record.containers, record.next.0);
        supervisor.executions = entries(&record.executions, record.next.1);
        numbers()
            .filter(|number| !own.contains(number))
            .for_each(|number| drop(berth_runtime::handover::adopt(number)));
        supervisor.watch_again();
    }
}
