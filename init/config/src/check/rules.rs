//! Policy rules that say what to do, and with what.

use crate::load::Report;
use crate::network::{Network, Rule, RuleAction};
use crate::tree::{Node, Path};

pub(super) fn check(network: &Network, root: &Node, report: &mut Report) {
    for (index, rule) in network.rules.iter().enumerate() {
        let path = Path::default().key("network").key("rules").index(index);
        let mut refuse = |path: &Path, message: &str, help: &str| {
            report.add(report.about(root, path, message).help(help));
        };
        match (rule.action, rule.table) {
            (RuleAction::Lookup, None) => {
                refuse(&path, "the rule leads nowhere", "name a `table`, or an `action` such as \"blackhole\"");
            }
            (RuleAction::Lookup, Some(0)) => {
                refuse(&path.clone().key("table"), "there is no table 0", "tables are numbered from 1");
            }
            (_, Some(_)) if rule.action != RuleAction::Lookup => {
                let message = "with this action nothing is looked up";
                refuse(&path.clone().key("table"), message, "leave `table` or `action` out");
            }
            _ => {}
        }
        if let (Some(from), Some(to)) = (rule.from, rule.to)
            && from.address().is_ipv4() != to.address().is_ipv4()
        {
            let message = "`from` and `to` are not of the same family";
            refuse(&path.clone().key("to"), message, "both are IPv4 or both are IPv6");
        }
        for (key, prefix) in [("from", rule.from), ("to", rule.to)] {
            if prefix.is_some_and(|prefix| !prefix.is_network()) {
                refuse(&path.clone().key(key), "bits behind the prefix are set", "name the network's lowest address");
            }
        }
        let (Rule { from, to, incoming, outgoing, mark, .. }, all) = (rule, rule.action != RuleAction::Lookup);
        if all && from.is_none() && to.is_none() && incoming.is_none() && outgoing.is_none() && mark.is_none() {
            refuse(&path, "the rule is for every packet and lets none pass", "say which packets it is for");
        }
    }
}
