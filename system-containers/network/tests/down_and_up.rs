//! What a link has that somebody sets down and up again: the kernel takes routes away with that, and addresses of IPv6.

use crate::support::lan::Lan;
use crate::support::site::{HOST, Site};
use crate::support::{Machine, Namespace, eventually, possible};

/// A tagged link stands on the one that goes down, and goes down with it.
const TAGGED: &str = "[network.links.tagged]\nvlan = { link = 'eth0', id = 7 }\ndhcp = false\n\
    addresses = ['10.7.0.2/24', 'fd07::2/64']\n\
    routes = [{ destination = '10.8.0.0/16', gateway = '10.7.0.1' }, { destination = 'fd08::/64', gateway = 'fd07::1' }]\n";

fn down_and_up(namespace: &Namespace, link: &str) {
    namespace.ip(&format!("link set {link} down"));
    assert_eq!(namespace.ip("route show default"), "");
    namespace.ip(&format!("link set {link} up"));
}

fn has_vlans() -> bool {
    let namespace = Namespace::new();
    // The loopback takes none.
    namespace.ip("link add below type bridge");
    namespace.try_run("ip link add link below name probe type vlan id 7").status.success()
}

#[test]
fn a_link_that_was_down_has_its_routes_and_addresses_again() {
    if !possible(&["ip"]) {
        return;
    }
    let tagged = has_vlans();
    let site = Site::with(if tagged { TAGGED } else { "" });
    let mut service = site.start();
    if tagged {
        service.wait_address("tagged", "fd07::2");
    }
    let machine = &site.machine.namespace;
    let routes = || machine.ip("route") + &machine.ip("-6 route");
    let wanted = ["default via 192.0.2.1", "default via 2001:db8::1"];
    let of_tagged = ["10.8.0.0/16 via 10.7.0.1", "fd08::/64 via fd07::1"].into_iter().filter(|_| tagged);
    let wanted: Vec<&str> = wanted.into_iter().chain(of_tagged).collect();
    let whole = |routes: &str| wanted.iter().all(|route| routes.contains(route));
    assert!(whole(&routes()), "{}", routes());
    // Twice: the second time is no other than the first.
    for _ in 0..2 {
        down_and_up(machine, "eth0");
        eventually("all routes are back", || whole(&routes()).then_some(()));
        for (link, address) in
            [("eth0", HOST[1]), ("tagged", "fd07::2")].into_iter().filter(|it| tagged || it.0 == "eth0")
        {
            assert!(machine.ip(&format!("-6 address show dev {link}")).contains(address), "{address}");
        }
    }
}

#[test]
fn a_lease_goes_on_when_its_link_was_down_and_nobody_answers() {
    if !possible(&["ip", "dnsmasq"]) {
        return;
    }
    let machine = Machine::new("");
    let lan = Lan::new(&machine);
    let server = lan.serve("10.77.0.50,10.77.0.99,3600", &["--dhcp-option=3,10.77.0.1"]);
    let mut service = machine.start();
    service.wait_ready();
    service.wait_address("eth0", "10.77.0.");
    let has_route = || machine.namespace.ip("route show default").contains("via 10.77.0.1").then_some(());
    eventually("a way out", has_route);
    drop(server);
    down_and_up(&machine.namespace, "eth0");
    eventually("a way out again", has_route);
}
