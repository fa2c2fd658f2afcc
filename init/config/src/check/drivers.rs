//! What a network of containers with a parent link needs, and what it cannot have.

use crate::networks::{ContainerNetwork, NetworkDriver, ParentMode};

/// A key of the network or none for all of it, what is wrong, and what to do.
pub(super) type Mistake = (Option<&'static str>, &'static str, &'static str);

pub(super) fn mistakes(network: &ContainerNetwork) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    if network.driver == NetworkDriver::Bridge {
        let help = "leave it out, or name the driver \"macvlan\" or \"ipvlan\"";
        for (key, present) in [("parent", network.parent.is_some()), ("mode", network.mode.is_some())] {
            if present {
                mistakes.push((Some(key), "a bridge has none", help));
            }
        }
        return mistakes;
    }
    if network.parent.is_none() {
        mistakes.push((None, "it has no `parent`", "name the link of the machine that it is on, such as \"eth1\""));
    }
    if network.subnet(true).is_none() {
        let help = "name the IPv4 network that is on the parent link in `subnets`";
        mistakes.push((None, "its containers would not have addresses of the parent's network", help));
    }
    let fits = |mode: ParentMode| {
        let of_ipvlan = matches!(mode, ParentMode::L2 | ParentMode::L3 | ParentMode::L3s);
        of_ipvlan == (network.driver == NetworkDriver::Ipvlan)
    };
    if !network.mode.is_none_or(fits) {
        let help = "macvlan has bridge, private, vepa and passthru; ipvlan has l2, l3 and l3s";
        mistakes.push((Some("mode"), "the driver has no such mode", help));
    }
    if network.internal {
        let help = "leave `internal` out, and `gateways` too for containers without a way out";
        mistakes.push((Some("internal"), "who else is on the parent link is not up to this machine", help));
    }
    if network.isolated {
        let help = "leave `isolated` out; macvlan has `mode = \"private\"`";
        mistakes.push((Some("isolated"), "only a bridge keeps its containers apart", help));
    }
    mistakes
}
