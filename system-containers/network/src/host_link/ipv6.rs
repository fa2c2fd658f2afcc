//! A link's IPv6 addresses that neither the configuration nor the kernel makes: by DHCPv6, where routers say so.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::{HostLink, Means};
use crate::dhcp6::client::{Client, Event, Wanted};
use crate::dhcp6::lease::{Kept, Lease};
use crate::dhcp6::port::{Outcome, Port};
use crate::link::{Link, Routers};
use crate::netlink::Lifetime;
use crate::{clock, report};

/// DHCPv6 says nothing of networks: what is on the link, routers say (RFC 5942).
const LENGTH: u8 = 128;

impl HostLink {
    /// What is asked of DHCPv6 servers: what the configuration says, else what routers do.
    fn wanted6(&self) -> Wanted {
        if !self.settings.accepts_router_advertisements() {
            return Wanted::Nothing;
        }
        match (self.settings.dhcp6, self.said) {
            (Some(false), _) | (None, Routers::Nothing) => Wanted::Nothing,
            (Some(true), _) | (None, Routers::Managed) => Wanted::Addresses,
            (None, Routers::Other) => Wanted::Information,
        }
    }

    /// The kernel has what was said last, of whichever router. One that says nothing of DHCPv6, such as that of a network of small
    /// devices, must not take away what another one has sent for: what was given lasts until its servers or its end say
    /// otherwise, or until there may be other routers.
    fn note_said(&mut self, link: &Link) {
        let holds = self.dhcp6.as_ref().is_some_and(|port| port.client().lease().is_some());
        let lasts = holds && link.carrier && !self.is_searching();
        self.said = if lasts { self.said.max(link.routers) } else { link.routers };
    }

    pub(super) async fn follow_routers(&mut self, link: &Link, means: &Means, now: Duration) {
        self.note_said(link);
        let wanted = self.wanted6();
        let Some(mac) = link.mac else { return };
        if self.dhcp6.as_ref().is_some_and(|port| port.client().mac() != mac) {
            self.dhcp6_event(Event::Want(Wanted::Nothing), means, now).await;
            self.dhcp6 = None;
        }
        if self.dhcp6.is_none() && wanted != Wanted::Nothing {
            let client = Client::new(mac, means.seed ^ u64::from(self.index).rotate_left(32));
            let kept = means.leases.load::<Kept>(self.owner(mac)).and_then(|kept| kept.left(clock::wall()));
            let client = match kept {
                Some(lease) => client.with_kept(lease, now),
                None => client,
            };
            self.dhcp6 = Some(Port::new(self.index, client, means.heard6.clone()));
        }
        let event = match wanted {
            Wanted::Nothing => Event::Want(wanted),
            _ if !link.carrier => Event::CarrierLost,
            _ => Event::Want(wanted),
        };
        self.dhcp6_event(event, means, now).await;
    }

    /// Gives its DHCPv6 client an event.
    pub async fn dhcp6_event(&mut self, event: Event, means: &Means, now: Duration) {
        let Some(port) = &mut self.dhcp6 else { return };
        for outcome in port.step(&self.name, now, event) {
            match outcome {
                Outcome::Configure(lease) => self.configure6(lease, means).await,
                Outcome::Save(lease) => self.keep6(Some(lease), means),
                Outcome::Forget => self.keep6(None, means),
                Outcome::Report(text) => report::say(format_args!("{}: {text}", self.name)),
            }
        }
    }

    fn keep6(&self, lease: Option<Lease>, means: &Means) {
        let Some(mac) = self.dhcp6.as_ref().map(|port| port.client().mac()) else { return };
        self.say_kept(match lease.and_then(|lease| Kept::new(lease, clock::wall())) {
            Some(kept) => means.leases.save(self.owner(mac), &kept),
            None => means.leases.forget::<Kept>(self.owner(mac)),
        });
    }

    /// The kernel has found another machine with the address.
    pub async fn conflict6(&mut self, address: Ipv6Addr, means: &Means, now: Duration) {
        self.dhcp6_event(Event::Conflict(address), means, now).await;
    }

    /// Gives the link again what servers have given, as the kernel may have taken it away. What another machine turned out to have
    /// is looked for again then, which is missed where what the kernel said of addresses was lost.
    pub(super) async fn give_again6(&mut self, means: &Means, now: Duration) {
        if let Some(lease) = self.dhcp6.as_ref().and_then(|port| port.client().lease_at(now)) {
            self.configure6(lease, means).await;
        }
    }

    async fn configure6(&mut self, lease: Lease, means: &Means) {
        for granted in &lease.addresses {
            let lifetime = Lifetime { preferred: granted.preferred, valid: granted.valid };
            let done = means.netlink.add_address(self.index, granted.address.into(), LENGTH, lifetime, false).await;
            if done.is_ok() && !self.given6.addresses.iter().any(|before| before.address == granted.address) {
                report::say(format_args!("{}: {} by DHCPv6 for {} s", self.name, granted.address, granted.valid));
            }
            self.say(done);
        }
        let before = std::mem::replace(&mut self.given6, lease);
        let stays = |address: Ipv6Addr, lease: &Lease| lease.addresses.iter().any(|granted| granted.address == address);
        for granted in before.addresses {
            if !stays(granted.address, &self.given6) {
                match means.netlink.remove_address(self.index, granted.address.into(), LENGTH).await {
                    // It has ended.
                    Err(error) if error.number() == libc::EADDRNOTAVAIL => {}
                    done => self.say(done),
                }
            }
        }
    }
}
