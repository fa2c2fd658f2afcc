//! One address on one link: is it free, and does it stay so (RFC 5227). No clock, no socket.
//!
//! An address that a DHCP server has given is in use from the beginning: servers look themselves, and six seconds without
//! a network at each boot are too much. It is asked for all the same, and given up when another machine has it. A
//! link-local address, which nobody has looked for, is used after the probes.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::packet::Packet;
use crate::dhcp::client::next_random;
use crate::dhcp::message::Mac;

/// PROBE_NUM, ANNOUNCE_NUM.
const PROBES: u32 = 3;
const ANNOUNCEMENTS: u32 = 2;
/// PROBE_MIN to PROBE_MAX apart; ANNOUNCE_WAIT and ANNOUNCE_INTERVAL.
const LEAST_APART: Duration = Duration::from_secs(1);
const ANNOUNCE: Duration = Duration::from_secs(2);

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send it to everyone.
    Send(Packet),
    /// Nobody else has the address.
    Free,
    /// Another machine has it.
    Taken(Mac),
}

/// The question about one address.
#[derive(Clone, Debug)]
pub struct Detector {
    mac: Mac,
    address: Ipv4Addr,
    sent: u32,
    next: Option<Duration>,
    random: u64,
}

impl Detector {
    /// Begins at `now`.
    pub fn new(mac: Mac, address: Ipv4Addr, seed: u64, now: Duration) -> Self {
        Self { mac, address, sent: 0, next: Some(now), random: seed | 1 }
    }

    /// The address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// When [`Self::tick`] is due; `None` when all is done.
    pub fn deadline(&self) -> Option<Duration> {
        self.next
    }

    /// Sends what is due.
    pub fn tick(&mut self, now: Duration) -> Vec<Action> {
        if self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        let mut actions = Vec::new();
        if self.sent == PROBES {
            actions.push(Action::Free);
        }
        let sender = if self.sent < PROBES { Ipv4Addr::UNSPECIFIED } else { self.address };
        actions.push(Action::Send(Packet { sender_mac: self.mac, sender, target: self.address }));
        self.sent += 1;
        self.next = match self.sent {
            sent if sent < PROBES => {
                let part = u32::try_from(next_random(&mut self.random) >> 58).unwrap_or(0);
                Some(now + LEAST_APART + LEAST_APART / 64 * part)
            }
            sent if sent < PROBES + ANNOUNCEMENTS => Some(now + ANNOUNCE),
            _ => None,
        };
        actions
    }

    /// Looks at what another machine has sent.
    pub fn hear(&mut self, packet: &Packet) -> Option<Action> {
        if packet.sender_mac == self.mac {
            return None;
        }
        let has_it = packet.sender == self.address;
        // Another machine asks for the same address at the same time.
        let wants_it = self.sent <= PROBES && packet.sender.is_unspecified() && packet.target == self.address;
        if !has_it && !wants_it {
            return None;
        }
        self.next = None;
        Some(Action::Taken(packet.sender_mac))
    }
}

/// A link-local address, by chance but the same after a reboot (RFC 3927, section 2.1): 169.254.1.0 to 169.254.254.255.
pub fn link_local(mac: Mac, attempt: u32) -> Ipv4Addr {
    let mut random = mac.iter().fold(u64::from(attempt) + 1, |seed, byte| seed.rotate_left(9) ^ u64::from(*byte)) | 1;
    for _ in 0..4 {
        next_random(&mut random);
    }
    let offset = u32::try_from(next_random(&mut random) >> 33).unwrap_or(0) % (254 * 256);
    Ipv4Addr::from(u32::from(Ipv4Addr::new(169, 254, 1, 0)) + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 9];
    const OTHER: Mac = [2, 0, 0, 0, 0, 1];

    fn address() -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, 7)
    }

    fn detector() -> Detector {
        Detector::new(MAC, address(), 7, Duration::from_secs(1))
    }

    #[test]
    fn three_probes_then_it_is_free_and_announced() {
        let mut detector = detector();
        let mut senders = Vec::new();
        let mut free_after = None;
        while let Some(now) = detector.deadline() {
            for action in detector.tick(now) {
                match action {
                    Action::Send(packet) => senders.push(packet.sender),
                    Action::Free => free_after = Some((senders.len(), now)),
                    Action::Taken(_) => panic!("by whom?"),
                }
            }
        }
        let nobody = Ipv4Addr::UNSPECIFIED;
        assert_eq!(senders, [nobody, nobody, nobody, address(), address()]);
        let (probes, now) = free_after.unwrap();
        assert_eq!(probes, 3);
        assert!(now >= Duration::from_secs(5) && now <= Duration::from_secs(7), "{now:?}");
    }

    #[test]
    fn who_has_the_address_or_wants_it_too_is_a_conflict() {
        let packet = |sender_mac, sender, target| Packet { sender_mac, sender, target };
        let nobody = Ipv4Addr::UNSPECIFIED;
        let mut probing = detector();
        probing.tick(Duration::from_secs(1));
        assert_eq!(probing.hear(&packet(MAC, nobody, address())), None, "our own comes back");
        assert_eq!(probing.hear(&packet(OTHER, Ipv4Addr::new(192, 0, 2, 8), address())), None);
        let taken = Some(Action::Taken(OTHER));
        assert_eq!(probing.clone().hear(&packet(OTHER, nobody, address())), taken);
        assert_eq!(probing.hear(&packet(OTHER, address(), address())), taken);
        assert_eq!(probing.deadline(), None);
        let mut sure = detector();
        while let Some(now) = sure.deadline() {
            sure.tick(now);
        }
        assert_eq!(sure.hear(&packet(OTHER, nobody, address())), None, "it asks, and gets an answer from the kernel");
    }

    #[test]
    fn link_local_addresses_differ_and_stay() {
        assert_eq!(link_local(MAC, 0), link_local(MAC, 0));
        assert_ne!(link_local(MAC, 0), link_local(MAC, 1));
        assert_ne!(link_local(MAC, 0), link_local(OTHER, 0));
        for attempt in 0..1000 {
            let [a, b, c, _] = link_local(MAC, attempt).octets();
            assert!((a, b) == (169, 254) && (1..=254).contains(&c));
        }
    }
}
