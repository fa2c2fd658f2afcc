//! How often something may be done that others can bring about by what they send: some times at once, then now and then. Pure.

use std::time::Duration;

/// So many times at once: what a machine hears of names while it boots, and when a cable is plugged in.
const AT_ONCE: u32 = 8;
/// After that once in this time.
const INTERVAL: Duration = Duration::from_secs(5);

/// What is left of it.
#[derive(Debug)]
pub struct Pace {
    left: u32,
    /// When one is added; `None` if there are all.
    more_at: Option<Duration>,
}

impl Pace {
    /// With all of it.
    pub fn new() -> Self {
        Self { left: AT_ONCE, more_at: None }
    }

    /// Whether it may be done now.
    pub fn take(&mut self, now: Duration) -> bool {
        while let Some(at) = self.more_at.filter(|at| *at <= now) {
            self.left += 1;
            self.more_at = (self.left < AT_ONCE).then_some(at + INTERVAL);
        }
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        self.more_at = self.more_at.or(Some(now + INTERVAL));
        true
    }

    /// When it may be done again, if not now.
    pub fn again_at(&self) -> Option<Duration> {
        self.more_at.filter(|_| self.left == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_times_at_once_and_then_now_and_then() {
        let (mut pace, now) = (Pace::new(), Duration::from_secs(100));
        let taken = |pace: &mut Pace, now| (0..50).filter(|_| pace.take(now)).count();
        assert_eq!(pace.again_at(), None);
        assert_eq!(taken(&mut pace, now), 8);
        assert_eq!(pace.again_at(), Some(now + INTERVAL));
        assert_eq!(taken(&mut pace, now + INTERVAL / 2), 0);
        assert_eq!(taken(&mut pace, now + INTERVAL), 1);
        assert_eq!(taken(&mut pace, now + 3 * INTERVAL), 2);
        assert_eq!(taken(&mut pace, now + 1000 * INTERVAL), 8, "what is not taken is not saved up for ever");
    }
}
