//! The tasks of the machine: what runs in children of PID 1, and what comes of it.

use std::os::fd::AsFd;

use berth_control::message::Boot;
use berth_runtime::handover::Descriptor;
use serde::{Deserialize, Deserializer, Serialize};

use super::Machine;
use super::apply::{Purpose, Wanted};
use super::kept::not_written;
use super::recording::unrecorded;
use crate::reactor::Token;
use crate::supervisor::Applicant;
use crate::task::{Task, TaskError};
use crate::{chain, configuration, storage};

/// The most tasks for clients at one time, each a child with a copy of PID 1's memory; those that are waited for go on when
/// the client has gone.
const MOST_FOR_CLIENTS: usize = 16;

/// Work that is under way in a child.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Work {
    /// State and user data at boot.
    Storage(Task<storage::Report>),
    /// User data that came later.
    UserData(Task<storage::Report>),
    /// Reading the configuration.
    Configuration(Task<configuration::Report>),
    /// Writing which containers stay stopped, and which were made by hand.
    Kept(Task<Option<String>>),
    /// Writing into the list of boots, for which nobody waits; the reason if that fails.
    Note(Task<Option<String>>),
    /// Reading the list of boots.
    Boots { task: Task<Result<Vec<Boot>, String>>, applicant: Applicant },
    /// Looking at another configuration.
    Plan { task: Task<Result<Box<Wanted>, String>>, applicant: Applicant, purpose: Purpose },
    /// Recording what was applied; the reason if that fails.
    Record {
        task: Task<Option<String>>,
        /// Who waits for it; earlier programs left one.
        #[serde(alias = "applicant", deserialize_with = "one_or_several")]
        applicants: Vec<Applicant>,
    },
    /// Looking at the program that is to take PID 1's place.
    Program { task: Task<Result<(), String>>, applicant: Applicant, program: Descriptor },
    /// The last unmounts.
    Unmount(Task<Vec<String>>),
}

impl Machine {
    /// Starts work. After an error there is nothing that would end.
    pub(super) fn start_task(&mut self, start: impl FnOnce() -> Result<Work, TaskError>) -> Result<(), TaskError> {
        let work = start()?;
        let number = self.tasks.next();
        self.reactor.add(work.descriptor(), Token::Task(number)).map_err(TaskError::Start)?;
        self.tasks.add(work);
        Ok(())
    }

    /// Starts work whose end a client waits for; or why it is not begun.
    pub(super) fn start_task_for_client(
        &mut self,
        start: impl FnOnce() -> Result<Work, TaskError>,
    ) -> Result<(), String> {
        if self.tasks.values().filter(|work| work.is_for_client()).count() >= MOST_FOR_CLIENTS {
            return Err(format!("{MOST_FOR_CLIENTS} such requests are being worked on already; try again in a moment"));
        }
        self.start_task(start).map_err(|error| chain(&error))
    }

    /// Finds state and user data.
    pub fn start_storage(&mut self) {
        let in_memory = self.command_line.state_in_memory;
        let started = self.start_task(|| Task::start(move || storage::prepare(in_memory)).map(Work::Storage));
        if let Err(error) = started {
            self.storage_is_ready(report_or_problem(Err(error)));
        }
    }

    /// Reads the configuration.
    pub fn start_configuration(&mut self) {
        let none = self.command_line.no_configuration;
        let started = self.start_task(|| Task::start(move || configuration::read(none)).map(Work::Configuration));
        if let Err(error) = started {
            self.configure(unread(&error));
        }
    }

    pub(super) fn handle_task(&mut self, number: u32) {
        let Some(work) = self.tasks.get_mut(number) else { return };
        let Some(next) = work.advance() else { return };
        self.reactor.remove(work.descriptor());
        self.tasks.remove(number);
        next(self);
    }

    fn storage_is_ready(&mut self, report: storage::Report) {
        report.steps.iter().for_each(|step| self.timeline.push(step.clone()));
        self.facts.storage = report;
        crate::boot::after_storage(self);
    }

    pub(super) fn unmounted(&mut self, problems: Vec<String>) {
        problems.iter().for_each(|problem| log::warn!("{problem}"));
        if let Some(shutdown) = self.facts.shutdown.as_mut() {
            shutdown.unmounted();
        }
    }

    fn user_data_came(&mut self, report: storage::Report) {
        if report.user_data.is_none() && report.problems.is_empty() {
            return;
        }
        report.steps.iter().for_each(|step| self.timeline.push(step.clone()));
        self.facts.storage.problems.extend(report.problems);
        self.facts.storage.user_data = report.user_data;
        if self.facts.storage.user_data.is_some() {
            self.start_configuration();
        }
    }
}

/// What is to be done with what a task has brought.
type Next = Box<dyn FnOnce(&mut Machine)>;

impl Work {
    /// What follows, if the task has ended.
    fn advance(&mut self) -> Option<Next> {
        Some(match self {
            Self::Storage(task) => {
                let report = report_or_problem(task.advance()?);
                Box::new(|machine| machine.storage_is_ready(report))
            }
            Self::UserData(task) => {
                let report = report_or_problem(task.advance()?);
                Box::new(|machine| machine.user_data_came(report))
            }
            Self::Configuration(task) => {
                let report = task.advance()?.unwrap_or_else(|error| unread(&error));
                Box::new(|machine| machine.configure(report))
            }
            Self::Boots { task, applicant } => {
                let applicant = *applicant;
                let boots =
                    task.advance()?.unwrap_or_else(|error| Err(format!("read the list of boots: {}", chain(&error))));
                Box::new(move |machine| machine.boots_read(applicant, boots))
            }
            Self::Kept(task) => {
                let problem = task.advance()?.unwrap_or_else(|error| Some(not_written(&error)));
                Box::new(|machine| machine.kept(problem))
            }
            Self::Note(task) => {
                let problem = task.advance()?.unwrap_or_else(|error| Some(not_written(&error)));
                Box::new(move |machine| {
                    problem.iter().for_each(|problem| log::warn!("{problem}"));
                    machine.note_next();
                })
            }
            Self::Plan { task, applicant, purpose } => {
                let (applicant, purpose) = (*applicant, *purpose);
                let failed = |error| Err(format!("look at the configuration: {}", chain(&error)));
                let outcome = task.advance()?.unwrap_or_else(failed);
                Box::new(move |machine| machine.looked_at(applicant, purpose, outcome))
            }
            Self::Record { task, applicants } => {
                let problem = task.advance()?.unwrap_or_else(|error| Some(unrecorded(&error)));
                let applicants = applicants.clone();
                Box::new(move |machine| machine.recorded(&applicants, problem))
            }
            Self::Program { task, applicant, program } => {
                let applicant = *applicant;
                let failed = |error| Err(format!("look at the program: {}", chain(&error)));
                let result = task.advance()?.unwrap_or_else(failed);
                let program = program.as_fd().try_clone_to_owned();
                Box::new(move |machine| match program {
                    Ok(program) => machine.program_looked_at(applicant, program, result),
                    Err(error) => machine.supervisor.refuse(applicant, format!("copy a descriptor: {error}")),
                })
            }
            Self::Unmount(task) => {
                let problems = task.advance()?.unwrap_or_else(|error| vec![chain(&error)]);
                Box::new(|machine| machine.unmounted(problems))
            }
        })
    }

    fn is_for_client(&self) -> bool {
        matches!(self, Self::Boots { .. } | Self::Plan { .. } | Self::Program { .. })
    }

    pub(super) fn descriptor(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Storage(task) | Self::UserData(task) => task.as_fd(),
            Self::Configuration(task) => task.as_fd(),
            Self::Kept(task) | Self::Note(task) | Self::Record { task, .. } => task.as_fd(),
            Self::Boots { task, .. } => task.as_fd(),
            Self::Plan { task, .. } => task.as_fd(),
            Self::Program { task, .. } => task.as_fd(),
            Self::Unmount(task) => task.as_fd(),
        }
    }
}

fn one_or_several<'de, D: Deserializer<'de>>(written: D) -> Result<Vec<Applicant>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Several(Vec<Applicant>),
        One(Applicant),
    }
    Ok(match Written::deserialize(written)? {
        Written::Several(applicants) => applicants,
        Written::One(applicant) => vec![applicant],
    })
}

fn unread(error: &TaskError) -> configuration::Report {
    configuration::Report::failed(format!("read the configuration: {}", chain(error)))
}

fn report_or_problem(result: Result<storage::Report, TaskError>) -> storage::Report {
    result.unwrap_or_else(|error| storage::Report {
        problems: vec![format!("prepare the storage: {}", chain(&error))],
        state: "memory".to_owned(),
        ..storage::Report::default()
    })
}
