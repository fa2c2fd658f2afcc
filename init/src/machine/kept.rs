//! What the next boot is to know of the containers: who stays stopped, and which were made by hand.
//!
//! A task writes it when it has changed, one at a time, so that the last one is the newest. What could not be written is a
//! problem of the machine and is written again after a pause. Who has asked for the change is answered when it is written, or
//! when that has failed or takes too long: it is done all the same. The way down kills the tasks that are under way: the last
//! task of all ([`crate::shutdown::unmount`]) begins with what they have not written.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use berth_runtime::handover::Descriptor;
use serde::{Deserialize, Serialize};

use super::Machine;
use super::work::Work;
use crate::made::{self, Kept};
use crate::supervisor::Applicant;
use crate::task::{Task, TaskError};
use crate::{chain, stopped};

/// Until the next try: a full disk may have room by then, and one that is broken costs little.
const PAUSE: Duration = Duration::from_secs(30);

/// So long an answer waits for the disk; a slow one writes a small file in this time, and one that does not is told of.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most answers that wait, each with a client behind it.
const MOST_HELD: usize = 128;

/// Answers to what has changed what is to be written.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Held {
    waiting: Vec<Waiting>,
    /// Whether the task that is under way has taken too long already.
    late: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Waiting {
    applicant: Applicant,
    /// What goes with the answer.
    #[serde(default, deserialize_with = "crate::handover::if_there")]
    descriptor: Option<Descriptor>,
    /// When it is answered at the latest, on [`crate::clock`].
    due: Duration,
    /// Whether the task that is under way writes it.
    written: bool,
}

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
        if self.is_keeping() {
            return self.answer_overdue(now);
        }
        if self.facts.unkept.as_ref().is_some_and(|unkept| unkept.again > now) || self.is_unmounting() {
            // The machine's problems say so, or the last task writes it.
            return self.answer_held(|_| true);
        }
        let Some(pending) = self.take_pending() else {
            self.facts.unkept = None;
            return self.answer_held(|_| true);
        };
        self.facts.held.waiting.iter_mut().for_each(|waiting| waiting.written = true);
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

    /// Answers somebody as soon as what has changed is written.
    pub(super) fn answer_when_kept(&mut self, applicant: Applicant, descriptor: Option<OwnedFd>) {
        let held = &mut self.facts.held;
        if held.late || held.waiting.len() >= MOST_HELD {
            return self.supervisor.hand_over(applicant, Ok(descriptor));
        }
        let due = self.supervisor.now.saturating_add(PATIENCE);
        held.waiting.push(Waiting { applicant, descriptor: descriptor.map(Into::into), due, written: false });
    }

    /// When an answer waits no longer.
    pub(super) fn answer_due(&self) -> Option<Duration> {
        self.facts.held.waiting.iter().map(|waiting| waiting.due).min()
    }

    fn answer_overdue(&mut self, now: Duration) {
        if self.facts.held.waiting.iter().any(|waiting| waiting.due <= now) {
            let patience = PATIENCE.as_secs();
            log::warn!(
                "what the next boot is to know was not written within {patience} s: it is answered for all the same"
            );
            self.facts.held.late = true;
            self.answer_held(|_| true);
        }
    }

    fn answer_held(&mut self, which: impl Fn(&Waiting) -> bool) {
        for Waiting { applicant, descriptor, .. } in self.facts.held.waiting.extract_if(.., |waiting| which(waiting)) {
            self.supervisor.hand_over(applicant, Ok(descriptor));
        }
    }

    /// It is written, or not.
    pub(super) fn kept(&mut self, problem: Option<String>) {
        self.facts.unkept = problem.map(|reason| {
            log::warn!("{reason}");
            let facts = &mut self.supervisor.facts;
            (facts.stopped_changed, facts.made_changed) = (true, true);
            Unkept { reason, again: self.supervisor.now.saturating_add(PAUSE) }
        });
        self.facts.held.late = false;
        self.answer_held(|waiting| waiting.written);
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

    use berth_control::channel::Channel;
    use berth_control::message::{Creation, Ending, FromInit, Interest, Reply, Request, ToInit};

    use super::*;
    use crate::reactor::Token;
    use crate::supervisor::world;

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

    /// A client of `control`, whose answers come here.
    struct Client(u32, Channel);

    impl Client {
        fn new(machine: &mut Machine) -> Self {
            let (id, channel) = world::service(&mut machine.supervisor, "control");
            Self(id, channel)
        }

        /// Asks for something; the answer if it has come.
        fn ask(&self, machine: &mut Machine, request: Request) -> Option<Reply> {
            self.1.send(&ToInit { id: 7, request }, &[]).unwrap();
            machine.supervisor.message(self.0).into_iter().for_each(|outcome| machine.carry_out(outcome));
            machine.write_kept();
            self.answer()
        }

        fn answer(&self) -> Option<Reply> {
            let mut received = std::iter::from_fn(|| self.1.receive::<FromInit>().ok());
            received.find_map(|(message, _)| match message {
                FromInit::Reply { reply, .. } => Some(reply),
                FromInit::Notice(_) => None,
            })
        }
    }

    fn create(name: &str) -> Request {
        let text = format!("[containers.{name}]\nimage = 'a'\n");
        let container = world::configuration(&text).containers.into_values().next().unwrap();
        Request::Create { creation: Box::new(Creation::plain(name.into(), container)), session: None }
    }

    #[test]
    fn who_has_made_a_container_is_answered_when_the_next_boot_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut machine = machine(folder.path());
        let client = Client::new(&mut machine);
        assert_eq!(client.ask(&mut machine, create("one")), None);
        assert!(machine.answer_due().is_some());
        // In the next task, for the one that is under way does not have it.
        assert_eq!(client.ask(&mut machine, create("two")), None);
        let names = |machine: &mut Machine| {
            end(machine);
            let kept = made::read(&folder.path().join(made::NAME)).unwrap();
            (client.answer(), kept.creations.into_iter().map(|creation| creation.name).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(names(&mut machine), (Some(Reply::Done), "one".to_owned()));
        assert_eq!(client.answer(), None);
        machine.write_kept();
        assert_eq!(names(&mut machine), (Some(Reply::Done), "one two".to_owned()));
        machine.write_kept();
        // `berth run -d` has a session until the container runs.
        let Request::Create { creation, .. } = create("three") else { panic!() };
        let run = Request::Create { creation, session: Some(Interest::State) };
        assert_eq!(client.ask(&mut machine, run), None);
        assert_eq!(names(&mut machine), (Some(Reply::Done), "one two three".to_owned()));
        machine.write_kept();
        // What changes nothing waits for nothing.
        let stop = Request::Stop { name: "one".into(), ending: Ending::default() };
        assert_eq!(client.ask(&mut machine, stop), Some(Reply::Done));
        assert_eq!(machine.answer_due(), None);
    }

    #[test]
    fn whoever_waits_for_a_disk_that_fails_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let mut machine = machine(&folder.path().join("missing"));
        let client = Client::new(&mut machine);
        assert_eq!(client.ask(&mut machine, create("one")), None);
        end(&mut machine);
        assert_eq!(client.answer(), Some(Reply::Done));
        assert!(machine.not_kept().is_some(), "it is told");
        assert_eq!(client.ask(&mut machine, create("two")), Some(Reply::Done), "it is known by now");
    }

    #[test]
    fn whoever_waits_for_a_disk_that_does_not_answer_is_answered_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut machine = machine(folder.path());
        let client = Client::new(&mut machine);
        let (disk, theirs) = UnixStream::pair().unwrap();
        let work = move || (&theirs).read_to_end(&mut Vec::new()).err().map(|error| error.to_string());
        machine.start_task(|| Task::start(work).map(Work::Kept)).unwrap();
        let at_once = client.ask(&mut machine, create("one"));
        let waits = machine.answer_due().map(|due| due - machine.supervisor.now);
        machine.supervisor.now += PATIENCE;
        machine.write_kept();
        let in_time = client.answer();
        let next = client.ask(&mut machine, create("two"));
        disk.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!((at_once, waits), (None, Some(PATIENCE)));
        assert_eq!(in_time, Some(Reply::Done));
        assert_eq!(next, Some(Reply::Done), "nobody waits as long again");
        end(&mut machine);
        machine.write_kept();
        end(&mut machine);
        assert_eq!(made::read(&folder.path().join(made::NAME)).unwrap().creations.len(), 2);
        assert_eq!(client.ask(&mut machine, create("three")), None, "the disk answers again");
        end(&mut machine);
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
