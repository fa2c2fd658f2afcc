//! Answers of other servers for as long as they hold (RFC 1035, 2308), and no longer than [`LONGEST`]. Pure.
//!
//! What is kept is bounded in number and bytes; what is too much goes, the first to end first. An answer is given out with
//! what is left of its times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::records;

/// The most answers.
const MOST: usize = 2048;
/// The most bytes of all of them.
const MOST_BYTES: usize = 2 << 20;
/// A longer one than any that is worth its room.
const LARGEST: usize = 4096;
/// RFC 8767 has a week, RFC 2308 three hours for what is not there; a wrong answer is to be outlived in an hour.
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug)]
struct Entry {
    answer: Vec<u8>,
    since: Duration,
    until: Duration,
}

/// All kept answers, by the question as it is sent on, without its id.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    entries: BTreeMap<Vec<u8>, Entry>,
    by_end: BTreeSet<(Duration, Vec<u8>)>,
    bytes: usize,
    clearings: u64,
}

impl Cache {
    /// The answer to a question, with the times that are left.
    pub fn find(&self, question: &[u8], now: Duration) -> Option<Vec<u8>> {
        let entry = self.entries.get(question).filter(|entry| now < entry.until)?;
        let mut answer = entry.answer.clone();
        let age = u32::try_from(now.saturating_sub(entry.since).as_secs()).unwrap_or(u32::MAX);
        records::age(&mut answer, age);
        Some(answer)
    }

    /// Keeps an answer that came at `now`, if it is one to be kept.
    pub fn keep(&mut self, question: Vec<u8>, answer: &[u8], now: Duration) {
        let Some(seconds) = records::holds(answer).filter(|seconds| *seconds > 0 && answer.len() <= LARGEST) else {
            return;
        };
        self.forget(&question);
        let until = now + Duration::from_secs(seconds.into()).min(LONGEST);
        self.bytes += question.len() + answer.len();
        self.by_end.insert((until, question.clone()));
        self.entries.insert(question, Entry { answer: answer.to_vec(), since: now, until });
        while self.entries.len() > MOST || self.bytes > MOST_BYTES {
            let Some((_, first)) = self.by_end.first().cloned() else { return };
            self.forget(&first);
        }
    }

    /// Forgets everything: the servers are others now.
    pub fn clear(&mut self) {
        *self = Self { clearings: self.clearings + 1, ..Self::default() };
    }

    /// How often everything was forgotten: what was asked before the last time came from servers of before.
    pub fn clearings(&self) -> u64 {
        self.clearings
    }

    fn forget(&mut self, question: &[u8]) {
        if let Some(entry) = self.entries.remove(question) {
            self.bytes = self.bytes.saturating_sub(question.len() + entry.answer.len());
            self.by_end.remove(&(entry.until, question.to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::tests::{answer, negative};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_answer_is_given_until_its_time_is_up() {
        let mut cache = Cache::default();
        cache.keep(b"one".to_vec(), &answer(&[60, 300]), SECOND);
        assert_eq!(cache.find(b"one", 21 * SECOND), Some(answer(&[40, 280])));
        assert_eq!(cache.find(b"one", 61 * SECOND), None);
        assert_eq!(cache.find(b"two", SECOND), None);
        cache.keep(b"day".to_vec(), &answer(&[86_400]), SECOND);
        assert!(cache.find(b"day", 3600 * SECOND).is_some());
        assert_eq!(cache.find(b"day", 3601 * SECOND), None, "nothing is kept for longer than an hour");
    }

    #[test]
    fn that_there_is_nothing_is_kept_as_long_as_the_zone_says() {
        let mut cache = Cache::default();
        cache.keep(b"none".to_vec(), &negative(3, 900, 30), SECOND);
        assert!(cache.find(b"none", 30 * SECOND).is_some());
        assert_eq!(cache.find(b"none", 31 * SECOND), None);
        cache.keep(b"failed".to_vec(), &negative(2, 900, 30), SECOND);
        assert_eq!(cache.find(b"failed", SECOND), None);
    }

    #[test]
    fn it_has_a_bound_and_the_first_to_end_goes_first() {
        let mut cache = Cache::default();
        for number in 0..u32::try_from(MOST).unwrap() + 100 {
            cache.keep(number.to_be_bytes().to_vec(), &answer(&[100 + number]), SECOND);
        }
        assert_eq!((cache.entries.len(), cache.by_end.len()), (MOST, MOST));
        assert!(cache.find(&0_u32.to_be_bytes(), SECOND).is_none());
        assert!(cache.find(&2000_u32.to_be_bytes(), SECOND).is_some());
        let large = [answer(&[60]), vec![0; 3000]].concat();
        for number in 0..1000_u32 {
            cache.keep([&b"large"[..], &number.to_be_bytes()].concat(), &large, SECOND);
        }
        assert!(cache.bytes <= MOST_BYTES && cache.entries.len() > 500);
        cache.keep(b"one".to_vec(), &answer(&[60]), SECOND);
        cache.keep(b"one".to_vec(), &answer(&[70]), SECOND);
        assert_eq!(cache.entries.len(), cache.by_end.len());
        cache.clear();
        assert_eq!((cache.entries.len(), cache.bytes, cache.clearings()), (0, 0, 1));
    }
}
