//! A lease: what a server's message comes to once its times make sense.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::message::{Granted, ServerMessage};

/// For ever, as servers say it (RFC 8415, section 7.7).
const FOR_EVER: u32 = u32::MAX;
/// In seconds: a server whose times are next to nothing would be asked without a pause, as each answer brings the next question.
const SOONEST_RENEWAL: u32 = 1;

/// What servers have given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

/// A lease in use.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) lease: Lease,
    /// When its times began.
    pub(super) since: Duration,
}

impl Held {
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
