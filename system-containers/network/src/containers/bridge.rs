//! The bridges that containers hang on, and the cables to them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use berth_config::{Mtu, Prefix};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{InfoBridge, InfoData, InfoVeth, LinkAttribute};
use netlink_packet_route::route::RouteAttribute;
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::attachment::Cable;
use super::networks::Network;
use crate::link::{LinkTable, OWN_PREFIX};
use crate::netlink::{self, Lifetime, MAIN_TABLE, Netlink, NetlinkError};
use crate::nftables::quiet;
use crate::{report, sysctl};

/// Higher than that of the loopback's own route, which is to be taken by everything else. Each bridge adds its number:
/// of two routes with one metric the second would take the place of the first.
const LOCALHOST_METRIC: u32 = 4096;

/// The name of the bridge of the network with this number.
pub fn name(number: u16) -> String {
    format!("{OWN_PREFIX}{number}")
}

/// The networks that the host has routes to and by which link: those of the main table, without default routes, our own and
/// what every link has.
pub async fn host_networks(netlink: &Netlink, table: &LinkTable) -> Result<Vec<(Prefix, u32)>, NetlinkError> {
    let mut networks = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for route in netlink.routes(family).await? {
            let (mut link, mut of_table) = (0, u32::from(route.header.table));
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Oif(index) => link = *index,
                    RouteAttribute::Table(number) => of_table = *number,
                    _ => {}
                }
            }
            let own = table.find(link).is_some_and(crate::link::Link::is_own);
            let network = netlink::destination(&route).filter(|network| network.length() > 0);
            let is_of_link = |network: &Prefix| match network.address() {
                IpAddr::V4(address) => address.is_multicast() || address.is_link_local(),
                IpAddr::V6(address) => address.is_multicast() || address.is_unicast_link_local(),
            };
            let network = network.filter(|network| of_table == MAIN_TABLE && !own && !is_of_link(network));
            networks.extend(network.map(|network| (network, link)));
        }
    }
    Ok(networks)
}

/// Makes the bridge, or makes what is there complete, and returns its number.
pub async fn ensure(netlink: &Netlink, network: &Network) -> Result<u32, NetlinkError> {
    let (subnets, name) = (&network.subnets, network.bridge_name());
    // Snooping holds back neighbour discovery while no querier is known, which on this bridge is always. Without a VLAN of its own
    // a port has one entry less among the bridge's addresses: the kernel walks over all of them for each new port
    // (br_fdb_unsync_static).
    let message = LinkBridge::new(&name)
        .mcast_snooping(false)
        .append_info_data(InfoBridge::VlanDefaultPvid(0))
        .address(mac_of(subnets.gateway4).to_vec())
        .build();
    match netlink.add_link(message, &name).await {
        Err(error) if error.number() == libc::EEXIST => {}
        done => done?,
    }
    let index = netlink.link_by_name(&name).await?.header.index;
    if let Some(mtu) = network.settings.mtu {
        netlink.set_mtu(index, &name, mtu.bytes()).await?;
    }
    // route_localnet: what comes from 127.0.0.1 by a published port leaves on this link.
    for (family, key, value) in [("ipv4", "route_localnet", "1"), ("ipv6", "accept_ra", "0")] {
        if let Err(error) = sysctl::set_link(family, &name, key, value) {
            report::failure(&error);
        }
    }
    if let Err(error) = sysctl::enable_forwarding() {
        report::failure(&error);
    }
    if let Err(error) = quiet::set_up() {
        // Slower with many containers, and right all the same: a kernel without filters for bridges.
        report::say(format_args!("keep announcements of multicast groups from all containers: {error}"));
    }
    netlink.set_up(index, &name).await?;
    let addresses: [(IpAddr, Prefix); 2] =
        [(subnets.gateway4.into(), subnets.ipv4), (subnets.gateway6.into(), subnets.ipv6)];
    for (address, subnet) in addresses {
        match netlink.add_address(index, address, subnet.length(), Lifetime::FOR_EVER, true).await {
            // IPv6 is switched off in this kernel or by its command line.
            Err(error) if address.is_ipv6() && matches!(error.number(), libc::EACCES | libc::EOPNOTSUPP) => {}
            done => done?,
        }
    }
    // IPv6 has no route_localnet: answers to a connection from ::1 are routed by the link they come in on.
    match netlink.add_local_route(index, Ipv6Addr::LOCALHOST.into(), LOCALHOST_METRIC + u32::from(network.number)).await
    {
        Err(error) if matches!(error.number(), libc::EACCES | libc::EOPNOTSUPP | libc::ENODEV) => {}
        done => done?,
    }
    Ok(index)
}

/// Lays a cable from a network's bridge into a namespace, where its end gets the name `inside`.
pub async fn connect(
    netlink: &Netlink,
    network: &Network,
    (cable, inside): (&Cable, &str),
    (container, namespace): (&str, BorrowedFd<'_>),
) -> Result<(), NetlinkError> {
    let (name, bridge) = (cable.link_name(), network.bridge.unwrap_or_default());
    let mtu = network.settings.mtu.map(Mtu::bytes);
    let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(inside)
        .address(cable.mac.to_vec())
        .setns_by_fd(namespace.as_raw_fd());
    let mut message = LinkVeth::new(&name, inside).controller(bridge).alias(format!("container {container}"));
    if let Some(mtu) = mtu {
        (peer, message) = (peer.mtu(mtu), message.mtu(mtu));
    }
    let message = message.set_info_data(InfoData::Veth(InfoVeth::Peer(one_queue(peer).build())));
    netlink.add_link(one_queue(message).build(), &name).await?;
    // With an address of its own each new port would send packets to all others, and the five-hundredth container wait
    // for five hundred that read them.
    if let Err(error) = sysctl::disable_ipv6(&name) {
        report::failure(&error);
    }
    if network.settings.isolated {
        netlink.isolate_port(&name).await?;
    }
    netlink.set_up_by_name(&name).await
}

/// Where nobody says how many queues an end has, the kernel makes one for each processor, tells everybody of them, takes all but one
/// away and waits for the processors (veth_init_queues).
fn one_queue<T>(message: LinkMessageBuilder<T>) -> LinkMessageBuilder<T> {
    let message = message.append_extra_attribute(LinkAttribute::NumTxQueues(1));
    message.append_extra_attribute(LinkAttribute::NumRxQueues(1))
}

/// Lets the bridge answer for the addresses of a container's service.
pub async fn add_service(netlink: &Netlink, bridge: u32, cable: &Cable) -> Result<(), NetlinkError> {
    let Some((ipv4, ipv6)) = cable.service else { return Ok(()) };
    for address in [IpAddr::V4(ipv4), IpAddr::V6(ipv6)] {
        match netlink.add_passive_address(bridge, address).await {
            // IPv6 is switched off in this kernel or by its command line.
            Err(error) if address.is_ipv6() && matches!(error.number(), libc::EACCES | libc::EOPNOTSUPP) => {}
            done => done?,
        }
    }
    Ok(())
}

/// Takes a cable away. One that is gone already, with its namespace, is no error.
pub async fn disconnect(netlink: &Netlink, cable: &Cable) -> Result<(), NetlinkError> {
    match netlink.remove_link_by_name(&cable.link_name()).await {
        Err(error) if error.number() == libc::ENODEV => Ok(()),
        done => done,
    }
}

/// A locally administered hardware address that follows from the IPv4 address, so that neighbours' tables stay right
/// when a container is replaced by its next run.
pub fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0xbe, a, b, c, d]
}
