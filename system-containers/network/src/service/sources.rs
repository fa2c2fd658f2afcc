//! Where everything comes from that happens: PID 1, the kernel, other machines, time.

use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::{mpsc, watch};

use super::ServiceError;
use super::asking::Answered;
use crate::containers::Taken;
use crate::dhcp::port::Heard;
use crate::host_link::Means;
use crate::init::{Init, Message};
use crate::leases::LeaseStore;
use crate::made::endpoints::Found;
use crate::netlink::Netlink;
use crate::router_advertisement::{self, Advertised, Listener};
use crate::time::{self, Correction};
use crate::{arp, clock, dhcp6, random};

/// What the kernel says of links and addresses by itself.
const GROUPS: [MulticastGroup; 4] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    // What routers say of DHCPv6.
    MulticastGroup::Ipv6Ifinfo,
];
/// DHCP messages that wait to be handled. More are left in the sockets, which drop what does not fit.
const HEARD_LIMIT: usize = 64;

/// How often nothing further must have been read until everything was.
const EMPTY_ROUNDS: u32 = 3;

/// One thing that happened.
pub enum Happening {
    Init(Message),
    Kernel(Box<NetlinkMessage<RouteNetlinkMessage>>),
    Heard(Heard),
    Heard6(dhcp6::port::Heard),
    HeardArp(arp::port::Heard),
    HeardRouter(router_advertisement::port::Heard),
    Answered(Answered),
    Found(Found),
    Taken(Taken),
    Advertised(Vec<Advertised>),
    Corrected(Correction),
    Tick,
}

/// All of them. `K` is what the kernel says.
pub struct Sources<K> {
    kernel: K,
    heard: mpsc::Receiver<Heard>,
    heard6: mpsc::Receiver<dhcp6::port::Heard>,
    heard_arp: mpsc::Receiver<arp::port::Heard>,
    heard_routers: mpsc::Receiver<router_advertisement::port::Heard>,
    answered: mpsc::Receiver<Answered>,
    found: mpsc::Receiver<Found>,
    taken: mpsc::Receiver<Taken>,
    advertisements: Listener,
    corrections: mpsc::Receiver<Correction>,
}

/// Opens them, within a tokio runtime, and what links send by; and whom to tell of time servers.
#[allow(clippy::type_complexity, reason = "the sockets' own type has no name that can be used here")]
pub fn open(
    netlink: Netlink,
    leases: LeaseStore,
    (answered, found, taken): (mpsc::Receiver<Answered>, mpsc::Receiver<Found>, mpsc::Receiver<Taken>),
) -> Result<
    (
        Sources<impl Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, rtnetlink::sys::SocketAddr)> + Unpin>,
        Means,
        watch::Sender<Vec<String>>,
    ),
    ServiceError,
> {
    let (listening, _, kernel) = new_multicast_connection(&GROUPS).map_err(ServiceError::Kernel)?;
    tokio::spawn(listening);
    let advertisements = Listener::open().map_err(ServiceError::Kernel)?;
    let (heard_sender, heard) = mpsc::channel(HEARD_LIMIT);
    let (heard6_sender, heard6) = mpsc::channel(HEARD_LIMIT);
    let (heard_arp_sender, heard_arp) = mpsc::channel(HEARD_LIMIT);
    let (heard_routers_sender, heard_routers) = mpsc::channel(HEARD_LIMIT);
    let (time_servers, corrections) = time::start();
    let means = Means {
        netlink,
        leases,
        heard: heard_sender,
        heard6: heard6_sender,
        heard_arp: heard_arp_sender,
        heard_routers: heard_routers_sender,
        seed: random::number(),
    };
    let sources = Sources {
        kernel,
        heard,
        heard6,
        heard_arp,
        heard_routers,
        answered,
        found,
        taken,
        advertisements,
        corrections,
    };
    Ok((sources, means, time_servers))
}

impl<K, A> Sources<K>
where
    K: Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, A)> + Unpin,
{
    /// What happens next, [`Happening::Tick`] at the deadline. May be dropped while it waits.
    pub async fn next(&mut self, init: &mut Init, deadline: Option<Duration>) -> Result<Happening, ServiceError> {
        let happening = tokio::select! {
            message = init.receive() => Happening::Init(message?),
            message = self.kernel.next() => Happening::Kernel(Box::new(message.ok_or(ServiceError::Ended)?.0)),
            Some(heard) = self.heard.recv() => Happening::Heard(heard),
            Some(heard) = self.heard6.recv() => Happening::Heard6(heard),
            Some(heard) = self.heard_arp.recv() => Happening::HeardArp(heard),
            Some(heard) = self.heard_routers.recv() => Happening::HeardRouter(heard),
            Some(answered) = self.answered.recv() => Happening::Answered(answered),
            Some(found) = self.found.recv() => Happening::Found(found),
            Some(taken) = self.taken.recv() => Happening::Taken(taken),
            advertised = self.advertisements.receive() => Happening::Advertised(advertised.map_err(ServiceError::Kernel)?),
            Some(correction) = self.corrections.recv() => Happening::Corrected(correction),
            () = until(deadline) => Happening::Tick,
        };
        if matches!(&happening, Happening::Kernel(message) if matches!(message.payload, NetlinkPayload::Overrun(_))) {
            self.skip_older().await;
        }
        Ok(happening)
    }

    /// What the kernel said before more happened than the socket could hold is read after the notice of that. Who asks for everything
    /// now knows better: heard afterwards, it would bring back what has gone.
    async fn skip_older(&mut self) {
        let mut empty = 0;
        while empty < EMPTY_ROUNDS {
            let mut skipped = false;
            while let Some(Some(_)) = self.kernel.next().now_or_never() {
                skipped = true;
            }
            empty = if skipped { 0 } else { empty + 1 };
            // Who reads the socket is a task of its own, and reads some at a time.
            tokio::task::yield_now().await;
        }
    }
}

async fn until(deadline: Option<Duration>) {
    match deadline {
        // A little late rather than early: an event that comes too early would come again at once.
        Some(deadline) => tokio::time::sleep(deadline.saturating_sub(clock::now()) + Duration::from_millis(1)).await,
        None => std::future::pending().await,
    }
}
