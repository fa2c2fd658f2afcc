//! The packet filter as it follows from the containers that are attached: one table, changed by elements where that is
//! enough, and made anew where it is not.

use std::io;
use std::time::Duration;

use berth_config::Bandwidth;

use super::Containers;
use super::guard::{self, Sources};
use crate::nftables::apart::Apart;
use crate::nftables::guard::Guard;
use crate::nftables::ruleset::Table;
use crate::{clock, report, sysctl};

/// Until a packet filter that could not be set up is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Why the packet filter is not as it should be, and when it is tried again.
#[derive(Debug)]
pub(super) struct Unfiltered {
    reason: String,
    retry: Duration,
}

impl Containers {
    /// What every link lacks without the packet filter, for people.
    pub fn unfiltered(&self) -> Option<String> {
        let reason = &self.unfiltered.as_ref()?.reason;
        Some(format!(
            "the packet filter is not set up: {reason}; it is tried again, and until then nothing is kept out"
        ))
    }

    /// When [`Self::tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.unfiltered.as_ref().map(|unfiltered| unfiltered.retry)
    }

    /// Tries again what has failed.
    pub fn tick(&mut self, now: Duration) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.set_up_filter();
        }
    }

    /// Makes the packet filter's table as everything is now.
    pub fn set_up_filter(&mut self) {
        if let Err(error) = self.refill() {
            report::say(format_args!("set up the packet filter: {error}"));
        }
    }

    /// Which links are ports of VRFs now.
    pub fn follow_apart(&mut self, apart: Vec<Apart>) {
        if self.apart != apart {
            self.apart = apart;
            self.set_up_filter();
        }
    }

    /// Makes the packet filter's rules about containers those that follow from who is there.
    pub(super) fn watch_over(&mut self) {
        if let Err(error) = self.guard_or_refill() {
            report::say(format_args!("set up the packet filter: {error}"));
        }
    }

    /// The same; an error is that of making the whole table anew.
    pub(super) fn guard_or_refill(&mut self) -> io::Result<()> {
        if self.unfiltered.is_some() {
            return self.refill();
        }
        self.published.guard(self.guard()).or_else(|error| {
            // What there is is not known.
            report::say(format_args!("change the rules of containers: {error}"));
            self.refill()
        })
    }

    /// Of networks as a whole.
    pub(super) fn limits(&self) -> Vec<(String, Bandwidth)> {
        let limited = self.networks.live().filter(|(_, network)| network.settings.bandwidth != Bandwidth::default());
        limited.map(|(_, network)| (network.bridge_name(), network.settings.bandwidth)).collect()
    }

    pub(super) fn guard(&self) -> Guard {
        if !guard::is_wanted(&self.attachments, self.networks.all().map(|(_, network)| &network.settings)) {
            return Guard::default();
        }
        let networks = self.networks.all().map(|(name, network)| (name.as_str(), network)).collect();
        Sources { attachments: &self.attachments, networks }.guard()
    }

    /// Makes a service's ports lead to the containers that it has now; an error is that of making the whole table anew.
    pub(super) fn publish_or_refill(&mut self, service: &str) -> io::Result<()> {
        if self.unfiltered.is_some() {
            return self.refill();
        }
        self.published.update(service, &self.attachments).or_else(|error| {
            // One element was not there, so nothing was done.
            report::say(format_args!("change the ports of {service}: {error}"));
            self.refill()
        })
    }

    /// The same, where nobody waits for it.
    pub(super) fn publish(&mut self, service: &str) {
        if let Err(error) = self.publish_or_refill(service) {
            report::say(format_args!("set up the packet filter: {error}"));
        }
    }

    /// Makes the packet filter's table from what is attached.
    pub(super) fn refill(&mut self) -> io::Result<()> {
        // Before there are rules that would drop what passes between ports of a bridge, the machine's own as well.
        if let Err(error) = sysctl::disable_bridge_filter() {
            report::failure(&error);
        }
        let networks: Vec<_> = self.networks.live().collect();
        let open = networks.iter().filter(|(_, network)| !network.settings.internal);
        let table = Table {
            networks: networks.iter().map(|(_, network)| network.bridge_name()).collect(),
            open: open.map(|(_, network)| network.bridge_name()).collect(),
            elements: Vec::new(),
            limits: self.limits(),
            apart: self.apart.clone(),
            inbound: self.inbound.clone().unwrap_or_default(),
            guard: self.guard(),
        };
        let done = self.published.replace(table, &self.attachments);
        let failed = |error: &io::Error| Unfiltered { reason: error.to_string(), retry: clock::now() + RETRY };
        self.unfiltered = done.as_ref().err().map(failed);
        done
    }
}
