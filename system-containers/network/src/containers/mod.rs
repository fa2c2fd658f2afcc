//! The network of user containers: bridges, a cable and addresses in each for every container, published ports.
//!
//! Everything is in three places: the kernel (links, addresses, table), a file for each container below /run, and one
//! file with the networks. A start compares the three and makes them agree; after it, PID 1 names every running
//! container again and each gets what it had.

mod answer;
mod attachment;
mod bridge;
mod choice;
mod conflicts;
mod filter;
mod guard;
mod left;
mod listeners;
mod lookout;
mod lost;
mod namespace;
mod networks;
mod outside;
mod parent;
mod ports;
mod register;
mod services;
mod shaping;
mod subnet;
mod within;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use berth_config::{Access, LinkName, LinkSettings, Networking, OpenPorts};
use berth_control::message::{self, NETWORKS_AT_MOST};

pub use self::answer::Attached;
use self::attachment::{Attachment, AttachmentStore, Cable};
use self::conflicts::{PortError, check_ports};
use self::filter::Unfiltered;
pub use self::listeners::Awaited;
pub use self::lookout::{Lookouts, Taken};
use self::namespace::{Inside, NamespaceError};
use self::networks::{NetworkError, Networks};
pub use self::outside::{Answers, Question};
use self::ports::Published;
use self::register::Register;
use crate::dns::server::Resolvers;
use crate::dns::upstream::Upstream;
use crate::link::{Link, LinkTable};
use crate::netlink::{Netlink, NetlinkError};
use crate::nftables::apart::Apart;
use crate::report;
use crate::service::Paths;

/// Why a container has no network.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// PID 1 sent no descriptor.
    #[error("its network namespace is missing")]
    NoNamespace,
    /// No further descriptor is to be had.
    #[error("keep its network namespace")]
    Keep(#[source] io::Error),
    /// All addresses are in use.
    #[error("no address is left in network {network}")]
    NoAddress {
        /// The network.
        network: String,
    },
    /// A fixed address that somebody got who has none.
    #[error("{address} is the address of container {owner}: restart {owner}, and it gets another one")]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// Who has it.
        owner: String,
    },
    /// An address that somebody has who is no container.
    #[error("{address} is the address of {owner}: give the container another one")]
    Outside {
        /// The address.
        address: IpAddr,
        /// Who has it.
        owner: String,
    },
    /// Machines outside have to be asked first.
    #[error("nobody was asked who has {}", .0.address)]
    Unasked(Question),
    /// A network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Links.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The container's side.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The packet filter.
    #[error("set up the packet filter")]
    Filter(#[source] io::Error),
    /// The file.
    #[error("note the container's addresses")]
    Store(#[source] io::Error),
}

/// All attached containers.
#[derive(Debug)]
pub struct Containers {
    netlink: Netlink,
    store: AttachmentStore,
    networks: Networks,
    attachments: Register,
    /// Of these, those that an earlier run of this program left and PID 1 has not named since.
    unnamed: BTreeSet<String>,
    published: Published,
    /// What is wrong with the packet filter, if anything is.
    unfiltered: Option<Unfiltered>,
    /// Open ports of the machine; `None` until the configuration is known, and the packet filter is set up with it.
    inbound: Option<Vec<OpenPorts>>,
    /// Ports of VRFs.
    apart: Vec<Apart>,
    /// Tunnels of the machine, by their ports.
    tunnels: BTreeMap<u16, LinkName>,
    resolvers: Resolvers,
    lookouts: Lookouts,
    search: Vec<String>,
    /// The host's name servers, for who is on no bridge.
    servers: Vec<IpAddr>,
    /// Whether the machine's own questions are answered here.
    answers_host: bool,
}

impl Containers {
    /// Takes up what an earlier run of this program left: what is whole stays, the rest is removed.
    pub async fn take_up(netlink: Netlink, paths: &Paths, table: &LinkTable, lookouts: Lookouts) -> io::Result<Self> {
        let store = AttachmentStore::new(&paths.run);
        let attachments = store.load().into_values().collect();
        let networks = Networks::take_up(netlink.clone(), paths.state.join("networks.json"), table).await;
        let (published, resolvers) = (Published::new()?, Resolvers::new());
        let mut this = Self {
            netlink,
            store,
            networks,
            attachments,
            unnamed: BTreeSet::new(),
            published,
            unfiltered: None,
            inbound: None,
            apart: Vec::new(),
            tunnels: BTreeMap::new(),
            resolvers,
            lookouts,
            search: Vec::new(),
            servers: Vec::new(),
            answers_host: false,
        };
        let links: BTreeSet<&str> = table.iter().map(|link| link.name.as_str()).collect();
        let is_lost = |attachment: &Attachment| {
            let there = |cable: &Cable| links.contains(cable.link_name().as_str());
            !attachment.whole || !attachment.cables.iter().filter(|cable| cable.bridged).all(there)
        };
        let lost = this.attachments.iter().filter(|attachment| is_lost(attachment));
        let lost: Vec<String> = lost.map(|attachment| attachment.wanted.name.clone()).collect();
        for name in lost {
            if let Some(attachment) = this.attachments.remove(&name) {
                this.forget(&attachment);
            }
        }
        this.unnamed = this.attachments.iter().map(|attachment| attachment.wanted.name.clone()).collect();
        this.remove_unknown(table).await;
        this.remove_unknown_addresses(table).await;
        for attachment in this.attachments.iter() {
            attachment.enter(&mut this.resolvers.directory());
        }
        this.serve_names();
        Ok(this)
    }

    /// The configuration has changed. Containers on networks that are others now lose their links: PID 1 starts them anew.
    pub async fn configure(&mut self, networking: &Networking) {
        let limits = self.limits();
        let changed = self.networks.configure(networking);
        let links = networking.host.links.iter();
        let tunnel =
            |(name, link): (&LinkName, &LinkSettings)| Some((link.wireguard.as_ref()?.listen_port?, name.clone()));
        self.tunnels = links.filter_map(tunnel).collect();
        let inbound_changed = self.inbound.replace(networking.host.inbound.clone()) != self.inbound;
        if changed.is_empty() && !inbound_changed && self.limits() == limits && self.unfiltered.is_none() {
            return self.watch_over();
        }
        let on_changed =
            |attachment: &&Attachment| attachment.cables.iter().any(|cable| changed.contains(&cable.network));
        let names = self.attachments.iter().filter(on_changed).map(|attachment| attachment.wanted.name.clone());
        let names: Vec<String> = names.collect();
        for name in names {
            self.detach(&name).await;
        }
        for network in changed {
            self.networks.forget(&network).await;
        }
        self.set_up_filter();
        self.serve_names();
    }

    /// Gives a container its networks and returns what it was given. For one that has them already, nothing changes.
    ///
    /// # Errors
    /// [`AttachError::Unasked`] if `answers` does not have what is needed: with that it is to be tried again.
    pub async fn attach(
        &mut self,
        wanted: message::Attachment,
        namespace: Option<OwnedFd>,
        table: &LinkTable,
        awaited: Awaited,
        answers: &Answers,
    ) -> Result<Attached, AttachError> {
        let namespace = namespace.ok_or(AttachError::NoNamespace)?;
        let inode = inode(&namespace)?;
        let name = wanted.name.clone();
        self.unnamed.remove(&name);
        if let Some(present) = self.attachments.get(&name) {
            let serving = present.wanted.serving;
            let access = present.wanted.access.clone();
            let as_before = message::Attachment { serving, access, ..wanted.clone() };
            let is_as_before = present.namespace == inode && present.wanted == as_before;
            let present = present.clone();
            if is_as_before && has_links(&present, &namespace).await? {
                let looks_within = namespace.try_clone().map_err(AttachError::Keep)?;
                self.answer_within(&present, namespace).await;
                self.look_out(&present, looks_within).await;
                let attached = self.attached(&present);
                self.serve(&name, wanted.serving);
                self.rule(&name, wanted.access);
                return Ok(attached);
            }
            // The container's last run, or something else than before: begin anew.
            self.detach(&name).await;
        }
        check_ports(&wanted.ports, &wanted.service, &self.attachments)?;
        self.check_machine(&wanted.ports, awaited).await?;
        let mut cables = Vec::new();
        let mut way_out = None;
        for (index, (network, membership)) in wanted.networks.iter().enumerate() {
            if self.networks.up(network.as_str(), table).await? {
                self.refill().map_err(AttachError::Filter)?;
                self.serve_names();
            }
            let internal = self.networks.get(network.as_str()).is_some_and(|network| network.settings.internal);
            way_out = way_out.or((!internal).then_some(index));
            let cable = self.free_cable(&name, (network.as_str(), membership), table, answers)?;
            cables.push(self.with_service(cable, &wanted)?);
        }
        let done = self.set_up(Attachment { wanted, namespace: inode, cables, way_out, whole: false }, namespace).await;
        if done.is_err() {
            self.detach(&name).await;
        }
        done
    }

    /// Whether connections are to be sent to a container.
    pub fn serve(&mut self, name: &str, serving: bool) {
        let present = self.attachments.get(name).filter(|it| it.wanted.serving != serving).cloned();
        let Some(mut attachment) = present else { return };
        attachment.wanted.serving = serving;
        self.resolvers.directory().serve(name, serving);
        if let Err(error) = self.store.save(&attachment) {
            report::say(format_args!("note whether {name} serves: {error}"));
        }
        let service = attachment.wanted.service.clone();
        self.attachments.insert(attachment);
        self.publish(&service);
    }

    /// Who may connect to a container from now on, and where to it may.
    fn rule(&mut self, name: &str, wanted: Access) {
        let Some(mut attachment) = self.attachments.get(name).cloned() else { return };
        if attachment.wanted.access == wanted {
            return;
        }
        attachment.wanted.access = wanted;
        if let Err(error) = self.store.save(&attachment) {
            report::say(format_args!("note the rules of {name}: {error}"));
        }
        self.attachments.insert(attachment);
        self.watch_over();
    }

    async fn set_up(&mut self, mut attachment: Attachment, namespace: OwnedFd) -> Result<Attached, AttachError> {
        // Noted first: should this program end in the middle, the next one knows what to remove.
        self.store.save(&attachment).map_err(AttachError::Store)?;
        self.attachments.insert(attachment.clone());
        // Before it has a way to others, and they to it.
        self.guard_or_refill().map_err(AttachError::Filter)?;
        let inside = self.connect(&attachment, &namespace).await?;
        let [asks_within, looks_within] = [namespace.try_clone(), namespace.try_clone()];
        let (asks_within, looks_within) =
            (asks_within.map_err(AttachError::Keep)?, looks_within.map_err(AttachError::Keep)?);
        namespace::set_up(namespace, inside).await?;
        self.publish_or_refill(&attachment.wanted.service).map_err(AttachError::Filter)?;
        attachment.whole = true;
        self.store.save(&attachment).map_err(AttachError::Store)?;
        attachment.enter(&mut self.resolvers.directory());
        self.answer_within(&attachment, asks_within).await;
        self.look_out(&attachment, looks_within).await;
        let attached = self.attached(&attachment);
        self.attachments.insert(attachment);
        Ok(attached)
    }

    /// Lays all cables of a container, and says what its ends of them are to have.
    async fn connect(&self, attachment: &Attachment, namespace: &OwnedFd) -> Result<Vec<Inside>, AttachError> {
        if attachment.cables.iter().any(|cable| !cable.bridged) {
            namespace::clear(namespace.try_clone().map_err(NamespaceError::Enter)?).await?;
        }
        let mut inside = Vec::new();
        for (index, cable) in attachment.cables.iter().enumerate() {
            let unknown = || NetworkError::Unknown { name: cable.network.clone() };
            let network = self.networks.get(&cable.network).ok_or_else(unknown)?;
            let (name, container) = (namespace::link_name(index), &attachment.wanted.name);
            let ends = (cable, name.as_str());
            match network.bridge {
                Some(bridge) => {
                    bridge::connect(&self.netlink, network, ends, (container, namespace.as_fd())).await?;
                    bridge::add_service(&self.netlink, bridge, cable).await?;
                    if let Some(rate) = attachment.wanted.bandwidth.ingress {
                        shaping::limit_by_name(&self.netlink, &cable.link_name(), rate).await?;
                    }
                }
                None if cable.bridged => return Err(unknown().into()),
                None => parent::connect(&self.netlink, network, cable, namespace.as_fd()).await?,
            }
            let subnets = &network.subnets;
            let gateways = if attachment.way_out == Some(index) { network.gateways() } else { [None; 2] };
            inside.push(Inside {
                made_as: if cable.bridged { name.clone() } else { cable.link_name() },
                name,
                addresses: [(cable.ipv4.into(), subnets.ipv4.length()), (cable.ipv6.into(), subnets.ipv6.length())],
                gateways,
                egress: attachment.wanted.bandwidth.egress,
                bridged: cable.bridged,
            });
        }
        Ok(inside)
    }

    /// What the host's resolver is made of now. Says whether containers' files are others with it.
    pub fn follow_names(&mut self, upstream: Upstream, search: Vec<String>) -> bool {
        let servers = upstream.servers.iter().map(SocketAddr::ip).collect();
        let before = std::mem::replace(&mut self.servers, servers);
        let told = before != self.servers && self.attachments.iter().any(Attachment::is_away);
        self.resolvers.follow(upstream);
        std::mem::replace(&mut self.search, search) != self.search || told
    }

    /// Whether the machine's own questions are answered here from now on.
    pub fn answer_host(&mut self, answers: bool) {
        if self.answers_host != answers {
            self.answers_host = answers;
            self.serve_names();
        }
    }

    /// The networks as clients are told of them.
    pub fn networks(&self) -> Vec<message::Network> {
        self.networks.all().take(NETWORKS_AT_MOST).map(|(name, network)| network.describe(name)).collect()
    }

    /// What is wrong with a link of the machine beside them, for people.
    pub fn overlaps(&self, link: &Link) -> Vec<String> {
        self.networks.overlaps(link)
    }

    /// Remembers where subnets are not to be chosen again.
    pub fn note_overlaps(&mut self, table: &LinkTable) {
        self.networks.note_overlaps(table);
    }

    /// Every container with what it was given.
    pub fn all(&self) -> impl Iterator<Item = (&String, Attached)> {
        self.attachments.iter().map(|attachment| (&attachment.wanted.name, self.attached(attachment)))
    }
}

/// Whether a container has its links on networks of the machine's neighbours. Others are seen by their other ends, and the namespace
/// alone does not say it: a new one may have the inode of one that has ended.
async fn has_links(attachment: &Attachment, namespace: &OwnedFd) -> Result<bool, AttachError> {
    let names = (0..).zip(&attachment.cables).filter(|(_, cable)| !cable.bridged);
    let names: Vec<String> = names.map(|(index, _)| namespace::link_name(index)).collect();
    if names.is_empty() {
        return Ok(true);
    }
    Ok(namespace::has(namespace.try_clone().map_err(AttachError::Keep)?, names).await?)
}

/// Which namespace a descriptor is of: the same inode is the same namespace as long as anything holds it.
fn inode(namespace: &OwnedFd) -> Result<u64, AttachError> {
    let facts = nix::sys::stat::fstat(namespace).map_err(|error| NamespaceError::Enter(error.into()))?;
    Ok(facts.st_ino)
}
