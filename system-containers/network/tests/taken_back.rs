//! What a link was given goes with who gave it.

use crate::support;
use crate::support::lan::Lan;
use crate::support::router::Router;
use crate::support::{Machine, eventually, possible};

const RANGE: &str = "10.77.0.50,10.77.0.99,1h";
const MTU: &str = "--dhcp-option=option:mtu,1400";
const STATIC: &str = "[network.links.eth0]\naddresses = ['192.0.2.7/24']\n";

fn until_mtu(machine: &Machine, mtu: u32) {
    let wanted = format!(" mtu {mtu} ");
    eventually(&wanted, || machine.namespace.ip("link show dev eth0").contains(&wanted).then_some(()));
}

#[test]
fn the_mtu_of_a_lease_goes_with_it_or_with_the_next_one_that_has_none() {
    if !possible(&["ip", "dnsmasq"]) {
        return;
    }
    let machine = Machine::new("");
    let lan = Lan::new(&machine);
    let mut service = machine.start();
    let server = lan.serve(RANGE, &[MTU]);
    service.wait_address("eth0", "10.77.0.");
    until_mtu(&machine, 1400);
    service.apply(STATIC);
    service.wait_address("eth0", "192.0.2.7");
    until_mtu(&machine, 1500);
    service.apply("");
    service.wait_address("eth0", "10.77.0.");
    until_mtu(&machine, 1400);
    // The configuration's counts more, and is taken back too.
    service.apply("[network.links.eth0]\nmtu = 1300\n");
    until_mtu(&machine, 1300);
    service.apply("");
    until_mtu(&machine, 1400);
    // The server has another opinion; the client asks it when the cable is plugged in again.
    drop(server);
    std::fs::write(lan.log.path(), "").unwrap();
    let server = lan.serve(RANGE, &[]);
    lan.namespace.ip("link set lan0 down");
    service.wait_lack("eth0", &["no carrier"]);
    lan.namespace.ip("link set lan0 up");
    until_mtu(&machine, 1500);
    // A lease of an earlier run.
    drop((server, service));
    std::fs::write(lan.log.path(), "").unwrap();
    let _server = lan.serve(RANGE, &[MTU]);
    let mut service = machine.start();
    service.wait_address("eth0", "10.77.0.");
    until_mtu(&machine, 1400);
    drop(service);
    let mut service = machine.start();
    service.wait_ready();
    service.apply(STATIC);
    until_mtu(&machine, 1500);
}

#[test]
fn the_mtu_of_the_configuration_goes_with_it_although_the_service_has_started_anew() {
    if !possible(&["ip"]) {
        return;
    }
    let machine = Machine::new("[network.links.eth0]\ndhcp = false\nmtu = 1300\n");
    machine.namespace.connect("eth0", &machine.namespace, "eth1");
    machine.start().wait_ready();
    until_mtu(&machine, 1300);
    let mut service = machine.start();
    service.wait_ready();
    service.apply("[network.links.eth0]\ndhcp = false\n");
    until_mtu(&machine, 1500);
}

#[test]
fn what_routers_brought_is_gone_when_nobody_listens_to_them_any_more() {
    if !possible(&["ip", "radvd"]) {
        return;
    }
    let machine = Machine::new("[network.links.eth0]\nprivacy = true\n");
    let router = Router::new(&machine);
    let mut service = machine.start();
    service.wait_ready();
    let _advertising = router.advertise("MinRtrAdvInterval 3; MaxRtrAdvInterval 4; prefix fd77::/64 { };");
    let is_there = || {
        let routes = machine.namespace.ip("-6 route show dev eth0");
        machine.namespace.ip("-6 address show dev eth0").contains("fd77:") && routes.contains("default via fe80:")
    };
    let is_gone = || {
        let routes = machine.namespace.ip("-6 route show dev eth0");
        !machine.namespace.ip("-6 address show dev eth0").contains("fd77:")
            && !routes.contains("default")
            && !routes.contains("fd77:")
    };
    let fixed = "[network.links.eth0]\nipv6 = 'static'\naddresses = ['2001:db8::7/64']\n";
    eventually("all that routers bring", || is_there().then_some(()));
    // Somebody else's also ends.
    machine.namespace.ip("address add 2001:db8:1::9/64 dev eth0 valid_lft 3000 preferred_lft 3000 nodad");
    let others_stay = || {
        let shown = machine.namespace.ip("-6 address show dev eth0") + &machine.namespace.ip("-6 route show dev eth0");
        assert!(shown.contains("2001:db8:1::9/64") && shown.contains("2001:db8:1::/64"), "{shown}");
    };
    service.apply(fixed);
    service.wait_address("eth0", "2001:db8::7");
    eventually("nothing of it", || is_gone().then_some(()));
    others_stay();
    service.apply("");
    eventually("all that routers bring", || is_there().then_some(()));
    // The configuration has changed while nobody was there.
    drop(service);
    let mut machine = machine;
    machine.network = support::networking(fixed);
    machine.start().wait_address("eth0", "2001:db8::7");
    let shown = machine.namespace.ip("-6 address show dev eth0") + &machine.namespace.ip("-6 route show dev eth0");
    assert!(!shown.contains("fd77:") && !shown.contains("default via"), "{shown}");
    assert!(shown.contains("2001:db8:1::9/64") && shown.contains("2001:db8:1::/64"), "{shown}");
}
