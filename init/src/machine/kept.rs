//! What the next boot is to know of the containers: who stays stopped, and which were made by hand.
//!
//! A task writes it when it has changed, one at a time, so that the last one is the newest. What could not be written is a
//! problem of the machine and is written again after a pause. The way down kills the tasks that are under way: the last
//! task of all ([`crate::shutdown::unmount`]) begins with what they have not written.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Machine;
use super::work::Work;
use crate::made::{self, Kept};
use crate::task::{Task, TaskError};
use crate::{chain, stopped};

/// Until the next try: a full disk may have room by then, and one that is broken costs little.
const PAUSE: Duration = Duration::from_secs(30);

/// What is to be written is not.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Unkept {
    /// In one sentence.
    reason: String,
    /// When it is tried again, on [`crate::clock`].
    again: Duration,
}

/// What is to be written; the rest is as it was.
#[derive(Debug)]
pub(super) struct Pending {
    stopped: Option<BTreeSet<String>>,
    made: Option<Kept>,
}

impl Pending {
    /// Runs in a task; the reason if that fails.
    pub(super) fn write(self, folder: &Path) -> Option<String> {
        let stopped = self.stopped.map(|names| stopped::write(&folder.join(stopped::NAME), &names));
        let made = self.made.map(|kept| made::write(&folder.join(made::NAME), &kept));
        let problems: Vec<String> = [stopped, made].into_iter().flatten().filter_map(Result::err).collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }
}

impl Machine {
    /// Begins to write what has changed, if nobody is writing.
    pub(super) fn write_kept(&mut self) {
        let now = self.supervisor.now;
        let waits = self.facts.unkept.as_ref().is_some_and(|unkept| unkept.again > now);
        if waits || self.is_keeping() || self.is_unmounting() {
            return;
        }
        let Some(pending) = self.take_pending() else { return self.facts.unkept = None };
        let folder = self.folder.clone();
        if let Err(error) = self.start_task(|| Task::start(move || pending.write(&folder)).map(Work::Kept)) {
            self.kept(Some(not_written(&error)));
        }
    }

    /// When that is due again, after it has failed.
    pub(super) fn kept_due(&self) -> Option<Duration> {
        let unkept = self.facts.unkept.as_ref().filter(|_| !self.is_keeping() && !self.is_unmounting());
        unkept.map(|unkept| unkept.again)
    }

    /// It is written, or not.
    pub(super) fn kept(&mut self, problem: Option<String>) {
        self.facts.unkept = problem.map(|reason| {
            log::warn!("{reason}");
            let facts = &mut self.supervisor.facts;
            (facts.stopped_changed, facts.made_changed) = (true, true);
            Unkept { reason, again: self.supervisor.now.saturating_add(PAUSE) }
        });
    }

    /// For the machine's problems.
    pub(super) fn not_kept(&self) -> Option<String> {
        let again = PAUSE.as_secs();
        self.facts.unkept.as_ref().map(|unkept| format!("{}; tried again every {again} s", unkept.reason))
    }

    /// What nobody has written yet, for the last task.
    pub(super) fn take_unwritten(&mut self) -> Option<Pending> {
        if self.is_keeping() {
            let facts = &mut self.supervisor.facts;
            (facts.stopped_changed, facts.made_changed) = (true, true);
        }
        self.take_pending()
    }

    fn take_pending(&mut self) -> Option<Pending> {
        let facts = &mut self.supervisor.facts;
        // What has not been read is not to be replaced.
        if !facts.made_known || !(facts.stopped_changed || facts.made_changed) {
            return None;
        }
        let stopped = std::mem::take(&mut facts.stopped_changed).then(|| facts.stopped.clone());
        let made = std::mem::take(&mut facts.made_changed).then(|| self.supervisor.kept());
        Some(Pending { stopped, made })
    }

    fn is_keeping(&self) -> bool {
        self.tasks.values().any(|work| matches!(work, Work::Kept(_)))
    }

    fn is_unmounting(&self) -> bool {
        self.facts.shutdown.as_ref().is_some_and(crate::shutdown::Shutdown::is_unmounting)
    }
}

/// Why nothing is written, if that was not even tried.
pub(super) fn not_written(error: &TaskError) -> String {
    format!("write down what the next boot is to know: {}", chain(error))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::reactor::Token;

    fn machine(folder: &Path) -> Machine {
        let mut machine = Machine::new().unwrap();
        machine.folder = folder.to_owned();
        machine.supervisor.restore_made(Vec::new());
        machine.supervisor.facts.stopped.insert("web".to_owned());
        machine
    }

    /// The task that writes ends.
    fn end(machine: &mut Machine) {
        while machine.is_keeping() {
            for token in machine.reactor.wait(Some(Duration::from_secs(60))).unwrap() {
                if let Token::Task(number) = token {
                    machine.handle_task(number);
                }
            }
        }
    }

    #[test]
    fn what_could_not_be_written_is_told_and_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let later = folder.path().join("later");
        let mut machine = machine(&later);
        machine.supervisor.facts.stopped_changed = true;
        machine.write_kept();
        assert_eq!(machine.kept_due(), None, "it is being written");
        end(&mut machine);
        let due = machine.kept_due().unwrap();
        assert_eq!(due, machine.supervisor.now + PAUSE);
        let told = machine.all_problems().into_iter().find(|problem| problem.contains("tried again every 30 s"));
        assert!(told.unwrap().starts_with("keep which containers were stopped by hand in"));
        std::fs::create_dir(&later).unwrap();
        machine.write_kept();
        assert!(!machine.is_keeping(), "not before it is due");
        machine.supervisor.now = due;
        machine.write_kept();
        end(&mut machine);
        assert_eq!((machine.kept_due(), machine.not_kept()), (None, None));
        assert_eq!(std::fs::read(later.join(stopped::NAME)).unwrap(), b"web\n");
        assert_eq!(made::read(&later.join(made::NAME)), Ok(Kept::default()));
        machine.write_kept();
        assert!(!machine.is_keeping(), "there is nothing more to write");
    }

    #[test]
    fn the_last_task_writes_what_the_others_have_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut machine = machine(folder.path());
        assert!(machine.take_unwritten().is_none());
        // One whose disk does not answer.
        let (disk, theirs) = UnixStream::pair().unwrap();
        let work = move || (&theirs).read_to_end(&mut Vec::new()).err().map(|error| error.to_string());
        machine.start_task(|| Task::start(work).map(Work::Kept)).unwrap();
        for _ in 0..2 {
            let unwritten = machine.take_unwritten().unwrap();
            assert_eq!(unwritten.write(folder.path()), None);
            assert_eq!(std::fs::read(folder.path().join(stopped::NAME)).unwrap(), b"web\n");
            std::fs::remove_file(folder.path().join(stopped::NAME)).unwrap();
        }
        disk.shutdown(std::net::Shutdown::Both).unwrap();
        end(&mut machine);
        machine.supervisor.facts.stopped_changed = true;
        assert!(machine.take_unwritten().unwrap().made.is_none(), "one that waits for its turn");
        assert!(machine.take_unwritten().is_none());
    }
}
