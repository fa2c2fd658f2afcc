//! The DHCPv4 client of one link as a state machine (RFC 2131, section 4.4): no clock, no socket, no randomness of
//! its own. [`Client::step`] takes the time and an event and returns what to do.
//!
//! ```text
//!            carrier, lease kept              carrier, none kept
//!  Stopped ───────────────────→ Rebooting      ┌──────────────┐
//!     └──────────────────────────── │ ────────→ Selecting ←───┤
//!                          NAK, silence ───────→ │ offer      │ silence
//!                                   │            ↓            │
//!                               ACK │        Requesting ──────┘
//!                                   ↓   ACK    │    NAK → Waiting → Selecting
//!                                 Bound ←──────┘
//!                     half of lease │  ↑ ACK
//!                                   ↓  │
//!                              Renewing ┴─ 7/8 of lease ─→ Rebinding ── end of lease ─→ Selecting
//! ```
//! Without carrier the client is `Stopped`. The address stays configured through `Rebooting` and `Selecting` as long
//! as its lease runs (`held`): a pulled cable does not break connections.

mod question;

use std::net::Ipv4Addr;
use std::time::Duration;

use self::question::Exchange;
pub use self::question::{jittered, next_random};
use super::lease::{FOR_EVER, Lease};
use super::message::{ClientMessage, Kind, Mac, ServerMessage};
use crate::leases::lags;

/// After so many questions without an offer the machine takes a link-local address: some seven seconds.
const ALONE_ATTEMPTS: u32 = 3;
/// How often a kept lease is asked for before looking for any: its server may be another one today.
const REBOOT_ATTEMPTS: u32 = 2;
/// How often an offer is asked for before looking again.
const REQUEST_ATTEMPTS: u32 = 4;
/// Before another address is looked for when one was declined (RFC 2131, section 3.1, step 5).
const AFTER_DECLINE: Duration = Duration::from_secs(10);

/// What the client sees.
#[derive(Clone, Debug)]
pub enum Event {
    /// The link has got carrier.
    CarrierUp,
    /// The link has lost it.
    CarrierLost,
    /// A message for this link has come.
    Received(Box<ServerMessage>),
    /// Another machine has the address of the lease.
    Taken,
    /// [`Client::deadline`] has passed.
    Timer,
}

/// What there is to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send it to everyone on the link, from 0.0.0.0.
    Broadcast(ClientMessage),
    /// Send it to its server, from our address.
    Unicast(ClientMessage),
    /// The lease is ours: addresses, routes, names. Comes again when it is prolonged.
    Configure(Lease),
    /// The lease is no longer ours.
    Unconfigure(Lease),
    /// Keep it for the next boot.
    Save(Lease),
    /// It is refused: do not ask for it at the next boot.
    Forget,
    /// For the log.
    Report(String),
}

/// A lease that is in use.
#[derive(Clone, Debug)]
struct Held {
    lease: Lease,
    renew_at: Duration,
    rebind_at: Duration,
    expires_at: Duration,
}

#[derive(Clone, Debug)]
enum State {
    Stopped,
    Waiting { until: Duration },
    Rebooting { lease: Lease, exchange: Exchange },
    Selecting { exchange: Exchange },
    Requesting { offer: Lease, exchange: Exchange },
    Bound,
    Renewing { exchange: Exchange },
    Rebinding { exchange: Exchange },
}

/// The client of one link.
#[derive(Debug)]
pub struct Client {
    mac: Mac,
    host_name: Option<String>,
    state: State,
    held: Option<Held>,
    kept: Option<Lease>,
    /// Until when what is kept may be used although nobody answers.
    kept_until: Duration,
    refusals: u32,
    /// What went wrong last, until something goes well.
    problem: Option<String>,
    random: u64,
}

impl Client {
    /// Stopped, until there is carrier. `kept` is the lease of the last time, `seed` is anything unpredictable.
    pub fn new(mac: Mac, kept: Option<Lease>, seed: u64) -> Self {
        let (state, kept_until, random) = (State::Stopped, Duration::ZERO, seed | 1);
        Self { mac, host_name: None, state, held: None, kept, kept_until, refusals: 0, problem: None, random }
    }

    /// The machine's name may change: what the next messages say.
    pub fn call_itself(&mut self, host_name: Option<String>) {
        self.host_name = host_name;
    }

    /// The lease of the last time has not ended before this moment.
    pub fn trust_kept(self, until: Duration) -> Self {
        Self { kept_until: until, ..self }
    }

    /// The link's hardware address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// When [`Event::Timer`] is due; `None` if only another event can change anything.
    pub fn deadline(&self) -> Option<Duration> {
        let expiry = self.held.as_ref().map(|held| held.expires_at);
        let own = match &self.state {
            State::Stopped => None,
            State::Waiting { until } => Some(*until),
            State::Bound => self.held.as_ref().map(|held| held.renew_at),
            State::Renewing { exchange } => {
                Some(self.held.as_ref().map_or(exchange.resend_at, |held| exchange.resend_at.min(held.rebind_at)))
            }
            State::Rebooting { exchange, .. }
            | State::Selecting { exchange }
            | State::Requesting { exchange, .. }
            | State::Rebinding { exchange } => Some(exchange.resend_at),
        };
        [expiry, own].into_iter().flatten().min().filter(|deadline| *deadline < Duration::MAX)
    }

    /// Whether an answer may come now.
    pub fn listens(&self) -> bool {
        !matches!(self.state, State::Stopped | State::Waiting { .. } | State::Bound)
    }

    /// The lease in use.
    pub fn lease(&self) -> Option<&Lease> {
        self.held.as_ref().map(|held| &held.lease)
    }

    /// Whether servers have been silent for so long that there may be none.
    pub fn is_alone(&self) -> bool {
        match &self.state {
            State::Selecting { exchange } => self.held.is_none() && exchange.attempts > ALONE_ATTEMPTS,
            _ => false,
        }
    }

    /// Takes an event that happened at `now`, a time since any fixed moment that does not stand still in sleep
    /// (CLOCK_BOOTTIME), and returns what to do.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = self.expire(now);
        match event {
            Event::CarrierUp => self.start(now, &mut actions),
            Event::CarrierLost => self.state = State::Stopped,
            Event::Received(message) => self.receive(now, &message, &mut actions),
            Event::Taken => self.decline(now, &mut actions),
            Event::Timer => self.timer(now, &mut actions),
        }
        actions
    }

    fn expire(&mut self, now: Duration) -> Vec<Action> {
        let Some(held) = self.held.take_if(|held| held.expires_at <= now) else { return Vec::new() };
        let mut actions = vec![
            Action::Report(format!("the lease of {} has expired", held.lease.address)),
            Action::Unconfigure(held.lease),
        ];
        if matches!(self.state, State::Bound | State::Renewing { .. } | State::Rebinding { .. }) {
            self.select(now, &mut actions);
        }
        actions
    }

    fn start(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if !matches!(self.state, State::Stopped) {
            return;
        }
        match self.held.as_ref().map(|held| held.lease.clone()).or_else(|| self.kept.clone()) {
            Some(lease) => {
                let exchange = self.exchange(now);
                self.state = State::Rebooting { lease, exchange };
                self.send(now, actions);
            }
            None => self.select(now, actions),
        }
    }

    fn select(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let exchange = self.exchange(now);
        self.state = State::Selecting { exchange };
        self.send(now, actions);
    }

    fn timer(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let (renew_at, rebind_at) =
            self.held.as_ref().map_or((Duration::MAX, Duration::MAX), |held| (held.renew_at, held.rebind_at));
        match &self.state {
            State::Waiting { until } if *until <= now => self.select(now, actions),
            State::Bound | State::Renewing { .. } if rebind_at <= now => {
                let exchange = self.exchange(now);
                self.state = State::Rebinding { exchange };
                self.send(now, actions);
            }
            State::Bound if renew_at <= now => {
                let exchange = self.exchange(now);
                self.state = State::Renewing { exchange };
                self.send(now, actions);
            }
            State::Rebooting { exchange, .. } if exchange.resend_at <= now && exchange.attempts >= REBOOT_ATTEMPTS => {
                self.use_kept(now, actions);
                self.select(now, actions);
            }
            State::Requesting { exchange, offer }
                if exchange.resend_at <= now && exchange.attempts >= REQUEST_ATTEMPTS =>
            {
                let problem = format!("{} offers an address and does not confirm it", offer.server);
                self.complain(problem, actions);
                self.select(now, actions);
            }
            State::Rebooting { exchange, .. }
            | State::Selecting { exchange }
            | State::Requesting { exchange, .. }
            | State::Renewing { exchange }
            | State::Rebinding { exchange }
                if exchange.resend_at <= now =>
            {
                self.send(now, actions);
            }
            _ => {}
        }
    }

    /// What was given the last time holds to its end, with a server or without (RFC 2131, section 3.2, step 4).
    fn use_kept(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let until = self.kept_until;
        let Some(lease) = self.kept.clone().filter(|_| self.held.is_none() && until > now) else { return };
        let left = if until == Duration::MAX { None } else { u32::try_from((until - now).as_secs()).ok() };
        let lease = Lease { lease_time: left.unwrap_or(FOR_EVER), ..lease };
        actions.push(Action::Report(format!("no DHCP server answers; the lease of {} goes on", lease.address)));
        actions.push(Action::Configure(lease.clone()));
        self.held = Some(Held { lease, renew_at: Duration::MAX, rebind_at: Duration::MAX, expires_at: until });
    }

    fn receive(&mut self, now: Duration, message: &ServerMessage, actions: &mut Vec<Action>) {
        let exchange = match &self.state {
            State::Rebooting { exchange, .. }
            | State::Selecting { exchange }
            | State::Requesting { exchange, .. }
            | State::Renewing { exchange }
            | State::Rebinding { exchange } => exchange,
            State::Stopped | State::Waiting { .. } | State::Bound => return,
        };
        if message.mac != self.mac || message.transaction != exchange.transaction {
            return;
        }
        let (started, sent) = (exchange.started, exchange.sent);
        if message.kind == Kind::Refuse {
            return self.refused(now, message, actions);
        }
        let selecting = matches!(self.state, State::Selecting { .. });
        let offered = message.kind == Kind::Offer && selecting;
        let granted = message.kind == Kind::Acknowledge && (!selecting || message.rapid_commit);
        if !offered && !granted {
            return;
        }
        match Lease::from_message(message) {
            Err(problem) => {
                let server = message.server.unwrap_or(Ipv4Addr::UNSPECIFIED);
                self.complain(format!("ignored a message of the DHCP server {server}: {problem}"), actions);
            }
            Ok(offer) if offered => {
                let exchange = self.exchange(now);
                let exchange = Exchange { transaction: message.transaction, started, ..exchange };
                self.state = State::Requesting { offer, exchange };
                self.send(now, actions);
            }
            Ok(lease) => self.bind(sent, lease, actions),
        }
    }

    /// `asked` is when the request was sent: the lease runs from then on (RFC 2131, section 4.4.1).
    fn bind(&mut self, asked: Duration, lease: Lease, actions: &mut Vec<Action>) {
        let after = |seconds: u32| match seconds {
            FOR_EVER => Duration::MAX,
            seconds => asked + Duration::from_secs(u64::from(seconds)),
        };
        let held = Held {
            renew_at: after(lease.renewal_time),
            rebind_at: after(lease.rebinding_time),
            expires_at: after(lease.lease_time),
            lease: lease.clone(),
        };
        if lags(self.kept_until, held.expires_at)
            || !self.kept.as_ref().is_some_and(|kept| kept.configures_the_same(&lease))
        {
            actions.push(Action::Save(lease.clone()));
            self.kept_until = held.expires_at;
        }
        // The address may be there from an earlier run of the program.
        let before = self.held.replace(held).map(|held| held.lease).or_else(|| self.kept.clone());
        if let Some(before) = before.filter(|before| before.address != lease.address) {
            actions.push(Action::Unconfigure(before));
        }
        actions.push(Action::Configure(lease.clone()));
        self.kept = Some(lease);
        self.refusals = 0;
        self.problem = None;
        self.state = State::Bound;
    }

    fn refused(&mut self, now: Duration, message: &ServerMessage, actions: &mut Vec<Action>) {
        let expected = match &self.state {
            State::Requesting { offer, .. } => Some(offer.server),
            State::Renewing { .. } => self.held.as_ref().map(|held| held.lease.server),
            State::Rebooting { .. } | State::Rebinding { .. } => None,
            _ => return,
        };
        if expected.is_some_and(|expected| message.server.is_some_and(|server| server != expected)) {
            return;
        }
        let text = message.text.as_deref().unwrap_or("no reason given");
        self.complain(format!("the DHCP server refuses the address: {text}"), actions);
        let kept = self.kept.take();
        if kept.is_some() {
            actions.push(Action::Forget);
        }
        // One that was only kept may be there from an earlier run of the program.
        actions.extend(self.held.take().map(|held| held.lease).or(kept).map(Action::Unconfigure));
        // The first refusal is the normal course after a move to another network. A server that offers and then
        // refuses again and again must not be asked in a tight loop.
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals == 1 {
            self.select(now, actions);
        } else {
            let wait = self.wait(self.refusals - 1);
            self.state = State::Waiting { until: now + wait };
        }
    }

    /// The address is another machine's: it is given back, and not asked for again.
    fn decline(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(held) = self.held.take() else { return };
        let (address, server) = (held.lease.address, held.lease.server);
        let problem = format!("another machine has {address}, which the DHCP server {server} gave");
        self.complain(problem, actions);
        actions.push(Action::Broadcast(ClientMessage {
            kind: Kind::Decline,
            transaction: self.exchange(now).transaction,
            seconds: 0,
            mac: self.mac,
            address: Ipv4Addr::UNSPECIFIED,
            requested: Some(address),
            server: Some(server),
            host_name: None,
        }));
        actions.push(Action::Unconfigure(held.lease));
        if self.kept.take().is_some() {
            actions.push(Action::Forget);
        }
        self.state = State::Waiting { until: now + AFTER_DECLINE };
    }

    fn complain(&mut self, problem: String, actions: &mut Vec<Action>) {
        actions.push(Action::Report(problem.clone()));
        self.problem = Some(problem);
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
