//! Servers that a container asks for names: it must have a resolv.conf of its own, and they must be somewhere else.

use std::net::IpAddr;

use super::ContainerCheck;
use crate::container::{NetworkMode, SearchDomain};
use crate::load::Report;

pub(super) fn check(check: &ContainerCheck<'_>, report: &mut Report) {
    let container = check.container;
    let given = [
        ("dns", container.dns.is_empty()),
        ("dns_search", container.dns_search.is_empty()),
        ("dns_opt", container.dns_opt.is_empty()),
    ];
    if matches!(container.network_mode, NetworkMode::Container(_)) {
        for (key, _) in given.iter().filter(|(_, empty)| !empty) {
            let message = format!("the container has the resolv.conf of another one, so `{key}` says nothing");
            check.report(report, &check.path().key(key), message, "give it to the container whose network it is");
        }
    }
    let bridged = container.network_mode == NetworkMode::Bridge;
    for (index, server) in container.dns.iter().enumerate() {
        let path = check.path().key("dns").index(index);
        if server.is_unspecified() || server.is_multicast() || *server == IpAddr::from([255; 4]) {
            check.report(report, &path, format!("{server} is no server's address"), "name a server's own address");
        } else if server.is_loopback() && bridged {
            let message = format!("{server} would be the machine, for it is the network's resolver that asks there");
            check.report(report, &path, message, "name an address that the machine reaches");
        }
    }
    let none = container.dns_search.iter().position(|domain| domain.as_str() == SearchDomain::NONE);
    if let Some(index) = none.filter(|_| container.dns_search.len() > 1) {
        let message = "\".\" is for no domains at all".to_owned();
        check.report(report, &check.path().key("dns_search").index(index), message, "leave it out, or the others");
    }
}
