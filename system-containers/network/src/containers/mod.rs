//! The network of user containers: one bridge, a cable and addresses for each, published ports.
//!
//! Everything is in three places: the kernel (links, addresses, table), a file for each container below /run, and one
//! file with the subnet. A start compares the three and makes them agree; after it, PID 1 names every running container
//! again and each gets what it had.

mod attachment;
mod bridge;
mod namespace;
mod subnet;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use berth_control::message::Port;

use self::attachment::{Attachment, AttachmentStore, PortError, check_ports};
use self::namespace::{Inside, NamespaceError};
use self::subnet::Subnet;
use crate::link::LinkTable;
use crate::netlink::{Netlink, NetlinkError};
use crate::nftables::ruleset;
use crate::nftables::wire::Connection;
use crate::report;
use crate::service::Paths;

/// Why a container has no network.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// PID 1 sent no descriptor.
    #[error("its network namespace is missing")]
    NoNamespace,
    /// All 65,533 addresses are in use.
    #[error("no address is left in its network")]
    NoAddress,
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

/// The bridge while it is there.
#[derive(Debug)]
struct Live {
    bridge: u32,
    subnet: Subnet,
    filter: Connection,
}

/// All attached containers.
#[derive(Debug)]
pub struct Containers {
    netlink: Netlink,
    store: AttachmentStore,
    subnet_path: PathBuf,
    attachments: BTreeMap<String, Attachment>,
    live: Option<Live>,
}

impl Containers {
    /// Takes up what an earlier run of this program left: what is whole stays, the rest is removed.
    pub async fn take_up(netlink: Netlink, paths: &Paths, table: &LinkTable) -> Self {
        let store = AttachmentStore::new(&paths.run);
        let subnet_path = paths.state.join("subnet.json");
        let mut this = Self { netlink, attachments: store.load(), store, subnet_path, live: None };
        let links: BTreeSet<&str> = table.iter().map(|link| link.name.as_str()).collect();
        let lost: Vec<String> = this
            .attachments
            .values()
            .filter(|attachment| !attachment.whole || !links.contains(attachment.link_name().as_str()))
            .map(|attachment| attachment.name.clone())
            .collect();
        for name in lost {
            this.attachments.remove(&name);
            this.forget(&name);
        }
        let known: BTreeSet<String> = this.attachments.values().map(Attachment::link_name).collect();
        for link in table.iter().filter(|link| link.is_own() && link.name != bridge::BRIDGE) {
            if !known.contains(&link.name)
                && let Err(error) = this.netlink.remove_link(link.index, &link.name).await
            {
                report::failure(&error);
            }
        }
        if table.iter().any(|link| link.name == bridge::BRIDGE)
            && let Err(error) = this.live(table).await
        {
            report::failure(&error);
        }
        this
    }

    /// Gives a container its network and returns its addresses. For one that has it already, nothing changes.
    pub async fn attach(
        &mut self,
        name: &str,
        ports: Vec<Port>,
        namespace: Option<OwnedFd>,
        table: &LinkTable,
    ) -> Result<Vec<String>, AttachError> {
        let namespace = namespace.ok_or(AttachError::NoNamespace)?;
        let inode = inode(&namespace)?;
        if let Some(present) = self.attachments.get(name) {
            if present.namespace == inode && present.ports == ports {
                return Ok(present.addresses());
            }
            // The container's last run, or other ports than before: begin anew.
            self.detach(name).await;
        }
        check_ports(&ports, self.attachments.values())?;
        let used: BTreeSet<u16> = self.attachments.values().map(|attachment| attachment.place).collect();
        let place = subnet::place_for(name, &used).ok_or(AttachError::NoAddress)?;
        let live = self.live(table).await?;
        let (ipv4, ipv6) = live.subnet.addresses(place);
        let attachment = Attachment { name: name.to_owned(), namespace: inode, place, ipv4, ipv6, ports, whole: false };
        let done = self.set_up(attachment, namespace).await;
        if done.is_err() {
            self.detach(name).await;
        }
        done
    }

    async fn set_up(&mut self, mut attachment: Attachment, namespace: OwnedFd) -> Result<Vec<String>, AttachError> {
        // Noted first: should this program end in the middle, the next one knows what to remove.
        self.store.save(&attachment).map_err(AttachError::Store)?;
        self.attachments.insert(attachment.name.clone(), attachment.clone());
        let Some(live) = &self.live else { return Err(AttachError::NoNamespace) };
        bridge::connect(&self.netlink, live.bridge, &attachment, namespace.as_fd()).await?;
        let inside = Inside { ipv4: attachment.ipv4, ipv6: attachment.ipv6, gateway: live.subnet.gateway() };
        namespace::set_up(namespace, inside).await?;
        let redirections = attachment.redirections()?;
        if !redirections.is_empty() {
            ruleset::publish(&live.filter, &redirections).map_err(AttachError::Filter)?;
        }
        attachment.whole = true;
        self.store.save(&attachment).map_err(AttachError::Store)?;
        let addresses = attachment.addresses();
        self.attachments.insert(attachment.name.clone(), attachment);
        Ok(addresses)
    }

    /// Takes back what a container had. What fails is said; the rest is done all the same.
    pub async fn detach(&mut self, name: &str) {
        let Some(attachment) = self.attachments.remove(name) else { return };
        if let (Some(live), Ok(redirections)) = (&self.live, attachment.redirections())
            && !redirections.is_empty()
            && let Err(error) = ruleset::withdraw(&live.filter, &redirections)
        {
            // One element was not there, so none was removed: the whole table is made anew.
            report::say(format_args!("withdraw the ports of {name}: {error}"));
            if let Err(error) = self.refill() {
                report::say(format_args!("set up the packet filter: {error}"));
            }
        }
        if let Err(error) = bridge::disconnect(&self.netlink, &attachment).await {
            report::failure(&error);
        }
        self.forget(name);
    }

    fn forget(&self, name: &str) {
        if let Err(error) = self.store.remove(name) {
            report::say(format_args!("forget the addresses of {name}: {error}"));
        }
    }

    /// The bridge, made when the first container needs it.
    async fn live(&mut self, table: &LinkTable) -> Result<&Live, AttachError> {
        if self.live.is_none() {
            let before = Subnet::load(&self.subnet_path);
            let subnet = match before {
                // Containers are using it: it stays, whatever the host's routes are now.
                Some(subnet) if !self.attachments.is_empty() => subnet,
                _ => {
                    let taken = bridge::taken_networks(&self.netlink, table).await?;
                    Subnet::choose(before, &taken, crate::device::random())
                }
            };
            if before != Some(subnet)
                && let Err(error) = subnet.save(&self.subnet_path)
            {
                report::say(format_args!("the containers' network may be another one after a reboot: {error}"));
            }
            let bridge = bridge::ensure(&self.netlink, &subnet).await?;
            let filter = Connection::open().map_err(AttachError::Filter)?;
            self.live = Some(Live { bridge, subnet, filter });
            if let Err(error) = self.refill() {
                self.live = None;
                return Err(AttachError::Filter(error));
            }
        }
        self.live.as_ref().ok_or(AttachError::NoNamespace)
    }

    /// Makes the packet filter's table from what is attached.
    fn refill(&self) -> io::Result<()> {
        let Some(live) = &self.live else { return Ok(()) };
        let all = self.attachments.values().filter_map(|attachment| attachment.redirections().ok());
        let redirections: Vec<_> = all.flatten().collect();
        ruleset::replace(&live.filter, &[bridge::BRIDGE], &redirections)
    }
}

/// Which namespace a descriptor is of: the same inode is the same namespace as long as anything holds it.
fn inode(namespace: &OwnedFd) -> Result<u64, AttachError> {
    let facts = nix::sys::stat::fstat(namespace).map_err(|error| NamespaceError::Enter(error.into()))?;
    Ok(facts.st_ino)
}
