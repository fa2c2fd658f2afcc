//! A link's IPv4 addresses that the configuration does not name: by DHCP, else one of the link alone (RFC 3927).

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{HostLink, Means};
use crate::arp::detector::{Action, Detector, link_local};
use crate::arp::packet::Packet;
use crate::arp::port::Port as ArpPort;
use crate::dhcp::client::{Client, Event};
use crate::dhcp::lease::{FOR_EVER, Lease};
use crate::dhcp::port::{Outcome, Port};
use crate::link::Link;
use crate::netlink::Lifetime;
use crate::{clock, report, resolver};

/// Of 169.254.0.0/16.
const LINK_LOCAL_LENGTH: u8 = 16;
/// MAX_CONFLICTS: more are no accident, and trying on would only disturb.
const MOST_CONFLICTS: u32 = 10;

impl HostLink {
    pub(super) fn begin_dhcp(&mut self, link: &Link, means: &Means) {
        if let Some(mac) = link.mac.filter(|_| self.settings.uses_dhcp() && self.dhcp.is_none()) {
            let seed = mac.iter().fold(means.seed, |seed, byte| seed.rotate_left(8) ^ u64::from(*byte));
            let kept = means.leases.load::<Lease>(self.owner(mac));
            let left = kept.as_ref().map_or(Duration::ZERO, |kept| kept.left(clock::wall()));
            let client = Client::new(mac, kept, seed).trust_kept(clock::now().saturating_add(left));
            self.dhcp = Some(Port::new(self.index, client, means.heard.clone()));
        }
    }

    /// Takes the client and what it brought away.
    pub(super) async fn end_dhcp(&mut self, means: &Means) {
        self.detection = None;
        let lease = self.dhcp.take().and_then(|port| port.client().lease().cloned());
        if let Some(lease) = lease {
            self.unconfigure(&lease, means).await;
        }
        self.remove_link_local(means).await;
    }

    /// Takes an address of the link alone away, and stops looking for one.
    pub(super) async fn end_fall_back(&mut self, means: &Means) {
        if self.detection.as_ref().is_some_and(|port| port.detector().address().is_link_local()) {
            self.detection = None;
        }
        self.remove_link_local(means).await;
    }

    /// Gives its DHCP client an event.
    pub async fn dhcp_event(&mut self, event: Event, means: &Means, now: Duration) {
        let Some(port) = &mut self.dhcp else { return };
        port.call_itself(resolver::host_name());
        for outcome in port.step(&self.name, now, event) {
            match outcome {
                Outcome::Configure(lease) => {
                    let is_new = !self.has_lease_address(&lease);
                    self.remove_link_local(means).await;
                    self.configure(&lease, means).await;
                    if is_new {
                        self.ask_about(lease.address, means, now).await;
                    }
                }
                Outcome::Unconfigure(lease) => {
                    self.detection = None;
                    self.unconfigure(&lease, means).await;
                }
                Outcome::Save(lease) => self.keep(Some(&lease), means),
                Outcome::Forget => self.keep(None, means),
                Outcome::Report(text) => report::say(format_args!("{}: {text}", self.name)),
            }
        }
        let is_alone = self.dhcp.as_ref().is_some_and(|port| port.client().is_alone());
        let tries = self.link_local.is_some() || self.detection.is_some();
        if is_alone && self.settings.falls_back() && !tries && self.link_local_attempt < MOST_CONFLICTS {
            let Some(mac) = self.dhcp.as_ref().map(|port| port.client().mac()) else { return };
            self.ask_about(link_local(mac, self.link_local_attempt), means, now).await;
        }
    }

    /// At the other end of the next cable there may be other machines.
    pub(super) fn forget_detection(&mut self) {
        self.detection = None;
        self.detected = None;
        self.link_local_attempt = 0;
    }

    fn has_lease_address(&self, lease: &Lease) -> bool {
        self.detected == Some(lease.address)
    }

    /// Asks whether another machine has the address.
    pub(super) async fn ask_about(&mut self, address: Ipv4Addr, means: &Means, now: Duration) {
        let Some(mac) = self.dhcp.as_ref().map(|port| port.client().mac()) else { return };
        let detector = Detector::new(mac, address, means.seed ^ u64::from(u32::from(address)), now);
        match ArpPort::open(self.index, detector, means.heard_arp.clone()) {
            Ok(port) => {
                self.detection = Some(port);
                self.detected = Some(address);
                self.detect(means, now).await;
            }
            Err(error) => report::say(format_args!("{}: cannot ask who has {address}: {error}", self.name)),
        }
    }

    /// Sends what is due about an address in question.
    pub(super) async fn detect(&mut self, means: &Means, now: Duration) {
        let Some(port) = &mut self.detection else { return };
        let address = port.detector().address();
        let is_free = match port.tick(now) {
            Ok(is_free) => is_free,
            Err(error) => {
                report::say(format_args!("{}: cannot ask who has {address}: {error}", self.name));
                self.detection = None;
                return;
            }
        };
        if port.detector().deadline().is_none() {
            self.detection = None;
        }
        if is_free && address.is_link_local() && self.lease().is_none() {
            report::say(format_args!("{}: {address}/16, as no DHCP server answers", self.name));
            let done =
                means.netlink.add_address(self.index, address.into(), LINK_LOCAL_LENGTH, Lifetime::FOR_EVER, true);
            let done = done.await;
            self.link_local = done.is_ok().then_some(address);
            self.say(done);
        }
    }

    /// Somebody has said something about an address in question.
    pub async fn hear_arp(&mut self, packet: Packet, means: &Means, now: Duration) {
        let Some(port) = &mut self.detection else { return };
        let address = port.detector().address();
        let Some(Action::Taken(mac)) = port.hear(&packet) else { return };
        self.detection = None;
        self.detected = None;
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        report::say(format_args!("{}: {mac} has the address {address}", self.name));
        if self.lease().is_some_and(|lease| lease.address == address) {
            self.dhcp_event(Event::Taken, means, now).await;
        } else {
            self.remove_link_local(means).await;
            self.link_local_attempt += 1;
            let Some(own) = self.dhcp.as_ref().map(|port| port.client().mac()) else { return };
            if self.link_local_attempt < MOST_CONFLICTS {
                self.ask_about(link_local(own, self.link_local_attempt), means, now).await;
            }
        }
    }

    async fn remove_link_local(&mut self, means: &Means) {
        if let Some(address) = self.link_local.take() {
            let done = means.netlink.remove_address(self.index, address.into(), LINK_LOCAL_LENGTH).await;
            self.say(done);
        }
    }

    pub(super) async fn configure(&mut self, lease: &Lease, means: &Means) {
        let lifetime = Lifetime::of(if lease.lease_time == FOR_EVER { u32::MAX } else { lease.lease_time });
        let address = IpAddr::V4(lease.address);
        let done = means.netlink.add_address(self.index, address, lease.prefix_length, lifetime, false).await;
        let failed = done.is_err();
        self.say(done);
        let routes = self.lease_routes(lease);
        let before = std::mem::replace(&mut self.dhcp_routes, routes.clone());
        for route in before.iter().filter(|route| !routes.contains(route)) {
            self.say(means.netlink.remove_route(route).await);
        }
        for route in routes.iter().filter(|_| !failed) {
            self.say(means.netlink.add_route(route).await);
        }
        if routes != before {
            let (name, length, seconds) = (&self.name, lease.prefix_length, lease.lease_time);
            report::say(format_args!("{name}: {address}/{length} from {} for {seconds} s", lease.server));
        }
        self.arrange_mtu(means).await;
    }

    pub(super) async fn unconfigure(&mut self, lease: &Lease, means: &Means) {
        self.dhcp_routes.clear();
        self.detected = None;
        // The kernel may have been quicker: it removes the address itself when the lease ends.
        match means.netlink.remove_address(self.index, lease.address.into(), lease.prefix_length).await {
            Err(error) if error.number() == libc::EADDRNOTAVAIL => {}
            done => self.say(done),
        }
        self.arrange_mtu(means).await;
    }

    fn keep(&self, lease: Option<&Lease>, means: &Means) {
        let Some(mac) = self.dhcp.as_ref().map(|port| port.client().mac()) else { return };
        self.say_kept(match lease {
            Some(lease) => means.leases.save(self.owner(mac), &lease.ending(clock::wall())),
            None => means.leases.forget::<Lease>(self.owner(mac)),
        });
    }

    /// Says what has become of writing a lease down, or of forgetting it.
    pub(super) fn say_kept(&self, done: io::Result<()>) {
        if let Err(error) = done {
            report::say(format_args!("{}: the lease cannot be kept for the next boot: {error}", self.name));
        }
    }
}
