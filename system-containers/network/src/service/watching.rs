//! Links of which the kernel does not say by itself what they lack: it is asked from time to time, if there are any.

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
        let of_links = self.links.values().filter_map(HostLink::deadline);
        of_links.chain(self.look_at).chain(self.endpoints.deadline()).chain(self.containers.deadline()).min()
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
