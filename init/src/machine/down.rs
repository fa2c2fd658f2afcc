//! The machine on its way down: see [`crate::shutdown`].

use berth_control::message::{MachineState, PowerAction};

use super::Machine;
use super::work::Work;
use crate::shutdown::Shutdown;
use crate::task::Task;

impl Machine {
    /// Begins to go down; a second request changes nothing.
    pub fn go_down(&mut self, action: PowerAction, reason: &str) {
        if self.facts.shutdown.is_none() {
            log::info!("going down: {}, by {reason}", action.name());
            self.facts.state = MachineState::ShuttingDown;
            self.supervisor.machine_changed(self.facts.state);
            self.facts.shutdown = Some(Shutdown::begin(&mut self.supervisor, action, reason));
        }
    }

    /// What is left to be done with the power, once everything else is over.
    pub(super) fn advance_shutdown(&mut self) -> Option<PowerAction> {
        let shutdown = self.facts.shutdown.as_mut()?;
        if shutdown.advance(&mut self.supervisor) {
            let (reason, slot) = (shutdown.reason(), self.command_line.slot.clone());
            let (unwritten, folder) = (self.take_unwritten(), self.folder.clone());
            let finish = move || {
                let unwritten = unwritten.and_then(|pending| pending.write(&folder));
                unwritten.into_iter().chain(crate::shutdown::unmount(&slot, &reason)).collect()
            };
            if let Err(error) = self.start_task(|| Task::start(finish).map(Work::Unmount)) {
                self.unmounted(vec![crate::chain(&error)]);
            }
        }
        self.facts.shutdown.as_ref().and_then(Shutdown::finished)
    }
}
