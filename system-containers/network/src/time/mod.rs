//! The machine's clock (SNTP, RFC 4330): time servers are asked in turn, and how far the clock is off is told. Who may set it
//! is another's business: this runs without the capability.
//!
//! A task of its own, because a lookup or a server may take its time; it lives as long as both of its ends do.

pub mod message;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use self::message::{PORT, Unusable};
use crate::{clock, random, report};

/// Four outvote one that lies.
const MOST_SERVERS: usize = 4;
/// Longer than a server may be away.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two questions to a server: never less than a quarter of a minute (RFC 4330, section 10).
const SHORTEST: Duration = Duration::from_secs(16);
/// Where nothing could be sent: a network is about to be there.
const NO_WAY_YET: Duration = Duration::from_secs(4);
const FIRST: Duration = Duration::from_secs(64);
const LONGEST: Duration = Duration::from_secs(1024);

/// Where the clock should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correction {
    /// What the clock is behind, in microseconds; negative if it is fast.
    pub behind: i64,
    /// When the next one comes, in seconds.
    pub next: u64,
}

/// Why a server has told nothing.
#[derive(Debug, thiserror::Error)]
enum Silence {
    /// Nothing was sent.
    #[error("cannot be asked")]
    Unreachable(#[from] io::Error),
    /// Nor does its machine, or it says that nobody is there.
    #[error("does not answer")]
    Late,
    /// It does, and that is of no use.
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

/// Asks from now on whoever the first end names, by address or host name; the second end says what came of it.
pub fn start() -> (watch::Sender<Vec<String>>, mpsc::Receiver<Correction>) {
    let (sender, servers) = watch::channel(Vec::new());
    let (corrections, receiver) = mpsc::channel(1);
    tokio::spawn(Keeper::new(PORT).keep(servers, corrections));
    (sender, receiver)
}

/// What is kept between two rounds.
#[derive(Debug)]
struct Keeper {
    /// Where servers are asked.
    port: u16,
    /// Those that do not want to be asked.
    denied: BTreeSet<SocketAddr>,
    /// What was said last: the same trouble is not said again.
    said: String,
    /// Until the next round.
    wait: Duration,
}

impl Keeper {
    fn new(port: u16) -> Self {
        Self { port, denied: BTreeSet::new(), said: String::new(), wait: Duration::ZERO }
    }

    /// Ends when one of the channels does.
    async fn keep(mut self, mut servers: watch::Receiver<Vec<String>>, corrections: mpsc::Sender<Correction>) {
        loop {
            let wanted = servers.borrow_and_update().clone();
            if let Some(behind) = self.ask_all(&wanted).await {
                let correction = Correction { behind, next: self.wait.as_secs() };
                if corrections.send(correction).await.is_err() {
                    return;
                }
            }
            let pause = if wanted.is_empty() { Duration::MAX } else { self.wait };
            match timeout(pause, servers.changed()).await {
                Ok(Err(_)) => return,
                Ok(Ok(())) => self = Self::new(self.port),
                Err(_) => {}
            }
        }
    }

    /// How far the clock is behind, as most servers see it, and sets the time until the next round.
    async fn ask_all(&mut self, wanted: &[String]) -> Option<i64> {
        let (mut behind, mut silent) = (Vec::new(), Vec::new());
        let (mut asked, mut slower) = (false, false);
        for server in addresses(wanted, self.port).await.difference(&self.denied).copied().collect::<Vec<_>>() {
            match ask(server).await {
                Ok(found) => behind.push(found),
                Err(silence) => {
                    asked |= !matches!(silence, Silence::Unreachable(_));
                    slower |= matches!(silence, Silence::Unusable(Unusable::TooOften));
                    if matches!(silence, Silence::Unusable(Unusable::Denied)) {
                        self.denied.insert(server);
                    }
                    silent.push(format!("{}: {}", server.ip(), report::chain(&silence)));
                }
            }
        }
        let trouble = silent.join("; ");
        if !trouble.is_empty() && trouble != self.said {
            report::say(format_args!("time: {trouble}"));
        }
        self.said = trouble;
        self.wait = match (slower, behind.is_empty()) {
            (true, _) => (self.wait * 2).clamp(FIRST * 2, LONGEST),
            (false, false) => (self.wait * 2).clamp(FIRST, LONGEST),
            (false, true) if asked => (self.wait * 2).clamp(SHORTEST, LONGEST),
            (false, true) => (self.wait * 2).clamp(NO_WAY_YET, SHORTEST),
        };
        middle(behind)
    }
}

/// What at least half of them agree to be no less than, and no more than.
fn middle(mut behind: Vec<i64>) -> Option<i64> {
    behind.sort_unstable();
    behind.get(behind.len().saturating_sub(1) / 2).copied()
}

/// Of all servers. A name that leads nowhere is tried again in the next round.
async fn addresses(servers: &[String], port: u16) -> BTreeSet<SocketAddr> {
    let mut found = BTreeSet::new();
    for server in servers {
        match server.parse::<IpAddr>() {
            Ok(address) => found.extend([SocketAddr::new(address, port)]),
            Err(_) => found.extend(tokio::net::lookup_host((server.as_str(), port)).await.into_iter().flatten()),
        }
    }
    while found.len() > MOST_SERVERS {
        found.pop_last();
    }
    found
}

/// How far the clock is behind the server's, in microseconds.
async fn ask(server: SocketAddr) -> Result<i64, Silence> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let (number, begin) = (random::number(), clock::now());
    socket.send(&message::question(number)).await?;
    let answered = async {
        let mut buffer = [0; 2 * message::LENGTH];
        loop {
            let length = socket.recv(&mut buffer).await.map_err(|_| Silence::Late)?;
            let elapsed = clock::now().saturating_sub(begin);
            match message::answer(buffer.get(..length).unwrap_or_default(), number, elapsed) {
                // Anybody may send anything: the server's own answer is still to come.
                Err(Unusable::Strange) => {}
                Ok(sample) => return Ok(sample.time.saturating_sub(wall())),
                Err(unusable) => return Err(unusable.into()),
            }
        }
    };
    timeout(PATIENCE, answered).await.unwrap_or(Err(Silence::Late))
}

/// The clock's own time in microseconds since 1970; zero if it is before that.
fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
