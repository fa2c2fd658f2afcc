//! The event loop: links, DHCP, router advertisements, PID 1. It owns everything and runs one event at a time, so
//! nothing here needs a lock; no event waits for another machine.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_config::{Ipv6, LinkSettings, Made, Network, Networking};
use berth_control::channel::{Channel, ChannelError};
use berth_control::message::{self, Notice, Request};
use futures_util::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::{MulticastGroup, new_connection, new_multicast_connection};
use tokio::sync::mpsc;

use crate::containers::{Attached, Containers};
use crate::dhcp::client::Event;
use crate::dhcp::lease::LeaseStore;
use crate::dhcp::port::Heard;
use crate::dns::upstream::Upstream;
use crate::host_link::{HostLink, Means};
use crate::init::{Init, Message};
use crate::link::{self, Link, LinkTable};
use crate::made::{self, Missing};
use crate::netlink::{Netlink, NetlinkError};
use crate::resolver::{self, Names};
use crate::router_advertisement::Listener;
use crate::{arp, clock, device, dhcp6, files, report, rules};

/// How long PID 1's configuration is waited for before the links are set up without one: a machine whose PID 1 is
/// busy is better off with DHCP than with nothing.
const CONFIGURATION_WAIT: Duration = Duration::from_secs(2);
/// DHCP messages that wait to be handled. More are left in the sockets, which drop what does not fit.
const HEARD_LIMIT: usize = 64;

/// Where files are.
#[derive(Clone, Debug)]
pub struct Paths {
    /// For resolv.conf and hosts; emptied by a reboot.
    pub run: PathBuf,
    /// For leases and what containers were given; survives a reboot.
    pub state: PathBuf,
}

/// Why the program ends. PID 1 starts it again.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// PID 1's channel is broken.
    #[error("talk to PID 1")]
    Channel(#[from] ChannelError),
    /// A socket to the kernel cannot be made.
    #[error("talk to the kernel")]
    Kernel(#[source] io::Error),
    /// The kernel refuses to say what is there.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The kernel's messages have ended.
    #[error("the kernel's messages have ended")]
    Ended,
}

/// All there is.
#[derive(Debug)]
pub struct Service {
    init: Init,
    /// Notices that came while something else was waited for.
    early: Notices,
    paths: Paths,
    means: Means,
    /// `None` until PID 1 has told it: nothing is removed before.
    network: Option<Network>,
    table: LinkTable,
    missing: Missing,
    links: BTreeMap<u32, HostLink>,
    containers: Containers,
    told_links: Option<Vec<message::Link>>,
    told_host_name: Option<String>,
    written: BTreeMap<&'static str, String>,
}

/// One thing that happened.
enum Happening {
    Init(Message),
    Kernel(Box<NetlinkMessage<RouteNetlinkMessage>>),
    Heard(Heard),
    Heard6(dhcp6::port::Heard),
    HeardArp(arp::port::Heard),
    Advertised(Vec<crate::router_advertisement::Advertised>),
    Tick,
}

/// Runs until PID 1 closes the channel.
pub async fn run(channel: Channel, paths: Paths) -> Result<(), ServiceError> {
    let mut init = Init::new(channel)?;
    init.send(Request::NetworkConfiguration, "to tell the configuration").await?;
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        // What routers say of DHCPv6.
        MulticastGroup::Ipv6Ifinfo,
    ];
    let (listening, _, mut kernel) = new_multicast_connection(&groups).map_err(ServiceError::Kernel)?;
    tokio::spawn(listening);
    // Requests go through a socket of their own: the kernel marks what it tells everyone about a change with the
    // number of the request that made it, and on one socket rtnetlink would take that for the request's answer.
    let (asking, handle, _) = new_connection().map_err(ServiceError::Kernel)?;
    tokio::spawn(asking);
    let listener = Listener::open().map_err(ServiceError::Kernel)?;
    let (heard_sender, mut heard) = mpsc::channel(HEARD_LIMIT);
    let (heard6_sender, mut heard6) = mpsc::channel(HEARD_LIMIT);
    let (heard_arp_sender, mut heard_arp) = mpsc::channel(HEARD_LIMIT);
    let (networking, early) = configuration(&mut init).await?;
    let host_name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let leases = LeaseStore::new(&paths.state);
    let netlink = Netlink::new(handle);
    let means = Means {
        netlink,
        leases,
        heard: heard_sender,
        heard6: heard6_sender,
        heard_arp: heard_arp_sender,
        host_name,
        seed: device::random(),
    };
    let mut table = LinkTable::default();
    read_links(&means.netlink, &mut table).await?;
    let containers = Containers::take_up(means.netlink.clone(), &paths, &table).await;
    let containers = containers.map_err(ServiceError::Kernel)?;
    let mut service = Service {
        init,
        early,
        paths,
        means,
        network: None,
        table,
        missing: Missing::new(),
        links: BTreeMap::new(),
        containers,
        told_links: None,
        told_host_name: None,
        written: BTreeMap::new(),
    };
    match networking {
        Some(networking) => service.configure(networking).await,
        None => {
            service.containers.set_up_filter();
            service.adopt_all().await;
        }
    }
    service.settle().await?;
    service.init.send(Request::Ready, "that the network is ready").await?;
    loop {
        let happening = match service.early.pop_front() {
            Some((notice, descriptors)) => Happening::Init(Message::Notice(notice, descriptors)),
            None => tokio::select! {
                message = service.init.receive() => Happening::Init(message?),
                message = kernel.next() => Happening::Kernel(Box::new(message.ok_or(ServiceError::Ended)?.0)),
                Some(heard) = heard.recv() => Happening::Heard(heard),
                Some(heard) = heard6.recv() => Happening::Heard6(heard),
                Some(heard) = heard_arp.recv() => Happening::HeardArp(heard),
                advertised = listener.receive() => Happening::Advertised(advertised.map_err(ServiceError::Kernel)?),
                () = until(service.links.values().filter_map(HostLink::deadline).min()) => Happening::Tick,
            },
        };
        service.handle(happening).await?;
        service.settle().await?;
    }
}

/// Notices of PID 1 with their descriptors, in order.
type Notices = VecDeque<(Notice, Vec<OwnedFd>)>;

/// Waits for the configuration; notices that come before it are kept for later.
async fn configuration(init: &mut Init) -> Result<(Option<Networking>, Notices), ChannelError> {
    let mut early = VecDeque::new();
    let waiting = async {
        loop {
            match init.receive().await? {
                Message::Configuration(network) => return Ok::<_, ChannelError>(Some(*network)),
                Message::Notice(notice, descriptors) => early.push_back((notice, descriptors)),
            }
        }
    };
    let network = match tokio::time::timeout(CONFIGURATION_WAIT, waiting).await {
        Ok(network) => network?,
        Err(_) => {
            report::say("PID 1 has not told the configuration: links are set up with DHCP until it does");
            None
        }
    };
    Ok((network, early))
}

/// Asks the kernel for every link and address.
async fn read_links(netlink: &Netlink, table: &mut LinkTable) -> Result<(), NetlinkError> {
    table.clear();
    for link in netlink.links().await? {
        table.update(&link);
    }
    for address in netlink.addresses().await? {
        table.update_address(&address);
    }
    Ok(())
}

async fn until(deadline: Option<Duration>) {
    match deadline {
        // A little late rather than early: an event that comes too early would come again at once.
        Some(deadline) => tokio::time::sleep(deadline.saturating_sub(clock::now()) + Duration::from_millis(1)).await,
        None => std::future::pending().await,
    }
}

impl Service {
    async fn handle(&mut self, happening: Happening) -> Result<(), ServiceError> {
        let now = clock::now();
        match happening {
            Happening::Init(Message::Configuration(networking)) => self.configure(*networking).await,
            Happening::Init(Message::Notice(notice, descriptors)) => self.notice(notice, descriptors).await?,
            Happening::Kernel(message) => self.kernel(*message).await?,
            Happening::Heard((index, message)) => {
                if let Some(link) = self.links.get_mut(&index) {
                    link.dhcp_event(Event::Received(message), &self.means, now).await;
                }
            }
            Happening::Heard6((index, message)) => {
                if let Some(link) = self.links.get_mut(&index) {
                    link.dhcp6_event(dhcp6::client::Event::Received(message), &self.means, now).await;
                }
            }
            Happening::HeardArp((index, packet)) => {
                if let Some(link) = self.links.get_mut(&index) {
                    link.hear_arp(packet, &self.means, now).await;
                }
            }
            Happening::Advertised(advertised) => {
                for each in advertised {
                    if let Some(link) = self.links.get_mut(&each.link) {
                        link.advertise(each, now);
                    }
                }
            }
            Happening::Tick => {
                for link in self.links.values_mut() {
                    link.tick(&self.means, now).await;
                }
            }
        }
        Ok(())
    }

    async fn configure(&mut self, networking: Networking) {
        self.containers.configure(&networking).await;
        rules::arrange(&self.means.netlink, &networking.host.rules).await;
        self.network = Some(networking.host);
        self.arrange().await;
        self.adopt_all().await;
    }

    /// Makes the links that the configuration wants, and says what is missing for one.
    async fn arrange(&mut self) {
        let Some(network) = &self.network else { return };
        let keys = self.paths.state.join("wireguard");
        let missing = made::arrange(network, &mut self.table, &self.means.netlink, &keys).await;
        for (name, reason) in missing.iter().filter(|(name, reason)| self.missing.get(*name) != Some(reason)) {
            report::say(format_args!("{name}: not made yet: {reason}"));
        }
        self.missing = missing;
        let table = &self.table;
        self.links.retain(|index, _| table.find(*index).is_some());
    }

    async fn notice(&mut self, notice: Notice, descriptors: Vec<OwnedFd>) -> Result<(), ServiceError> {
        match notice {
            Notice::NetworkConfigurationChanged => {
                self.init.send(Request::NetworkConfiguration, "to tell the configuration").await?;
                // A container that is started anew for its sake is to find it in force.
                let (networking, notices) = configuration(&mut self.init).await?;
                self.early.extend(notices);
                if let Some(networking) = networking {
                    self.configure(networking).await;
                }
            }
            Notice::AttachNetwork(wanted) => {
                let (namespace, name) = (descriptors.into_iter().next(), wanted.name.clone());
                let answer = match self.containers.attach(*wanted, namespace, &self.table).await {
                    Ok(Attached { addresses, resolv_conf }) => {
                        Request::NetworkAttached { name, addresses, resolv_conf }
                    }
                    Err(error) => Request::NetworkFailed { name, reason: report::chain(&error) },
                };
                self.init.send(answer, "to take a container's addresses").await?;
            }
            Notice::Serving { name, serving } => self.containers.serve(&name, serving),
            Notice::DetachNetwork { name } => self.containers.detach(&name).await,
            Notice::AllAttached => self.containers.detach_unnamed().await,
            Notice::Resumed => {
                (self.told_links, self.told_host_name) = (None, None);
                self.init.send(Request::NetworkConfiguration, "to tell the configuration").await?;
            }
            // The rest is for other roles, or nothing to do: files are whole at every moment.
            _ => {}
        }
        Ok(())
    }

    async fn kernel(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) -> Result<(), ServiceError> {
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                let index = link.header.index;
                let before = self.place_of(index);
                if self.table.update_routers(&link) {
                    self.adopt(index).await;
                } else if self.table.update(&link) {
                    if self.place_of(index) != before {
                        self.arrange().await;
                        self.adopt_all().await;
                    }
                    self.adopt(index).await;
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                if let Some(link) = self.table.remove(&link)
                    && !link.is_own()
                {
                    if self.links.remove(&link.index).is_some() {
                        report::say(format_args!("{}: gone", link.name));
                    }
                    self.arrange().await;
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                self.table.update_address(&address);
                if let (Some(taken), Some(link)) =
                    (link::taken_address(&address), self.links.get_mut(&address.header.index))
                {
                    link.conflict6(taken, &self.means, clock::now()).await;
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(address)) => {
                self.table.remove_address(&address);
            }
            // More happened than the socket could hold: what is there now counts, not how it came about.
            NetlinkPayload::Overrun(_) => self.look_around().await?,
            _ => {}
        }
        Ok(())
    }

    /// What others' places may depend on; `None` for links of containers.
    fn place_of(&self, index: u32) -> Option<(String, Option<u32>, String)> {
        let link = self.table.find(index).filter(|link| !link.is_own())?;
        Some((link.name.clone(), link.controller, link.alias.clone()))
    }

    /// Asks the kernel for everything.
    async fn look_around(&mut self) -> Result<(), ServiceError> {
        read_links(&self.means.netlink, &mut self.table).await?;
        let table = &self.table;
        self.links.retain(|index, _| table.find(*index).is_some());
        self.arrange().await;
        self.adopt_all().await;
        Ok(())
    }

    async fn adopt_all(&mut self) {
        let indices: Vec<u32> = self.table.iter().map(|link| link.index).collect();
        for index in indices {
            self.adopt(index).await;
        }
    }

    /// Looks after a link as the configuration says, from now on or still.
    async fn adopt(&mut self, index: u32) {
        let Some(link) = self.table.find(index) else { return };
        if link.loopback && !link.up {
            if let Err(error) = self.means.netlink.set_up(index, &link.name).await {
                report::failure(&error);
            }
            return;
        }
        let settings = settings(self.network.as_ref(), link);
        match (self.links.get_mut(&index), settings) {
            (Some(host_link), Some(settings)) => {
                host_link.reconfigure(link, settings, &self.means).await;
                host_link.follow(link, &self.means, clock::now()).await;
            }
            (Some(_), None) => {
                self.links.remove(&index);
            }
            (None, Some(settings)) => {
                let mut host_link = HostLink::adopt(link, settings, &self.means).await;
                host_link.follow(link, &self.means, clock::now()).await;
                self.links.insert(index, host_link);
            }
            (None, None) => {}
        }
    }

    /// Tells PID 1 and writes files, where anything has changed.
    async fn settle(&mut self) -> Result<(), ServiceError> {
        let links = self.summary();
        if self.told_links.as_ref() != Some(&links) {
            self.init.send(Request::Links { links: links.clone() }, "to take the links").await?;
            self.told_links = Some(links);
        }
        let host_name = self.links.values().find_map(|link| link.lease()?.host_name.clone());
        if let Some(name) = host_name.filter(|name| self.told_host_name.as_ref() != Some(name)) {
            self.init.send(Request::HostName { name: name.clone() }, "to take the host name").await?;
            self.told_host_name = Some(name);
        }
        let sources = self.name_sources();
        let (direct, local) = (resolver::resolv_conf(&sources), resolver::local_resolv_conf(&sources));
        let is_local = self.network.as_ref().is_none_or(|network| network.resolver);
        self.containers.answer_host(is_local);
        self.write("resolv.conf", if is_local { local } else { direct.clone() }, files::write_in_place);
        self.write("resolv.upstream.conf", direct, files::write_in_place);
        let search = resolver::search_domains(&sources);
        if self.containers.follow_names(self.upstream(&sources), search) {
            for (name, Attached { addresses, resolv_conf }) in self.containers.all() {
                let told = Request::NetworkAttached { name: name.clone(), addresses, resolv_conf };
                self.init.send(told, "to take a container's search domains").await?;
            }
        }
        let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        self.write("hosts", resolver::hosts(&name), |path, text| files::write_atomically(path, text.as_bytes()));
        Ok(())
    }

    /// What PID 1 is told of links, those too that cannot be made yet.
    fn summary(&self) -> Vec<message::Link> {
        let mut links = self.table.summary(|link| {
            let of_link = self.links.get(&link.index).map(|host_link| host_link.missing(link));
            of_link.unwrap_or_default()
        });
        for (name, reason) in &self.missing {
            match links.iter_mut().find(|link| link.name == name.as_str()) {
                Some(link) => link.missing.push(reason.clone()),
                None => links.push(message::Link {
                    name: name.to_string(),
                    mac: String::new(),
                    carrier: false,
                    addresses: Vec::new(),
                    missing: vec![format!("not made yet: {reason}")],
                }),
            }
        }
        links
    }

    /// What all sources say of names, in the order of their weight.
    fn name_sources(&self) -> Vec<Names> {
        let configured = self.network.as_ref().map_or_else(Names::default, |network| Names {
            servers: network.dns.iter().map(ToString::to_string).collect(),
            search: network.dns_search.iter().map(ToString::to_string).collect(),
        });
        std::iter::once(configured).chain(self.links.values().map(HostLink::names)).collect()
    }

    /// Whom the machine's resolver asks.
    fn upstream(&self, sources: &[Names]) -> Upstream {
        let servers = sources.iter().flat_map(|source| &source.servers).filter_map(|server| self.address_of(server));
        let of_domain = |(domain, servers): (&berth_config::HostName, &Vec<IpAddr>)| {
            let servers = servers.iter().map(|address| SocketAddr::new(*address, resolver::PORT));
            (domain.to_string().to_ascii_lowercase(), servers.collect())
        };
        let domains = self.network.iter().flat_map(|network| &network.domains).map(of_domain);
        // One that asks itself would ask for ever.
        let servers = servers.filter(|server| server.ip() != IpAddr::V4(resolver::LOCAL));
        Upstream { servers: servers.collect(), domains: domains.collect() }
    }

    /// Of a name server, as it stands in resolv.conf.
    fn address_of(&self, server: &str) -> Option<SocketAddr> {
        let (address, link) = server.split_once('%').unwrap_or((server, ""));
        let scope = self.table.iter().find(|each| each.name == link).map_or(0, |each| each.index);
        Some(match address.parse().ok()? {
            IpAddr::V4(address) => (address, resolver::PORT).into(),
            IpAddr::V6(address) => SocketAddrV6::new(address, resolver::PORT, 0, scope).into(),
        })
    }

    fn write(&mut self, name: &'static str, text: String, write: fn(&Path, &str) -> io::Result<()>) {
        if self.written.get(name) == Some(&text) {
            return;
        }
        let path = self.paths.run.join(name);
        if let Err(error) = write(&path, &text) {
            report::say(format_args!("write {}: {error}", path.display()));
        }
        self.written.insert(name, text);
    }
}

/// What is to be done with a link; `None` if nothing.
fn settings(network: Option<&Network>, link: &Link) -> Option<LinkSettings> {
    if link.loopback || link.is_own() {
        return None;
    }
    let nothing = Network::default();
    let network = network.unwrap_or(&nothing);
    made::with_identity(link, |identity| {
        let configured = network.link_settings(identity).map(|(_, settings)| settings.clone());
        match network.controller(identity).and_then(|(_, controller)| controller.made()) {
            Some(Made::Vrf(vrf)) => {
                let settings = configured.unwrap_or_default();
                Some(LinkSettings { table: settings.table.or(Some(vrf.table)), ..settings })
            }
            // A port has no addresses of its own.
            Some(_) => {
                let (mtu, mac) = configured.map_or((None, None), |settings| (settings.mtu, settings.mac));
                Some(LinkSettings { dhcp: Some(false), ipv6: Ipv6::Off, mtu, mac, ..LinkSettings::default() })
            }
            None => configured.or_else(|| link.is_card().then(LinkSettings::default)),
        }
    })
}
