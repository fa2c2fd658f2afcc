//! Links of containers on a link of the machine itself: macvlan and ipvlan. Each is made right in the container's
//! namespace and goes with it, so there is nothing of it on the machine's side.
//!
//! Linux before 6.15 refuses a name that a link of the machine has (rtnl_newlink looks in the namespace of who asks), and most
//! machines have an `eth0`: a link is made with the name of a cable, which nobody else has, and gets its own inside.

use std::os::fd::{AsRawFd, BorrowedFd};

use berth_config::{LinkName, Mtu, NetworkDriver, ParentMode};
use netlink_packet_route::link::{IpVlanMode, LinkMessage, MacVlanMode};
use rtnetlink::{LinkIpVlan, LinkMacVlan, LinkMessageBuilder};

use super::attachment::Cable;
use super::networks::Network;
use crate::netlink::{Netlink, NetlinkError};

/// Makes a link of the network's parent in a namespace, where it has the name of the cable until it is set up.
pub async fn connect(
    netlink: &Netlink,
    network: &Network,
    cable: &Cable,
    namespace: BorrowedFd<'_>,
) -> Result<(), NetlinkError> {
    let (settings, name) = (&network.settings, cable.link_name());
    let parent_name = settings.parent.as_ref().map(LinkName::as_str).unwrap_or_default();
    let parent = netlink.link_by_name(parent_name).await?.header.index;
    // The kernel refuses to set up a link whose parent is down.
    netlink.set_up(parent, parent_name).await?;
    let mode = settings.parent_mode().unwrap_or(ParentMode::Bridge);
    let mtu = settings.mtu.map(Mtu::bytes);
    let message = if settings.driver == NetworkDriver::Ipvlan {
        in_namespace(LinkIpVlan::new(&name, parent, ipvlan_mode(mode)), mtu, namespace)
    } else {
        let link = LinkMacVlan::new(&name, parent, macvlan_mode(mode));
        // A link that passes everything through keeps its parent's address.
        let own = mode != ParentMode::Passthru;
        in_namespace(if own { link.address(cable.mac.to_vec()) } else { link }, mtu, namespace)
    };
    netlink.add_link(message, &format!("{name} on {parent_name}")).await
}

fn in_namespace<T>(link: LinkMessageBuilder<T>, mtu: Option<u32>, namespace: BorrowedFd<'_>) -> LinkMessage {
    let link = link.setns_by_fd(namespace.as_raw_fd());
    match mtu {
        Some(mtu) => link.mtu(mtu).build(),
        None => link.build(),
    }
}

const fn macvlan_mode(mode: ParentMode) -> MacVlanMode {
    match mode {
        ParentMode::Private => MacVlanMode::Private,
        ParentMode::Vepa => MacVlanMode::Vepa,
        ParentMode::Passthru => MacVlanMode::Passthrough,
        ParentMode::Bridge | ParentMode::L2 | ParentMode::L3 | ParentMode::L3s => MacVlanMode::Bridge,
    }
}

const fn ipvlan_mode(mode: ParentMode) -> IpVlanMode {
    match mode {
        ParentMode::L3 => IpVlanMode::L3,
        ParentMode::L3s => IpVlanMode::L3S,
        _ => IpVlanMode::L2,
    }
}
