//! Policy rules: those of the configuration, and no others of ours. They are told from other programs' rules by the
//! protocol that the kernel keeps with each.

use std::net::IpAddr;

use berth_config::{LinkSettings, Made, Network, Rule, RuleAction as Wanted};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use crate::netlink::{MAIN_TABLE, Netlink, OWN_PROTOCOL};
use crate::nftables::apart;
use crate::report;

/// The priority of the first rule without one, between the local table's rule (0) and the main table's (32766).
const FIRST_PRIORITY: u32 = 20_000;
/// Before the kernel's own for VRFs, which it makes with the first of them (l3mdev, 1000).
const VRF_PRIORITY: u32 = 999;
/// RT_TABLE_COMPAT: the number stands in an attribute.
const IN_ATTRIBUTE: u8 = 252;

/// What makes one rule another than the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Key {
    ipv4: bool,
    action: u8,
    priority: u32,
    table: u32,
    from: Option<(IpAddr, u8)>,
    to: Option<(IpAddr, u8)>,
    incoming: Option<String>,
    outgoing: Option<String>,
    mark: Option<u32>,
}

impl Key {
    /// One for each family that the rule is for.
    fn wanted(rule: &Rule, index: usize) -> Vec<Self> {
        let prefix = |prefix: Option<berth_config::Prefix>| prefix.map(|it| (it.address(), it.length()));
        let family = rule.from.or(rule.to).map(|prefix| prefix.address().is_ipv4());
        let place = u32::try_from(index).unwrap_or(0);
        let key = |ipv4| Self {
            ipv4,
            action: match rule.action {
                Wanted::Lookup => RuleAction::ToTable,
                Wanted::Blackhole => RuleAction::Blackhole,
                Wanted::Unreachable => RuleAction::Unreachable,
                Wanted::Prohibit => RuleAction::Prohibit,
            }
            .into(),
            priority: rule.priority.unwrap_or(FIRST_PRIORITY.saturating_add(place)),
            table: rule.table.unwrap_or(0),
            from: prefix(rule.from),
            to: prefix(rule.to),
            incoming: rule.incoming.as_ref().map(ToString::to_string),
            outgoing: rule.outgoing.as_ref().map(ToString::to_string),
            mark: rule.mark,
        };
        [true, false].into_iter().filter(|ipv4| family.is_none_or(|family| family == *ipv4)).map(key).collect()
    }

    /// Of a rule that the kernel has; `None` if it is not ours.
    fn present(message: &RuleMessage) -> Option<Self> {
        let header = &message.header;
        let mut key = Self {
            ipv4: header.family == AddressFamily::Inet,
            action: header.action.into(),
            table: header.table.into(),
            ..Self::default()
        };
        let mut ours = false;
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Protocol(protocol) => ours = u8::from(*protocol) == OWN_PROTOCOL,
                RuleAttribute::Priority(priority) => key.priority = *priority,
                RuleAttribute::Table(table) => key.table = *table,
                RuleAttribute::Source(address) => key.from = Some((*address, header.src_len)),
                RuleAttribute::Destination(address) => key.to = Some((*address, header.dst_len)),
                RuleAttribute::Iifname(name) => key.incoming = Some(name.clone()),
                RuleAttribute::Oifname(name) => key.outgoing = Some(name.clone()),
                RuleAttribute::FwMark(mark) => key.mark = Some(*mark),
                _ => {}
            }
        }
        // The kernel says nothing of a prefix of no bits.
        ours.then_some(key)
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        let header = &mut message.header;
        header.family = if self.ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        header.action = self.action.into();
        header.table = u8::try_from(self.table).unwrap_or(IN_ATTRIBUTE);
        header.src_len = self.from.map_or(0, |(_, length)| length);
        header.dst_len = self.to.map_or(0, |(_, length)| length);
        let attributes = &mut message.attributes;
        attributes.push(RuleAttribute::Protocol(RouteProtocol::from(OWN_PROTOCOL)));
        attributes.push(RuleAttribute::Priority(self.priority));
        if self.table > 0 {
            attributes.push(RuleAttribute::Table(self.table));
        }
        let bits = |prefix: Option<(IpAddr, u8)>| prefix.filter(|(_, length)| *length > 0).map(|(address, _)| address);
        attributes.extend(bits(self.from).map(RuleAttribute::Source));
        attributes.extend(bits(self.to).map(RuleAttribute::Destination));
        attributes.extend(self.incoming.clone().map(RuleAttribute::Iifname));
        attributes.extend(self.outgoing.clone().map(RuleAttribute::Oifname));
        attributes.extend(self.mark.map(RuleAttribute::FwMark));
        message
    }

    /// A prefix of no bits is none.
    fn plain(mut self) -> Self {
        let some = |prefix: &(IpAddr, u8)| prefix.1 > 0;
        (self.from, self.to) = (self.from.filter(some), self.to.filter(some));
        self
    }
}

/// Those by which ports that are published on a VRF's addresses are reached.
fn of_vrfs(network: &Network) -> Vec<Rule> {
    let tables = network.links.values().filter_map(|settings| match LinkSettings::made(settings)? {
        Made::Vrf(vrf) => Some((apart::mark(vrf.table), vrf.table)),
        _ => None,
    });
    let mut rules: Vec<(u32, u32)> = tables.collect();
    if !rules.is_empty() {
        rules.push((apart::TO_MAIN, MAIN_TABLE));
    }
    let rule =
        |(mark, table)| Rule { mark: Some(mark), table: Some(table), priority: Some(VRF_PRIORITY), ..Rule::default() };
    rules.into_iter().map(rule).collect()
}

/// Makes the rules that are missing and removes those of ours that are too many.
pub async fn arrange(netlink: &Netlink, network: &Network) {
    let present = match netlink.rules().await {
        Ok(present) => present,
        Err(error) => return report::failure(&error),
    };
    let mut wanted: Vec<Key> = Vec::new();
    let further = of_vrfs(network);
    let rules = network.rules.iter().chain(&further).enumerate();
    for key in rules.flat_map(|(index, rule)| Key::wanted(rule, index)).map(Key::plain) {
        if !wanted.contains(&key) {
            wanted.push(key);
        }
    }
    for message in present {
        let Some(key) = Key::present(&message) else { continue };
        match wanted.iter().position(|each| *each == key) {
            Some(index) => {
                wanted.swap_remove(index);
            }
            None => {
                if let Err(error) = netlink.remove_rule(message, &format!("of priority {}", key.priority)).await {
                    report::failure(&error);
                }
            }
        }
    }
    for key in wanted {
        if let Err(error) = netlink.add_rule(key.message(), &format!("of priority {}", key.priority)).await {
            report::failure(&error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_is_found() {
        let prefix = |text: &str| text.parse().ok();
        let rules = [
            Rule { from: prefix("192.0.2.0/24"), table: Some(1000), mark: Some(7), ..Rule::default() },
            Rule { to: prefix("::/0"), action: Wanted::Prohibit, priority: Some(5), ..Rule::default() },
            Rule { incoming: "eth0".parse().ok(), outgoing: "eth1".parse().ok(), table: Some(7), ..Rule::default() },
        ];
        let keys: Vec<Key> = rules.iter().enumerate().flat_map(|(index, rule)| Key::wanted(rule, index)).collect();
        assert_eq!(keys.len(), 4, "the last one is for both families");
        assert_eq!((keys[0].priority, keys[1].priority, keys[2].priority), (20_000, 5, 20_002));
        for key in keys.into_iter().map(Key::plain) {
            assert_eq!(Key::present(&key.message()), Some(key));
        }
        let mut other = Key::wanted(&rules[0], 0)[0].message();
        other.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));
        assert_eq!(Key::present(&other), None);
    }
}
