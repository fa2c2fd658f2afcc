//! What the next program is to know of the machine: see [`crate::handover`].

use std::collections::BTreeMap;

use berth_runtime::handover::take_dropped;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Facts, Machine};
use crate::handover::record::{Batch, Key};
use crate::handover::{Crash, Handover};
use crate::reactor::Token;
use crate::registry::Registry;
use crate::supervisor;

/// The entry of what there is one of: borrowed to be written, owned when it was read.
#[derive(Debug, Serialize, Deserialize)]
struct Single<M, S> {
    machine: M,
    supervisor: S,
    /// The first numbers that were never used.
    next_container: u32,
    next_execution: u32,
    next_task: u32,
}

impl Machine {
    /// From now on a defect leads to the next program, which is to know of those before and of what was inherited.
    pub fn begin_handover(&mut self, crashes: Vec<Crash>, inherited: &BTreeMap<Key, Vec<u8>>) {
        match Handover::begin(crashes, inherited) {
            Ok(handover) => self.handover = Some(handover),
            Err(error) => {
                let problem = format!("PID 1 could not execute itself anew after a defect: {error}");
                log::error!("{problem}");
                self.facts.problems.push(problem);
            }
        }
    }

    /// Writes down what has changed in this round.
    pub(super) fn write_down(&mut self) {
        let Some(handover) = self.handover.as_mut() else { return drop(take_dropped()) };
        let supervisor = &mut self.supervisor;
        let (mut batch, everything) = handover.begin_batch();
        if everything {
            self.configuration_changed = true;
            self.tasks.change_all();
            supervisor.containers.change_all();
            supervisor.executions.change_all();
        }
        let single = Single {
            machine: &self.facts,
            supervisor: &supervisor.facts,
            next_container: supervisor.containers.next(),
            next_execution: supervisor.executions.next(),
            next_task: self.tasks.next(),
        };
        handover.put_machine(&mut batch, &single);
        if std::mem::take(&mut self.configuration_changed) {
            batch.put(Key::Configuration, &(&self.configuration, &supervisor.configuration));
        }
        if handover.steps != self.timeline.steps().len() {
            handover.steps = self.timeline.steps().len();
            batch.put(Key::Timeline, &self.timeline.steps());
        }
        put_changed(&mut batch, &mut supervisor.containers, Key::Container);
        put_changed(&mut batch, &mut supervisor.executions, Key::Execution);
        put_changed(&mut batch, &mut self.tasks, Key::Task);
        handover.commit(&batch);
    }

    /// Takes over what the last program has written down. What cannot be read of containers is logged and left out;
    /// an error means that the record is of no use at all.
    pub fn take_over(&mut self, mut entries: BTreeMap<Key, Vec<u8>>) -> Result<(), String> {
        let mut entry = |key| entries.remove(&key).ok_or_else(|| format!("the record has no {key:?}"));
        let text = |error: serde_json::Error| error.to_string();
        let single: Single<Facts, supervisor::Facts> = serde_json::from_slice(&entry(Key::Machine)?).map_err(text)?;
        let configuration = entry(Key::Configuration).ok();
        let steps = entry(Key::Timeline).ok();
        if let Some((report, wanted)) = configuration.and_then(|json| read(Key::Configuration, &json)) {
            (self.configuration, self.supervisor.configuration) = (report, wanted);
            let locations = self.configuration.as_ref().map(|report| report.locations.clone());
            self.supervisor.locations = locations.unwrap_or_default();
        }
        for step in steps.and_then(|json| read::<Vec<_>>(Key::Timeline, &json)).unwrap_or_default() {
            self.timeline.restore(step);
        }
        let (mut containers, mut executions, mut tasks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (key, json) in &entries {
            match *key {
                Key::Container(number) => drop(containers.insert(number, read(*key, json))),
                Key::Execution(number) => drop(executions.insert(number, read(*key, json))),
                Key::Task(number) => drop(tasks.insert(number, read(*key, json))),
                _ => {}
            }
        }
        self.facts = single.machine;
        self.supervisor.on_trial = self.facts.unconfirmed.is_some() || self.facts.unrecorded;
        self.configuration_changed = true;
        self.tasks = Registry::restore(tasks, single.next_task);
        self.supervisor.facts = single.supervisor;
        self.supervisor.containers = Registry::restore(containers, single.next_container);
        self.supervisor.executions = Registry::restore(executions, single.next_execution);
        Ok(())
    }

    /// Waits for everything that the last program has waited for.
    pub fn watch_again(&mut self) {
        for (number, work) in self.tasks.iter() {
            watched(self.reactor.add(work.descriptor(), Token::Task(*number)));
        }
        self.supervisor.watch_again();
    }
}

/// An event that is not waited for is a container that stands still: told, for the want of anything better.
pub(crate) fn watched(result: nix::Result<()>) {
    if let Err(error) = result {
        log::error!("wait for what the last program waited for: {error}");
    }
}

fn put_changed<T: Serialize>(batch: &mut Batch, registry: &mut Registry<T>, key: fn(u32) -> Key) {
    for number in registry.take_changed() {
        match registry.get(number) {
            Some(entry) => batch.put(key(number), entry),
            None => batch.remove(key(number)),
        }
    }
}

fn read<T: DeserializeOwned>(key: Key, json: &[u8]) -> Option<T> {
    let read = serde_json::from_slice(json);
    read.inspect_err(|error| log::error!("take over {key:?} from the last program: {error}")).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use berth_config::{Locations, Source};

    use super::super::apply::Purpose;
    use super::super::work::Work;
    use super::*;
    use crate::configuration::Report;

    fn wanted(name: &str) -> berth_config::Configuration {
        let hostname = nix::unistd::gethostname().unwrap();
        let text = format!("hostname = {hostname:?}\n[containers.{name}]\nimage = 'a'\n");
        berth_config::load(&[Source::new("berth.toml", text)]).unwrap().configuration
    }

    /// What the next program reads.
    fn entries(machine: &Machine) -> BTreeMap<Key, Vec<u8>> {
        let supervisor = &machine.supervisor;
        let single = Single {
            machine: &machine.facts,
            supervisor: &supervisor.facts,
            next_container: supervisor.containers.next(),
            next_execution: 0,
            next_task: 0,
        };
        let configuration = serde_json::to_vec(&(&machine.configuration, &supervisor.configuration)).unwrap();
        [(Key::Machine, serde_json::to_vec(&single).unwrap()), (Key::Configuration, configuration)].into()
    }

    #[test]
    fn a_configuration_on_trial_is_taken_back_by_the_next_program_and_recorded_by_none() {
        let mut machine = Machine::new().unwrap();
        machine.supervisor.configuration = wanted("before");
        machine.configuration = Some(Report { sources: vec!["berth.toml".into()], ..Report::default() });
        let applicant = machine.supervisor.applicant(0, 1);
        let trial = Ok(Box::new((wanted("tried"), Locations::default())));
        machine.looked_at(applicant, Purpose::Try(Duration::from_secs(60)), trial);
        let recorded = machine.tasks.values().any(|work| matches!(work, Work::Record { .. }));
        assert!(!recorded, "the next boot has the one before");

        let mut next = Machine::new().unwrap();
        next.take_over(entries(&machine)).unwrap();
        next.take_back();
        assert_eq!(next.supervisor.configuration, wanted("tried"), "its time is not up");
        assert!(next.patience().is_some_and(|patience| patience <= Duration::from_secs(60)));
        next.facts.unconfirmed.as_mut().unwrap().deadline = Duration::ZERO;
        next.take_back();
        assert_eq!(next.supervisor.configuration, wanted("before"));
        assert_eq!(next.describe().configuration_sources, ["berth.toml"]);
        assert!(next.facts.unconfirmed.is_none());
    }
}
