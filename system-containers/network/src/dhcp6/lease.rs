//! A lease: what a server's message comes to once its times make sense, and what is left of it later.

use std::net::Ipv6Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::{Granted, ServerMessage};
use crate::leases::Keep;
use berth_control::clock::is_plausible;

/// For ever, as servers say it (RFC 8415, section 7.7).
const FOR_EVER: u32 = u32::MAX;
/// In seconds: a server whose times are next to nothing would be asked without a pause, as each answer brings the next question.
const SOONEST_RENEWAL: u32 = 1;

/// What servers have given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who gave it.
    pub server: Vec<u8>,
    /// Addresses with their times.
    pub addresses: Vec<Granted>,
    /// When to ask its server to prolong it, in seconds; `u32::MAX` is never.
    pub renewal_time: u32,
    /// When to ask any server, in seconds; not less than `renewal_time`.
    pub rebinding_time: u32,
    /// Resolvers.
    pub dns_servers: Vec<Ipv6Addr>,
    /// Domains to search.
    pub search: Vec<String>,
    /// Time servers.
    pub ntp_servers: Vec<Ipv6Addr>,
}

impl Lease {
    /// What a server grants: addresses that may be used at all, and what comes with them.
    pub fn from_message(message: ServerMessage) -> Self {
        let (renewal_time, rebinding_time) = times(&message);
        let ServerMessage { server, mut addresses, dns_servers, search, ntp_servers, .. } = message;
        addresses.retain(|granted| granted.valid > 0);
        Self { server, addresses, renewal_time, rebinding_time, dns_servers, search, ntp_servers }
    }

    /// What is left of it after so many seconds: the addresses that have not ended, with shorter times.
    fn after(&self, seconds: u64) -> Self {
        let seconds = u32::try_from(seconds).unwrap_or(FOR_EVER);
        let left = |time: u32| if time == FOR_EVER { time } else { time.saturating_sub(seconds) };
        let aged =
            |granted: &Granted| Granted { preferred: left(granted.preferred), valid: left(granted.valid), ..*granted };
        Self {
            addresses: self.addresses.iter().map(aged).filter(|granted| granted.valid > 0).collect(),
            renewal_time: left(self.renewal_time),
            rebinding_time: left(self.rebinding_time),
            ..self.clone()
        }
    }

    fn is_endless(&self) -> bool {
        self.addresses.iter().all(|granted| granted.valid == FOR_EVER && granted.preferred == FOR_EVER)
    }

    /// Whether two leases come to the same addresses and names of the same server; their times may differ.
    pub fn configures_the_same(&self, other: &Self) -> bool {
        let timeless = |lease: &Self| {
            let untimed = |granted: &Granted| Granted { preferred: 0, valid: 0, ..*granted };
            let addresses = lease.addresses.iter().map(untimed).collect();
            Self { addresses, renewal_time: 0, rebinding_time: 0, ..lease.clone() }
        };
        timeless(self) == timeless(other)
    }
}

/// Half and four fifths of the shortest time (RFC 8415, section 14.2), where the server does not say or says what comes after
/// the end.
fn times(message: &ServerMessage) -> (u32, u32) {
    let granted = message.addresses.iter().filter(|granted| granted.valid > 0);
    let Some(valid) = granted.clone().map(|granted| granted.valid).min() else { return (FOR_EVER, FOR_EVER) };
    // An address that is not to be used any more has no preferred time.
    let preferred = granted.map(|granted| granted.preferred).filter(|preferred| *preferred > 0).min();
    let shortest = preferred.unwrap_or(valid);
    let part = |given: u32, numerator: u64| match (given, shortest) {
        (0, FOR_EVER) => FOR_EVER,
        (given, shortest) if given == 0 || given > valid => {
            u32::try_from(u64::from(shortest) * numerator / 10).unwrap_or(FOR_EVER)
        }
        (given, _) => given,
    };
    let soonest = SOONEST_RENEWAL.min(valid);
    let renewal = part(message.renewal_time, 5).max(soonest);
    (renewal, part(message.rebinding_time, 8).max(soonest).max(renewal))
}

/// A lease in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    lease: Lease,
    /// When its times began, in seconds since 1970.
    since: u64,
}

impl Kept {
    /// A lease whose times begin now, for a machine whose clock says `wall`, in seconds since 1970; `None` if that is wrong, so
    /// that nobody would know when the lease ends.
    pub fn new(lease: Lease, wall: u64) -> Option<Self> {
        (is_plausible(wall) || lease.is_endless()).then_some(Self { lease, since: wall })
    }

    /// What is left of it; `None` if that is nothing, or if the clock is or was wrong, as where it began later than now.
    pub fn left(&self, wall: u64) -> Option<Lease> {
        if self.lease.is_endless() {
            return Some(self.lease.clone()).filter(|lease| !lease.addresses.is_empty());
        }
        let seconds = wall.checked_sub(self.since).filter(|_| is_plausible(wall) && is_plausible(self.since))?;
        let lease = self.lease.after(seconds);
        (!lease.addresses.is_empty()).then_some(lease)
    }
}

impl Keep for Kept {
    const SUFFIX: &'static str = "-6.json";

    fn is_possible(&self) -> bool {
        !self.lease.addresses.is_empty()
    }
}

/// A lease in use, or one that may be.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) lease: Lease,
    /// When its times began.
    pub(super) since: Duration,
}

impl Held {
    /// The same with the times that are left.
    pub(super) fn at(&self, now: Duration) -> Self {
        Self { lease: self.lease.after(now.saturating_sub(self.since).as_secs()), since: now }
    }

    pub(super) fn renew_at(&self) -> Duration {
        self.after(self.lease.renewal_time)
    }

    pub(super) fn rebind_at(&self) -> Duration {
        self.after(self.lease.rebinding_time)
    }

    /// The end of its last address; never where it has none.
    pub(super) fn expires_at(&self) -> Duration {
        self.after(self.lease.addresses.iter().map(|granted| granted.valid).max().unwrap_or(FOR_EVER))
    }

    fn after(&self, seconds: u32) -> Duration {
        match seconds {
            FOR_EVER => Duration::MAX,
            seconds => self.since + Duration::from_secs(seconds.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In 2027.
    const NOW: u64 = 1_800_000_000;

    fn lease(valid: u32) -> Lease {
        let address = "2001:db8::1".parse().unwrap();
        let addresses = vec![Granted { address, preferred: valid / 2, valid }];
        Lease { addresses, renewal_time: valid / 4, rebinding_time: valid / 3, ..Lease::default() }
    }

    #[test]
    fn of_a_kept_lease_there_is_what_is_left_and_nothing_where_the_clock_is_wrong() {
        let then = NOW - 500;
        let kept = Kept::new(lease(1200), then).unwrap();
        let left = kept.left(NOW).unwrap();
        assert_eq!((left.addresses[0].preferred, left.addresses[0].valid), (100, 700));
        assert_eq!((left.renewal_time, left.rebinding_time), (0, 0));
        assert!(kept.lease.configures_the_same(&left));
        assert_eq!((kept.left(then + 1200), kept.left(u64::MAX), kept.left(then - 1)), (None, None, None));
        // Of a version that kept whatever there was.
        assert_eq!(Kept { since: 20, ..kept }.left(60), None, "days may have passed");
        assert_eq!(Kept::new(lease(1200), 20), None);
        let addresses = vec![Granted { preferred: FOR_EVER, ..lease(FOR_EVER).addresses[0] }];
        let endless = Kept::new(Lease { addresses, ..lease(FOR_EVER) }, 20).unwrap();
        assert!(endless.left(NOW).is_some() && endless.left(0).is_some());
    }
}
