//! Images that declared containers wait for: what is being pulled, what has failed and when it is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Before the second try.
const FIRST_DELAY: Duration = Duration::from_secs(2);
/// The most between two tries.
const LONGEST_DELAY: Duration = Duration::from_secs(300);
/// The most if the registry wants more: limits are counted by the minute or the hour, and one that says "tomorrow" by
/// mistake must not keep a container down.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// What is known of each image, by its complete name.
#[derive(Debug, Default)]
pub struct Wanted {
    images: BTreeMap<String, State>,
}

#[derive(Clone, Debug)]
enum State {
    UnderWay { failures: u32 },
    Failed { reason: String, failures: u32, delay: Duration, until: Instant },
}

/// What to do about an image that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Pull it now.
    Pull,
    /// Wait for the pull.
    Wait,
    /// Wait for the next try: what was wrong with the last one, and how long there was to be between them.
    Later(String, Duration),
}

impl Wanted {
    /// An image is missing.
    pub fn missing(&mut self, image: &str, now: Instant) -> Step {
        let failures = match self.images.get(image) {
            Some(State::UnderWay { .. }) => return Step::Wait,
            Some(State::Failed { reason, delay, until, .. }) if *until > now => {
                return Step::Later(reason.clone(), *delay);
            }
            Some(State::Failed { failures, .. }) => *failures,
            None => 0,
        };
        self.images.insert(image.to_owned(), State::UnderWay { failures });
        Step::Pull
    }

    /// A pull has failed; `asked` is how long the registry wants to be left alone. Nothing happens if nobody waits for it.
    pub fn failed(&mut self, image: &str, reason: &str, asked: Option<Duration>, now: Instant) {
        if let Some(state) = self.images.get_mut(image) {
            let (State::UnderWay { failures } | State::Failed { failures, .. }) = *state;
            let own = FIRST_DELAY.saturating_mul(1 << failures.min(16)).min(LONGEST_DELAY);
            let delay = own.max(asked.unwrap_or_default().min(LONGEST_ASKED));
            let reason = reason.to_owned();
            *state = State::Failed { reason, failures: failures + 1, delay, until: now + delay };
        }
    }

    /// It is there.
    pub fn forget(&mut self, image: &str) {
        self.images.remove(image);
    }

    /// Nobody waits for others than these any more.
    pub fn only(&mut self, images: &BTreeSet<String>) {
        self.images.retain(|image, _| images.contains(image));
    }

    /// What has failed may succeed now: it is tried at once.
    pub fn try_now(&mut self) {
        self.images.retain(|_, state| matches!(state, State::UnderWay { .. }));
    }

    /// When something is to be tried again.
    pub fn next(&self) -> Option<Instant> {
        let until = |state: &State| match state {
            State::UnderWay { .. } => None,
            State::Failed { until, .. } => Some(*until),
        };
        self.images.values().filter_map(until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_pull_is_tried_again_later_and_later() {
        let mut wanted = Wanted::default();
        let mut now = Instant::now();
        assert_eq!(wanted.missing("a", now), Step::Pull);
        assert_eq!(wanted.missing("a", now), Step::Wait);
        assert_eq!(wanted.next(), None);
        for delay in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300].map(Duration::from_secs) {
            wanted.failed("a", "it is gone", None, now);
            assert_eq!(wanted.missing("a", now), Step::Later("it is gone".to_owned(), delay));
            assert_eq!(wanted.next(), Some(now + delay));
            now += delay;
            assert_eq!(wanted.missing("a", now), Step::Pull);
        }
        wanted.failed("a", "it is gone", None, now);
        wanted.try_now();
        assert_eq!(wanted.missing("a", now), Step::Pull);
        wanted.only(&BTreeSet::new());
        wanted.failed("a", "nobody cares", None, now);
        assert_eq!(wanted.next(), None);
    }

    #[test]
    fn a_registry_is_left_alone_as_long_as_it_asks() {
        let mut wanted = Wanted::default();
        let mut now = Instant::now();
        // The third is less than it would be anyway, the fourth more than is believed.
        for (asked, delay) in [(1, 2), (900, 900), (7, 8), (100_000, 3600)] {
            assert_eq!(wanted.missing("a", now), Step::Pull);
            wanted.failed("a", "busy", Some(Duration::from_secs(asked)), now);
            let delay = Duration::from_secs(delay);
            assert_eq!(wanted.missing("a", now), Step::Later("busy".to_owned(), delay));
            now += delay;
        }
    }
}
