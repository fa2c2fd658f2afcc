//! Which routers there are behind a cable that was plugged in again. No clock, no socket.
//!
//! It may be another cable. The kernel asks only once in a link's life and keeps for days what routers behind the first
//! one said. So they are asked again (RFC 4861, 6.3.7), and what none of them repeats is of another network.
//!
//! ```text
//! carrier -> Asking (3 times, 4 s apart) -> Waiting, as long as it takes
//!                   |                          |
//!                   +---- an advertisement ----+--> Hearing (4 s) -> found
//! ```
//!
//! Nothing is given up as long as no router answers: the network may only be slow, and who has no other router is not
//! better off without this one.

use std::net::Ipv6Addr;
use std::time::Duration;

use berth_config::Prefix;

use super::packet::Advertisement;

/// MAX_RTR_SOLICITATIONS
const SOLICITATIONS: u32 = 3;
/// RTR_SOLICITATION_INTERVAL
const APART: Duration = Duration::from_secs(4);
/// For the other routers: one answers after half a second, or 3 s after what it said last (MAX_RA_DELAY_TIME,
/// MIN_DELAY_BETWEEN_RAS).
const HEARING: Duration = Duration::from_secs(4);
/// Routers, and networks, that are told apart. A hostile one can have as many as it likes.
const MOST: usize = 64;

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the routers.
    Solicit,
    /// These are there, and nothing else is.
    Found(Found),
}

/// What is behind the cable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The addresses of routers.
    pub routers: Vec<Ipv6Addr>,
    /// The networks that they say are on the link.
    pub prefixes: Vec<Prefix>,
}

/// One search, from carrier on.
#[derive(Debug)]
pub struct Search {
    began: Duration,
    state: State,
    found: Found,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Asking { left: u32, due: Duration },
    Waiting,
    Hearing { until: Duration },
    Over,
}

impl Search {
    /// Asks at once.
    pub fn begin(now: Duration) -> Self {
        Self { began: now, state: State::Asking { left: SOLICITATIONS, due: now }, found: Found::default() }
    }

    /// When it was begun.
    pub fn began(&self) -> Duration {
        self.began
    }

    /// When [`Self::tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Asking { due, .. } => Some(due),
            State::Hearing { until } => Some(until),
            State::Waiting | State::Over => None,
        }
    }

    /// A router has said something.
    pub fn hear(&mut self, advertisement: Advertisement, now: Duration) {
        if matches!(self.state, State::Asking { .. } | State::Waiting) {
            self.state = State::Hearing { until: now.saturating_add(HEARING) };
        }
        let Found { routers, prefixes } = &mut self.found;
        add(routers, advertisement.router);
        for prefix in advertisement.prefixes {
            add(prefixes, prefix);
        }
    }

    /// What is due.
    pub fn tick(&mut self, now: Duration) -> Option<Action> {
        match self.state {
            State::Asking { left, due } if due <= now => {
                let left = left.saturating_sub(1);
                let due = now.saturating_add(APART);
                self.state = if left == 0 { State::Waiting } else { State::Asking { left, due } };
                Some(Action::Solicit)
            }
            State::Hearing { until } if until <= now => {
                self.state = State::Over;
                Some(Action::Found(std::mem::take(&mut self.found)))
            }
            _ => None,
        }
    }
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if list.len() < MOST && !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn advertisement(router: &str, prefix: &str) -> Advertisement {
        Advertisement { router: router.parse().unwrap(), prefixes: vec![prefix.parse().unwrap()] }
    }

    #[test]
    fn it_asks_three_times_and_then_waits_for_whoever_comes() {
        let mut search = Search::begin(seconds(10));
        for due in [10, 14, 18] {
            assert_eq!(search.deadline(), Some(seconds(due)));
            assert_eq!(search.tick(seconds(due).saturating_sub(Duration::from_millis(1))), None);
            assert_eq!(search.tick(seconds(due)), Some(Action::Solicit));
        }
        assert_eq!((search.deadline(), search.tick(seconds(1000))), (None, None));
        search.hear(advertisement("fe80::1", "fd77::/64"), seconds(1000));
        assert_eq!(search.deadline(), Some(seconds(1004)));
    }

    #[test]
    fn all_routers_that_answer_for_a_while_count() {
        let mut search = Search::begin(seconds(0));
        assert_eq!(search.tick(seconds(0)), Some(Action::Solicit));
        search.hear(advertisement("fe80::1", "fd77::/64"), seconds(1));
        search.hear(advertisement("fe80::2", "fd78::/64"), seconds(3));
        search.hear(advertisement("fe80::1", "fd77::/64"), seconds(4));
        assert_eq!(search.tick(seconds(4)), None);
        let found = Found {
            routers: ["fe80::1", "fe80::2"].map(|router| router.parse().unwrap()).into(),
            prefixes: ["fd77::/64", "fd78::/64"].map(|prefix| prefix.parse().unwrap()).into(),
        };
        assert_eq!(search.tick(seconds(5)), Some(Action::Found(found)));
        assert_eq!((search.deadline(), search.tick(seconds(6))), (None, None));
    }
}
