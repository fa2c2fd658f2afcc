//! Peers of tunnels that are known by a host name: the kernel wants an address, and the address may change.
//!
//! ```text
//! wanted ──→ looked up ──→ found: the kernel is told ──→ watched ── keys are old ──→ looked up
//!                └── leads nowhere: again after a while ──→ looked up
//! ```
//!
//! Each look-up is a task of its own that nobody waits for; what it finds comes back as an event.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use berth_config::{Endpoint, HostName, Made, Network, WireGuard, WireGuardPeer};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

use super::wireguard::{self, Peer};
use crate::link::LinkTable;
use crate::{clock, report};

/// Results that wait to be handled; who looks up waits with them.
const FOUND_LIMIT: usize = 16;
/// Until a name that leads nowhere is looked up again: a network may be about to be there.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(30);
/// How often it is looked whether the keys are old, and how long that takes at most where looking up did not help.
const WATCH: Duration = Duration::from_secs(30);
const LONGEST_WATCH: Duration = Duration::from_secs(300);
/// In seconds: two that talk have newer keys than this (REKEY_AFTER_TIME and what a handshake may take, REKEY_TIMEOUT).
const OLD: u64 = 135;

/// A tunnel's number, and the peer's public key.
type Name = (u32, [u8; 32]);

/// What became of a look-up.
#[derive(Debug)]
pub struct Found {
    of: Name,
    addresses: Result<Vec<SocketAddr>, String>,
}

/// One peer.
#[derive(Debug)]
struct Watched {
    wanted: WireGuardPeer,
    tunnel: WireGuard,
    host: HostName,
    port: u16,
    /// What the kernel was told.
    address: Option<SocketAddr>,
    /// Why it was told nothing.
    trouble: Option<String>,
    /// When there is something to do; nothing while it is looked up.
    due: Option<Duration>,
    wait: Duration,
    task: Option<JoinHandle<()>>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// All of them.
#[derive(Debug)]
pub struct Endpoints {
    peers: BTreeMap<Name, Watched>,
    found: Sender<Found>,
}

impl Endpoints {
    /// None yet; what is found is to be given back to [`Self::take`].
    pub fn new() -> (Self, Receiver<Found>) {
        let (found, receiver) = channel(FOUND_LIMIT);
        (Self { peers: BTreeMap::new(), found }, receiver)
    }

    /// The tunnels or their peers may be others now. One that is as before goes on, and others begin.
    pub fn follow(&mut self, network: &Network, table: &LinkTable, now: Duration) {
        let mut before = std::mem::take(&mut self.peers);
        for (name, settings) in &network.links {
            let Some(Made::WireGuard(tunnel)) = settings.made() else { continue };
            let Some(link) = table.by_name(name.as_str()) else { continue };
            for peer in &tunnel.peers {
                let Some(Endpoint::Name(host, port)) = &peer.endpoint else { continue };
                let of = (link.index, *peer.public_key.bytes());
                let same = before.remove(&of).filter(|watched| watched.wanted == *peer && watched.tunnel == *tunnel);
                let new = || Watched {
                    wanted: peer.clone(),
                    tunnel: tunnel.clone(),
                    host: host.clone(),
                    port: *port,
                    address: None,
                    trouble: None,
                    due: Some(now),
                    wait: FIRST,
                    task: None,
                };
                self.peers.insert(of, same.unwrap_or_else(new));
            }
        }
    }

    /// When [`Self::tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.peers.values().filter_map(|watched| watched.due).min()
    }

    /// Looks up what is due, within a tokio runtime.
    pub fn tick(&mut self, now: Duration) {
        for (of, watched) in self.peers.iter_mut().filter(|(_, watched)| watched.due.is_some_and(|due| due <= now)) {
            if watched.address.is_none() || !is_well(*of, watched) {
                watched.look_up(*of, self.found.clone());
            } else {
                (watched.wait, watched.due) = (WATCH, Some(now + WATCH));
            }
        }
    }

    /// A name was looked up.
    pub fn take(&mut self, Found { of, addresses }: Found, now: Duration) {
        // One that was wanted before may have been on its way.
        let Some(watched) = self.peers.get_mut(&of).filter(|watched| watched.task.is_some()) else { return };
        watched.task = None;
        watched.find(of, addresses, now);
    }

    /// What a tunnel lacks, for people.
    pub fn missing(&self, link: u32) -> impl Iterator<Item = String> {
        let of_link = self.peers.iter().filter(move |((index, _), _)| *index == link);
        of_link.filter_map(|(_, watched)| {
            let trouble = watched.trouble.as_ref()?;
            Some(format!("the peer {}: {trouble}", watched.wanted.public_key))
        })
    }
}

impl Watched {
    fn look_up(&mut self, of: Name, found: Sender<Found>) {
        let (host, port) = (self.host.clone(), self.port);
        self.due = None;
        self.task = Some(tokio::spawn(async move {
            let addresses = tokio::net::lookup_host((host.as_str(), port)).await;
            let addresses = addresses.map(Iterator::collect).map_err(|error| error.to_string());
            // Nobody takes it when the program ends.
            let _ended = found.send(Found { of, addresses }).await;
        }));
    }

    fn find(&mut self, of: Name, addresses: Result<Vec<SocketAddr>, String>, now: Duration) {
        let host = &self.host;
        let address =
            addresses.and_then(|addresses| next(self.address, addresses).ok_or("it has no address".to_owned()));
        let address = address.map_err(|error| format!("{host} leads nowhere: {error}"));
        let told = address.and_then(|address| {
            let unable = |error| format!("{host} is {address}, of which the kernel cannot be told: {error}");
            wireguard::move_peer(of.0, &self.wanted, address).map_err(unable)?;
            Ok(address)
        });
        match told {
            Ok(address) => {
                if self.address != Some(address) {
                    report::say(format_args!(
                        "the peer {}: {}:{} is {address}",
                        self.wanted.public_key, self.host, self.port
                    ));
                }
                let wait = if self.address.is_none() { WATCH } else { (self.wait * 2).clamp(WATCH, LONGEST_WATCH) };
                (self.address, self.trouble, self.wait, self.due) = (Some(address), None, wait, Some(now + wait));
            }
            // What was known before may be right still.
            Err(trouble) => {
                self.trouble = Some(trouble).filter(|_| self.address.is_none());
                self.due = Some(now + self.wait);
                self.wait = (self.wait * 2).min(if self.address.is_none() { LONGEST } else { LONGEST_WATCH });
            }
        }
    }
}

/// Whether the two have agreed on keys lately, at an address that the kernel still has.
fn is_well((link, key): Name, watched: &Watched) -> bool {
    let Ok(peers) = wireguard::peers(link) else { return false };
    let now = clock::wall();
    let is_new = |peer: &Peer| peer.last_handshake.is_some_and(|last| now.saturating_sub(last) < OLD);
    let peer = peers.iter().find(|peer| *peer.public_key.bytes() == key);
    watched.address.is_some() && peer.is_some_and(|peer| peer.has_endpoint && is_new(peer))
}

/// Of several addresses the one behind that of before, which did not help.
fn next(before: Option<SocketAddr>, mut addresses: Vec<SocketAddr>) -> Option<SocketAddr> {
    addresses.dedup();
    let place = addresses.iter().position(|address| Some(*address) == before).map_or(0, |place| place + 1);
    addresses.get(place).or(addresses.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_addresses_the_next_is_tried() {
        let [one, two, three] = [1, 2, 3].map(|last| SocketAddr::from(([192, 0, 2, last], 51820)));
        assert_eq!(next(None, vec![one, two]), Some(one));
        assert_eq!(next(Some(one), vec![one, one, two]), Some(two));
        assert_eq!(next(Some(two), vec![one, two]), Some(one));
        assert_eq!(next(Some(three), vec![one, two]), Some(one), "it has moved");
        assert_eq!(next(Some(one), vec![one]), Some(one));
        assert_eq!(next(Some(one), Vec::new()), None);
    }
}
