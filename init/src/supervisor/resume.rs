//! The containers in the next program of PID 1: see [`crate::handover`].

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use berth_control::message::{FromInit, Notice};
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};

use super::Supervisor;
use super::container::{Container, State};
use crate::machine::watched;
use crate::reactor::Token;

/// The trees of containers.
const TREES: [&str; 2] = ["/sys/fs/cgroup/system", "/sys/fs/cgroup/user"];

impl Supervisor {
    /// Waits for everything that the last program has waited for.
    pub fn watch_again(&mut self) {
        for (id, container) in self.containers.iter() {
            match &container.state {
                State::Creating { creating: Some(creating), .. } => {
                    watched(self.reactor.add(creating, Token::Setup(*id)));
                }
                State::Executing { running, .. } => watched(self.reactor.add(running.report(), Token::Setup(*id))),
                _ => {}
            }
            if let Some(peer) = &container.peer {
                watched(self.reactor.add(peer, Token::Channel(*id)));
                watched(self.reactor.watch_room(peer, Token::Channel(*id), peer.is_waiting()));
            }
            if let Some(session) = &container.session {
                watched(self.reactor.add(session, Token::Session(*id)));
            }
            if let Some(awaited) = &container.awaited {
                watched(awaited.watch(&self.reactor, *id));
            }
            if let Some(output) = container.health.as_ref().and_then(super::health::Health::output) {
                // One that has ended is looked at once more. The file of an earlier program cannot be waited for.
                let _ = self.reactor.add(output, Token::Health(*id));
            }
            if let Some(connection) = container.health.as_ref().and_then(super::health::Health::connection) {
                watched(super::health::watch(&self.reactor, connection, *id));
            }
        }
        for (number, execution) in self.executions.iter() {
            if let Some(report) = execution.report() {
                watched(self.reactor.add(report, Token::Execution(*number)));
            }
        }
    }

    /// Puts right what a crash in the middle of a round has left: containers that were begun but not written down, and
    /// ends that the last program has seen but not written down.
    pub fn put_right(&mut self) {
        let unknown = || "ended while PID 1 was executed anew".to_owned();
        let first = self.containers.values().filter_map(Container::pid);
        let executed = self.executions.values().filter_map(super::Execution::pid);
        let gone: Vec<i32> = first.chain(executed).filter(|pid| is_reaped(*pid)).collect();
        for pid in gone {
            self.process_ended(pid, 255, unknown());
        }
        let alive = self.containers.values().filter(|container| container.may_have_processes());
        let known: BTreeSet<PathBuf> = alive.map(|container| container.cgroup.clone()).collect();
        for cgroup in TREES.into_iter().flat_map(|tree| folders(Path::new(tree))) {
            if !known.contains(&cgroup) && !self.facts.leftovers.contains(&cgroup) {
                self.facts.leftovers.push(cgroup);
            }
        }
    }

    /// Tells the system containers that what they have asked or told last may be lost, and what they may have missed.
    pub fn catch_up(&mut self) {
        for id in self.containers.numbers() {
            let Some(container) = self.containers.get(id) else { continue };
            if container.peer.is_none() {
                continue;
            }
            let ready = container.ready;
            self.send(id, FromInit::Notice(Notice::Resumed), &[]);
            if ready {
                self.bring_up_to_date(id);
            }
        }
    }
}

/// Whether a process that was our child is none any more: it has ended, and the last program knew.
fn is_reaped(pid: i32) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    matches!(waitid(Id::Pid(nix::unistd::Pid::from_raw(pid)), flags), Err(Errno::ECHILD))
}

fn folders(tree: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(tree).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}
