//! The bridge that containers hang on, and the cables to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{InfoData, InfoVeth};
use netlink_packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::attachment::Attachment;
use super::namespace::LINK_NAME;
use super::subnet::{IPV4_PREFIX, IPV6_PREFIX, Subnet};
use crate::link::LinkTable;
use crate::netlink::{Lifetime, Netlink, NetlinkError};
use crate::{report, sysctl};

/// The default network's.
pub const BRIDGE: &str = "berth0";
/// Higher than that of the loopback's own route, which is to be taken by everything else.
const LOCALHOST_METRIC: u32 = 4096;

/// The IPv4 networks that the host has routes to, without the default route and our own.
pub async fn taken_networks(netlink: &Netlink, table: &LinkTable) -> Result<Vec<(Ipv4Addr, u8)>, NetlinkError> {
    let mut taken = Vec::new();
    for route in netlink.routes(AddressFamily::Inet).await? {
        let (mut destination, mut own) = (None, false);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = Some(*address),
                RouteAttribute::Oif(index) => own = table.find(*index).is_some_and(crate::link::Link::is_own),
                _ => {}
            }
        }
        taken.extend(destination.filter(|_| !own).map(|address| (address, route.header.destination_prefix_length)));
    }
    Ok(taken)
}

/// Makes the bridge, or makes what is there complete, and returns its number.
pub async fn ensure(netlink: &Netlink, subnet: &Subnet) -> Result<u32, NetlinkError> {
    let gateway = subnet.gateway();
    // Snooping holds back neighbour discovery while no querier is known, which on this bridge is always.
    let message = LinkBridge::new(BRIDGE).mcast_snooping(false).address(mac_of(gateway.0)).build();
    match netlink.add_link(message, BRIDGE).await {
        Err(error) if error.number() == libc::EEXIST => {}
        done => done?,
    }
    let index = index_of(netlink, BRIDGE).await?;
    // route_localnet: what comes from 127.0.0.1 by a published port leaves on this link.
    for (family, key, value) in [("ipv4", "route_localnet", "1"), ("ipv6", "accept_ra", "0")] {
        if let Err(error) = sysctl::set_link(family, BRIDGE, key, value) {
            report::failure(&error);
        }
    }
    for done in [sysctl::enable_forwarding(), sysctl::disable_bridge_filter()] {
        if let Err(error) = done {
            report::failure(&error);
        }
    }
    netlink.set_up(index, BRIDGE).await?;
    for (address, prefix) in [(IpAddr::V4(gateway.0), IPV4_PREFIX), (IpAddr::V6(gateway.1), IPV6_PREFIX)] {
        match netlink.add_address(index, address, prefix, Lifetime::FOR_EVER, true).await {
            // IPv6 is switched off in this kernel or by its command line.
            Err(error) if address.is_ipv6() && matches!(error.number(), libc::EACCES | libc::EOPNOTSUPP) => {}
            done => done?,
        }
    }
    // IPv6 has no route_localnet: answers to a connection from ::1 are routed by the link they come in on.
    match netlink.add_local_route(index, Ipv6Addr::LOCALHOST.into(), LOCALHOST_METRIC).await {
        Err(error) if matches!(error.number(), libc::EACCES | libc::EOPNOTSUPP | libc::ENODEV) => {}
        done => done?,
    }
    Ok(index)
}

async fn index_of(netlink: &Netlink, name: &str) -> Result<u32, NetlinkError> {
    Ok(netlink.link_by_name(name).await?.header.index)
}

/// Lays a cable from the bridge into a namespace.
pub async fn connect(
    netlink: &Netlink,
    bridge: u32,
    attachment: &Attachment,
    namespace: BorrowedFd<'_>,
) -> Result<(), NetlinkError> {
    let name = attachment.link_name();
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(LINK_NAME)
        .address(mac_of(attachment.ipv4))
        .setns_by_fd(namespace.as_raw_fd())
        .build();
    let message = LinkVeth::new(&name, LINK_NAME)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .controller(bridge)
        .alias(format!("container {}", attachment.name))
        .up()
        .build();
    netlink.add_link(message, &name).await
}

/// Takes a cable away. One that is gone already, with its namespace, is no error.
pub async fn disconnect(netlink: &Netlink, attachment: &Attachment) -> Result<(), NetlinkError> {
    match netlink.remove_link_by_name(&attachment.link_name()).await {
        Err(error) if error.number() == libc::ENODEV => Ok(()),
        done => done,
    }
}

/// A locally administered hardware address that follows from the IPv4 address, so that neighbours' tables stay right
/// when a container is replaced by its next run.
fn mac_of(address: Ipv4Addr) -> Vec<u8> {
    [&[0x02, 0xbe][..], &address.octets()].concat()
}
