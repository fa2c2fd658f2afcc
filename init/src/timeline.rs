//! The boot's steps with their times, for the log and for `berth boot`.

use std::time::Duration;

use berth_control::message::Step;

use crate::clock;

/// The most steps that are kept: a machine that runs for years must not grow a list.
const MAXIMUM_STEPS: usize = 512;

/// The steps so far, in the order in which they ended.
#[derive(Debug, Default)]
pub struct Timeline {
    steps: Vec<Step>,
}

impl Timeline {
    /// Records and logs a step that began at `start_us` (see [`clock::microseconds`]) and ends now.
    pub fn record(&mut self, name: impl Into<String>, start_us: u64, outcome: Result<String, String>) {
        let failed = outcome.is_err();
        let outcome = outcome.unwrap_or_else(|reason| reason);
        let duration_us = clock::microseconds().saturating_sub(start_us);
        self.push(Step { name: name.into(), start_us, duration_us, outcome, failed });
    }

    /// Adds and logs a step that was measured elsewhere.
    pub fn push(&mut self, step: Step) {
        let took = Duration::from_micros(step.duration_us);
        let separator = if step.outcome.is_empty() { "" } else { ": " };
        let line = format!("{}{separator}{} ({took:.1?})", step.name, step.outcome);
        if step.failed {
            log::warn!("{line}");
        } else {
            log::info!("{line}");
        }
        if self.steps.len() < MAXIMUM_STEPS {
            self.steps.push(step);
        }
    }

    /// Adds a step that was logged by the last program.
    pub fn restore(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// All of them.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_does_not_grow_without_end() {
        let mut timeline = Timeline::default();
        for number in 0..MAXIMUM_STEPS + 10 {
            timeline.record(format!("step {number}"), 0, Ok(String::new()));
        }
        assert_eq!(timeline.steps().len(), MAXIMUM_STEPS);
    }
}
