//! `berth plan`, `berth apply`, `berth confirm`: another configuration while the machine runs.
//!
//! What came over the API is read, checked and compared in a task. Then PID 1 puts it in force, and [`super::recording`]
//! keeps it for the next boot; one that is to be confirmed is recorded when it is.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use berth_config::{Configuration, Locations, Plan, Present, Source, Sysctls, Watchdog};
use berth_control::message::{MachineState, Reply};
use serde::{Deserialize, Serialize};

use super::Machine;
use super::work::Work;
use crate::configuration::{self, KernelParameters, record};
use crate::supervisor::Applicant;
use crate::task::Task;
use crate::{chain, clock, files};

/// The longest sheet, in bytes: several files of the longest kind.
const MAXIMUM_SHEET: u64 = 8 << 20;

/// See [`Machine::tell_console`].
const CONSOLE: &str = "/run/berth/console.toml";

/// What is to be done with a configuration that is without mistakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Only to say what it would change.
    Plan,
    /// To be put in force and kept.
    Apply,
    /// To be put in force and, if nobody confirms it in this time, to be taken back.
    Try(Duration),
}

/// A configuration that is without mistakes, and where what decides about containers stands in its files.
pub type Wanted = (Configuration, Locations);

/// Why nothing is put in force while another configuration waits for its confirmation.
const UNCONFIRMED: &str =
    "the last configuration is not confirmed yet: `berth confirm` keeps it, or wait until it is taken back";

/// A configuration that is in force until somebody confirms it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Unconfirmed {
    /// When it is taken back, on [`crate::clock`].
    pub deadline: Duration,
    /// What is in force again then.
    previous: Box<Configuration>,
    /// Where that one stood, for `berth why`.
    #[serde(default)]
    locations: Locations,
    /// The files that it came from.
    #[serde(default)]
    sources: Vec<String>,
    /// What the kernel's parameters are again then: those that `previous` does not name, too.
    #[serde(default)]
    kernel: KernelParameters,
}

/// Why nothing is compared or put in force before the boot has read what there is: it would be replaced by that.
const UNREAD: &str =
    "the configuration has not been read yet; try again in a moment, `berth why boot` says what it waits for";

/// Why something is not put in force on trial.
fn irretrievable(name: &str) -> String {
    format!(
        "container {name} was made by hand and would give way to the one in this configuration; it could not come back when that \
         is taken back: `berth rm {name}` first, or `berth apply` without `--confirm`"
    )
}

impl Machine {
    /// Begins to look at the configuration on a sheet; the plan is going to be written on it.
    pub(super) fn look_at(&mut self, applicant: Applicant, sheet: OwnedFd, purpose: Purpose) {
        if self.configuration.is_none() {
            return self.supervisor.refuse(applicant, UNREAD.to_owned());
        }
        if purpose != Purpose::Plan && self.facts.unconfirmed.is_some() {
            return self.supervisor.refuse(applicant, UNCONFIRMED.to_owned());
        }
        let (old, present) = (self.supervisor.configuration.clone(), self.supervisor.present());
        let started = self.start_task_for_client(|| {
            let task = Task::start(move || plan(File::from(sheet), &old, &present))?;
            Ok(Work::Plan { task, applicant, purpose })
        });
        if let Err(reason) = started {
            self.supervisor.refuse(applicant, format!("look at the configuration: {reason}"));
        }
    }

    /// The task has looked.
    pub(super) fn looked_at(&mut self, applicant: Applicant, purpose: Purpose, outcome: Result<Box<Wanted>, String>) {
        let (wanted, locations) = match outcome {
            Ok(wanted) => *wanted,
            Err(reason) => return self.supervisor.refuse(applicant, reason),
        };
        // Another one may have come in force while the task looked.
        if purpose != Purpose::Plan && self.facts.unconfirmed.is_some() {
            return self.supervisor.refuse(applicant, UNCONFIRMED.to_owned());
        }
        if purpose == Purpose::Plan || wanted == self.supervisor.configuration {
            if purpose == Purpose::Apply && (self.facts.unrecorded || self.is_recording()) {
                return self.record(applicant);
            }
            return self.supervisor.reply_to(applicant, Reply::Done);
        }
        if matches!(purpose, Purpose::Try(_))
            && let Some(name) = self.supervisor.made_by_hand_in_the_way(&wanted)
        {
            return self.supervisor.refuse(applicant, irretrievable(name));
        }
        let mut unconfirmed = Unconfirmed {
            deadline: Duration::ZERO,
            previous: Box::new(self.supervisor.configuration.clone()),
            locations: self.supervisor.locations.clone(),
            sources: self.configuration.as_ref().map(|report| report.sources.clone()).unwrap_or_default(),
            kernel: KernelParameters::default(),
        };
        unconfirmed.kernel = match self.put_in_force(wanted, locations) {
            Ok(kernel) => kernel,
            Err(reason) => return self.supervisor.refuse(applicant, reason),
        };
        match purpose {
            Purpose::Try(time) => {
                unconfirmed.deadline = clock::since_boot() + time;
                self.facts.unconfirmed = Some(unconfirmed);
                self.supervisor.on_trial = true;
                self.supervisor.reply_to(applicant, Reply::Done);
            }
            _ => self.record(applicant),
        }
    }

    /// The configuration that nobody has confirmed is taken back when its time is up.
    pub(super) fn take_back(&mut self) {
        if self.facts.unconfirmed.as_ref().is_none_or(|waiting| waiting.deadline > clock::since_boot()) {
            return;
        }
        let Some(waiting) = self.facts.unconfirmed.take() else { return };
        log::warn!("nobody has confirmed the configuration: the one before is in force again");
        configuration::put_kernel_parameters_back(&waiting.kernel);
        self.supervisor.on_trial = false;
        match (self.put_in_force(*waiting.previous, waiting.locations), self.configuration.as_mut()) {
            (Ok(_), report) => {
                // An older program noted none.
                if let Some(report) = report.filter(|_| !waiting.sources.is_empty()) {
                    report.sources = waiting.sources;
                }
                self.supervisor.forget_stopped();
            }
            (Err(reason), _) => {
                log::error!("{reason}");
                self.facts.problems.push(reason);
            }
        }
    }

    /// A configuration has been read while another one is on trial. What is new is the later change of the two and ends the
    /// trial: there is nothing to confirm or to take back any more. What the trial has replaced is not new.
    pub(crate) fn read_during_trial(&mut self, report: &mut configuration::Report) {
        let Some(trial) = self.facts.unconfirmed.take() else { return };
        if report.configuration.as_ref().is_some_and(|read| *read != *trial.previous) {
            log::warn!("the configuration on trial gives way to one that was read: {}", report.outcome);
            self.supervisor.on_trial = false;
            return configuration::put_kernel_parameters_back(&trial.kernel);
        }
        report.configuration = None;
        if let Some(in_force) = &self.configuration {
            report.sources.clone_from(&in_force.sources);
            report.locations = in_force.locations.clone();
        }
        self.facts.unconfirmed = Some(trial);
    }

    /// All of it or nothing; what the kernel's parameters were before.
    fn put_in_force(&mut self, wanted: Configuration, locations: Locations) -> Result<KernelParameters, String> {
        let sysctls = &self.supervisor.configuration.sysctls;
        let kernel = configuration::set_kernel_parameters(sysctls, &wanted.sysctls, Sysctls::path)?;
        if let Err(reason) = self.change_watchdog(&wanted.watchdog) {
            configuration::put_kernel_parameters_back(&kernel);
            return Err(reason);
        }
        self.supervisor.apply(wanted);
        self.supervisor.locations = locations.clone();
        self.configuration = Some(configuration::Report {
            sources: vec![record::SOURCE.to_owned()],
            locations,
            ..self.configuration.take().unwrap_or_default().without_problems()
        });
        self.configuration_changed = true;
        self.set_hostname();
        self.tell_console();
        if self.facts.state != MachineState::Booting {
            self.supervisor.machine_changed(self.facts.state);
        }
        Ok(kernel)
    }

    /// Goes over to other settings of the watchdog, or stays with those that are.
    fn change_watchdog(&mut self, wanted: &Watchdog) -> Result<(), String> {
        let before = self.supervisor.configuration.watchdog.clone();
        if before == *wanted {
            return Ok(());
        }
        let result = self.set_watchdog(wanted);
        if result.is_err()
            && let Err(second) = self.set_watchdog(&before)
        {
            log::error!("{second}");
        }
        result
    }

    /// Leaves what the configuration in force says of consoles where `console` reads it, which is there before the control
    /// API is. The rest of it has secrets.
    pub(crate) fn tell_console(&self) {
        let console = self.supervisor.configuration.console.clone();
        let configuration = Configuration { console, ..Configuration::default() };
        let text = configuration.to_toml().map_err(|error| chain(&error));
        let write = |text: String| files::replace(Path::new(CONSOLE), text.as_bytes()).map_err(|error| chain(&error));
        if let Err(reason) = text.and_then(write) {
            log::warn!("write {CONSOLE}: {reason}");
        }
    }
}

/// Reads the files of a sheet and writes the plan in their place. Runs in a task.
fn plan(mut sheet: File, old: &Configuration, present: &Present) -> Result<Box<Wanted>, String> {
    let mut text = Vec::new();
    let failed = |error: std::io::Error| format!("read what is to be applied: {error}");
    (&sheet).take(MAXIMUM_SHEET).read_to_end(&mut text).map_err(failed)?;
    let files: Vec<(String, String)> =
        serde_json::from_slice(&text).map_err(|error| format!("read what is to be applied: {error}"))?;
    let sources: Vec<Source> = files.into_iter().map(|(name, text)| Source::new(name, text)).collect();
    let wanted = configuration::parse(sources).map_err(|mistakes| mistakes.join("\n"))?;
    let plan = Plan::between(old, &wanted.configuration, present).map_err(|error| chain(&error))?;
    let mut write = || {
        sheet.rewind()?;
        sheet.set_len(0)?;
        sheet.write_all(&serde_json::to_vec(&plan)?)
    };
    write().map_err(|error: std::io::Error| format!("write the plan: {error}"))?;
    Ok(Box::new((wanted.configuration, wanted.locations)))
}

#[cfg(test)]
mod tests;
