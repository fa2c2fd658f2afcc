//! rtnetlink requests, each awaited to its acknowledgement, with errors that name what they were about.

mod links;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_config::Prefix;
use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo};
use netlink_packet_route::link::{InfoBridgePort, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::tc::TcMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::{Handle, LinkBridgePort, LinkUnspec};

/// The kernel's table of its own addresses (linux/rtnetlink.h).
const RT_TABLE_LOCAL: u32 = 255;

/// A request that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {subject}")]
pub struct NetlinkError {
    operation: &'static str,
    subject: String,
    #[source]
    source: io::Error,
}

impl NetlinkError {
    /// The error's number; 0 if it has none.
    pub fn number(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }
}

/// Marks rules and addresses as made by this program. A number that rtnetlink.h gives to nobody: "values of protocol >=
/// RTPROT_STATIC are not interpreted by kernel".
pub const OWN_PROTOCOL: u8 = 190;

/// RT_TABLE_MAIN (linux/rtnetlink.h).
pub const MAIN_TABLE: u32 = 254;

/// IP6_RT_PRIO_USER, which the kernel gives to IPv6 routes without a metric, and to default routes by router advertisements.
pub const IPV6_METRIC: u32 = 1024;

/// How long an address may be used, in seconds; `u32::MAX` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// New connections use other addresses afterwards.
    pub preferred: u32,
    /// The kernel removes the address afterwards.
    pub valid: u32,
}

impl Lifetime {
    /// Has no end.
    pub const FOR_EVER: Self = Self { preferred: u32::MAX, valid: u32::MAX };

    /// Good until its end, in seconds.
    pub const fn of(valid: u32) -> Self {
        Self { preferred: valid, valid }
    }
}

/// A route as this program makes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The link's number.
    pub link: u32,
    /// Where it leads.
    pub destination: IpAddr,
    /// At most 32 or 128.
    pub prefix_length: u8,
    /// The next hop; `None` if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Whether the gateway is reached on this link although no address says so.
    pub onlink: bool,
    /// Our address for packets on this route.
    pub source: Option<IpAddr>,
    /// Lower is preferred.
    pub metric: Option<u32>,
    /// Who made it.
    pub protocol: RouteProtocol,
    /// The routing table.
    pub table: u32,
}

impl Route {
    /// One that the kernel has, if it is of the kind that this program makes on links of the host.
    pub fn read(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let unspecified: IpAddr = match header.address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            _ => Ipv6Addr::UNSPECIFIED.into(),
        };
        let mut route = Self {
            link: 0,
            destination: unspecified,
            prefix_length: header.destination_prefix_length,
            gateway: None,
            onlink: header.flags.contains(RouteFlags::Onlink),
            source: None,
            metric: None,
            protocol: header.protocol,
            table: header.table.into(),
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => route.destination = ip_of(address)?,
                RouteAttribute::Gateway(address) => route.gateway = ip_of(address),
                RouteAttribute::PrefSource(address) => route.source = ip_of(address),
                RouteAttribute::Oif(index) => route.link = *index,
                RouteAttribute::Priority(metric) => route.metric = Some(*metric),
                RouteAttribute::Table(table) => route.table = *table,
                _ => {}
            }
        }
        let ours = matches!(route.protocol, RouteProtocol::Static | RouteProtocol::Dhcp);
        (ours && header.kind == RouteType::Unicast).then_some(route)
    }

    /// Whether both lead to the same place with the same weight: the kernel fills in what is left out.
    pub fn is_same(&self, other: &Self) -> bool {
        let plain = |route: &Self| {
            let metric = route.metric.filter(|metric| *metric > 0);
            let metric = metric.or(route.destination.is_ipv6().then_some(IPV6_METRIC));
            Self { onlink: false, metric, ..route.clone() }
        };
        plain(self) == plain(other)
    }

    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = if self.destination.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        header.destination_prefix_length = self.prefix_length;
        header.table = u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
        header.protocol = self.protocol;
        header.kind = RouteType::Unicast;
        header.scope = match self.gateway {
            None if self.destination.is_ipv4() => RouteScope::Link,
            _ => RouteScope::Universe,
        };
        if self.onlink && self.gateway.is_some() {
            header.flags |= RouteFlags::Onlink;
        }
        let attributes = &mut message.attributes;
        if self.prefix_length > 0 {
            attributes.push(RouteAttribute::Destination(self.destination.into()));
        }
        attributes.push(RouteAttribute::Table(self.table));
        attributes.push(RouteAttribute::Oif(self.link));
        attributes.extend(self.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
        attributes.extend(self.source.map(|source| RouteAttribute::PrefSource(source.into())));
        attributes.extend(self.metric.map(RouteAttribute::Priority));
        message
    }

    fn text(&self) -> String {
        format!("{}/{} on link {}", self.destination, self.prefix_length, self.link)
    }
}

/// A connection to the kernel's routing, in the network namespace its socket was made in.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Uses a connection whose task is already running.
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Every link.
    pub async fn links(&self) -> Result<Vec<LinkMessage>, NetlinkError> {
        self.handle.link().get().execute().try_collect().await.map_err(about("list", "links"))
    }

    /// Every address.
    pub async fn addresses(&self) -> Result<Vec<AddressMessage>, NetlinkError> {
        self.handle.address().get().execute().try_collect().await.map_err(about("list", "addresses"))
    }

    /// Every route of a family, in all tables.
    pub async fn routes(&self, family: AddressFamily) -> Result<Vec<RouteMessage>, NetlinkError> {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        self.handle.route().get(request).execute().try_collect().await.map_err(about("list", "routes"))
    }

    /// Makes a link.
    pub async fn add_link(&self, message: LinkMessage, name: &str) -> Result<(), NetlinkError> {
        self.handle.link().add(message).execute().await.map_err(about("make link", name))
    }

    /// A link by its name.
    pub async fn link_by_name(&self, name: &str) -> Result<LinkMessage, NetlinkError> {
        let found = self.handle.link().get().match_name(name.to_owned()).execute().try_next().await;
        let missing = || NetlinkError {
            operation: "find link",
            subject: name.to_owned(),
            source: io::Error::from_raw_os_error(libc::ENODEV),
        };
        found.map_err(about("find link", name))?.ok_or_else(missing)
    }

    /// Sets a link up.
    pub async fn set_up(&self, index: u32, name: &str) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().change(message).execute().await.map_err(about("set up link", name))
    }

    /// Sets a link up that was made a moment ago.
    pub async fn set_up_by_name(&self, name: &str) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_name(name).up().build();
        self.handle.link().change(message).execute().await.map_err(about("set up link", name))
    }

    /// Sets the largest packet, in bytes.
    pub async fn set_mtu(&self, index: u32, name: &str, mtu: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        self.handle.link().change(message).execute().await.map_err(about("set the MTU of link", name))
    }

    /// Puts a queue in the place of a link's own.
    pub async fn replace_queue(&self, queue: TcMessage, link: u32) -> Result<(), NetlinkError> {
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(queue));
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let mut answers = self.handle.clone().request(message).map_err(about("limit link", link))?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(about("limit link", link)(rtnetlink::Error::NetlinkError(error)));
            }
        }
        Ok(())
    }

    /// Keeps a bridge's port from reaching the bridge's other isolated ports.
    pub async fn isolate_port(&self, name: &str) -> Result<(), NetlinkError> {
        let index = self.link_by_name(name).await?.header.index;
        let message = LinkBridgePort::new(index).append_info_data(InfoBridgePort::Isolated(true)).build();
        self.handle.link().change(message).execute().await.map_err(about("isolate link", name))
    }

    /// Removes a link.
    pub async fn remove_link(&self, index: u32, name: &str) -> Result<(), NetlinkError> {
        self.handle.link().del(index).execute().await.map_err(about("remove link", name))
    }

    /// Removes a link by its name.
    pub async fn remove_link_by_name(&self, name: &str) -> Result<(), NetlinkError> {
        let index = self.link_by_name(name).await?.header.index;
        self.remove_link(index, name).await
    }

    /// Gives a link an address, or an address it has a new lifetime. IPv6 addresses are usable at once where
    /// `checked` says that nobody else has them.
    pub async fn add_address(
        &self,
        link: u32,
        address: IpAddr,
        prefix_length: u8,
        lifetime: Lifetime,
        checked: bool,
    ) -> Result<(), NetlinkError> {
        let mut request = self.handle.address().add(link, address, prefix_length).replace();
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(OWN_PROTOCOL)));
        if lifetime != Lifetime::FOR_EVER {
            let mut times = CacheInfo::default();
            (times.ifa_valid, times.ifa_preferred) = (lifetime.valid, lifetime.preferred);
            attributes.push(AddressAttribute::CacheInfo(times));
        }
        if address.is_ipv6() {
            // The kernel drops the second one where the link does not ask for it.
            let flags = if checked { AddressFlags::Nodad } else { AddressFlags::Optimistic };
            attributes.push(AddressAttribute::Flags(flags));
        }
        request.execute().await.map_err(about("add address", address))
    }

    /// Gives a link an address that it answers for and never uses by itself.
    pub async fn add_passive_address(&self, link: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let prefix_length = if address.is_ipv4() { 32 } else { 128 };
        let mut request = self.handle.address().add(link, address, prefix_length).replace();
        let mut times = CacheInfo::default();
        (times.ifa_valid, times.ifa_preferred) = (u32::MAX, 0);
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::CacheInfo(times));
        attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        request.execute().await.map_err(about("add address", address))
    }

    /// Takes an address from a link; the routes that use it go too.
    pub async fn remove_address(&self, link: u32, address: IpAddr, prefix_length: u8) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = link;
        message.header.prefix_len = prefix_length;
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        self.handle.address().del(message).execute().await.map_err(about("remove address", address))
    }

    /// Makes a route, or changes the one with the same destination and metric.
    pub async fn add_route(&self, route: &Route) -> Result<(), NetlinkError> {
        self.handle.route().add(route.message()).replace().execute().await.map_err(about("add route", route.text()))
    }

    /// Makes the machine take packets for an address that come in on a link, in the table `local`.
    pub async fn add_local_route(&self, link: u32, address: IpAddr, metric: u32) -> Result<(), NetlinkError> {
        let prefix_length = if address.is_ipv4() { 32 } else { 128 };
        let route = Route {
            link,
            destination: address,
            prefix_length,
            gateway: None,
            onlink: false,
            source: None,
            metric: Some(metric),
            protocol: RouteProtocol::Static,
            table: RT_TABLE_LOCAL,
        };
        let mut message = route.message();
        message.header.kind = RouteType::Local;
        self.handle.route().add(message).replace().execute().await.map_err(about("add local route", route.text()))
    }

    /// Removes a route.
    pub async fn remove_route(&self, route: &Route) -> Result<(), NetlinkError> {
        self.handle.route().del(route.message()).execute().await.map_err(about("remove route", route.text()))
    }
}

/// The network that a route leads to; `None` for a default route.
pub fn destination(route: &RouteMessage) -> Option<Prefix> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip_of(address),
        _ => None,
    });
    Prefix::new(address?, route.header.destination_prefix_length)
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn about<S: ToString>(operation: &'static str, subject: S) -> impl FnOnce(rtnetlink::Error) -> NetlinkError {
    move |error| {
        let source = match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other.to_string()),
        };
        NetlinkError { operation, subject: subject.to_string(), source }
    }
}
