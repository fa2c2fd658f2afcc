//! What routers have said of names, until it holds no longer: each server and each domain by itself (RFC 8106, 5.1 and 5.2). No
//! clock.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::Advertised;

/// Of each kind, kept at the same time: a hostile router could name new servers with every message.
const MOST: usize = 16;

/// All that holds.
#[derive(Debug, Default)]
pub struct Kept {
    servers: List<Ipv6Addr>,
    domains: List<String>,
}

/// In the order in which they were heard first: routers that take turns change nothing.
#[derive(Debug)]
struct List<T>(Vec<One<T>>);

#[derive(Debug)]
struct One<T> {
    what: T,
    heard: Duration,
    expires: Duration,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: PartialEq> List<T> {
    fn hear(&mut self, what: T, (now, expires): (Duration, Duration)) {
        let known = self.0.iter().position(|one| one.what == what);
        if expires <= now {
            if let Some(place) = known {
                self.0.remove(place);
            }
            return;
        }
        if let Some(one) = known.and_then(|place| self.0.get_mut(place)) {
            (one.heard, one.expires) = (now, expires);
            return;
        }
        if self.0.len() >= MOST {
            let oldest = self.0.iter().enumerate().min_by_key(|(_, one)| one.heard).map(|(place, _)| place);
            if let Some(place) = oldest {
                self.0.remove(place);
            }
        }
        self.0.push(One { what, heard: now, expires });
    }

    fn retain(&mut self, stays: impl Fn(Duration, Duration) -> bool) {
        self.0.retain(|one| stays(one.heard, one.expires));
    }

    fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|one| &one.what)
    }
}

impl Kept {
    /// A router has said it, again or for the first time. What was not heard for the longest time makes room for it.
    pub fn hear(&mut self, advertised: Advertised, now: Duration) {
        let times = (now, now.saturating_add(advertised.lifetime));
        advertised.dns_servers.into_iter().for_each(|server| self.servers.hear(server, times));
        advertised.search.into_iter().for_each(|domain| self.domains.hear(domain, times));
    }

    /// Forgets what holds no longer.
    pub fn expire(&mut self, now: Duration) {
        self.retain(|_, expires| expires > now);
    }

    /// Forgets what was not heard since.
    pub fn forget_before(&mut self, since: Duration) {
        self.retain(|heard, _| heard >= since);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// When [`Self::expire`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        let servers = self.servers.0.iter().map(|one| one.expires);
        servers.chain(self.domains.0.iter().map(|one| one.expires)).min()
    }

    /// The servers.
    pub fn servers(&self) -> impl Iterator<Item = &Ipv6Addr> {
        self.servers.all()
    }

    /// The domains to search.
    pub fn domains(&self) -> impl Iterator<Item = &String> {
        self.domains.all()
    }

    fn retain(&mut self, stays: impl Fn(Duration, Duration) -> bool) {
        self.servers.retain(&stays);
        self.domains.retain(&stays);
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
        kept.servers().map(|server| server.segments()[7]).collect()
    }

    #[test]
    fn what_was_not_heard_for_the_longest_time_makes_room() {
        let mut kept = Kept::default();
        for number in 0..16 {
            kept.hear(advertised(number, 100), seconds(u64::from(number)));
        }
        // The first one repeats itself, so the second one is the oldest.
        kept.hear(advertised(0, 100), seconds(16));
        kept.hear(advertised(99, 100), seconds(17));
        assert_eq!(servers(&kept), [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 99]);
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
    fn each_server_holds_by_itself_and_keeps_its_place() {
        let mut kept = Kept::default();
        let both = Advertised {
            dns_servers: [advertised(1, 0), advertised(2, 0)].map(|one| one.dns_servers[0]).into(),
            ..advertised(1, 1800)
        };
        kept.hear(both, seconds(0));
        kept.hear(advertised(1, 1800), seconds(1));
        assert_eq!(servers(&kept), [1, 2], "the other one was not taken back");
        kept.hear(advertised(2, 0), seconds(2));
        assert_eq!(servers(&kept), [1]);
        kept.hear(advertised(3, 100), seconds(3));
        kept.hear(advertised(1, 100), seconds(4));
        assert_eq!(servers(&kept), [1, 3], "two routers that take turns change nothing");
    }

    #[test]
    fn what_was_heard_before_can_be_told_from_what_was_heard_since() {
        let mut kept = Kept::default();
        kept.hear(advertised(1, 100), seconds(1));
        kept.hear(advertised(2, 100), seconds(2));
        kept.hear(advertised(3, 100), seconds(5));
        kept.hear(advertised(1, 100), seconds(6));
        kept.forget_before(seconds(5));
        assert_eq!(servers(&kept), [1, 3]);
    }
}
