//! The DHCPv6 client of one link as a state machine (RFC 8415, section 18.2): no clock, no socket.
//!
//! ```text
//!            addresses wanted                                information wanted
//!  Off ─────────────────────────→ Soliciting ←──────────┐   Off ──→ Informing ──reply──→ Informed
//!   │ lease held                  │ advertise │ silence │                ↑ refresh time        │
//!   ↓                             ↓           │         │                └─────────────────────┘
//!  Rebinding ←─ T2 ─ Renewing   Requesting ───┴─────────┤
//!   │   │ reply         ↑ │ reply   │ reply             │
//!   │   └──→ Bound ── T1 ─┘ ←───────┘                   │
//!   │         ↑ reply, silence                          │
//!   │     Confirming ── not on this link ───────────────┤
//!   └── end of all addresses ───────────────────────────┘
//! ```
//! A lease of the last time is confirmed where none is held (section 18.2.3), and used as long as nobody says otherwise.
//!
//! What is wanted comes from routers: the M flag of their advertisements means addresses, the O flag information. Of
//! several servers the first that has an address is taken: a second of waiting for a better one is a second without.

mod question;

use std::net::Ipv6Addr;
use std::time::Duration;

use self::question::Exchange;
use super::lease::{Held, Lease};
use super::message::{ClientMessage, Kind, ServerMessage, Status};
use crate::dhcp::message::Mac;
use crate::leases::lags;

/// IRT_DEFAULT and the least that is taken (RFC 8415, section 7.6).
const DEFAULT_REFRESH: Duration = Duration::from_secs(86_400);
const SHORTEST_REFRESH: Duration = Duration::from_secs(600);
/// REQ_MAX_RC: how often an offer is asked for.
const REQUEST_ATTEMPTS: u32 = 10;
/// After a refusal: a server that offers and refuses must not be asked in a tight loop.
const AFTER_REFUSAL: Duration = Duration::from_secs(10);
/// CNF_MAX_RD: how long an answer to a confirmation is waited for before the lease is used without.
const CONFIRM_TIME: Duration = Duration::from_secs(10);

/// What is wanted of servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    #[default]
    Nothing,
    /// What there is to know.
    Information,
    /// Addresses too.
    Addresses,
}

/// What the client sees.
#[derive(Clone, Debug)]
pub enum Event {
    /// The link has carrier, and routers say this; comes again when they say something else.
    Want(Wanted),
    /// The link has lost carrier.
    CarrierLost,
    /// A message for this link has come.
    Received(Box<ServerMessage>),
    /// Another machine has this address.
    Conflict(Ipv6Addr),
    /// [`Client::deadline`] has passed.
    Timer,
}

/// What there is to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send it to all servers of the link.
    Send(ClientMessage),
    /// These addresses and names are ours now, and no others.
    Configure(Lease),
    /// Keep it for the next boot.
    Save(Lease),
    /// It is of no use any more: do not ask for it at the next boot.
    Forget,
    /// For the log.
    Report(String),
}

#[derive(Clone, Debug)]
enum State {
    Off,
    Waiting { until: Duration },
    Confirming { exchange: Exchange },
    Soliciting { exchange: Exchange },
    Requesting { server: Vec<u8>, addresses: Vec<Ipv6Addr>, exchange: Exchange },
    Bound,
    Renewing { exchange: Exchange },
    Rebinding { exchange: Exchange },
    Informing { exchange: Exchange },
    Informed { until: Duration },
}

/// The client of one link.
#[derive(Debug)]
pub struct Client {
    mac: Mac,
    wanted: Wanted,
    state: State,
    held: Option<Held>,
    /// What the file has.
    kept: Option<Held>,
    random: u64,
}

impl Client {
    /// Wants nothing yet. `seed` is anything unpredictable.
    pub fn new(mac: Mac, seed: u64) -> Self {
        Self { mac, wanted: Wanted::Nothing, state: State::Off, held: None, kept: None, random: seed | 1 }
    }

    /// With the lease of the last time: what is left of it at `now`.
    pub fn with_kept(self, lease: Lease, now: Duration) -> Self {
        Self { kept: Some(Held { lease, since: now }), ..self }
    }

    /// The link's hardware address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// When [`Event::Timer`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        let times = self.held.as_ref();
        let own = match &self.state {
            State::Off => None,
            State::Waiting { until } | State::Informed { until } => Some(*until),
            State::Bound => times.map(|held| held.renew_at()),
            State::Renewing { exchange } => {
                Some(times.map_or(exchange.resend_at, |held| held.rebind_at().min(exchange.resend_at)))
            }
            State::Confirming { exchange } => Some(exchange.resend_at.min(exchange.started + CONFIRM_TIME)),
            State::Soliciting { exchange }
            | State::Requesting { exchange, .. }
            | State::Rebinding { exchange }
            | State::Informing { exchange } => Some(exchange.resend_at),
        };
        let expiry = times.map(Held::expires_at);
        [own, expiry].into_iter().flatten().min().filter(|deadline| *deadline < Duration::MAX)
    }

    /// Whether an answer may come now.
    pub fn listens(&self) -> bool {
        !matches!(self.state, State::Off | State::Waiting { .. } | State::Bound | State::Informed { .. })
    }

    /// What servers have given.
    pub fn lease(&self) -> Option<&Lease> {
        self.held.as_ref().map(|held| &held.lease)
    }

    /// What is left of it.
    pub fn lease_at(&self, now: Duration) -> Option<Lease> {
        self.held.as_ref().map(|held| held.at(now).lease)
    }

    /// Takes an event that happened at `now` and returns what to do.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.expire(now, &mut actions);
        match event {
            Event::Want(wanted) => self.want(now, wanted, &mut actions),
            Event::CarrierLost => self.state = State::Off,
            Event::Received(message) => self.receive(now, *message, &mut actions),
            Event::Conflict(address) => self.conflict(now, address, &mut actions),
            Event::Timer => self.timer(now, &mut actions),
        }
        actions
    }

    fn expire(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.held.take_if(|held| held.expires_at() <= now).is_none() {
            return;
        }
        actions.push(Action::Report("the DHCPv6 lease has expired".to_owned()));
        actions.push(Action::Configure(Lease::default()));
        if matches!(self.state, State::Bound | State::Renewing { .. } | State::Rebinding { .. }) {
            self.begin(now, |exchange| State::Soliciting { exchange }, actions);
        }
    }

    fn want(&mut self, now: Duration, wanted: Wanted, actions: &mut Vec<Action>) {
        let off = matches!(self.state, State::Off);
        if wanted == self.wanted && !off {
            return;
        }
        self.wanted = wanted;
        let has_addresses = self.held.as_ref().is_some_and(|held| !held.lease.addresses.is_empty());
        match wanted {
            Wanted::Nothing => {
                self.state = State::Off;
                if self.held.take().is_some() {
                    actions.push(Action::Configure(Lease::default()));
                }
            }
            // The link may be another one than before: any server of it may say so.
            Wanted::Addresses if has_addresses => {
                self.begin(now, |exchange| State::Rebinding { exchange }, actions);
            }
            // The link may be another one than then too.
            Wanted::Addresses if self.kept.as_ref().is_some_and(|kept| kept.expires_at() > now) => {
                self.begin(now, |exchange| State::Confirming { exchange }, actions);
            }
            Wanted::Addresses => self.begin(now, |exchange| State::Soliciting { exchange }, actions),
            Wanted::Information => self.begin(now, |exchange| State::Informing { exchange }, actions),
        }
    }

    fn timer(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let (renew_at, rebind_at) =
            self.held.as_ref().map_or((Duration::MAX, Duration::MAX), |held| (held.renew_at(), held.rebind_at()));
        match &self.state {
            State::Waiting { until } if *until <= now => {
                self.begin(now, |exchange| State::Soliciting { exchange }, actions);
            }
            State::Informed { until } if *until <= now => {
                self.begin(now, |exchange| State::Informing { exchange }, actions);
            }
            State::Bound | State::Renewing { .. } if rebind_at <= now => {
                self.begin(now, |exchange| State::Rebinding { exchange }, actions);
            }
            State::Bound if renew_at <= now => self.begin(now, |exchange| State::Renewing { exchange }, actions),
            State::Requesting { exchange, .. }
                if exchange.resend_at <= now && exchange.attempts >= REQUEST_ATTEMPTS =>
            {
                self.begin(now, |exchange| State::Soliciting { exchange }, actions);
            }
            State::Confirming { exchange } if exchange.started + CONFIRM_TIME <= now => {
                actions.push(Action::Report("no DHCPv6 server answers; the last lease goes on".to_owned()));
                self.use_kept(now, actions);
            }
            State::Soliciting { exchange }
            | State::Confirming { exchange }
            | State::Requesting { exchange, .. }
            | State::Renewing { exchange }
            | State::Rebinding { exchange }
            | State::Informing { exchange }
                if exchange.resend_at <= now =>
            {
                self.send(now, actions);
            }
            _ => {}
        }
    }

    /// What was given the last time holds to its end (RFC 8415, section 18.2.10.1).
    fn use_kept(&mut self, now: Duration, actions: &mut Vec<Action>) {
        match self.kept.as_ref().map(|kept| kept.at(now)).filter(|kept| !kept.lease.addresses.is_empty()) {
            Some(held) => {
                actions.push(Action::Configure(held.lease.clone()));
                self.held = Some(held);
                self.state = State::Bound;
            }
            None => self.begin(now, |exchange| State::Soliciting { exchange }, actions),
        }
    }

    fn keep(&mut self, held: Option<Held>, actions: &mut Vec<Action>) {
        actions.push(held.as_ref().map_or(Action::Forget, |held| Action::Save(held.lease.clone())));
        self.kept = held;
    }

    fn conflict(&mut self, now: Duration, address: Ipv6Addr, actions: &mut Vec<Action>) {
        let Some(held) = self.held.as_mut() else { return };
        let before = held.lease.addresses.len();
        held.lease.addresses.retain(|granted| granted.address != address);
        if held.lease.addresses.len() == before {
            return;
        }
        let (server, lease) = (held.lease.server.clone(), held.lease.clone());
        actions.push(Action::Report(format!("another machine has {address}, which the DHCPv6 server gave")));
        let (transaction, mac) = (self.transaction(), self.mac);
        // Not repeated: a server that misses it hears of the conflict from whoever has the address.
        actions.push(Action::Send(ClientMessage {
            kind: Kind::Decline,
            transaction,
            elapsed: 0,
            mac,
            server: Some(server),
            addresses: vec![address],
        }));
        if lease.addresses.is_empty() {
            self.held = None;
            self.keep(None, actions);
            actions.push(Action::Configure(Lease::default()));
            self.state = State::Waiting { until: now + AFTER_REFUSAL };
        } else {
            let held = self.held.as_ref().map(|held| held.at(now));
            self.keep(held, actions);
            actions.push(Action::Configure(lease));
        }
    }

    fn receive(&mut self, now: Duration, message: ServerMessage, actions: &mut Vec<Action>) {
        let exchange = match &self.state {
            State::Soliciting { exchange }
            | State::Confirming { exchange }
            | State::Requesting { exchange, .. }
            | State::Renewing { exchange }
            | State::Rebinding { exchange }
            | State::Informing { exchange } => exchange,
            _ => return,
        };
        if message.transaction != exchange.transaction {
            return;
        }
        let good = message.status == Status::Success && message.address_status == Status::Success;
        match (&self.state, message.kind) {
            (State::Soliciting { .. }, Kind::Advertise) if good && !message.addresses.is_empty() => {
                let addresses = message.addresses.iter().map(|granted| granted.address).collect();
                let server = message.server;
                self.begin(now, |exchange| State::Requesting { server, addresses, exchange }, actions);
            }
            (State::Soliciting { .. }, Kind::Reply) if !message.rapid_commit => {}
            (State::Confirming { .. }, Kind::Reply) if message.status == Status::Success => self.use_kept(now, actions),
            (State::Confirming { .. }, Kind::Reply) if message.status == Status::NotOnLink => {
                actions.push(Action::Report("the last DHCPv6 lease is of another link".to_owned()));
                self.keep(None, actions);
                actions.push(Action::Configure(Lease::default()));
                self.begin(now, |exchange| State::Soliciting { exchange }, actions);
            }
            // Another status says nothing about the link: somebody else may, or nobody does.
            (State::Confirming { .. }, _) => {}
            (State::Informing { .. }, Kind::Reply) => self.inform(now, message, actions),
            (State::Requesting { server, .. }, _) if *server != message.server => {}
            (State::Renewing { .. }, _) if self.lease().is_some_and(|lease| lease.server != message.server) => {}
            (_, Kind::Reply) if good && message.addresses.iter().any(|granted| granted.valid > 0) => {
                self.bind(now, message, actions);
            }
            (_, Kind::Reply) => self.refused(now, &message, actions),
            _ => {}
        }
    }

    fn inform(&mut self, now: Duration, message: ServerMessage, actions: &mut Vec<Action>) {
        let refresh = message.refresh_time.map_or(DEFAULT_REFRESH, |seconds| Duration::from_secs(seconds.into()));
        let lease = Lease::from_message(ServerMessage { addresses: Vec::new(), ..message });
        self.held = Some(Held { lease: lease.clone(), since: now });
        actions.push(Action::Configure(lease));
        self.state = State::Informed { until: now + refresh.max(SHORTEST_REFRESH) };
    }

    fn bind(&mut self, now: Duration, message: ServerMessage, actions: &mut Vec<Action>) {
        let lease = Lease::from_message(message);
        let held = Held { lease: lease.clone(), since: now };
        let is_kept = self
            .kept
            .as_ref()
            .is_some_and(|kept| kept.lease.configures_the_same(&lease) && !lags(kept.expires_at(), held.expires_at()));
        if !is_kept {
            self.keep(Some(held.clone()), actions);
        }
        self.held = Some(held);
        actions.push(Action::Configure(lease));
        self.state = State::Bound;
    }

    fn refused(&mut self, now: Duration, message: &ServerMessage, actions: &mut Vec<Action>) {
        let text = message.text.as_deref().unwrap_or("no reason given");
        actions.push(Action::Report(format!("the DHCPv6 server grants no address: {text}")));
        // An address of another link is of no use here; one that a server has forgotten runs until its end.
        let status = if message.status == Status::Success { message.address_status } else { message.status };
        if status == Status::NotOnLink && self.held.take().is_some() {
            self.keep(None, actions);
            actions.push(Action::Configure(Lease::default()));
        }
        if matches!(self.state, State::Renewing { .. } | State::Rebinding { .. }) {
            self.begin(now, |exchange| State::Soliciting { exchange }, actions);
        } else {
            self.state = State::Waiting { until: now + AFTER_REFUSAL };
        }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
