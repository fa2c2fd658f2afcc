//! What the kernel is told to make a link. Pure.

use std::net::IpAddr;

use berth_config::{Bond, Bridge, LinkSettings, Made, TimeSpan, VlanProtocol};
use netlink_packet_route::link::{
    BondAllPortActive, BridgeStpState, InfoBond, InfoBridge, InfoData, InfoVlan, InfoVrf, LinkAttribute, LinkInfo,
    LinkMessage, VlanProtocol as KernelProtocol,
};
use rtnetlink::packet_core::Nla;

/// In milliseconds; what bonds without ARP have for `miimon`. The kernel's own default is never to look.
const DEFAULT_MIIMON: u32 = 100;

/// A message for a link of this name. `base`: the number of the link that a VLAN is of.
pub fn of(name: &str, settings: &LinkSettings, made: &Made<'_>, base: Option<u32>) -> LinkMessage {
    let mut message = LinkMessage::default();
    let attributes = &mut message.attributes;
    attributes.push(LinkAttribute::IfName(name.to_owned()));
    attributes.extend(settings.mac.map(|mac| LinkAttribute::Address(mac.bytes().to_vec())));
    attributes.extend(base.map(LinkAttribute::Link));
    let data = match made {
        Made::Bond(bond) => Some(InfoData::Bond(bond_options(bond))),
        Made::Bridge(bridge) => Some(InfoData::Bridge(bridge_options(bridge))),
        Made::Vlan(vlan) => {
            let protocol = match vlan.protocol {
                VlanProtocol::Customer => KernelProtocol::Ieee8021Q,
                VlanProtocol::Provider => KernelProtocol::Ieee8021Ad,
            };
            Some(InfoData::Vlan(vec![InfoVlan::Id(vlan.id), InfoVlan::Protocol(protocol)]))
        }
        Made::Vrf(vrf) => Some(InfoData::Vrf(vec![InfoVrf::TableId(vrf.table)])),
        Made::Dummy | Made::WireGuard(_) => None,
    };
    let kind = super::kind_of(made);
    let info = std::iter::once(LinkInfo::Kind(kind)).chain(data.map(LinkInfo::Data)).collect();
    attributes.push(LinkAttribute::LinkInfo(info));
    message
}

/// Which options are given, a bit for each.
pub fn given(made: &Made<'_>) -> u64 {
    let bit = |kind: u16| 1_u64.checked_shl(kind.into()).unwrap_or(0);
    match made {
        Made::Bond(bond) => bond_options(bond).iter().fold(0, |all, option| all | bit(option.kind())),
        Made::Bridge(bridge) => bridge_options(bridge).iter().fold(0, |all, option| all | bit(option.kind())),
        _ => 0,
    }
}

/// Takes a bond's mode out, which the kernel refuses to be told while there are ports, also if it is the same.
pub fn without_mode(message: &mut LinkMessage) {
    for attribute in &mut message.attributes {
        if let LinkAttribute::LinkInfo(infos) = attribute {
            for info in infos {
                if let LinkInfo::Data(InfoData::Bond(options)) = info {
                    options.retain(|option| !matches!(option, InfoBond::Mode(_)));
                }
            }
        }
    }
}

fn milliseconds(time: TimeSpan) -> u32 {
    u32::try_from(time.duration().as_millis()).unwrap_or(u32::MAX)
}

/// The kernel takes options one after the other in the order of their numbers, but for the mode, which comes first
/// (bond_changelink() in drivers/net/bonding/bond_netlink.c).
fn bond_options(bond: &Bond) -> Vec<InfoBond> {
    let mut options = vec![InfoBond::Mode(bond.mode.number().into())];
    let miimon = bond.miimon.map(milliseconds).or(bond.arp_interval.is_none().then_some(DEFAULT_MIIMON));
    options.extend(miimon.map(InfoBond::MiiMon));
    options.extend(bond.updelay.map(|time| InfoBond::UpDelay(milliseconds(time))));
    options.extend(bond.downdelay.map(|time| InfoBond::DownDelay(milliseconds(time))));
    options.extend(bond.arp_interval.map(|time| InfoBond::ArpInterval(milliseconds(time))));
    let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
    for target in &bond.arp_targets {
        match target {
            IpAddr::V4(address) => ipv4.push(*address),
            IpAddr::V6(address) => ipv6.push(*address),
        }
    }
    options.extend((!ipv4.is_empty()).then_some(InfoBond::ArpIpTarget(ipv4)));
    options.extend((!ipv6.is_empty()).then_some(InfoBond::NsIp6Target(ipv6)));
    options.extend(bond.arp_validate.map(|it| InfoBond::ArpValidate(u32::from(it.number()).into())));
    options.extend(bond.arp_all_targets.map(|it| InfoBond::ArpAllTargets(u32::from(it.number()).into())));
    options.extend(bond.primary_reselect.map(|it| InfoBond::PrimaryReselect(it.number().into())));
    options.extend(bond.fail_over_mac.map(|it| InfoBond::FailOverMac(it.number().into())));
    options.extend(bond.xmit_hash_policy.map(|it| InfoBond::XmitHashPolicy(it.number().into())));
    options.extend(bond.resend_igmp.map(|count| InfoBond::ResendIgmp(count.into())));
    options.extend(bond.num_peer_notif.map(InfoBond::NumPeerNotif));
    options.extend(bond.all_ports_active.map(|it| InfoBond::AllPortsActive(BondAllPortActive::from(u8::from(it)))));
    options.extend(bond.min_links.map(InfoBond::MinLinks));
    options.extend(bond.lp_interval.map(|time| InfoBond::LpInterval(milliseconds(time) / 1000)));
    options.extend(bond.packets_per_port.map(|count| InfoBond::PacketsPerPort(count.into())));
    options.extend(bond.lacp_rate.map(|it| InfoBond::AdLacpRate(it.number().into())));
    options.extend(bond.ad_select.map(|it| InfoBond::AdSelect(it.number().into())));
    options.extend(bond.ad_actor_sys_prio.map(|it| InfoBond::AdActorSysPrio(it.get())));
    options.extend(bond.ad_user_port_key.map(InfoBond::AdUserPortKey));
    options.extend(bond.ad_actor_system.map(|mac| InfoBond::AdActorSystem(mac.bytes())));
    options.extend(bond.tlb_dynamic_lb.map(InfoBond::TlbDynamicLb));
    options.extend(bond.peer_notif_delay.map(|time| InfoBond::PeerNotifDelay(milliseconds(time))));
    options.extend(bond.lacp_active.map(InfoBond::AdLacpActive));
    options.extend(bond.missed_max.map(|count| InfoBond::MissedMax(count.get())));
    options.extend(bond.coupled_control.map(InfoBond::CoupledControl));
    options
}

/// The kernel counts a bridge's times in hundredths of a second (USER_HZ).
fn bridge_options(bridge: &Bridge) -> Vec<InfoBridge> {
    let hundredths = |time: TimeSpan| milliseconds(time) / 10;
    let stp = if bridge.stp { BridgeStpState::KernelStp } else { BridgeStpState::Disabled };
    let mut options = vec![InfoBridge::StpState(stp)];
    options.extend(bridge.vlan_filtering.then_some(InfoBridge::VlanFiltering(true)));
    options.extend(bridge.priority.map(InfoBridge::Priority));
    options.extend(bridge.ageing_time.map(|time| InfoBridge::AgeingTime(hundredths(time))));
    // A port of a bridge that looks for no loops has no reason to listen first.
    let forward_delay = bridge.forward_delay.map(hundredths).or((!bridge.stp).then_some(0));
    options.extend(forward_delay.map(InfoBridge::ForwardDelay));
    options.extend(bridge.multicast_snooping.map(InfoBridge::MulticastSnooping));
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of a bond with their numbers (IFLA_BOND_…, linux/if_link.h) and what the kernel is told, in the order in which
    /// it takes them.
    const OPTIONS: [(&str, u16, &[u8]); 30] = [
        ("mode = '802.3ad'", 1, &[4]),
        ("miimon = '50ms'", 3, &[50, 0, 0, 0]),
        ("updelay = '200ms'", 4, &[200, 0, 0, 0]),
        ("downdelay = '100ms'", 5, &[100, 0, 0, 0]),
        ("arp_interval = '200ms'", 7, &[200, 0, 0, 0]),
        ("arp_targets = ['192.0.2.1', 'fd00::1']", 8, &[8, 0, 0, 0, 192, 0, 2, 1]),
        ("", 31, &[20, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ("arp_validate = 'all'", 9, &[3, 0, 0, 0]),
        ("arp_all_targets = 'all'", 10, &[1, 0, 0, 0]),
        ("primary_reselect = 'failure'", 12, &[2]),
        ("fail_over_mac = 'follow'", 13, &[2]),
        ("xmit_hash_policy = 'layer2+3'", 14, &[2]),
        ("resend_igmp = 2", 15, &[2, 0, 0, 0]),
        ("num_peer_notif = 3", 16, &[3]),
        ("all_ports_active = true", 17, &[1]),
        ("min_links = 2", 18, &[2, 0, 0, 0]),
        ("lp_interval = '5s'", 19, &[5, 0, 0, 0]),
        ("packets_per_port = 7", 20, &[7, 0, 0, 0]),
        ("lacp_rate = 'fast'", 21, &[1]),
        ("ad_select = 'count'", 22, &[2]),
        ("ad_actor_sys_prio = 7", 24, &[7, 0]),
        ("ad_user_port_key = 9", 25, &[9, 0]),
        ("ad_actor_system = '02:00:00:00:00:07'", 26, &[2, 0, 0, 0, 0, 7]),
        ("tlb_dynamic_lb = false", 27, &[0]),
        ("peer_notif_delay = '300ms'", 28, &[44, 1, 0, 0]),
        ("lacp_active = false", 29, &[0]),
        ("missed_max = 4", 30, &[4]),
        ("coupled_control = false", 32, &[0]),
        // Told when it is there.
        ("primary = 'eth0'", 0, &[]),
        ("ports = ['eth0']", 0, &[]),
    ];

    #[test]
    fn every_option_of_a_bond_is_told() {
        let text: Vec<&str> = OPTIONS.iter().map(|(key, ..)| *key).collect();
        let bond: Bond = toml::from_str(&text.join("\n")).unwrap();
        let keys = serde_json::to_value(&bond).unwrap().as_object().unwrap().len();
        assert_eq!(keys, OPTIONS.iter().filter(|(key, ..)| !key.is_empty()).count(), "not every key is in the table");
        let options = bond_options(&bond);
        let told = options.iter().map(|option| {
            let mut value = vec![0; option.value_len()];
            option.emit_value(&mut value);
            (option.kind(), value)
        });
        let wanted = OPTIONS.iter().filter(|(_, number, _)| *number > 0);
        assert!(told.eq(wanted.map(|(_, number, value)| (*number, value.to_vec()))), "{options:?}");
    }
}
