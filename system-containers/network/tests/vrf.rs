//! Ports that are published on an address of a VRF's port.

use crate::support::site::{HOST, Site, ask, container, is_shut, port, serve};
use crate::support::{Namespace, eventually, possible, skip, try_run};

const APART: &str = "[network.links.eth1]\ndhcp = false\naddresses = [\"192.168.5.2/24\", \"2001:db8:5::2/64\"]\n\
    gateways = [\"192.168.5.9\", \"2001:db8:5::9\"]\n[network.links.red]\nvrf = { table = 1001, ports = [\"eth1\"] }\n";

fn has_vrf() -> bool {
    let namespace = Namespace::new();
    let there = try_run(&format!("ip -n {} link add probe type vrf table 7", namespace.name)).status.success();
    if !there {
        skip("this kernel has no VRFs");
    }
    there
}

#[test]
fn a_port_published_on_an_address_of_a_vrf_is_reached_from_there() {
    if !possible(&["ip", "nft", "socat"]) || !has_vrf() {
        return;
    }
    let site = Site::with(APART);
    let (machine, apart) = (&site.machine.namespace, Namespace::new());
    machine.connect("eth1", &apart, "far0");
    apart.ip("link set far0 up");
    apart.ip("address add 192.168.5.9/24 dev far0");
    apart.ip("address add 2001:db8:5::9/64 dev far0 nodad");
    // Behind it, where only the VRF's table leads to.
    apart.ip("address add 10.55.0.1/32 dev lo");
    apart.ip("link set lo up");
    let mut service = site.start();
    service.wait_address("eth1", "192.168.5.2");
    eventually("the port of the VRF", || machine.ip("link show eth1").contains("master red").then_some(()));
    let ports =
        [port("192.168.5.2", 8080, 80, "tcp"), port("2001:db8:5::2", 8080, 80, "tcp"), port("", 8081, 80, "tcp")];
    let web = container();
    service.attach("web", &web, &ports).unwrap();
    let _server = serve(&web, "TCP", 80, "web");
    eventually("its address is no longer in question", || {
        (!machine.ip("-6 address show dev eth1").contains("tentative")).then_some(())
    });
    // The source is kept: socat shows it as IPv6.
    let answer = ask(&apart, "TCP", "192.168.5.2", 8080);
    assert!(answer.starts_with("web sees") && answer.contains("ffff:c0a8:0509"), "{answer:?}");
    let answer = ask(&apart, "TCP", "2001:db8:5::2", 8080);
    assert!(answer.starts_with("web sees") && answer.contains("2001:0db8:0005"), "{answer:?}");
    apart.ip("route replace 192.168.5.0/24 dev far0 src 10.55.0.1");
    let answer = ask(&apart, "TCP", "192.168.5.2", 8080);
    assert!(answer.starts_with("web sees") && answer.contains("ffff:0a37:0001"), "{answer:?}");
    for (from, address) in [(&apart, "192.168.5.2"), (&site.outside, HOST[0])] {
        assert!(ask(from, "TCP", address, 8081).starts_with("web sees"), "for all addresses, from {address}");
    }
    assert!(is_shut(&site.outside, HOST[0], 8080));
    // Without the VRF nothing of it is left.
    service.apply(&site.configuration(""));
    eventually("its rules are gone", || (!machine.ip("rule show").contains("fwmark")).then_some(()));
    eventually("its marks are gone", || {
        (!machine.run("nft list table inet berth").contains("mark set ")).then_some(())
    });
}
