//! Storage of the machine: the state partition at /var, the user data at /run/berth/user-data.
//!
//! Runs in a task (see [`crate::task`]): everything here may block. Nothing here is fatal: without a state partition
//! /var is kept in memory, without user data there is none, and the report says so.

pub mod devices;
pub mod failure;
pub mod gpt;
pub mod state;
pub mod superblock;
pub mod user_data;

use berth_control::message::Step;
use serde::{Deserialize, Serialize};

use crate::clock;

/// What came of a storage task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was done, with times.
    pub steps: Vec<Step>,
    /// What is wrong and what to do, a sentence each.
    pub problems: Vec<String>,
    /// What holds the state, `memory` or a device; empty if this task was not about it.
    pub state: String,
    /// How many errors its file system had found in itself, ever, when it was mounted.
    #[serde(default)]
    pub state_errors: u64,
    /// The device of the user data, if there is one and it is mounted.
    pub user_data: Option<String>,
}

impl Report {
    /// Runs a step and notes how it went.
    fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<(T, String), String>) -> Option<T> {
        let start_us = clock::microseconds();
        let (value, outcome, failed) = match work() {
            Ok((value, outcome)) => (Some(value), outcome, false),
            Err(reason) => (None, reason, true),
        };
        let duration_us = clock::microseconds().saturating_sub(start_us);
        if failed {
            self.problems.push(format!("{name}: {outcome}"));
        }
        self.steps.push(Step { name: name.to_owned(), start_us, duration_us, outcome, failed });
        value
    }
}

/// State and user data, in this order.
pub fn prepare(state_in_memory: bool) -> Report {
    let mut report = Report::default();
    state::prepare(&mut report, state_in_memory);
    user_data::find_and_mount(&mut report);
    report
}

/// User data that has come after the boot.
pub fn look_for_user_data() -> Report {
    let mut report = Report::default();
    user_data::find_and_mount(&mut report);
    report
}
