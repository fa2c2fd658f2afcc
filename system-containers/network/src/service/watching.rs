//! What the kernel does not say by itself, which is looked at from time to time: what links that are made lack, and whether a
//! port that names are to be answered at is free.

use std::time::Duration;

use super::Service;
use crate::clock;
use crate::host_link::HostLink;
use crate::made::state;

/// Who asks why a link does not work has tried it for longer.
const INTERVAL: Duration = Duration::from_secs(10);

impl Service {
    /// When anything is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let own =
            [self.look_at, self.listen_at, self.endpoints.deadline(), self.containers.deadline(), self.names_at()];
        let own = own.into_iter().flatten();
        self.links.values().filter_map(HostLink::deadline).chain(own).min()
    }

    /// Begins to try again where names could not be answered, or ends.
    pub(super) fn watch_resolvers(&mut self) {
        let soon = || clock::now() + INTERVAL;
        self.listen_at = self.containers.is_deaf().then(|| self.listen_at.unwrap_or_else(soon));
    }

    /// Tries, if it is time.
    pub(super) fn listen_again(&mut self, now: Duration) {
        if self.listen_at.take_if(|at| *at <= now).is_some() {
            self.containers.listen_again();
        }
    }

    /// Begins to look, or ends: the links that are made are others now.
    pub(super) fn watch_made(&mut self) {
        let is_watched = self.network.as_ref().is_some_and(|network| state::is_watched(network, &self.table));
        let soon = || clock::now() + INTERVAL;
        self.look_at = is_watched.then(|| self.look_at.unwrap_or_else(soon));
        if !is_watched {
            self.troubles.clear();
        }
        if let Some(network) = &self.network {
            self.endpoints.follow(network, &self.table, clock::now());
        }
    }

    /// Looks, if it is time.
    pub(super) async fn look_at_made(&mut self, now: Duration) {
        let Some(network) = self.network.as_ref().filter(|_| self.look_at.is_some_and(|at| at <= now)) else { return };
        self.troubles = state::troubles(network, &self.table, &self.means.netlink).await;
        self.look_at = Some(now + INTERVAL);
    }
}
