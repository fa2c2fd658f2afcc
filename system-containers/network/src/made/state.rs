//! What the kernel knows of made links and tells nobody by itself: whether a bond's ports work together (802.3ad), and
//! whether a tunnel's peers answer.

use std::collections::BTreeMap;

use berth_config::{BondMode, Made, Network, WireGuard, WireGuardPeer};
use netlink_packet_route::link::{
    BondAdInfo, InfoBond, InfoBondPort, InfoData, InfoPortData, LinkAttribute, LinkInfo, LinkMessage,
};

use super::wireguard::{self, Peer};
use crate::clock;
use crate::link::{Link, LinkTable};
use crate::netlink::Netlink;

/// In seconds: two that talk make keys anew after two minutes (REKEY_AFTER_TIME), and use none for longer than this
/// (REJECT_AFTER_TIME).
const LONGEST_SESSION: u64 = 180;

/// What is wrong, by the numbers of links.
pub type Troubles = BTreeMap<u32, Vec<String>>;

/// The links that can be in trouble of which the kernel says nothing.
fn watched<'a>(network: &'a Network, table: &'a LinkTable) -> impl Iterator<Item = (&'a Link, Made<'a>)> {
    network.links.iter().filter_map(|(name, settings)| {
        let made = settings.made().filter(|made| match made {
            Made::Bond(bond) => bond.mode == BondMode::Lacp,
            Made::WireGuard(tunnel) => !tunnel.peers.is_empty(),
            _ => false,
        })?;
        Some((table.by_name(name.as_str())?, made))
    })
}

/// Whether there are any.
pub fn is_watched(network: &Network, table: &LinkTable) -> bool {
    watched(network, table).next().is_some()
}

/// Asks the kernel for all of it.
pub async fn troubles(network: &Network, table: &LinkTable, netlink: &Netlink) -> Troubles {
    let mut troubles = Troubles::new();
    for (link, made) in watched(network, table) {
        let found = match made {
            Made::Bond(_) => of_bond(link, table, netlink).await,
            Made::WireGuard(tunnel) => of_tunnel(link, tunnel),
            _ => Vec::new(),
        };
        troubles.insert(link.index, found);
    }
    troubles
}

/// A bond as the kernel describes it and its ports.
async fn of_bond(bond: &Link, table: &LinkTable, netlink: &Netlink) -> Vec<String> {
    let Ok(message) = netlink.link_by_name(&bond.name).await else { return Vec::new() };
    let mut ports = Vec::new();
    for port in table.iter().filter(|link| link.controller == Some(bond.index) && link.carrier) {
        if let Ok(message) = netlink.link_by_name(&port.name).await {
            ports.push((port.name.clone(), aggregator(&message)));
        }
    }
    apart(active(&message), &ports).into_iter().collect()
}

/// Ports that have carrier and do not take part: all where nobody answers, else those of other groups.
fn apart((group, partner): (Option<u16>, Option<[u8; 6]>), ports: &[(String, Option<u16>)]) -> Option<String> {
    let answered = partner != Some([0; 6]);
    let is_apart = |own: &Option<u16>| !answered || own.is_some() && *own != group;
    let apart: Vec<&str> = ports.iter().filter(|(_, own)| is_apart(own)).map(|(name, _)| name.as_str()).collect();
    let (names, help) = (apart.join(", "), "are these ports of the switch in one group with LACP?");
    match (apart.is_empty(), answered) {
        (true, _) => None,
        (_, false) => {
            Some(format!("nobody answers with LACP (802.3ad) at {names}, so one port does all the work: {help}"))
        }
        (_, true) => Some(format!("not together with the other ports (802.3ad): {names}: {help}")),
    }
}

/// Of a bond, the group of ports that is used and who is at its other end.
fn active(message: &LinkMessage) -> (Option<u16>, Option<[u8; 6]>) {
    let (mut group, mut partner) = (None, None);
    let options = infos(message).filter_map(|info| match info {
        LinkInfo::Data(InfoData::Bond(options)) => Some(options),
        _ => None,
    });
    for option in options.flatten() {
        let InfoBond::AdInfo(infos) = option else { continue };
        for info in infos {
            match info {
                BondAdInfo::Aggregator(number) => group = Some(*number),
                BondAdInfo::PartnerMac(mac) => partner = Some(*mac),
                _ => {}
            }
        }
    }
    (group, partner)
}

/// Of a port, the group that it is in.
fn aggregator(message: &LinkMessage) -> Option<u16> {
    infos(message).find_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BondPort(facts)) => facts.iter().find_map(|fact| match fact {
            InfoBondPort::AdAggregatorId(number) => Some(*number),
            _ => None,
        }),
        _ => None,
    })
}

fn infos(message: &LinkMessage) -> impl Iterator<Item = &LinkInfo> {
    message.attributes.iter().flat_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.as_slice(),
        _ => &[],
    })
}

/// Peers that were called and did not answer, or have not for longer than any session lasts although something is sent to
/// them all the time. Of one that is to call, nobody knows whether it wants to.
fn of_tunnel(link: &Link, tunnel: &WireGuard) -> Vec<String> {
    let peers = match wireguard::peers(link.index) {
        Ok(peers) => peers,
        Err(error) => return vec![format!("what its peers do is not known: {error}")],
    };
    let wanted = |peer: &Peer| tunnel.peers.iter().find(|wanted| wanted.public_key == peer.public_key);
    let now = clock::wall();
    peers.into_iter().filter_map(|peer| silence(wanted(&peer)?, peer, now)).collect()
}

fn silence(wanted: &WireGuardPeer, peer: Peer, now: u64) -> Option<String> {
    let (key, endpoint) = (&wanted.public_key, wanted.endpoint.as_ref()?);
    let (is_silent, since) = match peer.last_handshake {
        None => (peer.sent > 0, ""),
        Some(last) => {
            (wanted.persistent_keepalive.is_some() && now.saturating_sub(last) > LONGEST_SESSION, " any more")
        }
    };
    let help = "is it there, and does it know this machine's public key?";
    is_silent.then(|| format!("the peer {key} at {endpoint} does not answer{since}: {help}"))
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::InfoKind;

    use super::*;

    fn described(info: LinkInfo) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bond), info]));
        message
    }

    #[test]
    fn a_port_of_another_group_is_named_and_all_are_where_nobody_answers() {
        let bond = |partner| {
            let facts = vec![BondAdInfo::Aggregator(2), BondAdInfo::NumPorts(1), BondAdInfo::PartnerMac(partner)];
            active(&described(LinkInfo::Data(InfoData::Bond(vec![InfoBond::MinLinks(0), InfoBond::AdInfo(facts)]))))
        };
        let port = |name: &str, group| {
            let facts = vec![InfoBondPort::QueueId(0), InfoBondPort::AdAggregatorId(group)];
            (name.to_owned(), aggregator(&described(LinkInfo::PortData(InfoPortData::BondPort(facts)))))
        };
        let said = |partner, groups: [u16; 2]| {
            apart(bond(partner), &[port("eth0", groups[0]), port("eth1", groups[1])]).unwrap_or_default()
        };
        assert_eq!(said([2; 6], [2, 2]), "");
        assert!(said([2; 6], [2, 3]).starts_with("not together with the other ports (802.3ad): eth1:"));
        assert!(said([0; 6], [2, 3]).starts_with("nobody answers with LACP (802.3ad) at eth0, eth1,"));
        let other_mode = active(&described(LinkInfo::Data(InfoData::Bond(Vec::new()))));
        assert_eq!(apart(other_mode, &[("eth0".to_owned(), None)]), None);
    }

    #[test]
    fn a_peer_that_was_called_and_never_answers_is_named_and_so_is_one_that_has_fallen_silent() {
        let text = |keepalive: &str| {
            format!(
                "public_key = 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo='\nendpoint = '192.0.2.1:51820'\n{keepalive}\n"
            )
        };
        let said = |keys: &str, sent, last_handshake| {
            let wanted: berth_config::WireGuardPeer = toml::from_str(&text(keys)).unwrap();
            silence(&wanted, Peer { public_key: wanted.public_key, last_handshake, sent, has_endpoint: true }, 10_000)
                .unwrap_or_default()
        };
        let keepalive = "persistent_keepalive = '25s'";
        assert_eq!(said("", 0, None), "", "nothing was asked of it");
        assert!(said("", 148, None).contains("at 192.0.2.1:51820 does not answer: "));
        assert_eq!(said("", 148, Some(1)), "", "nothing may have been sent since");
        assert_eq!(said(keepalive, 148, Some(9_900)), "");
        assert!(said(keepalive, 148, Some(9_000)).contains("does not answer any more: "));
    }
}
