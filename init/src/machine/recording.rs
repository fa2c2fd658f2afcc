//! What is in force, recorded for the next boot: by one task at a time, so that the last record is the newest.

use berth_config::Configuration;
use berth_control::message::Reply;
use serde::{Deserialize, Serialize};

use super::Machine;
use super::work::Work;
use crate::chain;
use crate::configuration::record;
use crate::supervisor::Applicant;
use crate::task::{Task, TaskError};

/// What is to be recorded next. What is in force by then may be on trial.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ToRecord {
    configuration: Box<Configuration>,
    /// See [`crate::configuration::Report::not_kept`].
    over: Option<String>,
    /// Who waits for it.
    applicants: Vec<Applicant>,
}

impl Machine {
    /// Keeps the configuration that is in force.
    pub(super) fn confirm(&mut self, applicant: Applicant) {
        if self.facts.unconfirmed.take().is_some() || self.facts.unrecorded {
            self.record(applicant);
        } else {
            self.supervisor.refuse(applicant, "there is nothing to confirm".to_owned());
        }
    }

    /// Records what is in force, after what is being recorded. What waited for that has been replaced.
    pub(super) fn record(&mut self, applicant: Applicant) {
        let mut applicants = self.facts.to_record.take().map(|before| before.applicants).unwrap_or_default();
        applicants.push(applicant);
        let configuration = Box::new(self.supervisor.configuration.clone());
        let over = self.configuration.as_ref().and_then(|report| report.not_kept.clone());
        self.facts.to_record = Some(ToRecord { configuration, over, applicants });
        self.record_next();
    }

    fn record_next(&mut self) {
        if self.is_recording() {
            return;
        }
        let Some(ToRecord { configuration, over, applicants }) = self.facts.to_record.take() else { return };
        let path = self.folder.join(record::NAME);
        let write = move || record::write(&path, over, &configuration).err();
        let waiting = applicants.clone();
        let started = self.start_task(|| Task::start(write).map(|task| Work::Record { task, applicants: waiting }));
        if let Err(error) = started {
            self.recorded(&applicants, Some(unrecorded(&error)));
        }
    }

    /// It is recorded, or not.
    pub(super) fn recorded(&mut self, applicants: &[Applicant], problem: Option<String>) {
        self.facts.unrecorded = problem.is_some();
        problem.iter().for_each(|reason| log::warn!("{reason}"));
        if problem.is_none() && self.facts.to_record.is_none() && self.facts.unconfirmed.is_none() {
            self.supervisor.forget_stopped();
            self.supervisor.end_trial();
        }
        for applicant in applicants {
            match &problem {
                None => self.supervisor.reply_to(*applicant, Reply::Done),
                Some(reason) => self.supervisor.refuse(*applicant, reason.clone()),
            }
        }
        self.record_next();
    }

    /// Whether a record is being written, of what is in force or not.
    pub(super) fn is_recording(&self) -> bool {
        self.tasks.values().any(|work| matches!(work, Work::Record { .. }))
    }
}

/// Why what is in force is not recorded, if that was not even tried.
pub(super) fn unrecorded(error: &TaskError) -> String {
    format!("record the configuration: {}", chain(error))
}
