//! What routers have said of names, until it holds no longer. No clock.

use std::time::Duration;

use super::Advertised;

/// Kept at the same time: a hostile router could name new servers with every message.
const MOST: usize = 8;

/// In the order in which it was heard last.
#[derive(Debug, Default)]
pub struct Kept {
    each: Vec<One>,
}

#[derive(Debug)]
struct One {
    advertised: Advertised,
    heard: Duration,
    expires: Duration,
}

impl Kept {
    /// A router has said it, again or for the first time. What was not heard for the longest time makes room for it.
    pub fn hear(&mut self, advertised: Advertised, now: Duration) {
        let same =
            |other: &Advertised| other.dns_servers == advertised.dns_servers && other.search == advertised.search;
        self.each.retain(|other| !same(&other.advertised));
        if !advertised.lifetime.is_zero() {
            let surplus = (self.each.len() + 1).saturating_sub(MOST);
            self.each.drain(..surplus);
            let expires = now.saturating_add(advertised.lifetime);
            self.each.push(One { advertised, heard: now, expires });
        }
    }

    /// Forgets what holds no longer.
    pub fn expire(&mut self, now: Duration) {
        self.each.retain(|one| one.expires > now);
    }

    /// Forgets what was not heard since.
    pub fn forget_before(&mut self, since: Duration) {
        self.each.retain(|one| one.heard >= since);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.each.clear();
    }

    /// When [`Self::expire`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.each.iter().map(|one| one.expires).min()
    }

    /// All that holds.
    pub fn iter(&self) -> impl Iterator<Item = &Advertised> {
        self.each.iter().map(|one| &one.advertised)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn advertised(number: u16, lifetime: u64) -> Advertised {
        let server = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number);
        Advertised { link: 1, lifetime: seconds(lifetime), dns_servers: vec![server], search: Vec::new() }
    }

    fn servers(kept: &Kept) -> Vec<u16> {
        kept.iter().flat_map(|one| &one.dns_servers).map(|server| server.segments()[7]).collect()
    }

    #[test]
    fn what_was_not_heard_for_the_longest_time_makes_room() {
        let mut kept = Kept::default();
        for number in 0..8 {
            kept.hear(advertised(number, 100), seconds(u64::from(number)));
        }
        // The first one repeats itself, so the second one is the oldest.
        kept.hear(advertised(0, 100), seconds(8));
        kept.hear(advertised(99, 100), seconds(9));
        assert_eq!(servers(&kept), [2, 3, 4, 5, 6, 7, 0, 99]);
    }

    #[test]
    fn it_ends_with_its_time_and_when_it_is_taken_back() {
        let mut kept = Kept::default();
        kept.hear(advertised(1, 10), seconds(0));
        kept.hear(advertised(2, 20), seconds(1));
        kept.hear(advertised(3, 30), seconds(2));
        assert_eq!(kept.deadline(), Some(seconds(10)));
        kept.expire(seconds(10));
        assert_eq!(servers(&kept), [2, 3]);
        kept.hear(advertised(2, 0), seconds(11));
        assert_eq!(servers(&kept), [3]);
    }

    #[test]
    fn what_was_heard_before_can_be_told_from_what_was_heard_since() {
        let mut kept = Kept::default();
        kept.hear(advertised(1, 100), seconds(1));
        kept.hear(advertised(2, 100), seconds(2));
        kept.hear(advertised(3, 100), seconds(5));
        kept.hear(advertised(1, 100), seconds(6));
        kept.forget_before(seconds(5));
        assert_eq!(servers(&kept), [3, 1]);
    }
}
