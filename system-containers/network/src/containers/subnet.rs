//! The addresses of the default network: which are used, and which container gets which. Pure, but for one file.
//!
//! A container's address follows from its name: it is the same after a restart of anything as long as nobody has it,
//! and nothing needs to be remembered for that. What is in use is known from the attachments.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dhcp::message::mask_of;
use crate::files;

/// Networks of /16 that are tried in turn, the rarest in use elsewhere first. The last is taken if all are in use.
const CANDIDATES: [Ipv4Addr; 8] = [
    Ipv4Addr::new(172, 30, 0, 0),
    Ipv4Addr::new(172, 29, 0, 0),
    Ipv4Addr::new(172, 27, 0, 0),
    Ipv4Addr::new(172, 23, 0, 0),
    Ipv4Addr::new(10, 215, 0, 0),
    Ipv4Addr::new(10, 183, 0, 0),
    Ipv4Addr::new(172, 19, 0, 0),
    Ipv4Addr::new(10, 61, 0, 0),
];
/// Of every candidate.
pub const IPV4_PREFIX: u8 = 16;
/// Of the IPv6 network.
pub const IPV6_PREFIX: u8 = 64;
/// The bridge's own place in both networks.
const GATEWAY: u16 = 1;
/// Places that containers can have; the last of 65,536 is the broadcast address.
const PLACES: std::ops::Range<u16> = 2..u16::MAX;

/// Both networks of the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The lowest address of the IPv4 network.
    ipv4: Ipv4Addr,
    /// The lowest address of the IPv6 network, a unique local one (RFC 4193).
    ipv6: Ipv6Addr,
}

impl Subnet {
    /// The one that was used before if no route of the host lies in it or around it, else one where none does.
    /// `random` makes the IPv6 network this machine's own.
    pub fn choose(before: Option<Self>, taken: &[(Ipv4Addr, u8)], random: u64) -> Self {
        let free = |candidate: &Ipv4Addr| !taken.iter().any(|(network, prefix)| overlap(*candidate, *network, *prefix));
        if let Some(before) = before.filter(|before| free(&before.ipv4)) {
            return before;
        }
        let ipv4 = CANDIDATES.into_iter().find(free).unwrap_or(CANDIDATES[7]);
        let ipv6 = before.map_or_else(|| unique_local(random), |before| before.ipv6);
        Self { ipv4, ipv6 }
    }

    /// What was used before, if that is known.
    pub fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Keeps it for the next boot.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        files::write_atomically(path, &serde_json::to_vec(self)?)
    }

    /// The bridge's addresses.
    pub fn gateway(&self) -> (Ipv4Addr, Ipv6Addr) {
        self.addresses(GATEWAY)
    }

    /// The addresses of a place.
    pub fn addresses(&self, place: u16) -> (Ipv4Addr, Ipv6Addr) {
        let ipv4 = u32::from(self.ipv4) | u32::from(place);
        let ipv6 = u128::from(self.ipv6) | u128::from(place);
        (ipv4.into(), ipv6.into())
    }
}

/// The place for a container: always the same one, or the next that is free. `None` if none is.
pub fn place_for(name: &str, used: &BTreeSet<u16>) -> Option<u16> {
    let count = u32::from(PLACES.end - PLACES.start);
    // FNV-1a.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let first = hash % count;
    (0..count)
        .filter_map(|step| u16::try_from((first + step) % count).ok())
        .map(|step| PLACES.start + step)
        .find(|place| !used.contains(place))
}

fn overlap(candidate: Ipv4Addr, network: Ipv4Addr, prefix: u8) -> bool {
    let mask = mask_of(prefix.min(IPV4_PREFIX));
    u32::from(candidate) & mask == u32::from(network) & mask
}

/// fd00::/8 and 40 random bits; the 16 of the subnet are 0.
fn unique_local(random: u64) -> Ipv6Addr {
    let bits = u128::from(random) & 0xff_ffff_ffff;
    Ipv6Addr::from(0xfd_u128 << 120 | bits << 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_the_host_is_avoided_whether_larger_or_smaller() {
        let chosen = |taken: &[(Ipv4Addr, u8)]| Subnet::choose(None, taken, 1).ipv4;
        assert_eq!(chosen(&[]), CANDIDATES[0]);
        assert_eq!(chosen(&[(Ipv4Addr::new(172, 30, 7, 0), 24)]), CANDIDATES[1]);
        assert_eq!(chosen(&[(Ipv4Addr::new(172, 16, 0, 0), 12)]), CANDIDATES[4]);
        assert_eq!(chosen(&[(Ipv4Addr::new(10, 0, 0, 0), 8)]), CANDIDATES[0]);
    }

    #[test]
    fn the_network_stays_unless_it_is_in_use() {
        let before = Subnet::choose(None, &[(CANDIDATES[0], 16)], 7);
        assert_eq!(Subnet::choose(Some(before), &[], 8), before);
        let after = Subnet::choose(Some(before), &[(before.ipv4, 24)], 8);
        assert_ne!(after.ipv4, before.ipv4);
        assert_eq!(after.ipv6, before.ipv6);
    }

    #[test]
    fn a_name_has_its_place_and_no_place_is_given_twice() {
        let mut used = BTreeSet::new();
        let first = place_for("web", &used).unwrap();
        assert_eq!(place_for("web", &used), Some(first));
        for _ in 0..500 {
            assert!(used.insert(place_for("web", &used).unwrap()));
        }
        assert!(used.iter().all(|place| *place >= 2 && *place < u16::MAX));
        assert_eq!(place_for("web", &(0..=u16::MAX).collect()), None);
    }

    #[test]
    fn places_and_addresses_belong_together() {
        let subnet = Subnet::choose(None, &[], u64::MAX);
        let (ipv4, ipv6) = subnet.addresses(513);
        assert_eq!(ipv4, Ipv4Addr::new(172, 30, 2, 1));
        assert_eq!(ipv6, "fdff:ffff:ffff::201".parse::<Ipv6Addr>().unwrap());
    }
}
