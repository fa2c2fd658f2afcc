//! The inside of a container's network namespace: its loopback, its ends of cables, its addresses and routes.
//!
//! A thread enters the namespace (setns(2) is the calling thread's alone) and does all of it there, so this process
//! as a whole never leaves the host's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use berth_config::BitRate;
use netlink_packet_route::route::RouteProtocol;
use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

use super::shaping;
use crate::link::LinkTable;
use crate::netlink::{Lifetime, MAIN_TABLE, Netlink, NetlinkError, Route};
use crate::sysctl;

const LINK_PREFIX: &str = "eth";

/// The name of a cable's end in the container, by its place among the container's cables.
pub fn link_name(index: usize) -> String {
    format!("{LINK_PREFIX}{index}")
}

/// What one link inside is to have.
#[derive(Clone, Debug)]
pub struct Inside {
    /// Its name.
    pub name: String,
    /// The name that it was made with.
    pub made_as: String,
    /// Its addresses and the lengths of their networks.
    pub addresses: [(IpAddr, u8); 2],
    /// Where the way out leads, for each address.
    pub gateways: [Option<IpAddr>; 2],
    /// The most that it sends.
    pub egress: Option<BitRate>,
    /// Whether it leads to a bridge of ours, where all addresses are given by us.
    pub bridged: bool,
}

/// Why the inside could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The namespace cannot be entered.
    #[error("enter the container's network namespace")]
    Enter(#[source] io::Error),
    /// The kernel refused something in it.
    #[error("in the container's network namespace")]
    Netlink(#[from] NetlinkError),
    /// The container's resolver.
    #[error("listen for questions about names in the container's network namespace")]
    Resolver(#[source] io::Error),
    /// Of what becomes of its addresses.
    #[error("listen for what becomes of addresses in the container's network namespace")]
    Lookout(#[source] io::Error),
    /// The cable's end is not there.
    #[error("the container's end of the cable is missing")]
    Missing,
    /// The thread ended without an answer.
    #[error("the thread in the container's network namespace ended")]
    Ended,
}

/// Sets up the inside of the namespace.
pub async fn set_up(namespace: OwnedFd, inside: Vec<Inside>) -> Result<(), NamespaceError> {
    within(namespace, async move |netlink| configure(&netlink, &inside).await).await
}

/// Removes what an attempt that ended in the middle left: links that have no end on the machine's side to take them away by.
pub async fn clear(namespace: OwnedFd) -> Result<(), NamespaceError> {
    within(namespace, async move |netlink| {
        let mut table = LinkTable::default();
        for link in netlink.links().await? {
            table.update(&link);
        }
        let is_left = |link: &&crate::link::Link| matches!(link.kind.as_deref(), Some("macvlan" | "ipvlan"));
        let is_of_us = |link: &&crate::link::Link| link.name.starts_with(LINK_PREFIX) || link.is_own();
        for link in table.iter().filter(is_left).filter(is_of_us) {
            netlink.remove_link(link.index, &link.name).await?;
        }
        Ok(())
    })
    .await
}

/// Whether links of these names are there, which have no end on the machine's side to be seen by.
pub async fn has(namespace: OwnedFd, names: Vec<String>) -> Result<bool, NamespaceError> {
    within(namespace, async move |netlink| {
        let mut table = LinkTable::default();
        for link in netlink.links().await? {
            table.update(&link);
        }
        Ok(names.iter().all(|name| table.by_name(name).is_some()))
    })
    .await
}

/// Does something in the namespace.
pub async fn within<T, W>(namespace: OwnedFd, work: W) -> Result<T, NamespaceError>
where
    T: Send + 'static,
    W: AsyncFnOnce(Netlink) -> Result<T, NamespaceError> + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let work = move || {
        // Nobody waits any longer: the container has ended meanwhile, and the result with it.
        let _nobody_waits = sender.send(enter(&namespace, work));
    };
    std::thread::Builder::new().name("namespace".to_owned()).spawn(work).map_err(NamespaceError::Enter)?;
    receiver.await.map_err(|_| NamespaceError::Ended)?
}

fn enter<T>(
    namespace: &OwnedFd,
    work: impl AsyncFnOnce(Netlink) -> Result<T, NamespaceError>,
) -> Result<T, NamespaceError> {
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|error| NamespaceError::Enter(error.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(NamespaceError::Enter)?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NamespaceError::Enter)?;
        tokio::spawn(connection);
        work(Netlink::new(handle)).await
    })
}

async fn configure(netlink: &Netlink, inside: &[Inside]) -> Result<(), NamespaceError> {
    let mut table = LinkTable::default();
    for link in netlink.links().await? {
        table.update(&link);
    }
    if let Some(loopback) = table.iter().find(|link| link.loopback) {
        netlink.set_up(loopback.index, &loopback.name).await?;
    }
    for each in inside {
        let link = table.iter().find(|link| link.name == each.made_as).ok_or(NamespaceError::Missing)?.index;
        if each.made_as != each.name {
            netlink.rename_link(link, &each.made_as, &each.name).await?;
        }
        configure_link(netlink, link, each).await?;
    }
    Ok(())
}

async fn configure_link(netlink: &Netlink, link: u32, inside: &Inside) -> Result<(), NamespaceError> {
    // A neighbour on the bridge is no router, and nobody else there has our addresses: the question whether somebody
    // does, for the link's own one as well, would go to all containers. Elsewhere it is asked, and the address used meanwhile
    // (RFC 4429): what a container does first must not fail. Without /proc/sys/net it has its addresses all the same.
    let switches: &[(&str, &str)] = if inside.bridged {
        &[("accept_ra", "0"), ("accept_dad", "0")]
    } else {
        &[("accept_ra", "0"), ("optimistic_dad", "1"), ("use_optimistic", "1")]
    };
    if let Err(error) = sysctl::set_link_inside("ipv6", &inside.name, switches) {
        crate::report::failure(&error);
    }
    if let Some(rate) = inside.egress {
        shaping::limit(netlink, link, rate).await?;
    }
    netlink.set_up(link, &inside.name).await?;
    for (index, (address, prefix)) in inside.addresses.into_iter().enumerate() {
        match netlink.add_address(link, address, prefix, Lifetime::FOR_EVER, inside.bridged).await {
            // IPv6 is switched off in this kernel or for this container.
            Err(error) if address.is_ipv6() && matches!(error.number(), libc::EACCES | libc::EOPNOTSUPP) => continue,
            done => done?,
        }
        let Some(gateway) = inside.gateways.get(index).copied().flatten() else { continue };
        let unspecified = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let route = Route {
            link,
            destination: unspecified,
            prefix_length: 0,
            gateway: Some(gateway),
            onlink: false,
            source: None,
            metric: None,
            protocol: RouteProtocol::Static,
            table: MAIN_TABLE,
        };
        netlink.add_route(&route).await?;
    }
    Ok(())
}
