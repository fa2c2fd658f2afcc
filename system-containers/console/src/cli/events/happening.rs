//! What has happened to a container, in our words and in docker's.

use berth_control::message::Container;
use serde::Serialize;
use serde_json::{Value, json};

use super::super::format;

/// A change of a container, or its removal.
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    /// As it was from then on, or last.
    pub container: Container,
    /// Whether there was no container of this name any more.
    pub removed: bool,
}

/// A line of JSON.
#[derive(Debug, Serialize)]
pub struct Event<'a> {
    time: String,
    removed: bool,
    #[serde(flatten)]
    container: &'a Container,
}

impl Happening {
    /// What it is called, first by us and last by docker: a state, or the removal.
    pub fn words(&self) -> [&'static str; 2] {
        if self.removed { ["removed", "destroy"] } else { [format::container_state(self.container.state); 2] }
    }

    /// As `--json` has it; the moment is in microseconds since 1970 (UTC).
    pub fn event(&self, at_us: u64) -> Event<'_> {
        Event { time: format::moment(at_us), removed: self.removed, container: &self.container }
    }

    /// By docker's names.
    pub fn in_dockers_words(&self, at_us: u64) -> Value {
        let Container { name, image, exit_code, .. } = &self.container;
        let [_, action] = self.words();
        json!({
            "Type": "container",
            "Action": action,
            "Status": action,
            "ID": name,
            "From": image,
            "Actor": { "ID": name, "Attributes": { "name": name, "image": image, "exitCode": exit_code } },
            "Time": at_us / 1_000_000,
            "TimeNano": at_us.saturating_mul(1_000),
        })
    }

    /// For people.
    pub fn text(&self, at_us: u64) -> String {
        let Container { name, reason, .. } = &self.container;
        let [word, _] = self.words();
        // Why it has its last state was told when it came to it.
        let reason = if self.removed || reason.is_empty() { String::new() } else { format!(": {reason}") };
        format!("{} {name} {word}{reason}", format::moment(at_us))
    }
}

#[cfg(test)]
mod tests {
    use berth_control::message::ContainerState;

    use super::super::super::api::peer;
    use super::*;

    #[test]
    fn an_event_is_a_line_with_its_reason() {
        let reason = "exited with code 3".to_owned();
        let failed = Container { reason, ..peer::container("job", ContainerState::Failed) };
        let failed = Happening { container: failed, removed: false };
        assert_eq!(failed.text(0), "1970-01-01T00:00:00.000000Z job failed: exited with code 3");
        assert_eq!(Happening { removed: true, ..failed }.text(0), "1970-01-01T00:00:00.000000Z job removed");
    }
}
