//! The largest packets of links that stand on others, and of those whose server says less than IPv6 needs.

use berth_control::message::{Link, Request};

use crate::support::lan::Lan;
use crate::support::{Machine, Namespace, eventually, possible, skip, try_run};

/// A link on `eth0`, whose largest packet the test changes.
fn stands_on(kind: &str) {
    let machine = Machine::new("[network.links.eth0]\ndhcp = false\n[network.links.top]\ndhcp = false\nmtu = 2000\n");
    let (host, other) = (&machine.namespace, Namespace::new());
    host.connect("eth0", &other, "far0");
    other.ip("link set far0 up mtu 9000");
    let made = try_run(&format!("ip -n {} link add link eth0 name top {kind}", host.name));
    if !made.status.success() {
        return skip(&format!("this kernel has no {kind}"));
    }
    let mut service = machine.start();
    service.wait_ready();
    service.wait_lack("top", &["set the MTU of link top"]);
    let below = |mtu: u32| drop(host.ip(&format!("link set eth0 mtu {mtu}")));
    let top = |mtu: u32| {
        let wanted = format!("mtu {mtu} ");
        eventually(&wanted, || host.ip("link show top").contains(&wanted).then_some(()));
    };
    below(1900);
    below(2000);
    top(2000);
    let lacks_none = |link: &Link| link.name == "top" && !link.missing.iter().any(|text| text.contains("MTU"));
    if !service.links.iter().any(lacks_none) {
        service.wait("a link that lacks no MTU", |request| match request {
            Request::Links { links } => links.iter().any(lacks_none).then_some(()),
            _ => None,
        });
    }
    // The kernel takes the upper one down with the lower one, and not up again.
    below(1400);
    top(1400);
    below(9000);
    top(2000);
}

#[test]
fn a_link_on_another_gets_its_mtu_as_soon_as_that_one_has_room() {
    if possible(&["ip"]) {
        stands_on("type macvlan");
    }
}

#[test]
fn a_vlan_gets_its_mtu_as_soon_as_the_link_below_has_room() {
    if possible(&["ip"]) {
        stands_on("type vlan id 7");
    }
}

#[test]
fn a_servers_packets_are_never_too_small_for_ipv6_unless_that_is_off() {
    if !possible(&["ip", "dnsmasq"]) {
        return;
    }
    let machine = Machine::new("");
    let lan = Lan::new(&machine);
    let _server = lan.serve("10.77.0.50,10.77.0.99,1h", &["--dhcp-option=option:mtu,1000"]);
    let mut service = machine.start();
    service.wait_address("eth0", "10.77.0.");
    let is_so = |mtu: &str, ipv6: bool| {
        eventually(&format!("{mtu}, IPv6: {ipv6}"), || {
            let link = machine.namespace.ip("address show dev eth0");
            (link.contains(mtu) && link.contains("inet6 fe80") == ipv6).then_some(())
        });
    };
    is_so("mtu 1280", true);
    service.apply("[network.links.eth0]\nipv6 = 'off'\n");
    is_so("mtu 1000", false);
    service.apply("");
    is_so("mtu 1280", true);
}
