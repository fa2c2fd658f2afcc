//! What the machine does with its watchdog, and the list of boots that tells what it has done.

use std::path::Path;

use berth_config::Watchdog as Settings;
use berth_control::message::{Boot, MachineState, PowerAction, Reply};
use serde::{Deserialize, Serialize};

use super::Machine;
use super::work::Work;
use crate::supervisor::Applicant;
use crate::task::Task;
use crate::watchdog::{Care, Watchdog};
use crate::{boots, clock};

/// What is to be written into the list of boots next: by one task at a time, for each reads all of it and replaces it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ToNote {
    /// That this boot is there.
    begin: bool,
    /// What it is going to end by.
    end: Option<String>,
}

impl ToNote {
    /// Runs in a task; the reason if that fails.
    fn write(&self, path: &Path, slot: &str, reset: bool) -> Option<String> {
        let begun = if self.begin { boots::begin(path, slot, reset) } else { Ok(()) };
        let foreseen = self.end.as_ref().map_or(Ok(()), |reason| boots::foresee(path, slot, reason));
        begun.and(foreseen).err()
    }
}

impl Machine {
    /// Starts the timer that the configuration wants, which is the machine's own as long as there is none; what it is,
    /// for the timeline.
    pub fn start_watchdog(&mut self) -> Result<String, String> {
        self.facts.watchdog = Watchdog::start(&self.supervisor.configuration.watchdog)?;
        Ok(self.facts.watchdog.as_ref().map_or_else(|| "none".to_owned(), Watchdog::describe))
    }

    /// Puts settings in force.
    pub(crate) fn set_watchdog(&mut self, settings: &Settings) -> Result<(), String> {
        match self.facts.watchdog.take_if(|watchdog| !watchdog.suits(settings)) {
            Some(other) => other.stop()?,
            None => {
                if let Some(watchdog) = self.facts.watchdog.as_mut() {
                    return watchdog.set_timeout(settings.timeout.duration());
                }
            }
        }
        self.facts.watchdog = Watchdog::start(settings)?;
        Ok(())
    }

    /// Winds it up, if it is time, and looks after the API.
    pub(super) fn tend_watchdog(&mut self) {
        let boots_or_ends = self.facts.state == MachineState::Booting || self.facts.shutdown.is_some();
        let Some(watchdog) = self.facts.watchdog.as_mut() else { return };
        match watchdog.tend(clock::since_boot(), !boots_or_ends) {
            Some(Care::Ask) => self.supervisor.ask_whether_alive(),
            Some(Care::Restart) => self.supervisor.restart_silent(),
            Some(Care::GiveUp) => {
                log::error!(
                    "the control API does not answer, however often it is started: the watchdog resets the machine"
                );
                self.foresee_end(boots::GIVEN_UP);
            }
            None => {}
        }
    }

    /// The API has answered.
    pub(super) fn api_answers(&mut self) {
        if self.facts.watchdog.as_mut().is_some_and(Watchdog::answered) {
            self.foresee_end("");
        }
    }

    /// Writes down what this boot is going to end by, while there is somebody to do so.
    fn foresee_end(&mut self, reason: &str) {
        self.facts.to_note.end = Some(reason.to_owned());
        self.note_next();
    }

    /// Writes into the list of boots what is to be written, if nobody is writing.
    pub(super) fn note_next(&mut self) {
        let notes = self.tasks.values().any(|work| matches!(work, Work::Note(_)));
        let is_nothing = !self.facts.to_note.begin && self.facts.to_note.end.is_none();
        if notes || is_nothing {
            return;
        }
        let note = std::mem::take(&mut self.facts.to_note);
        let slot = self.command_line.slot.clone();
        let reset = self.facts.watchdog.as_ref().is_some_and(|watchdog| watchdog.has_reset);
        let path = self.folder.with_file_name(boots::NAME);
        let write = move || note.write(&path, &slot, reset);
        if let Err(error) = self.start_task(|| Task::start(write).map(Work::Note)) {
            log::warn!("write into the list of boots: {}", crate::chain(&error));
        }
    }

    /// The last thing before the machine stands still: a timer that runs on would reset it.
    pub(super) fn let_go_of_watchdog(&mut self, action: PowerAction) {
        if action == PowerAction::Halt
            && let Some(Err(error)) = self.facts.watchdog.take().map(Watchdog::stop)
        {
            log::error!("{error}");
        }
    }

    /// Adds this boot to the list.
    pub fn record_boot(&mut self) {
        self.facts.boot_recorded = true;
        self.facts.to_note.begin = true;
        self.note_next();
    }

    /// Somebody has set the clock: the list says when this boot began by the one that is right now. Before the storage is there
    /// is no list.
    pub(super) fn clock_was_set(&mut self) {
        if self.facts.boot_recorded && self.facts.shutdown.is_none() {
            self.record_boot();
        }
    }

    /// Reads the list for somebody who asks.
    pub(super) fn read_boots(&mut self, applicant: Applicant) {
        let read = || boots::read(Path::new(boots::PATH));
        let started = self.start_task_for_client(|| Task::start(read).map(|task| Work::Boots { task, applicant }));
        if let Err(reason) = started {
            self.supervisor.refuse(applicant, format!("read the list of boots: {reason}"));
        }
    }

    /// The list has been read, or not.
    pub(super) fn boots_read(&mut self, applicant: Applicant, boots: Result<Vec<Boot>, String>) {
        let reply = boots.map_or_else(|reason| Reply::Refused { reason }, Reply::Boots);
        self.supervisor.reply_to(applicant, reply);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::reactor::Token;

    #[test]
    fn what_the_list_of_boots_is_told_is_written_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut machine = Machine::new().unwrap();
        machine.folder = folder.path().join("configuration");
        // One whose disk does not answer.
        let (disk, theirs) = UnixStream::pair().unwrap();
        let work = move || (&theirs).read_to_end(&mut Vec::new()).err().map(|error| error.to_string());
        machine.start_task(|| Task::start(work).map(Work::Note)).unwrap();
        machine.record_boot();
        machine.foresee_end(boots::GIVEN_UP);
        machine.record_boot();
        let under_way = |machine: &Machine| machine.tasks.values().filter(|work| matches!(work, Work::Note(_))).count();
        let at_once = under_way(&machine);
        disk.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(at_once, 1);
        while under_way(&machine) > 0 {
            for token in machine.reactor.wait(Some(Duration::from_secs(60))).unwrap() {
                if let Token::Task(number) = token {
                    machine.handle_task(number);
                }
            }
        }
        let boots = boots::read(&folder.path().join(boots::NAME)).unwrap();
        assert_eq!((boots.len(), boots[0].reason.as_str()), (1, boots::GIVEN_UP));
    }
}
