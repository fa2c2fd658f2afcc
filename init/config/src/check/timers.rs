//! `schedule` and `every`.

use super::ContainerCheck;
use crate::load::Report;

/// So that a container with nothing to do does not become a loop, in milliseconds.
const SHORTEST: u128 = 1000;

pub(super) fn check(container: &ContainerCheck, report: &mut Report) {
    let Some(every) = container.container.every else { return };
    let path = container.path().key("every");
    if container.container.schedule.is_some() {
        let message = "the container has a `schedule` already".to_owned();
        container.report(report, &path, message, "leave one of them out");
    } else if every.duration().as_millis() < SHORTEST {
        let message = format!("{every} is too short for a timer");
        container.report(report, &path, message, "give it at least 1s, or restart = \"always\" without a timer");
    }
}
