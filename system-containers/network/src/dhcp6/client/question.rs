//! What the client asks in each of its states, when it asks again, and what it lacks as long as nobody answers.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::super::message::{ClientMessage, Kind};
use super::{Action, Client, State};
use crate::dhcp::client::{jittered, next_random};

/// A question and its repetitions.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) transaction: u32,
    pub(super) started: Duration,
    pub(super) attempts: u32,
    wait: Duration,
    pub(super) resend_at: Duration,
}

impl Client {
    /// What is missing, for people; `None` if nothing is.
    pub fn trouble(&self) -> Option<String> {
        let silent = |what: &str, exchange: &Exchange| Some(format!("{what}, asked {} times", exchange.attempts));
        match &self.state {
            State::Confirming { exchange } => silent("no DHCPv6 server confirms the last address", exchange),
            State::Soliciting { exchange } => silent("no DHCPv6 server offers an address", exchange),
            State::Requesting { exchange, .. } => silent("the DHCPv6 server does not confirm its offer", exchange),
            State::Informing { exchange } => silent("no DHCPv6 server answers", exchange),
            State::Renewing { exchange } | State::Rebinding { exchange } if exchange.attempts > 1 => {
                silent("no DHCPv6 server prolongs the lease", exchange)
            }
            State::Waiting { .. } => Some("the DHCPv6 server refuses".to_owned()),
            _ => None,
        }
    }

    pub(super) fn begin(&mut self, now: Duration, state: impl FnOnce(Exchange) -> State, actions: &mut Vec<Action>) {
        let transaction = self.transaction();
        let exchange = Exchange { transaction, started: now, attempts: 0, wait: Duration::ZERO, resend_at: now };
        self.state = state(exchange);
        self.send(now, actions);
    }

    /// Sends the question of the present state and sets when to repeat it (RFC 8415, sections 7.6 and 15).
    pub(super) fn send(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let ours = || -> Vec<Ipv6Addr> {
            // What is held may be information only.
            let held = self.held.as_ref().filter(|held| !held.lease.addresses.is_empty());
            let last = held.or(self.kept.as_ref());
            last.iter().flat_map(|held| &held.lease.addresses).map(|granted| granted.address).collect()
        };
        let lease_server = self.held.as_ref().map(|held| held.lease.server.clone());
        let (kind, server, addresses, (first, longest)) = match &self.state {
            State::Soliciting { .. } => (Kind::Solicit, None, ours(), (1, 3600)),
            State::Confirming { .. } => (Kind::Confirm, None, ours(), (1, 4)),
            State::Requesting { server, addresses, .. } => {
                (Kind::Request, Some(server.clone()), addresses.clone(), (1, 30))
            }
            State::Renewing { .. } => (Kind::Renew, lease_server, ours(), (10, 600)),
            State::Rebinding { .. } => (Kind::Rebind, None, ours(), (10, 600)),
            State::Informing { .. } => (Kind::InformationRequest, None, Vec::new(), (1, 3600)),
            _ => return,
        };
        let (State::Soliciting { exchange }
        | State::Confirming { exchange }
        | State::Requesting { exchange, .. }
        | State::Renewing { exchange }
        | State::Rebinding { exchange }
        | State::Informing { exchange }) = &mut self.state
        else {
            return;
        };
        exchange.attempts = exchange.attempts.saturating_add(1);
        exchange.wait = (exchange.wait * 2).clamp(Duration::from_secs(first), Duration::from_secs(longest));
        exchange.resend_at = now + jittered(&mut self.random, exchange.wait);
        let hundredths = now.saturating_sub(exchange.started).as_millis() / 10;
        actions.push(Action::Send(ClientMessage {
            kind,
            transaction: exchange.transaction,
            elapsed: u16::try_from(hundredths).unwrap_or(u16::MAX),
            mac: self.mac,
            server,
            addresses,
        }));
    }

    pub(super) fn transaction(&mut self) -> u32 {
        u32::try_from(next_random(&mut self.random) >> 40).unwrap_or(0)
    }
}
