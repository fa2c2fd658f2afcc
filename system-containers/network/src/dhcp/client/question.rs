//! What the client asks in each of its states, when it asks again, and what it lacks as long as nobody answers.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::message::{ClientMessage, Kind};
use super::{Action, Client, Held, State};

/// The wait after the first transmission. RFC 2131 proposes 4 s ± 1; a lost first packet, or a switch port that
/// does not forward yet, is common at boot and should not cost as much.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Waits double up to this (RFC 2131, section 4.1).
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(64);
/// The shortest wait between two requests to prolong a lease (RFC 2131, section 4.4.5).
const SHORTEST_RENEWAL_WAIT: Duration = Duration::from_secs(60);

/// A question and its repetitions.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) transaction: u32,
    pub(super) started: Duration,
    pub(super) sent: Duration,
    pub(super) attempts: u32,
    pub(super) resend_at: Duration,
}

impl Client {
    /// What is missing, for people; `None` if nothing is.
    pub fn trouble(&self) -> Option<String> {
        let asked = |what: &str, exchange: &Exchange| format!("{what}, asked {} times", exchange.attempts);
        let now = match &self.state {
            State::Selecting { exchange } if self.held.is_some() => {
                asked("no DHCP server prolongs the lease", exchange)
            }
            State::Selecting { exchange } => asked("no DHCP server offers an address", exchange),
            State::Requesting { exchange, .. } => asked("the DHCP server does not confirm its offer", exchange),
            State::Rebooting { exchange, .. } => asked("no DHCP server confirms the last address", exchange),
            State::Renewing { exchange } | State::Rebinding { exchange } if exchange.attempts > 1 => {
                asked("no DHCP server prolongs the lease", exchange)
            }
            State::Waiting { .. } => "waits before DHCP is tried again".to_owned(),
            _ => return None,
        };
        Some(self.problem.as_ref().map_or(now.clone(), |problem| format!("{now}; {problem}")))
    }

    /// Sends the question of the present state and sets when to repeat it.
    pub(super) fn send(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let ours = self.held.as_ref().map(|held| held.lease.address);
        let rest = |until: fn(&Held) -> Duration| {
            self.held
                .as_ref()
                .map_or(Duration::ZERO, |held| until(held).saturating_sub(now) / 2)
                .max(SHORTEST_RENEWAL_WAIT)
        };
        let doubling = |attempts: u32| FIRST_WAIT.saturating_mul(1 << attempts.min(6)).min(LONGEST_WAIT);
        let (kind, requested, server, address, unicast, exchange, wait) = match &mut self.state {
            State::Selecting { exchange } => {
                let wait = doubling(exchange.attempts);
                (Kind::Discover, self.kept.as_ref().map(|kept| kept.address), None, None, false, exchange, wait)
            }
            State::Rebooting { lease, exchange } => {
                let wait = doubling(exchange.attempts);
                (Kind::Request, Some(lease.address), None, None, false, exchange, wait)
            }
            State::Requesting { offer, exchange } => {
                let wait = doubling(exchange.attempts);
                (Kind::Request, Some(offer.address), Some(offer.server), None, false, exchange, wait)
            }
            State::Renewing { exchange } => {
                (Kind::Request, None, None, ours, true, exchange, rest(|held| held.rebind_at))
            }
            State::Rebinding { exchange } => {
                (Kind::Request, None, None, ours, false, exchange, rest(|held| held.expires_at))
            }
            State::Stopped | State::Waiting { .. } | State::Bound => return,
        };
        exchange.attempts = exchange.attempts.saturating_add(1);
        exchange.sent = now;
        let message = ClientMessage {
            kind,
            transaction: exchange.transaction,
            seconds: u16::try_from(now.saturating_sub(exchange.started).as_secs()).unwrap_or(u16::MAX),
            mac: self.mac,
            address: address.unwrap_or(Ipv4Addr::UNSPECIFIED),
            requested,
            server,
            host_name: self.host_name.clone(),
        };
        exchange.resend_at = now + jittered(&mut self.random, wait);
        actions.push(if unicast { Action::Unicast(message) } else { Action::Broadcast(message) });
    }

    pub(super) fn exchange(&mut self, now: Duration) -> Exchange {
        let transaction = u32::try_from(next_random(&mut self.random) >> 32).unwrap_or(0);
        Exchange { transaction, started: now, sent: now, attempts: 0, resend_at: now }
    }

    pub(super) fn wait(&mut self, attempts: u32) -> Duration {
        let wait = FIRST_WAIT.saturating_mul(1 << attempts.min(6)).min(LONGEST_WAIT);
        jittered(&mut self.random, wait)
    }
}

/// The wait ± an eighth, so that a hall of machines that got power together does not ask together.
pub fn jittered(random: &mut u64, wait: Duration) -> Duration {
    let sixteenths = u32::try_from(next_random(random) >> 60).unwrap_or(0);
    wait - wait / 8 + wait / 64 * sixteenths
}

/// xorshift64* (Vigna, 2016). Enough to tell transactions apart; an attacker on the link can read them anyway.
pub fn next_random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}
