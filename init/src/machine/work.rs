//! The tasks of the machine: what runs in children of PID 1, and what comes of it.

use std::os::fd::AsFd;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Machine;
use crate::reactor::Token;
use crate::task::{Task, TaskError};
use crate::{chain, configuration, stopped, storage};

/// Work that is under way in a child.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Work {
    /// State and user data at boot.
    Storage(Task<storage::Report>),
    /// User data that came later.
    UserData(Task<storage::Report>),
    /// Reading the configuration.
    Configuration(Task<configuration::Report>),
    /// Writing which containers stay stopped.
    Stopped(Task<Option<String>>),
    /// The last unmounts.
    Unmount(Task<Vec<String>>),
}

impl Machine {
    pub(super) fn start_task(&mut self, start: impl FnOnce() -> Result<Work, TaskError>) {
        let started = start().and_then(|work| {
            let number = self.tasks.next();
            self.reactor.add(work.descriptor(), Token::Task(number)).map_err(TaskError::Start)?;
            self.tasks.add(work);
            Ok(())
        });
        if let Err(error) = started {
            log::error!("{error}");
            self.facts.problems.push(format!("{error}"));
        }
    }

    /// Finds state and user data.
    pub fn start_storage(&mut self) {
        let in_memory = self.command_line.state_in_memory;
        self.start_task(|| Task::start(move || storage::prepare(in_memory)).map(Work::Storage));
    }

    /// Reads the configuration.
    pub fn start_configuration(&mut self) {
        let none = self.command_line.no_configuration;
        self.start_task(|| Task::start(move || configuration::read(none)).map(Work::Configuration));
    }

    /// Keeps which containers stay stopped, if that has changed; one task at a time, so that the last one is the newest.
    pub(super) fn write_stopped(&mut self) {
        let writing = self.tasks.values().any(|work| matches!(work, Work::Stopped(_)));
        if self.supervisor.facts.stopped_changed && !writing {
            self.supervisor.facts.stopped_changed = false;
            let names = self.supervisor.facts.stopped.clone();
            self.start_task(|| {
                Task::start(move || stopped::write(Path::new(stopped::PATH), &names).err()).map(Work::Stopped)
            });
        }
    }

    pub(super) fn handle_task(&mut self, number: u32) {
        let Some(work) = self.tasks.get_mut(number) else { return };
        let finished = match work {
            Work::Storage(task) => task.advance().map(|result| Finished::Storage(report_or_problem(result))),
            Work::UserData(task) => task.advance().map(|result| Finished::UserData(report_or_problem(result))),
            Work::Configuration(task) => task.advance().map(|result| {
                Finished::Configuration(Box::new(result.unwrap_or_else(|error| {
                    configuration::Report::failed(format!("read the configuration: {}", chain(&error)))
                })))
            }),
            Work::Stopped(task) => task.advance().map(|result| {
                Finished::Stopped(
                    result.unwrap_or_else(|error| Some(format!("keep what was stopped: {}", chain(&error)))),
                )
            }),
            Work::Unmount(task) => {
                task.advance().map(|result| Finished::Unmount(result.unwrap_or_else(|error| vec![chain(&error)])))
            }
        };
        let Some(finished) = finished else { return };
        self.reactor.remove(work.descriptor());
        self.tasks.remove(number);
        match finished {
            Finished::Storage(report) => self.storage_is_ready(report),
            Finished::UserData(report) => self.user_data_came(report),
            Finished::Configuration(report) => self.configure(*report),
            Finished::Stopped(problem) => problem.iter().for_each(|problem| log::warn!("{problem}")),
            Finished::Unmount(problems) => {
                problems.iter().for_each(|problem| log::warn!("{problem}"));
                if let Some(shutdown) = self.facts.shutdown.as_mut() {
                    shutdown.unmounted();
                }
            }
        }
    }

    fn storage_is_ready(&mut self, report: storage::Report) {
        report.steps.iter().for_each(|step| self.timeline.push(step.clone()));
        self.facts.storage = report;
        crate::boot::after_storage(self);
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

/// What a task brought.
enum Finished {
    Storage(storage::Report),
    UserData(storage::Report),
    Configuration(Box<configuration::Report>),
    Stopped(Option<String>),
    Unmount(Vec<String>),
}

impl Work {
    pub(super) fn descriptor(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Storage(task) | Self::UserData(task) => task.as_fd(),
            Self::Configuration(task) => task.as_fd(),
            Self::Stopped(task) => task.as_fd(),
            Self::Unmount(task) => task.as_fd(),
        }
    }
}

fn report_or_problem(result: Result<storage::Report, TaskError>) -> storage::Report {
    result.unwrap_or_else(|error| storage::Report {
        problems: vec![format!("prepare the storage: {}", chain(&error))],
        state: "memory".to_owned(),
        ..storage::Report::default()
    })
}
