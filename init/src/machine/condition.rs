//! Whether the machine is well: the end of the boot, and what changes after it.

use berth_control::message::{Link, MachineState};

use super::{BOOT_TIME, Machine};
use crate::storage::{failure, state};

impl Machine {
    /// Notices the end of the boot, and whether the machine is well.
    pub(super) fn update_state(&mut self) {
        let late = self.is_late();
        if self.facts.shutdown.is_some() || (self.configuration.is_none() && !late) {
            return;
        }
        if self.facts.state == MachineState::Booting && !self.supervisor.all_tried() {
            if !late {
                return;
            }
            self.supervisor.give_up_boot();
        }
        self.facts.state_full = self.lack_of_room().is_some();
        let problems = self.all_problems();
        let state = if problems.is_empty() { MachineState::Ready } else { MachineState::Degraded };
        if state == self.facts.state {
            return;
        }
        if state == MachineState::Ready {
            log::info!("ready");
        } else {
            problems.iter().for_each(|problem| log::warn!("{problem}"));
            log::warn!("degraded: see `berth status`");
        }
        self.facts.state = state;
        self.supervisor.machine_changed(state);
    }

    /// What is wrong with the machine itself, a sentence each.
    pub(crate) fn lacks(&self) -> Vec<String> {
        let late = self.configuration.is_none() && self.is_late();
        let unread = late.then(|| "the configuration has not been read yet: a disk does not answer".to_owned());
        let cardless = self.facts.no_card.then(|| {
            "the machine has no network card that its kernel knows; containers reach each other and nothing else"
                .to_owned()
        });
        unread
            .into_iter()
            .chain(cardless)
            .chain(self.failure_of_state())
            .chain(self.lack_of_room())
            .chain(self.not_kept())
            .collect()
    }

    /// Whether the time for the boot was up when this round of events began.
    pub(crate) fn is_late(&self) -> bool {
        self.supervisor.now >= BOOT_TIME
    }

    /// The state partition's, once there is one. Who fills it wakes nobody: it is looked at when there is something to do.
    fn lack_of_room(&self) -> Option<String> {
        if self.facts.storage.state.is_empty() { None } else { state::lack_of_room(self.facts.state_full) }
    }

    /// The state partition's, if it takes nothing more. Looked at as its room is.
    fn failure_of_state(&self) -> Option<String> {
        let storage = &self.facts.storage;
        if storage.state.is_empty() { None } else { failure::problem(&storage.state, storage.state_errors) }
    }

    /// As `network` tells.
    pub(super) fn take_links(&mut self, links: Vec<Link>) {
        // What the kernel makes by itself, and what could not be made, has no hardware address.
        self.facts.no_card = links.iter().all(|link| link.mac.is_empty());
        self.facts.links = links;
        self.supervisor.machine_changed(self.facts.state);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::supervisor::world::system;

    /// One that has booted for longer than it may.
    fn machine() -> Machine {
        let mut machine = Machine::new().unwrap();
        machine.configuration = Some(crate::configuration::Report::default());
        machine.supervisor.now = BOOT_TIME;
        machine
    }

    fn names(machine: &Machine, what: &str) -> bool {
        machine.all_problems().iter().any(|problem| problem.contains(what))
    }

    #[test]
    fn a_boot_that_never_ends_is_degraded_and_says_by_what() {
        let mut machine = machine();
        machine.supervisor.declare_system("late", system("readiness = 'notify'\n"));
        machine.supervisor.now = Duration::from_secs(119);
        machine.update_state();
        assert_eq!(machine.facts.state, MachineState::Booting, "however long the host of this test has run");
        machine.supervisor.now = BOOT_TIME;
        machine.update_state();
        assert_eq!(machine.facts.state, MachineState::Degraded);
        assert_eq!(machine.supervisor.problems(), ["container late: has not become ready since the boot"]);
        machine.configuration = None;
        assert!(names(&machine, "the configuration has not been read"));
    }

    #[test]
    fn a_machine_without_a_network_card_says_so() {
        let mut machine = machine();
        machine.update_state();
        assert_eq!(machine.facts.state, MachineState::Ready);
        let link = |mac: &str| Link {
            name: "l".into(),
            mac: mac.into(),
            carrier: false,
            addresses: Vec::new(),
            missing: Vec::new(),
        };
        machine.take_links(vec![link("")]);
        machine.update_state();
        assert_eq!(machine.facts.state, MachineState::Degraded);
        assert!(names(&machine, "no network card"));
        machine.take_links(vec![link(""), link("52:54:00:12:34:56")]);
        machine.update_state();
        assert_eq!(machine.facts.state, MachineState::Ready);
    }
}
