//! Links that are made: they stand on others, in no circle, and their options fit each other.

use std::collections::BTreeMap;

use super::cycles::{Step, cycles, shown};
use crate::load::Report;
use crate::network::{Bond, BondMode, LinkName, LinkSettings, Made, Network, WireGuard};
use crate::tree::{Node, Path};

/// Links whose names begin so are those of containers.
const CONTAINERS: &str = "berth";
/// The kernel's own tables (linux/rtnetlink.h): unspecified, default, main, local.
const KERNEL_TABLES: [u32; 4] = [0, 253, 254, 255];
/// BOND_MAX_ARP_TARGETS and BOND_MAX_NS_TARGETS.
const MOST_TARGETS: usize = 16;

pub(super) fn check(network: &Network, root: &Node, report: &mut Report) {
    let mut check = Check { network, root, report };
    for (name, settings) in &network.links {
        check.link(name, settings);
    }
    check.ports();
    let next = |name, index| network.links.get(name)?.below(index);
    for cycle in cycles(network.links.keys(), next) {
        check.cycle(&cycle);
    }
}

fn link_path(name: &LinkName) -> Path {
    Path::default().key("network").key("links").key(name.as_str())
}

/// Where an entry names a link that it stands on.
fn need_path((name, index): Step<LinkName>, settings: &LinkSettings) -> Path {
    let Some(made) = settings.made() else { return link_path(name) };
    match made {
        Made::Vlan(_) => link_path(name).key("vlan").key("link"),
        _ => link_path(name).key(made.kind()).key("ports").index(index),
    }
}

struct Check<'a, 'b> {
    network: &'a Network,
    root: &'a Node,
    report: &'a mut Report<'b>,
}

impl Check<'_, '_> {
    fn refuse(&mut self, path: &Path, message: impl Into<String>, help: &str) {
        let mistake = self.report.about(self.root, path, message).help(help);
        self.report.add(mistake);
    }

    fn link(&mut self, name: &LinkName, settings: &LinkSettings) {
        let path = link_path(name);
        let made: Vec<Made> = settings.all_made().collect();
        if let [_, second, ..] = made.as_slice() {
            self.refuse(&path.clone().key(second.kind()), "an entry makes one link", "give the other one its own name");
        }
        if settings.rename.is_some() && (settings.matching.is_none() || !made.is_empty()) {
            self.refuse(
                &path.clone().key("rename"),
                "this link has its name already",
                "it is for entries with `match`",
            );
        }
        let new_name = settings.rename.as_ref().or((!made.is_empty()).then_some(name));
        if new_name.is_some_and(|name| name.as_str().starts_with(CONTAINERS) || name.as_str() == "lo") {
            self.refuse(&path, "the machine's own links have such names", "choose another one");
        }
        let Some(made) = made.first() else { return };
        if settings.matching.is_some() {
            let help = "leave `match` out: the entry's name is the link's";
            self.refuse(&path.clone().key("match"), "a link that is made cannot be found", help);
        }
        if settings.dhcp == Some(true) && !settings.speaks_ethernet() {
            self.refuse(&path.clone().key("dhcp"), "there is no DHCP on such a link", "leave it out");
        }
        match made {
            Made::Bond(bond) => self.bond(&path.key("bond"), bond),
            Made::Vlan(vlan) if !(1..=4094).contains(&vlan.id) => {
                self.refuse(&path.key("vlan").key("id"), "VLANs are numbered from 1 to 4094", "choose such a number");
            }
            Made::Vrf(vrf) if KERNEL_TABLES.contains(&vrf.table) => {
                self.refuse(&path.key("vrf").key("table"), "the kernel has this table", "choose another number");
            }
            Made::WireGuard(tunnel) => self.wireguard(&path.key("wireguard"), tunnel),
            _ => {}
        }
    }

    fn bond(&mut self, path: &Path, bond: &Bond) {
        use BondMode::{ActiveBackup, BalanceAlb, BalanceTlb, Lacp};
        if bond.miimon.is_some() && bond.arp_interval.is_some() {
            let help = "leave one of them out";
            self.refuse(&path.clone().key("arp_interval"), "a bond looks at carrier or asks by ARP, not both", help);
        }
        let only: [(&str, bool, &[BondMode]); 10] = [
            ("primary", bond.primary.is_some(), &[ActiveBackup, BalanceTlb, BalanceAlb]),
            ("fail_over_mac", bond.fail_over_mac.is_some(), &[ActiveBackup]),
            ("packets_per_port", bond.packets_per_port.is_some(), &[BondMode::BalanceRoundRobin]),
            ("tlb_dynamic_lb", bond.tlb_dynamic_lb.is_some(), &[BalanceTlb]),
            ("lacp_active", bond.lacp_active.is_some(), &[Lacp]),
            ("lacp_rate", bond.lacp_rate.is_some(), &[Lacp]),
            ("ad_actor_sys_prio", bond.ad_actor_sys_prio.is_some(), &[Lacp]),
            ("ad_actor_system", bond.ad_actor_system.is_some(), &[Lacp]),
            ("ad_user_port_key", bond.ad_user_port_key.is_some(), &[Lacp]),
            ("coupled_control", bond.coupled_control.is_some(), &[Lacp]),
        ];
        for (key, _, _) in only.iter().filter(|(_, given, modes)| *given && !modes.contains(&bond.mode)) {
            self.refuse(&path.clone().key(key), "the bond's mode does not have this", "leave it out, or change `mode`");
        }
        if bond.arp_interval.is_some() && matches!(bond.mode, Lacp | BalanceTlb | BalanceAlb) {
            let help = "use `miimon`, or change `mode`";
            self.refuse(&path.clone().key("arp_interval"), "in this mode the bond cannot ask by ARP", help);
        }
        if bond.arp_interval.is_some() == bond.arp_targets.is_empty() {
            self.refuse(path, "`arp_interval` and `arp_targets` go together", "give both or none");
        }
        if bond.primary.as_ref().is_some_and(|primary| !bond.ports.contains(primary)) {
            self.refuse(&path.clone().key("primary"), "this is no port of the bond", "name one of `ports`");
        }
        if bond.arp_targets.len() > MOST_TARGETS {
            self.refuse(&path.clone().key("arp_targets"), "the kernel asks 16 at most", "leave some out");
        }
    }

    fn wireguard(&mut self, path: &Path, tunnel: &WireGuard) {
        for (index, peer) in tunnel.peers.iter().enumerate() {
            let path = path.clone().key("peers").index(index);
            if tunnel.peers.iter().take(index).any(|other| other.public_key == peer.public_key) {
                self.refuse(&path.clone().key("public_key"), "the peer is there twice", "leave one of them out");
            }
            let seconds = peer.persistent_keepalive.map_or(0, |time| time.duration().as_secs());
            if seconds > u64::from(u16::MAX) {
                self.refuse(&path.key("persistent_keepalive"), "this is too long", "at most 65535 s");
            }
        }
    }

    /// Every link is a port of one other at most, and one of a bond or bridge has no addresses.
    fn ports(&mut self) {
        let mut owners: BTreeMap<&LinkName, Path> = BTreeMap::new();
        for (name, settings) in &self.network.links {
            for (index, port) in settings.ports().iter().enumerate() {
                let path = need_path((name, index), settings);
                if let Some(first) = owners.get(port) {
                    let mistake = self.report.about(self.root, &path, format!("\"{port}\" is a port already"));
                    let mistake = self.report.relate(mistake.help("leave it out"), self.root, first, "this");
                    self.report.add(mistake);
                }
                owners.insert(port, path.clone());
                let keeps_addresses = settings.vrf.is_some();
                let of_port = self.network.links.get(port).filter(|_| !keeps_addresses);
                if of_port.is_some_and(|it| !it.addresses.is_empty() || it.dhcp == Some(true)) {
                    let help = format!("give them to \"{name}\"");
                    self.refuse(&path, "a port has no addresses of its own", &help);
                }
                if of_port.is_some_and(|it| matches!(it.made(), Some(Made::Vrf(_) | Made::WireGuard(_)))) {
                    self.refuse(&path, "such a link cannot be a port", "leave it out");
                }
            }
        }
    }

    fn cycle(&mut self, cycle: &[Step<LinkName>]) {
        let path = |step: &Step<LinkName>| match self.network.links.get(step.0) {
            Some(settings) => need_path(*step, settings),
            None => link_path(step.0),
        };
        let Some((start, rest)) = cycle.split_first() else { return };
        let message = match rest {
            [] => "the link stands on itself".to_owned(),
            _ => format!("the links stand on each other: {}", shown(cycle)),
        };
        let mistake = self.report.about(self.root, &path(start), message);
        let mistake = rest
            .iter()
            .take(7)
            .fold(mistake, |mistake, step| self.report.relate(mistake, self.root, &path(step), "and this"));
        self.report.add(mistake.help("take one of them out"));
    }
}
