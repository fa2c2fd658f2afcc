//! What has happened to containers lately, for those who ask afterwards.
//!
//! In memory and bounded, as docker's: it begins anew with this program. Whoever must miss nothing subscribes.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use berth_control::dbus::Change;
use berth_control::message::{Container, Notice};

/// How many changes are remembered: docker's number.
const KEPT: usize = 256;

/// The last changes, the oldest first.
#[derive(Debug, Default)]
pub struct Past {
    /// When, which, and whether it was removed.
    changes: VecDeque<(u64, Container, bool)>,
}

impl Past {
    /// A container is like this from now on, or gone, if the notice is about that.
    pub fn add(&mut self, notice: &Notice) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        match notice {
            Notice::ContainerChanged(container) => self.add_at(now_us, (**container).clone(), false),
            Notice::ContainerRemoved(container) => self.add_at(now_us, (**container).clone(), true),
            _ => {}
        }
    }

    fn add_at(&mut self, at_us: u64, container: Container, removed: bool) {
        if self.changes.len() == KEPT {
            self.changes.pop_front();
        }
        self.changes.push_back((at_us, container, removed));
    }

    /// What was added since then, in the order in which it was, also if the clock was set back meanwhile.
    pub fn since(&self, since_us: u64) -> Vec<Change> {
        let wanted = self.changes.iter().filter(|(at_us, ..)| *at_us >= since_us);
        let change = |(at_us, container, removed): &(u64, Container, bool)| Change {
            at_us: *at_us,
            container: container.clone().into(),
            removed: removed.then_some(true),
        };
        wanted.map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_control::message::{ContainerState, Health, Kind};

    fn container(pid: u32) -> Container {
        Container {
            name: "web".into(),
            kind: Kind::User,
            state: ContainerState::Running,
            health: Health::None,
            image: String::new(),
            reason: String::new(),
            pid,
            restarts: 0,
            started_us: 0,
            exit_code: -1,
            addresses: Vec::new(),
            ports: Vec::new(),
        }
    }

    #[test]
    fn the_last_changes_are_remembered_and_no_more() {
        let mut past = Past::default();
        (0..300).for_each(|number| past.add_at(u64::from(number), container(number), number == 299));
        let pids = |since| past.since(since).iter().map(|change| change.container.pid).collect::<Vec<_>>();
        assert_eq!((pids(0).len(), pids(0)[0]), (KEPT, 44));
        assert_eq!(pids(298), [298, 299]);
        assert!(pids(300).is_empty());
        assert_eq!(past.since(298).into_iter().map(|change| change.removed).collect::<Vec<_>>(), [None, Some(true)]);
    }
}
