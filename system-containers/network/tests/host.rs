//! The links of the host, against real servers in network namespaces.

use std::fs;
use std::time::Instant;

use berth_control::message::{Notice, Request};

use crate::support::lan::Lan;
use crate::support::router::Router;
use crate::support::{Machine, Namespace, eventually, networking, possible};

const SERVER: &[&str] = &["ip", "dnsmasq"];

#[test]
fn a_lease_brings_address_routes_names_and_mtu() {
    if !possible(SERVER) {
        return;
    }
    let machine = Machine::new("");
    let lan = Lan::new(&machine);
    let _server = lan.serve(
        "10.77.0.50,10.77.0.99,1h",
        &[
            "--dhcp-option=option:dns-server,10.77.0.1,10.77.0.2",
            "--dhcp-option=option:domain-name,example.org",
            "--dhcp-option=option:domain-search,a.example.org,b.example.org",
            "--dhcp-option=option:mtu,1400",
            "--dhcp-option=option:classless-static-route,0.0.0.0/0,10.77.0.1,192.168.9.0/24,10.77.0.7",
            "--dhcp-option-force=12,dock1",
        ],
    );
    let mut service = machine.start();
    // Which of the two comes first is not said; links that were told meanwhile are remembered.
    let name = service.wait("a host name", |request| match request {
        Request::HostName { name } => Some(name.clone()),
        _ => None,
    });
    let address = service.wait_address("eth0", "10.77.0.");
    eprintln!("address {:?} after the program was started", service.started.elapsed());
    assert!(address.ends_with("/24"));
    assert_eq!(name, "dock1");
    let routes = eventually("routes", || {
        let routes = machine.namespace.ip("route show proto dhcp");
        (routes.lines().count() == 2).then_some(routes)
    });
    assert!(routes.contains("default via 10.77.0.1 dev eth0"), "{routes}");
    assert!(routes.contains("192.168.9.0/24 via 10.77.0.7"), "{routes}");
    let link = machine.namespace.ip("address show dev eth0");
    assert!(link.contains("mtu 1400"), "{link}");
    assert!(link.contains("valid_lft 3600sec") || link.contains("valid_lft 359"), "{link}");
    let resolv_conf = service.file("resolv.upstream.conf");
    assert!(resolv_conf.contains("nameserver 10.77.0.1\nnameserver 10.77.0.2\n"), "{resolv_conf}");
    assert!(resolv_conf.contains("search example.org a.example.org b.example.org\n"), "{resolv_conf}");
    assert!(service.file("hosts").contains("127.0.0.1 localhost"));
    assert!(machine.namespace.ip("link show lo").contains("UP"));
    // At rest nothing is open on the network: only the machine's own resolver, on the loopback.
    eventually("sockets are closed", || {
        let sockets = machine.namespace.run("cat /proc/net/udp /proc/net/packet");
        let open = sockets.lines().map(str::trim_start).filter(|line| !line.starts_with('s'));
        (open.filter(|line| !line.contains("3500007F:0035")).count() == 0).then_some(())
    });
}

#[test]
fn ready_does_not_wait_for_carrier_or_server() {
    if !possible(&["ip"]) {
        return;
    }
    let machine = Machine::new("");
    let other = Namespace::new();
    machine.namespace.connect("eth0", &other, "lan0");
    let mut service = machine.start();
    service.wait_ready();
    assert!(service.links.iter().any(|link| link.name == "eth0" && !link.carrier), "{:?}", service.links);
    other.ip("link set lan0 up");
    service.wait("carrier", |request| match request {
        Request::Links { links } => links.iter().any(|link| link.carrier).then_some(()),
        _ => None,
    });
}

#[test]
fn a_restart_asks_for_the_same_address_and_a_refused_one_is_given_up() {
    if !possible(SERVER) {
        return;
    }
    let machine = Machine::new("");
    let lan = Lan::new(&machine);
    let first = {
        let _server = lan.serve("10.77.0.50,10.77.0.99,1h", &[]);
        let first = machine.start().wait_address("eth0", "10.77.0.");
        machine.namespace.ip("address flush dev eth0");
        let before = lan.log_text().matches("DHCPDISCOVER").count();
        let mut second = machine.start();
        assert_eq!(second.wait_address("eth0", "10.77.0."), first);
        eprintln!("the same address {:?} after the program was started again", second.started.elapsed());
        assert_eq!(lan.log_text().matches("DHCPDISCOVER").count(), before, "it asked for the address it had");
        first
    };
    machine.namespace.ip("address flush dev eth0");
    fs::write(lan.leases.path(), "").unwrap();
    fs::write(lan.log.path(), "").unwrap();
    lan.namespace.ip("address add 10.88.0.1/24 dev lan0");
    lan.namespace.ip("address del 10.77.0.1/24 dev lan0");
    let _server = lan.serve("10.88.0.50,10.88.0.99,1h", &["--dhcp-authoritative"]);
    let second = machine.start().wait_address("eth0", "10.");
    assert!(second.starts_with("10.88.0."), "{first} {second}");
    assert!(lan.log_text().contains("DHCPNAK"));
}

#[test]
fn a_lease_that_has_not_ended_is_used_while_its_server_is_away() {
    if !possible(SERVER) {
        return;
    }
    let machine = Machine::new("");
    let lan = Lan::new(&machine);
    let server = lan.serve("10.77.0.50,10.77.0.99,1h", &["--dhcp-option=option:router,10.77.0.1"]);
    let address = machine.start().wait_address("eth0", "10.77.0.");
    drop(server);
    machine.namespace.ip("address flush dev eth0");
    let mut service = machine.start();
    assert_eq!(service.wait_address("eth0", "10.77.0."), address);
    service.wait_lack("eth0", &["no DHCP server prolongs the lease"]);
    let shown = machine.namespace.ip("address show dev eth0");
    assert!(!shown.contains("valid_lft 3600sec") && !shown.contains("forever"), "{shown}");
    assert!(machine.namespace.ip("route show default").contains("via 10.77.0.1"));
}

#[test]
fn a_card_that_is_plugged_in_later_is_taken_up_and_one_that_goes_is_forgotten() {
    if !possible(SERVER) {
        return;
    }
    let machine = Machine::new("");
    let mut service = machine.start();
    service.wait_ready();
    let plugged = Instant::now();
    let lan = Lan::new(&machine);
    let _server = lan.serve("10.77.0.50,10.77.0.99,1h", &[]);
    service.wait_address("eth0", "10.77.0.");
    eprintln!("address {:?} after the card and its server", plugged.elapsed());
    machine.namespace.ip("link del eth0");
    service.wait("no link", |request| match request {
        Request::Links { links } => links.is_empty().then_some(()),
        _ => None,
    });
}

#[test]
fn fixed_addresses_routes_and_names_come_from_the_configuration_and_follow_it() {
    if !possible(&["ip"]) {
        return;
    }
    let configuration = r#"
        [network]
        dns = ["192.0.2.53"]
        dns_search = ["example.org"]
        [network.links.uplink]
        match = { mac = "02:00:00:00:77:*" }
        addresses = ["192.0.2.7/24", "2001:db8::7/64"]
        gateways = ["192.0.2.1", "2001:db8::1"]
        routes = [{ destination = "198.51.100.0/24", gateway = "192.0.2.9", metric = 7 }]
        mtu = 1300
        ipv6 = "static"
    "#;
    let mut machine = Machine::new(configuration);
    let other = Namespace::new();
    machine.namespace.connect("eth0", &other, "lan0");
    machine.namespace.ip("link set eth0 address 02:00:00:00:77:01");
    other.ip("link set lan0 up");
    let mut service = machine.start();
    service.wait_ready();
    service.wait_address("eth0", "192.0.2.7/24");
    service.wait_address("eth0", "2001:db8::7/64");
    let routes = machine.namespace.ip("route") + &machine.namespace.ip("-6 route");
    assert!(routes.contains("default via 192.0.2.1 dev eth0 proto static"), "{routes}");
    assert!(routes.contains("default via 2001:db8::1 dev eth0 proto static"), "{routes}");
    assert!(routes.contains("198.51.100.0/24 via 192.0.2.9 dev eth0 proto static metric 7"), "{routes}");
    assert!(machine.namespace.ip("link show eth0").contains("mtu 1300"));
    assert!(service.file("resolv.upstream.conf").contains("nameserver 192.0.2.53\nsearch example.org\n"));

    machine.network = networking(&configuration.replace("192.0.2.7/24", "192.0.2.8/24").replace("\"192.0.2.1\", ", ""));
    service.network = machine.network.clone();
    service.notify(Notice::NetworkConfigurationChanged, &[]);
    service.wait_address("eth0", "192.0.2.8/24");
    service.wait_no_address("eth0", "192.0.2.7/24");
    let routes = eventually("the new routes", || {
        let routes = machine.namespace.ip("route");
        (routes.contains("198.51.100.0/24") && !routes.contains("default")).then_some(routes)
    });
    assert!(!routes.contains("192.0.2.1 "), "{routes}");
}

/// What routers say in these tests.
const NAMES: &str = "prefix fd77::/64 { }; RDNSS fd77::53 { }; DNSSL lab.example.org { };";

#[test]
fn what_routers_said_of_names_is_known_again_after_a_restart() {
    if !possible(&["ip", "radvd"]) {
        return;
    }
    let machine = Machine::new("");
    let router = Router::new(&machine);
    // It says something only to who asks.
    let _program = router.advertise(&format!("UnicastOnly on; {NAMES}"));
    for _ in 0..2 {
        let mut service = machine.start();
        service.wait_ready();
        eventually("the resolver", || service.file("resolv.upstream.conf").contains("fd77::53").then_some(()));
    }
}

#[test]
fn router_advertisements_bring_addresses_routes_and_resolvers() {
    if !possible(&["ip", "radvd"]) {
        return;
    }
    let machine = Machine::new("");
    let router = Router::new(&machine);
    let mut service = machine.start();
    service.wait_ready();
    let _program = router.advertise(&format!("MinRtrAdvInterval 3; MaxRtrAdvInterval 4; {NAMES}"));
    service.wait_address("eth0", "fd77:");
    let resolv_conf = eventually("the resolver", || {
        Some(service.file("resolv.upstream.conf")).filter(|text| text.contains("fd77::53") && text.contains("search"))
    });
    assert!(resolv_conf.contains("search lab.example.org"), "{resolv_conf}");
    assert!(machine.namespace.ip("-6 route").contains("default via fe80::"));
    // The first container makes the machine a router, which by the kernel's default listens to no other router.
    service.attach("web", &Namespace::new(), &[]).unwrap();
    assert_eq!(machine.namespace.run("cat /proc/sys/net/ipv6/conf/all/forwarding").trim(), "1");
    assert!(machine.namespace.ip("-6 route").contains("default via fe80::"));
}

#[test]
fn an_address_that_another_machine_has_is_declined() {
    if !possible(SERVER) {
        return;
    }
    let machine = Machine::new("");
    let (switch, third) = (Namespace::new(), Namespace::new());
    switch.ip("link add switch type bridge forward_delay 0");
    switch.ip("link set switch up");
    machine.namespace.connect("eth0", &switch, "machine");
    switch.connect("third", &third, "eth0");
    for port in ["machine", "third"] {
        switch.ip(&format!("link set {port} master switch up"));
    }
    let lan = Lan::behind(&switch);
    // Another machine has the first address of the two that the server has.
    third.ip("address add 10.77.0.50/24 dev eth0");
    third.ip("link set eth0 up");
    let _server = lan.serve("10.77.0.50,10.77.0.51,1h", &["--dhcp-sequential-ip"]);
    let mut service = machine.start();
    eventually("the address is declined", || lan.log_text().contains("DHCPDECLINE").then_some(()));
    service.wait_lack("eth0", &["another machine has 10.77.0.50"]);
    service.wait_address("eth0", "10.77.0.51/24");
}

#[test]
fn without_a_server_there_is_an_address_of_the_link_until_one_comes() {
    if !possible(SERVER) {
        return;
    }
    let machine = Machine::new("");
    let lan = Lan::new(&machine);
    let mut service = machine.start();
    service.wait_lack("eth0", &["no DHCP server offers an address, asked 2 times"]);
    service.wait_address("eth0", "169.254.");
    service.wait_lack("eth0", &["good on this link only"]);
    let _server = lan.serve("10.77.0.50,10.77.0.99,1h", &[]);
    // Another cable: the client asks at once.
    lan.namespace.ip("link set lan0 down");
    service.wait_lack("eth0", &["no carrier"]);
    lan.namespace.ip("link set lan0 up");
    service.wait_address("eth0", "10.77.0.");
    service.wait_no_address("eth0", "169.254.");
}

#[test]
fn a_lease_after_a_restart_takes_the_place_of_what_was_there_before() {
    if !possible(SERVER) {
        return;
    }
    let machine = Machine::new("");
    let lan = Lan::new(&machine);
    machine.start().wait_address("eth0", "169.254.");
    {
        let _server = lan.serve("10.77.0.50,10.77.0.99,1h", &[]);
        let mut service = machine.start();
        service.wait_address("eth0", "10.77.0.");
        service.wait_no_address("eth0", "169.254.");
    }
    // Another network, whose server refuses the address.
    fs::write(lan.leases.path(), "").unwrap();
    fs::write(lan.log.path(), "").unwrap();
    lan.namespace.ip("address add 10.88.0.1/24 dev lan0");
    lan.namespace.ip("address del 10.77.0.1/24 dev lan0");
    let _server = lan.serve("10.88.0.50,10.88.0.99,1h", &["--dhcp-authoritative"]);
    let mut service = machine.start();
    service.wait_address("eth0", "10.88.0.");
    service.wait_no_address("eth0", "10.77.0.");
}

#[test]
fn what_the_configuration_has_lost_meanwhile_is_gone_after_a_restart() {
    if !possible(&["ip"]) {
        return;
    }
    let configuration = |addresses: &str, routes: &str| {
        format!(
            "[network.links.eth0]\nipv6 = 'static'\naddresses = ['192.0.2.7/24', {addresses}]\nroutes = [{routes}]\n"
        )
    };
    let stays = "{ destination = '198.51.100.0/24', gateway = '192.0.2.1' }, \
                 { destination = '2001:db8:7::/64', gateway = '2001:db8::1' }";
    let goes = "{ destination = '198.51.101.0/24', gateway = '192.0.2.1' }, \
                { destination = '198.51.102.0/24', gateway = '192.0.2.1', table = 77 }, \
                { destination = '2001:db8:8::/64', gateway = '2001:db8::1', metric = 9 }";
    let mut machine =
        Machine::new(&configuration("'192.0.2.8/24', '2001:db8::7/64', '2001:db8::8/64'", &format!("{stays}, {goes}")));
    let other = Namespace::new();
    machine.namespace.connect("eth0", &other, "lan0");
    other.ip("link set lan0 up");
    let shown = |machine: &Machine| {
        let questions = ["-o address show dev eth0", "route show table all", "-6 route show table all"];
        questions.map(|question| machine.namespace.ip(question)).concat()
    };
    let mut first = machine.start();
    first.wait_ready();
    let parts = ["198.51.101.0", "198.51.102.0", "2001:db8:8::", "192.0.2.8/24", "2001:db8::8/64"];
    eventually("all of it", || parts.iter().all(|part| shown(&machine).contains(part)).then_some(()));
    drop(first);
    // What others have made is theirs.
    machine.namespace.ip("address add 192.0.2.99/24 dev eth0");
    machine.namespace.ip("route add 198.51.103.0/24 via 192.0.2.1");
    machine.network = networking(&configuration("'2001:db8::7/64'", stays));
    machine.start().wait_ready();
    let after = shown(&machine);
    for part in parts {
        assert!(!after.contains(part), "{part}: {after}");
    }
    let parts = ["192.0.2.7/24", "192.0.2.99/24", "2001:db8::7/64", "198.51.100.0", "198.51.103.0", "2001:db8:7::"];
    for part in parts {
        assert!(after.contains(part), "{part}: {after}");
    }
}

#[test]
fn another_link_is_used_while_the_first_has_no_carrier() {
    if !possible(&["ip"]) {
        return;
    }
    let link = |number: u32| {
        format!(
            "[network.links.eth{number}]\nmetric = {number}\nipv6 = 'static'\ndns = ['192.0.{number}.1']\n\
             addresses = ['192.0.{number}.7/24', '2001:db8:{number}::7/64']\n\
             gateways = ['192.0.{number}.1', '2001:db8:{number}::1']\n"
        )
    };
    let machine = Machine::new(&(link(1) + &link(2)));
    let others = [1, 2].map(|number| {
        let other = Namespace::new();
        machine.namespace.connect(&format!("eth{number}"), &other, "lan0");
        other.ip("link set lan0 up");
        other
    });
    let mut service = machine.start();
    service.wait_ready();
    let goes_by = |number: u32, last: u32| {
        eventually("the way", || {
            let ways = ["203.0.113.1", "2001:db8:ff::1"].map(|to| machine.namespace.ip(&format!("route get {to}")));
            ways.iter().all(|way| way.contains(&format!("dev eth{number} "))).then_some(())
        });
        let servers = format!("nameserver 192.0.{number}.1\nnameserver 192.0.{last}.1\n");
        eventually("its name server", || service.file("resolv.upstream.conf").contains(&servers).then_some(()));
    };
    goes_by(1, 2);
    others[0].ip("link set lan0 down");
    goes_by(2, 1);
    others[0].ip("link set lan0 up");
    goes_by(1, 2);
}
