//! A lease: what a server's message comes to once it is checked.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::{ServerMessage, is_usable};
use super::routes::{Route, mask_of, prefix_length_by_class};
use crate::leases::Keep;
use berth_control::clock::is_plausible;

/// A lease that is shorter is taken for nonsense, in seconds: it could not be renewed in time on a busy machine.
const SHORTEST_LEASE: u32 = 10;
/// The lease time that means for ever (RFC 2131, section 3.3).
pub const FOR_EVER: u32 = u32::MAX;
/// The smallest MTU that a host must support (RFC 791), in bytes.
const SMALLEST_MTU: u16 = 576;

/// An address and what came with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Ours.
    pub address: Ipv4Addr,
    /// Of its subnet, 1 to 32.
    pub prefix_length: u8,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// All routes, the default one too.
    pub routes: Vec<Route>,
    /// Resolvers.
    pub dns_servers: Vec<Ipv4Addr>,
    /// Domain names to search, the machine's own domain first.
    pub search: Vec<String>,
    /// The machine's name as the server sees it.
    pub host_name: Option<String>,
    /// Time servers.
    pub ntp_servers: Vec<Ipv4Addr>,
    /// Of the link, in bytes.
    pub mtu: Option<u16>,
    /// How long it may be used, in seconds; [`FOR_EVER`] has no end.
    pub lease_time: u32,
    /// When to ask its server to prolong it, in seconds; less than `rebinding_time`.
    pub renewal_time: u32,
    /// When to ask any server, in seconds; less than `lease_time`.
    pub rebinding_time: u32,
    /// Of one that is kept: when it ends, in seconds since 1970; 0 if that is not known.
    #[serde(default)]
    pub ends: u64,
}

impl Lease {
    /// Checks what a server offers. The error says what is wrong with it.
    pub fn from_message(message: &ServerMessage) -> Result<Self, &'static str> {
        let server = message.server.ok_or("no server identifier")?;
        let lease_time = message.lease_time.ok_or("no lease time")?;
        if lease_time < SHORTEST_LEASE {
            return Err("a lease time of a few seconds");
        }
        if !is_usable(message.address) {
            return Err("an address that no machine can have");
        }
        let prefix_length = match message.subnet_mask {
            Some(mask) => prefix_length(mask).ok_or("an impossible subnet mask")?,
            None => prefix_length_by_class(message.address),
        };
        let host_part = u32::from(message.address) & !mask_of(prefix_length);
        if prefix_length < 31 && (host_part == 0 || host_part == !mask_of(prefix_length)) {
            return Err("the network's own or its broadcast address");
        }
        let by_default = message.routers.first().map(|gateway| Route {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix_length: 0,
            gateway: *gateway,
        });
        // The first router for a destination is the preferred one (RFC 2132, section 5.8): the kernel would take the last.
        let mut led = std::collections::BTreeSet::new();
        let of_classes =
            message.static_routes.iter().filter(|route| led.insert((route.destination, route.prefix_length)));
        let of_classes: Vec<Route> = of_classes.copied().collect();
        let (renewal_time, rebinding_time) = times(lease_time, message.renewal_time, message.rebinding_time);
        let mut search: Vec<String> = message.domain.iter().chain(&message.search).cloned().collect();
        let mut seen = std::collections::BTreeSet::new();
        search.retain(|name| seen.insert(name.clone()));
        Ok(Self {
            address: message.address,
            prefix_length,
            server,
            routes: message.routes.clone().unwrap_or_else(|| by_default.into_iter().chain(of_classes).collect()),
            dns_servers: message.dns_servers.clone(),
            search,
            host_name: message.host_name.clone(),
            ntp_servers: message.ntp_servers.clone(),
            mtu: message.mtu.filter(|mtu| *mtu >= SMALLEST_MTU),
            lease_time,
            renewal_time,
            rebinding_time,
            ends: 0,
        })
    }

    /// The same with its end, for a machine whose clock says `wall`, in seconds since 1970; not known where that is wrong.
    pub fn ending(&self, wall: u64) -> Self {
        let is_known = is_plausible(wall) || self.lease_time == FOR_EVER;
        Self { ends: if is_known { wall.saturating_add(self.lease_time.into()) } else { 0 }, ..self.clone() }
    }

    /// For how long it goes on; nothing if it has ended, or if the clock is wrong, as where it would be longer than it ever was.
    pub fn left(&self, wall: u64) -> Duration {
        match self.ends.saturating_sub(wall) {
            _ if self.ends > 0 && self.lease_time == FOR_EVER => Duration::MAX,
            left if left <= self.lease_time.into() && is_plausible(wall) => Duration::from_secs(left),
            _ => Duration::ZERO,
        }
    }

    /// Whether two leases come to the same addresses, routes and names; their times may differ.
    pub fn configures_the_same(&self, other: &Self) -> bool {
        let times = |lease: &Self| Self { lease_time: 0, renewal_time: 0, rebinding_time: 0, ends: 0, ..lease.clone() };
        times(self) == times(other)
    }
}

/// Half and seven eighths of the lease (RFC 2131, section 4.4.5) unless the server says otherwise and sensibly.
fn times(lease: u32, renewal: Option<u32>, rebinding: Option<u32>) -> (u32, u32) {
    if lease == FOR_EVER {
        return (FOR_EVER, FOR_EVER);
    }
    let default = (lease / 2, lease - lease / 8);
    match (renewal.unwrap_or(default.0), rebinding.unwrap_or(default.1)) {
        (renewal, rebinding) if 0 < renewal && renewal < rebinding && rebinding < lease => (renewal, rebinding),
        _ => default,
    }
}

fn prefix_length(mask: Ipv4Addr) -> Option<u8> {
    let mask = u32::from(mask);
    let length = u8::try_from(mask.leading_ones()).ok()?;
    (length > 0 && mask == mask_of(length)).then_some(length)
}

impl Keep for Lease {
    const SUFFIX: &'static str = ".json";

    fn is_possible(&self) -> bool {
        is_usable(self.address) && (1..=32).contains(&self.prefix_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::message::Kind;
    use crate::dhcp::message::tests::server_bytes;

    /// In 2027.
    const NOW: u64 = 1_800_000_000;

    fn offer(address: [u8; 4], options: &[(u8, &[u8])]) -> Result<Lease, &'static str> {
        let bytes = server_bytes(Kind::Offer, 1, [2; 6], address, options);
        Lease::from_message(&ServerMessage::decode(&bytes).unwrap())
    }

    const SERVER: (u8, &[u8]) = (54, &[10, 0, 0, 1]);
    const HOUR: (u8, &[u8]) = (51, &[0, 0, 14, 16]);
    const MASK: (u8, &[u8]) = (1, &[255, 255, 255, 0]);

    #[test]
    fn a_sensible_offer_becomes_a_lease_with_default_times() {
        let lease = offer([10, 0, 0, 9], &[SERVER, HOUR, MASK, (3, &[10, 0, 0, 1])]).unwrap();
        assert_eq!((lease.prefix_length, lease.renewal_time, lease.rebinding_time), (24, 1800, 3150));
        assert_eq!(lease.routes.len(), 1);
    }

    #[test]
    fn nonsense_is_refused() {
        for (address, options) in [
            ([10, 0, 0, 9], vec![HOUR, MASK]),
            ([10, 0, 0, 9], vec![SERVER, MASK]),
            ([10, 0, 0, 9], vec![SERVER, MASK, (51, &[0, 0, 0, 0][..])]),
            ([0, 0, 0, 0], vec![SERVER, HOUR, MASK]),
            ([127, 0, 0, 1], vec![SERVER, HOUR, MASK]),
            ([224, 0, 0, 1], vec![SERVER, HOUR, MASK]),
            ([10, 0, 0, 0], vec![SERVER, HOUR, MASK]),
            ([10, 0, 0, 255], vec![SERVER, HOUR, MASK]),
            ([10, 0, 0, 9], vec![SERVER, HOUR, (1, &[255, 0, 255, 0][..])]),
            ([10, 0, 0, 9], vec![SERVER, HOUR, (1, &[0, 0, 0, 0][..])]),
        ] {
            assert!(offer(address, &options).is_err(), "{address:?} {options:?}");
        }
    }

    #[test]
    fn times_in_the_wrong_order_are_replaced() {
        let lease = offer([10, 0, 0, 9], &[SERVER, HOUR, MASK, (58, &[0, 0, 15, 0]), (59, &[0, 0, 0, 1])]).unwrap();
        assert_eq!((lease.renewal_time, lease.rebinding_time), (1800, 3150));
    }

    #[test]
    fn classless_routes_replace_the_router() {
        let routes: (u8, &[u8]) = (121, &[8, 10, 10, 0, 0, 2]);
        let lease = offer([10, 0, 0, 9], &[SERVER, HOUR, MASK, (3, &[10, 0, 0, 1]), routes]).unwrap();
        assert_eq!(lease.routes.iter().map(|route| route.prefix_length).collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn static_routes_stand_beside_the_router_and_classless_ones_replace_them() {
        let router: (u8, &[u8]) = (3, &[10, 0, 0, 1]);
        let of_classes: (u8, &[u8]) =
            (33, &[10, 9, 9, 9, 10, 0, 0, 2, 192, 168, 7, 0, 10, 0, 0, 3, 10, 9, 9, 9, 10, 0, 0, 4]);
        let classless: (u8, &[u8]) = (249, &[8, 44, 10, 0, 0, 5]);
        let shown = |options: &[(u8, &[u8])]| {
            let lease = offer([10, 0, 0, 9], &[&[SERVER, HOUR, MASK, router], options].concat()).unwrap();
            let text = |route: &Route| format!("{}/{} {}", route.destination, route.prefix_length, route.gateway);
            lease.routes.iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(shown(&[of_classes]), ["0.0.0.0/0 10.0.0.1", "10.9.9.9/32 10.0.0.2", "192.168.7.0/24 10.0.0.3"]);
        assert_eq!(shown(&[of_classes, classless]), ["44.0.0.0/8 10.0.0.5"]);
        assert_eq!(shown(&[of_classes, classless, (121, &[8, 45, 10, 0, 0, 6])]), ["45.0.0.0/8 10.0.0.6"]);
    }

    #[test]
    fn a_lease_has_an_end_that_a_wrong_clock_does_not_move() {
        let lease = offer([10, 0, 0, 9], &[SERVER, HOUR, MASK]).unwrap();
        assert_eq!(lease.left(1000), Duration::ZERO, "nobody knows when it began");
        let kept = lease.ending(NOW);
        let seconds = Duration::from_secs;
        assert_eq!((kept.left(NOW), kept.left(NOW + 3599)), (seconds(3600), seconds(1)));
        assert_eq!((kept.left(NOW + 3600), kept.left(NOW + 9999), kept.left(0)), (seconds(0), seconds(0), seconds(0)));
        assert_eq!(lease.ending(20).left(60), seconds(0), "days may have passed");
        assert_eq!(
            Lease { ends: 3620, ..lease.clone() }.left(60),
            seconds(0),
            "of a version that kept whatever there was"
        );
        let endless = offer([10, 0, 0, 9], &[SERVER, (51, &[255; 4]), MASK]).unwrap().ending(1000);
        assert_eq!((endless.left(0), endless.left(u64::MAX)), (Duration::MAX, Duration::MAX));
        assert!(kept.configures_the_same(&lease));
    }
}
