//! The event loop: links, DHCP, router advertisements, PID 1. It owns everything and runs one event at a time, so
//! nothing here needs a lock; no event waits for another machine. [`sources`] has the events, [`kernel`] follows the links,
//! [`asking`] waits for what others say of containers' addresses, [`watching`] looks at what the kernel does not tell, [`tell`] says
//! what has become of all.

mod asking;
mod kernel;
mod pace;
mod sources;
mod tell;
mod watching;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use berth_config::{LinkName, LinkSettings, Made, Network, Networking};
use berth_control::channel::{Channel, ChannelError};
use berth_control::message::{self, Notice, Request};
use rtnetlink::new_connection;
use tokio::sync::watch;

use self::asking::{Asking, Pending};
use self::kernel::read_links;
use self::pace::Pace;
use self::sources::Happening;
use crate::containers::{Answers, AttachError, Attached, Awaited, Containers, Lookouts};
use crate::dhcp::client::Event;
use crate::host_link::{HostLink, Means};
use crate::init::{Init, Message};
use crate::leases::LeaseStore;
use crate::link::{Link, LinkTable};
use crate::made::endpoints::Endpoints;
use crate::made::state::Troubles;
use crate::made::{self, Misnamed, Missing};
use crate::netlink::{Netlink, NetlinkError};
use crate::resolver::Names;
use crate::time::Correction;
use crate::{clock, dhcp6, report, rules};

/// How long PID 1's configuration is waited for before the links are set up without one: a machine whose PID 1 is
/// busy is better off with DHCP than with nothing.
const CONFIGURATION_WAIT: Duration = Duration::from_secs(2);
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
    misnamed: Misnamed,
    /// Of links that are made, and when they are looked at again.
    troubles: Troubles,
    look_at: Option<Duration>,
    /// When it is tried again to answer names where that was not possible.
    listen_at: Option<Duration>,
    endpoints: Endpoints,
    links: BTreeMap<u32, HostLink>,
    /// Which entry of the configuration is for which link.
    entries: BTreeMap<u32, LinkName>,
    containers: Containers,
    asking: Asking,
    /// Who is asked for the time.
    time_servers: watch::Sender<Vec<String>>,
    told_links: Option<Vec<message::Link>>,
    told_networks: Vec<message::Network>,
    told_host_name: Option<String>,
    /// What all sources say of names, as others were told of it, and how often they may be told.
    told_names: Vec<Names>,
    names_pace: Pace,
    written: BTreeMap<&'static str, String>,
}

/// Runs until PID 1 closes the channel.
pub async fn run(channel: Channel, paths: Paths) -> Result<(), ServiceError> {
    let mut init = Init::new(channel)?;
    init.send(Request::NetworkConfiguration, "to tell the configuration").await?;
    let (networking, early) = configuration(&mut init).await?;
    // Requests go through a socket of their own: the kernel marks what it tells everyone about a change with the
    // number of the request that made it, and on one socket rtnetlink would take that for the request's answer.
    let (asking, handle, _) = new_connection().map_err(ServiceError::Kernel)?;
    tokio::spawn(asking);
    let netlink = Netlink::new(handle);
    let (asking, answered) = Asking::new();
    let (endpoints, found) = Endpoints::new();
    let (lookouts, taken) = Lookouts::new();
    let (mut sources, means, time_servers) =
        sources::open(netlink, LeaseStore::new(&paths.state), (answered, found, taken))?;
    let mut service = Service::take_up(init, paths, means, (asking, endpoints, lookouts, time_servers)).await?;
    service.early = early;
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
            None => {
                let deadline = service.deadline();
                sources.next(&mut service.init, deadline).await?
            }
        };
        if service.handle(happening).await? {
            service.settle().await?;
        }
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

impl Service {
    /// With what is there: the links of the machine, and what an earlier run of this program left of containers.
    async fn take_up(
        init: Init,
        paths: Paths,
        means: Means,
        (asking, endpoints, lookouts, time_servers): (Asking, Endpoints, Lookouts, watch::Sender<Vec<String>>),
    ) -> Result<Self, ServiceError> {
        let mut table = LinkTable::default();
        read_links(&means.netlink, &mut table).await?;
        let containers = Containers::take_up(means.netlink.clone(), &paths, &table, lookouts).await;
        let containers = containers.map_err(ServiceError::Kernel)?;
        Ok(Self {
            init,
            early: VecDeque::new(),
            paths,
            means,
            network: None,
            table,
            missing: Missing::new(),
            misnamed: Misnamed::new(),
            troubles: Troubles::new(),
            look_at: None,
            listen_at: None,
            endpoints,
            links: BTreeMap::new(),
            entries: BTreeMap::new(),
            containers,
            asking,
            time_servers,
            told_links: None,
            told_networks: Vec::new(),
            told_host_name: None,
            told_names: Vec::new(),
            names_pace: Pace::new(),
            written: BTreeMap::new(),
        })
    }

    /// Whether anything may be different that others are told.
    async fn handle(&mut self, happening: Happening) -> Result<bool, ServiceError> {
        let now = clock::now();
        match happening {
            Happening::Init(Message::Configuration(networking)) => self.configure(*networking).await,
            Happening::Init(Message::Notice(notice, descriptors)) => self.notice(notice, descriptors).await?,
            Happening::Kernel(message) => return self.kernel(*message).await,
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
                // Two cards of this machine on one switch hear each other.
                let is_own = self.table.iter().any(|link| link.mac == Some(packet.sender_mac));
                if let Some(link) = self.links.get_mut(&index).filter(|_| !is_own) {
                    link.hear_arp(packet, &self.means, now).await;
                }
            }
            Happening::HeardRouter((index, advertisement)) => {
                if let Some(link) = self.links.get_mut(&index) {
                    link.hear_router(advertisement, now);
                }
            }
            Happening::Answered(answered) => {
                if let Some(pending) = self.asking.take(answered) {
                    self.attach(pending).await?;
                }
            }
            Happening::Found(found) => self.endpoints.take(found, now),
            Happening::Taken(taken) => self.containers.note_taken(taken),
            Happening::Advertised(advertised) => {
                for each in advertised {
                    if let Some(link) = self.links.get_mut(&each.link) {
                        link.advertise(each, now);
                    }
                }
            }
            Happening::Corrected(Correction { behind, next }) => {
                self.init.send(Request::Clock { behind, next }, "to set the clock").await?;
            }
            Happening::Tick => {
                for link in self.links.values_mut() {
                    link.tick(&self.means, now).await;
                }
                self.look_at_made(now).await;
                self.listen_again(now);
                self.endpoints.tick(now);
                self.containers.tick(now);
            }
        }
        Ok(true)
    }

    async fn configure(&mut self, networking: Networking) {
        self.containers.configure(&networking).await;
        rules::arrange(&self.means.netlink, &networking.host).await;
        self.network = Some(networking.host);
        // What the configuration says is told at once.
        self.names_pace = Pace::new();
        self.arrange().await;
        self.adopt_all().await;
    }

    /// Makes the links that the configuration wants, and says what is missing for one.
    async fn arrange(&mut self) {
        let Some(network) = &self.network else { return };
        let keys = self.paths.state.join("wireguard");
        let (missing, misnamed) = made::arrange(network, &mut self.table, &self.means.netlink, &keys).await;
        for (index, text) in misnamed.iter().filter(|(index, text)| self.misnamed.get(*index) != Some(text)) {
            let name = self.table.find(*index).map_or("", |link| link.name.as_str());
            report::say(format_args!("{name}: {text}"));
        }
        self.misnamed = misnamed;
        for (name, reason) in missing.iter().filter(|(name, reason)| self.missing.get(*name) != Some(reason)) {
            report::say(format_args!("{name}: not made yet: {reason}"));
        }
        self.missing = missing;
        let vrf_of = |link: &Link| {
            let controller = self.table.find(link.controller?)?;
            match network.links.get(controller.name.as_str())?.made()? {
                Made::Vrf(vrf) => Some((link.name.clone(), vrf.table)),
                _ => None,
            }
        };
        self.containers.follow_apart(self.table.iter().filter_map(vrf_of).collect());
        self.watch_made();
        let table = &self.table;
        self.links.retain(|index, _| table.find(*index).is_some());
    }

    /// Whether the machine may still get an address of the family by itself, on a link that is there or is to come.
    fn awaits(&self, ipv4: bool) -> bool {
        let Some(network) = &self.network else { return true };
        let brings = |settings: &LinkSettings| {
            let by_itself = if ipv4 { settings.uses_dhcp() } else { settings.accepts_router_advertisements() };
            by_itself && settings.speaks_ethernet()
                || settings.addresses.iter().any(|own| own.address().is_ipv4() == ipv4)
        };
        let is_to_come = |(entry, settings): (&LinkName, &LinkSettings)| {
            brings(settings) && !self.entries.values().any(|there| there == entry)
        };
        let link_awaits = |(index, link): (&u32, &HostLink)| {
            self.table.find(*index).is_some_and(|described| link.awaits(described, ipv4))
        };
        network.links.iter().any(is_to_come) || self.links.iter().any(link_awaits)
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
                let namespace = descriptors.into_iter().next();
                self.asking.forget(&wanted.name);
                self.attach(Pending { wanted: *wanted, namespace, answers: Answers::default() }).await?;
            }
            Notice::Serving { name, serving } => {
                self.asking.serve(&name, serving);
                self.containers.serve(&name, serving);
            }
            Notice::DetachNetwork { name } => {
                self.asking.forget(&name);
                self.containers.detach(&name).await;
            }
            Notice::AllAttached => self.containers.detach_unnamed().await,
            Notice::Resumed => {
                (self.told_links, self.told_host_name) = (None, None);
                self.told_networks.clear();
                self.init.send(Request::NetworkConfiguration, "to tell the configuration").await?;
            }
            // The rest is for other roles, or nothing to do: files are whole at every moment.
            _ => {}
        }
        Ok(())
    }

    /// Attaches a container, now or when others have been asked.
    async fn attach(&mut self, pending: Pending) -> Result<(), ServiceError> {
        let awaited = Awaited { ipv4: self.awaits(true), ipv6: self.awaits(false) };
        let Pending { wanted, namespace, answers } = &pending;
        let name = wanted.name.clone();
        // Who asks others first needs it again.
        let own = namespace.as_ref().map(OwnedFd::try_clone).transpose().map_err(AttachError::Keep);
        let attached = match own {
            Ok(own) => self.containers.attach(wanted.clone(), own, &self.table, awaited, answers).await,
            Err(error) => Err(error),
        };
        let answer = match attached {
            Ok(Attached { addresses, resolv_conf }) => Request::NetworkAttached { name, addresses, resolv_conf },
            Err(AttachError::Unasked(question)) => {
                self.asking.begin(pending, question);
                return Ok(());
            }
            Err(error) => Request::NetworkFailed { name, reason: report::chain(&error) },
        };
        Ok(self.init.send(answer, "to take a container's addresses").await?)
    }
}
