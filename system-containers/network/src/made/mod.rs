//! Links that the configuration makes: bonds, VLANs, bridges, dummies, VRFs, WireGuard tunnels, and what hangs on them.
//!
//! What was made is known by its alias, which the kernel keeps with the link and which says what it was made from. So a
//! restarted program finds its own links, and what is as it should be is left alone. Links come in the order in which they
//! stand on each other: what cannot be made yet is tried again with the next change of any link.

pub mod endpoints;
pub mod keys;
mod message;
pub mod state;
mod wireguard;

use std::collections::BTreeMap;
use std::path::Path;

use berth_config::{Hardware, LinkIdentity, LinkName, LinkSettings, Made, Network};
use netlink_packet_route::link::{InfoBond, InfoData, InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::LinkUnspec;

use crate::link::{Link, LinkTable};
use crate::netlink::{Netlink, NetlinkError};
use crate::report;

/// Begins the alias of our links.
const ALIAS: &str = "berth network ";
/// Links that make way for others' new names are called so, with their number.
const ASIDE: &str = "aside";

/// Why an entry's link is not there, by the entry's name.
pub type Missing = BTreeMap<LinkName, String>;

/// Why a link does not have the name that its entry gives it, by its number.
pub type Misnamed = BTreeMap<u32, String>;

fn kind_of(made: &Made<'_>) -> InfoKind {
    match made {
        Made::Bond(_) => InfoKind::Bond,
        Made::Vlan(_) => InfoKind::Vlan,
        Made::Bridge(_) => InfoKind::Bridge,
        Made::Dummy => InfoKind::Dummy,
        Made::Vrf(_) => InfoKind::Vrf,
        Made::WireGuard(_) => InfoKind::Wireguard,
    }
}

/// Makes, changes and removes links until everything is as the configuration says. `keys`: where keys are kept.
pub async fn arrange(network: &Network, table: &mut LinkTable, netlink: &Netlink, keys: &Path) -> (Missing, Misnamed) {
    let (missing, misnamed) = (Missing::new(), Misnamed::new());
    let mut arrangement = Arrangement { network, table, netlink, keys, missing, misnamed };
    arrangement.rename().await;
    arrangement.remove().await;
    arrangement.make_all().await;
    arrangement.attach_all().await;
    (arrangement.missing, arrangement.misnamed)
}

/// Asks about a link as the configuration knows links.
pub fn with_identity<T>(link: &Link, ask: impl FnOnce(&LinkIdentity) -> T) -> T {
    let (mac, hardware) = (link.identity_text(), Hardware::of_link(&link.name));
    ask(&LinkIdentity { name: &link.name, mac: &mac, driver: &hardware.driver, path: &hardware.path })
}

/// Says what it was made from, without saying what that is: keys are in it.
fn alias(settings: &LinkSettings, made: &Made<'_>, base: Option<u32>) -> String {
    let definition = match made {
        // Ports come and go without the link.
        Made::Bond(bond) => serde_json::to_string(&berth_config::Bond { ports: Vec::new(), ..(*bond).clone() }),
        Made::Bridge(bridge) => serde_json::to_string(&berth_config::Bridge { ports: Vec::new(), ..(*bridge).clone() }),
        Made::Vrf(vrf) => serde_json::to_string(&vrf.table),
        Made::Vlan(vlan) => serde_json::to_string(&(vlan.id, vlan.protocol, base)),
        Made::WireGuard(tunnel) => serde_json::to_string(tunnel),
        Made::Dummy => Ok(String::new()),
    };
    let text = format!("{} {:?} {}", made.kind(), settings.mac, definition.unwrap_or_default());
    // FNV-1a: the same in every build of this program.
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{ALIAS}{hash:016x}{}", nature(made))
}

/// The end of the alias: what a link cannot change any more. A bond with ports keeps its mode, and an option that is not
/// given any more is not one that is given its default.
fn nature(made: &Made<'_>) -> String {
    let mode = if let Made::Bond(bond) = made { bond.mode.number() } else { 0 };
    format!(" {mode:x}.{:x}", message::given(made))
}

struct Arrangement<'a> {
    network: &'a Network,
    table: &'a mut LinkTable,
    netlink: &'a Netlink,
    keys: &'a Path,
    missing: Missing,
    misnamed: Misnamed,
}

impl Arrangement<'_> {
    /// Links get the names that their entries give them. Two that want each other's name make way first.
    async fn rename(&mut self) {
        let wanted = |link: &Link| {
            let entry = with_identity(link, |identity| self.network.link_settings(identity));
            let new = entry?.1.rename.as_ref()?.to_string();
            (new != link.name && !link.loopback && !link.is_own()).then_some((link.index, new))
        };
        let wanted: BTreeMap<u32, String> = self.table.iter().filter_map(wanted).collect();
        for index in wanted.keys() {
            let in_the_way = |link: &&Link| wanted.values().any(|new| *new == link.name);
            if let Some(name) = self.table.find(*index).filter(in_the_way).map(|link| link.name.clone()) {
                self.rename_one(*index, &name, &format!("{ASIDE}{index}")).await;
            }
        }
        for (index, new) in wanted {
            let Some(name) = self.table.find(index).map(|link| link.name.clone()) else { continue };
            self.rename_one(index, &name, &new).await;
        }
    }

    async fn rename_one(&mut self, index: u32, name: &str, new: &str) {
        match self.netlink.rename_link(index, name, new).await {
            Ok(()) => {
                report::say(format_args!("{name}: its name is {new} now"));
                self.look_again(new).await;
            }
            Err(error) => {
                let reason = match error.number() {
                    libc::EEXIST => "another link has it: give that one or this one another".to_owned(),
                    _ => report::chain(&error),
                };
                self.misnamed.insert(index, format!("its name is not {new}, as its entry says: {reason}"));
            }
        }
    }

    /// Links of ours that no entry makes.
    async fn remove(&mut self) {
        let makes = |link: &Link| {
            let entry = self.network.links.get(link.name.as_str()).and_then(LinkSettings::made);
            entry.is_some_and(|made| link.kind.as_deref() == Some(made.kind()))
        };
        let gone = self.table.iter().filter(|link| is_ours(link) && !makes(link));
        let gone: Vec<Link> = gone.cloned().collect();
        for link in gone {
            self.remove_one(&link).await;
        }
    }

    async fn remove_one(&mut self, link: &Link) -> bool {
        match self.netlink.remove_link(link.index, &link.name).await {
            // With what it stood on.
            Err(error) if error.number() != libc::ENODEV => {
                report::failure(&error);
                return false;
            }
            _ => {}
        }
        report::say(format_args!("{}: removed", link.name));
        self.table.forget(link.index);
        true
    }

    async fn make_all(&mut self) {
        let network = self.network;
        // What was made in one round may be what others stand on.
        loop {
            let before = self.missing.len();
            self.missing.clear();
            for (name, settings) in &network.links {
                if let Some(made) = settings.made()
                    && let Err(reason) = self.make(name, settings, &made).await
                {
                    self.missing.insert(name.clone(), reason);
                }
            }
            if self.missing.is_empty() || self.missing.len() == before {
                return;
            }
        }
    }

    async fn make(&mut self, name: &LinkName, settings: &LinkSettings, made: &Made<'_>) -> Result<(), String> {
        let base = match made {
            Made::Vlan(vlan) => Some(self.named(&vlan.link).ok_or_else(|| format!("there is no link {}", vlan.link))?),
            _ => None,
        };
        let alias = alias(settings, made, base);
        let message = message::of(name.as_str(), settings, made, base);
        if self.table.by_name(name.as_str()).is_some_and(|present| present.alias == alias) {
            return Ok(());
        }
        // What was noticed of a link that was made a moment ago may be from before it was finished.
        self.look_again(name.as_str()).await;
        let present = self.table.by_name(name.as_str()).cloned();
        if let Some(present) = present {
            if present.kind.as_deref() != Some(made.kind()) {
                return Err(format!("another link has the name {name}: give the entry another one"));
            }
            if present.alias == alias {
                return Ok(());
            }
            let changed = is_ours(&present) && self.change(&present, made, &message).await;
            if changed {
                return self.finish(present.index, name, made, &alias).await.map_err(|error| report::chain(&error));
            }
            if !self.remove_one(&present).await {
                return Err(format!("the link {name} of before cannot be removed"));
            }
        }
        let done = self.netlink.add_link(message, name.as_str()).await;
        done.map_err(|error| report::chain(&error))?;
        let index = self.look_again(name.as_str()).await.ok_or("it went at once")?;
        self.finish(index, name, made, &alias).await.map_err(|error| report::chain(&error))?;
        report::say(format_args!("{name}: made, a {}", made.kind()));
        Ok(())
    }

    /// Changes a link without taking it away; `false` where that is not possible.
    async fn change(&self, present: &Link, made: &Made<'_>, message: &LinkMessage) -> bool {
        match made {
            Made::Bond(_) | Made::Bridge(_) if present.alias.ends_with(&nature(made)) => {
                let mut message = message.clone();
                message.header.index = present.index;
                message.attributes.retain(|attribute| !matches!(attribute, LinkAttribute::IfName(_)));
                message::without_mode(&mut message);
                self.netlink.change_link(message, &present.name).await.is_ok()
            }
            Made::WireGuard(_) => true,
            _ => false,
        }
    }

    /// What comes after the link itself. The alias comes last: without it the link is looked at again.
    async fn finish(&mut self, index: u32, name: &LinkName, made: &Made<'_>, alias: &str) -> Result<(), Failure> {
        match made {
            Made::WireGuard(tunnel) => {
                let key = keys::of(self.keys, name, tunnel).map_err(Failure::Key)?;
                wireguard::configure(index, tunnel, &key).map_err(Failure::Tunnel)?;
                if tunnel.private_key.is_none() {
                    let public = wireguard::public_key(index).map_err(Failure::Tunnel)?;
                    report::say(format_args!("{name}: the public key is {public}"));
                }
            }
            Made::Bond(_) => self.choose_primary(index, name).await?,
            _ => {}
        }
        self.netlink.change_link(LinkUnspec::new_with_index(index).alias(alias).build(), name.as_str()).await?;
        self.look_again(name.as_str()).await;
        Ok(())
    }

    /// Tells a bond its primary port, which must be there for that.
    async fn choose_primary(&self, index: u32, name: &LinkName) -> Result<(), NetlinkError> {
        let Some(Made::Bond(bond)) = self.network.links.get(name).and_then(LinkSettings::made) else { return Ok(()) };
        let Some(primary) = bond.primary.as_ref().and_then(|primary| self.named(primary)) else { return Ok(()) };
        let mut message = LinkUnspec::new_with_index(index).build();
        let data = InfoData::Bond(vec![InfoBond::Primary(primary)]);
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bond), LinkInfo::Data(data)]));
        self.netlink.change_link(message, name.as_str()).await
    }

    /// Every link comes to the bond, bridge or VRF that it is a port of, and leaves that of ours which it is not.
    async fn attach_all(&mut self) {
        let links: Vec<Link> = self.table.iter().filter(|link| !link.loopback && !link.is_own()).cloned().collect();
        for link in links {
            let wanted = with_identity(&link, |identity| self.network.controller(identity));
            let controller = wanted.and_then(|(name, _)| self.table.by_name(name.as_str())).cloned();
            let present = link.controller.and_then(|index| self.table.find(index));
            let done = match (controller, present) {
                (Some(wanted), present) if present.is_none_or(|present| present.index != wanted.index) => {
                    self.attach(&link, &wanted).await
                }
                (None, Some(present)) if is_ours(present) => {
                    let present = present.clone();
                    self.look_again(&link.name).await;
                    if self.table.find(link.index).is_none_or(|now| now.controller != Some(present.index)) {
                        continue;
                    }
                    report::say(format_args!("{}: no port of {} any more", link.name, present.name));
                    let message = LinkUnspec::new_with_index(link.index).nocontroller().build();
                    let done = self.netlink.change_link(message, &link.name).await;
                    self.look_again(&link.name).await;
                    done
                }
                _ => Ok(()),
            };
            if let Err(error) = done {
                report::failure(&error);
            }
        }
    }

    async fn attach(&mut self, link: &Link, controller: &Link) -> Result<(), NetlinkError> {
        // The table is of earlier: a bond's port must not be set down again.
        self.look_again(&link.name).await;
        let now = self.table.find(link.index);
        if now.is_none_or(|now| now.controller == Some(controller.index)) {
            return Ok(());
        }
        let is_bond = controller.kind.as_deref() == Some("bond");
        if is_bond && now.is_some_and(|now| now.up) {
            self.netlink.set_down(link.index, &link.name).await?;
        }
        let message = LinkUnspec::new_with_index(link.index).controller(controller.index).build();
        self.netlink.change_link(message, &link.name).await?;
        report::say(format_args!("{}: a port of {}", link.name, controller.name));
        self.look_again(&link.name).await;
        self.look_again(&controller.name).await;
        match controller.name.parse::<LinkName>() {
            Ok(name) if is_bond => self.choose_primary(controller.index, &name).await,
            _ => Ok(()),
        }
    }

    /// The number of the link with this name, or of the first whose entry has it.
    fn named(&self, name: &LinkName) -> Option<u32> {
        if let Some(link) = self.table.by_name(name.as_str()) {
            return Some(link.index);
        }
        self.network.links.get(name)?.matching.as_ref()?;
        let fits = |link: &&Link| {
            with_identity(link, |identity| self.network.link_settings(identity).is_some_and(|(entry, _)| entry == name))
        };
        self.table.iter().find(fits).map(|link| link.index)
    }

    /// Asks the kernel how a link is now: the table is as old as the last notice that was read.
    async fn look_again(&mut self, name: &str) -> Option<u32> {
        match self.netlink.link_by_name(name).await {
            Ok(message) => {
                self.table.forget_others(name, message.header.index);
                self.table.update(&message);
                Some(message.header.index)
            }
            Err(_) => {
                self.table.forget_others(name, 0);
                None
            }
        }
    }
}

fn is_ours(link: &Link) -> bool {
    link.alias.starts_with(ALIAS)
}

/// Why a link is not as it should be.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("keep the private key")]
    Key(#[source] std::io::Error),
    #[error("set up the tunnel")]
    Tunnel(#[source] std::io::Error),
}
