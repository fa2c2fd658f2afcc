//! The addresses of a network: where they come from, and which container gets which. Pure.
//!
//! A container's address follows from its name: it is the same after a restart of anything as long as nobody has it,
//! and nothing needs to be remembered for that. What is in use is known from the attachments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_config::{ContainerNetwork, Prefix};
use serde::{Deserialize, Serialize};

use crate::dhcp::routes::mask_of;

/// Networks of /16 that are tried in turn, the rarest in use elsewhere first.
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
/// Of the default network: all of a candidate.
const DEFAULT_LENGTH: u8 = 16;
/// Of the others: some four thousand containers in each, and more than a hundred networks in all candidates.
const LENGTH: u8 = 20;
/// Of IPv6 networks.
const IPV6_LENGTH: u8 = 64;
/// The highest place that a container gets without asking for an address.
const LAST_PLACE: u32 = 0xffff;

/// Both subnets of a network, and the machine's addresses in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnets {
    /// Its lowest address and its length.
    pub ipv4: Prefix,
    /// A unique local one (RFC 4193) unless it is given.
    pub ipv6: Prefix,
    /// The bridge's own address.
    pub gateway4: Ipv4Addr,
    /// The bridge's own address.
    pub gateway6: Ipv6Addr,
}

impl Subnets {
    /// As declared; else those that were used before if nothing else overlaps with them, else others with which nothing
    /// does. `number` is the network's own, 0 for the default one, and `random` this machine's. `None` if no IPv4
    /// network is left.
    pub fn choose(
        number: u16,
        declared: &ContainerNetwork,
        before: Option<Self>,
        taken: &[Prefix],
        random: u64,
    ) -> Option<Self> {
        let free = |candidate: &Prefix| !taken.iter().any(|other| other.overlaps(*candidate));
        let before4 = before.map(|before| before.ipv4).filter(free);
        let ipv4 = declared.subnet(true).or(before4).or_else(|| candidates(number).find(free))?;
        let ipv6 = declared.subnet(false).or_else(|| Prefix::new(unique_local(random, number).into(), IPV6_LENGTH))?;
        let first = |subnet| address_in(subnet, 1);
        let gateway = |ipv4: bool, subnet| declared.gateway(ipv4).unwrap_or(first(subnet));
        match (gateway(true, ipv4), gateway(false, ipv6)) {
            (IpAddr::V4(gateway4), IpAddr::V6(gateway6)) => Some(Self { ipv4, ipv6, gateway4, gateway6 }),
            _ => None,
        }
    }

    /// A container's addresses: always the same, or the next that are free. Those that are `fixed` are given.
    pub fn addresses(
        &self,
        name: &str,
        fixed: (Option<Ipv4Addr>, Option<Ipv6Addr>),
        is_taken: impl Fn(IpAddr) -> bool,
    ) -> Option<(Ipv4Addr, Ipv6Addr)> {
        let free = |address: IpAddr| {
            address != IpAddr::V4(self.gateway4) && address != IpAddr::V6(self.gateway6) && !is_taken(address)
        };
        let good = |place: u32| match (address_in(self.ipv4, place), address_in(self.ipv6, place)) {
            (IpAddr::V4(ipv4), IpAddr::V6(ipv6)) => {
                let good = (fixed.0.is_some() || free(ipv4.into())) && (fixed.1.is_some() || free(ipv6.into()));
                good.then_some((fixed.0.unwrap_or(ipv4), fixed.1.unwrap_or(ipv6)))
            }
            _ => None,
        };
        let host_part = fixed.0.map(|address| address.to_bits() & !mask_of(self.ipv4.length()));
        let last = self.last_place();
        // FNV-1a.
        let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        host_part.into_iter().chain((0..last).map(|step| 1 + (hash % last + step) % last)).find_map(good)
    }

    /// Below the IPv4 network's broadcast address, and within the IPv6 network.
    fn last_place(&self) -> u32 {
        let ipv4 = !mask_of(self.ipv4.length()) - 1;
        let ipv6 = u128::MAX.checked_shr(self.ipv6.length().into()).unwrap_or(0);
        ipv4.min(u32::try_from(ipv6).unwrap_or(u32::MAX)).clamp(1, LAST_PLACE)
    }
}

/// The address at a place of a network.
fn address_in(subnet: Prefix, place: u32) -> IpAddr {
    match subnet.address() {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() | place).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() | u128::from(place)).into(),
    }
}

/// What a network without a subnet may get. The default one and the others begin at different ends.
fn candidates(number: u16) -> Box<dyn Iterator<Item = Prefix>> {
    if number == 0 {
        return Box::new(CANDIDATES.into_iter().filter_map(|candidate| Prefix::new(candidate.into(), DEFAULT_LENGTH)));
    }
    let parts = 1_u32 << (LENGTH - DEFAULT_LENGTH);
    let of_one = move |candidate: Ipv4Addr| {
        (0..parts).filter_map(move |part| {
            Prefix::new(Ipv4Addr::from_bits(candidate.to_bits() | part << (32 - LENGTH)).into(), LENGTH)
        })
    };
    Box::new(CANDIDATES.into_iter().rev().flat_map(of_one))
}

/// fd00::/8, 40 random bits, and the network's number.
fn unique_local(random: u64, number: u16) -> Ipv6Addr {
    let bits = u128::from(random) & 0xff_ffff_ffff;
    Ipv6Addr::from(0xfd_u128 << 120 | bits << 80 | u128::from(number) << 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn chosen(number: u16, before: Option<Subnets>, taken: &[&str]) -> Option<Subnets> {
        let taken: Vec<Prefix> = taken.iter().map(|text| text.parse().unwrap()).collect();
        Subnets::choose(number, &ContainerNetwork::default(), before, &taken, 1)
    }

    #[test]
    fn what_the_host_uses_is_avoided_whether_larger_or_smaller() {
        let network = |taken: &[&str]| chosen(0, None, taken).unwrap().ipv4.to_string();
        assert_eq!(network(&[]), "172.30.0.0/16");
        assert_eq!(network(&["172.30.7.0/24"]), "172.29.0.0/16");
        assert_eq!(network(&["172.16.0.0/12"]), "10.215.0.0/16");
        assert!(chosen(0, None, &["172.16.0.0/12", "10.0.0.0/8"]).is_none());
        assert_eq!(chosen(1, None, &["10.61.0.0/19"]).unwrap().ipv4.to_string(), "10.61.32.0/20");
    }

    #[test]
    fn a_network_stays_unless_something_overlaps_with_it() {
        let before = chosen(0, None, &["172.30.0.0/16"]).unwrap();
        assert_eq!(chosen(0, Some(before), &[]), Some(before));
        assert_ne!(chosen(0, Some(before), &["172.29.1.0/24"]), Some(before));
    }

    #[test]
    fn what_is_declared_is_taken_and_the_rest_is_chosen() {
        let declared = ContainerNetwork {
            subnets: vec!["10.88.0.0/24".parse().unwrap()],
            gateways: vec!["10.88.0.254".parse().unwrap()],
            ..ContainerNetwork::default()
        };
        let subnets = Subnets::choose(3, &declared, None, &[], u64::MAX).unwrap();
        assert_eq!(
            (subnets.ipv4.to_string(), subnets.gateway4.to_string()),
            ("10.88.0.0/24".into(), "10.88.0.254".into())
        );
        assert_eq!(subnets.ipv6.to_string(), "fdff:ffff:ffff:3::/64");
        assert_eq!(subnets.gateway6.to_string(), "fdff:ffff:ffff:3::1");
    }

    #[test]
    fn a_name_has_its_addresses_and_none_is_given_twice() {
        let subnets = chosen(0, None, &[]).unwrap();
        let mut used: BTreeSet<IpAddr> = BTreeSet::new();
        let first = subnets.addresses("web", (None, None), |_| false).unwrap();
        for _ in 0..500 {
            let (ipv4, ipv6) = subnets.addresses("web", (None, None), |address| used.contains(&address)).unwrap();
            assert!(used.insert(ipv4.into()) && used.insert(ipv6.into()));
            assert!(ipv4 != subnets.gateway4 && subnets.ipv4.contains(ipv4.into()));
        }
        assert!(used.contains(&first.0.into()));
    }

    #[test]
    fn a_small_network_is_used_to_its_last_address() {
        let declared =
            ContainerNetwork { subnets: vec!["10.88.0.8/29".parse().unwrap()], ..ContainerNetwork::default() };
        let subnets = Subnets::choose(1, &declared, None, &[], 1).unwrap();
        let mut used: BTreeSet<IpAddr> = BTreeSet::new();
        while let Some((ipv4, _)) = subnets.addresses("web", (None, None), |address| used.contains(&address)) {
            assert!(used.insert(ipv4.into()));
        }
        let all: Vec<String> = used.iter().map(ToString::to_string).collect();
        assert_eq!(all, ["10.88.0.10", "10.88.0.11", "10.88.0.12", "10.88.0.13", "10.88.0.14"]);
    }

    #[test]
    fn a_fixed_address_is_given_and_the_other_family_follows() {
        let subnets = chosen(0, None, &[]).unwrap();
        let fixed = Ipv4Addr::new(172, 30, 1, 1);
        let (ipv4, ipv6) = subnets.addresses("web", (Some(fixed), None), |_| false).unwrap();
        assert_eq!((ipv4, ipv6.segments()[7]), (fixed, 0x101));
    }
}
