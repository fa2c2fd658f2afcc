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
