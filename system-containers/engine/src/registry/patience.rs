//! How long a registry is waited for. A value, so that tests need not wait as long.

use std::time::{Duration, Instant};

/// Every time-out and delay of pulling and pushing.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection: names, TCP, proxy, TLS.
    pub connect: Duration,
    /// For the head of an answer, from when the whole request has gone out. Registries that fetch from elsewhere take their
    /// time.
    pub answer: Duration,
    /// For the next bytes of a body, in either direction; also the time over which [`Self::rate`] is measured.
    pub idle: Duration,
    /// Below so many bytes in [`Self::idle`] a blob counts as broken off, and is resumed on another connection.
    pub rate: u64,
    /// How often a request is repeated that failed for a passing reason.
    pub retries: u32,
    /// Before the first repetition; doubled for each further one.
    pub delay: Duration,
    /// The most that is waited before a repetition. If the registry asks for more there is none: who wants the image tries
    /// again when the registry said.
    pub longest_delay: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            answer: Duration::from_secs(60),
            idle: Duration::from_secs(30),
            // A modem's speed.
            rate: 32 << 10,
            retries: 4,
            delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(30),
        }
    }
}

/// For a connection, where somebody else can be asked instead.
const CONNECT_OR_ELSE: Duration = Duration::from_secs(5);
/// For the head of an answer: what a mirror that has to ask others first may take.
const ANSWER_OR_ELSE: Duration = Duration::from_secs(20);

impl Patience {
    /// With one who has yet to show that they are there, while somebody else can be asked.
    pub fn or_else(self) -> Self {
        Self {
            connect: self.connect.min(CONNECT_OR_ELSE),
            answer: self.answer.min(ANSWER_OR_ELSE),
            retries: self.retries.min(1),
            ..self
        }
    }

    /// Before the repetition with this number, the first is 0; `asked` is what the registry wants. None if there is to be no
    /// repetition.
    pub fn before(&self, repetition: u32, asked: Option<Duration>) -> Option<Duration> {
        let asked = asked.unwrap_or_default();
        let own = self.delay.saturating_mul(1 << repetition.min(16)).min(self.longest_delay);
        (repetition < self.retries && asked <= self.longest_delay).then(|| own.max(asked))
    }
}

/// Watches whether a body comes or goes fast enough: who sends or takes a byte now and then must not hold a pull or push for
/// ever.
pub struct Pace {
    patience: Patience,
    since: Instant,
    counted: u64,
}

impl Pace {
    /// What one says of a server that sends too slowly.
    pub const COMPLAINT: &str = "sends next to nothing";

    /// From now on, with so many bytes there.
    pub fn new(patience: &Patience, received: u64) -> Self {
        Self { patience: *patience, since: Instant::now(), counted: received }
    }

    /// So many bytes are there in all. Returns the time in which too few of them came.
    pub fn is_too_slow(&mut self, received: u64) -> Option<Duration> {
        if self.since.elapsed() < self.patience.idle {
            return None;
        }
        let too_slow = received - self.counted < self.patience.rate;
        (self.since, self.counted) = (Instant::now(), received);
        too_slow.then_some(self.patience.idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit_and_the_registry_is_heard() {
        let patience = Patience::default();
        let before = |repetition, asked: Option<u64>| patience.before(repetition, asked.map(Duration::from_secs));
        assert_eq!(before(0, None), Some(Duration::from_millis(500)));
        assert_eq!(before(2, None), Some(Duration::from_secs(2)));
        assert_eq!(before(0, Some(7)), Some(Duration::from_secs(7)));
        assert_eq!((before(0, Some(31)), before(4, None)), (None, None));
        let patience = Patience { retries: 99, ..patience };
        assert_eq!(patience.before(40, None), Some(patience.longest_delay));
    }
}
