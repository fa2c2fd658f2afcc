//! User-defined networks, against the kernel: who reaches whom, which addresses are given, and what a changed
//! configuration leaves behind.

use std::time::{Duration, Instant};

use berth_control::message::{Notice, Request};

use crate::support::site::{HOST, OUTSIDE, Site, ask, container, is_shut, port, serve};
use crate::support::{Namespace, Running, eventually, on, possible, wanted};

const TOOLS: &[&str] = &["ip", "nft", "socat"];

const NETWORKS: &str = "\
[networks.front]
[networks.back]
subnets = ['10.88.0.0/24', 'fd00:88::/64']
gateways = ['10.88.0.254']
internal = true
mtu = 1400
";

#[test]
fn a_bridge_that_somebody_removes_is_made_again_for_those_on_it() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with("[networks.front]\n");
    let mut service = site.start();
    let (web, other) = (container(), container());
    let web_wanted = || on(wanted("web", &[port("", 8080, 80, "tcp")]), &[("front", "")]);
    let addresses = service.attach_as(web_wanted(), &web).unwrap();
    let _server = serve(&web, "TCP", 80, "web");
    assert!(ask(&site.outside, "TCP", HOST[0], 8080).starts_with("web sees"));
    site.machine.namespace.ip("link del berth1");
    eventually("the bridge", || {
        let ports = site.machine.namespace.try_run("ip -o link show master berth1");
        String::from_utf8_lossy(&ports.stdout).contains("berth1-").then_some(())
    });
    for host in HOST {
        assert!(ask(&site.outside, "TCP", host, 8080).starts_with("web sees"), "{host}");
    }
    service.attach_as(on(wanted("other", &[]), &[("front", "")]), &other).unwrap();
    assert_eq!(service.attach_as(web_wanted(), &web).unwrap(), addresses);
    for address in &addresses {
        assert!(ask(&other, "TCP", address, 80).starts_with("web sees"), "{address}");
    }
}

/// Attaches to networks: names with the keys of a membership each, or none.
fn attach(service: &mut Running, name: &str, namespace: &Namespace, networks: &[(&str, &str)]) -> Vec<String> {
    try_attach(service, name, namespace, networks).unwrap()
}

fn try_attach(
    service: &mut Running,
    name: &str,
    namespace: &Namespace,
    networks: &[(&str, &str)],
) -> Result<Vec<String>, String> {
    service.attach_as(on(wanted(name, &[]), networks), namespace)
}

#[test]
fn containers_reach_each_other_on_a_common_network_and_nowhere_else() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let mut service = site.start();
    let (web, shop, db, alone) = (container(), container(), container(), container());
    let web_addresses = attach(&mut service, "web", &web, &[("front", "")]);
    let shop_addresses = attach(&mut service, "shop", &shop, &[("back", ""), ("front", "")]);
    let db_addresses = attach(&mut service, "db", &db, &[("back", "")]);
    let alone_addresses = attach(&mut service, "alone", &alone, &[("default", "")]);
    let _servers = [serve(&web, "TCP", 80, "web"), serve(&db, "TCP", 80, "db"), serve(&alone, "TCP", 80, "alone")];
    let _shop = serve(&shop, "TCP", 80, "shop");
    assert_eq!(shop_addresses.len(), 4);
    for family in 0..2 {
        assert!(ask(&shop, "TCP", &web_addresses[family], 80).starts_with("web sees"));
        assert!(ask(&shop, "TCP", &db_addresses[family], 80).starts_with("db sees"));
        assert!(ask(&web, "TCP", &shop_addresses[2 + family], 80).starts_with("shop sees"));
        assert!(is_shut(&web, &db_addresses[family], 80), "another network");
        assert!(is_shut(&web, &alone_addresses[family], 80), "the default network is another one too");
        assert!(is_shut(&alone, &web_addresses[family], 80));
    }
    assert!(shop.ip("route").contains("dev eth1"), "{}", shop.ip("route"));
    assert!(!shop.ip("route show default").contains("eth0"), "the internal network leads nowhere");
}

#[test]
fn an_internal_network_has_no_way_out_even_for_who_makes_one() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let mut service = site.start();
    let (db, web) = (container(), container());
    attach(&mut service, "db", &db, &[("back", "")]);
    service.attach("web", &web, &[port("", 8080, 80, "tcp")]).unwrap();
    let _servers = [serve(&site.outside, "TCP", 7000, "outside"), serve(&web, "TCP", 80, "web")];
    assert_eq!(db.ip("route show default"), "");
    db.ip("route add default via 10.88.0.254");
    db.ip("-6 route add default via fd00:88::1");
    for family in 0..2 {
        assert!(is_shut(&db, OUTSIDE[family], 7000));
        assert!(is_shut(&db, HOST[family], 8080), "nor by a published port into another network");
    }
}

#[test]
fn subnets_addresses_and_packet_sizes_are_as_declared() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let mut service = site.start();
    let (db, other) = (container(), container());
    let keys = "ipv4_address = '10.88.0.7'\nipv6_address = 'fd00:88::77'\nmac_address = '02:00:00:00:88:07'";
    assert_eq!(attach(&mut service, "db", &db, &[("back", keys)]), ["10.88.0.7", "fd00:88::77"]);
    let link = db.ip("link show eth0");
    assert!(link.contains("02:00:00:00:88:07") && link.contains("mtu 1400"), "{link}");
    let bridge = site.machine.namespace.ip("address");
    assert!(bridge.contains("10.88.0.254/24") && bridge.contains("fd00:88::1/64"), "{bridge}");
    let reason = try_attach(&mut service, "other", &other, &[("back", keys)]).unwrap_err();
    assert!(reason.contains("10.88.0.7") && reason.contains("db"), "{reason}");
    let reason = try_attach(&mut service, "other", &other, &[("nowhere", "")]).unwrap_err();
    assert!(reason.contains("nowhere"), "{reason}");
    assert_eq!(attach(&mut service, "other", &other, &[("back", "")]).len(), 2);
}

#[test]
fn an_address_is_given_once_whatever_restarts() {
    if !possible(TOOLS) {
        return;
    }
    let tiny = "[networks.tiny]\nsubnets = ['10.99.0.0/29']\n\
                [containers.fixed]\nimage = 'x'\n[containers.fixed.networks.tiny]\nipv4_address = '10.99.0.4'\n";
    let site = Site::with(tiny);
    let namespaces: Vec<Namespace> = (0..5).map(|_| container()).collect();
    let mut given = std::collections::BTreeSet::new();
    // Each by a service of its own, which knows of the others only what it finds.
    for (number, namespace) in namespaces.iter().take(4).enumerate() {
        let mut service = site.start();
        let addresses = attach(&mut service, &format!("c{number}"), namespace, &[("tiny", "")]);
        assert!(given.insert(addresses[0].clone()), "{addresses:?} again");
    }
    assert!(!given.contains("10.99.0.4"), "it is kept for the one it is promised to: {given:?}");
    let mut service = site.start();
    let reason = try_attach(&mut service, "late", &namespaces[4], &[("tiny", "")]).unwrap_err();
    assert!(reason.contains("no address is left in network tiny"), "{reason}");
    let fixed = "ipv4_address = '10.99.0.4'";
    assert_eq!(attach(&mut service, "fixed", &namespaces[4], &[("tiny", fixed)])[0], "10.99.0.4");
}

#[test]
fn a_network_that_is_another_one_now_leaves_nothing_of_the_old() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let mut service = site.start();
    let (db, web) = (container(), container());
    attach(&mut service, "db", &db, &[("back", "")]);
    let before = attach(&mut service, "web", &web, &[("front", "")]);
    let host = &site.machine.namespace;
    service.apply(&site.configuration("[networks.front]\n[networks.back]\nsubnets = ['10.89.0.0/24']\n"));
    // PID 1 starts it anew.
    service.notify(Notice::DetachNetwork { name: "db".into() }, &[]);
    let again = container();
    assert!(attach(&mut service, "db", &again, &[("back", "")])[0].starts_with("10.89.0."));
    assert!(!host.ip("address").contains("10.88.0."), "{}", host.ip("address"));
    assert_eq!(attach(&mut service, "web", &web, &[("front", "")]), before, "nothing happens to the other one");
    service.apply(&site.configuration("[networks.front]\n"));
    eventually("the bridge is gone", || (!host.ip("address").contains("10.89.0.")).then_some(()));
    assert_eq!(
        host.ip("link").matches("berth").count(),
        3,
        "a bridge, its cable, and that again as the cable's bridge"
    );
}

#[test]
fn a_hundred_networks_have_subnets_of_their_own_and_keep_them() {
    if !possible(TOOLS) {
        return;
    }
    let many: String = (0..100).map(|number| format!("[networks.n{number}]\n")).collect();
    let site = Site::with(&many);
    let namespaces: Vec<Namespace> = (0..100).map(|_| container()).collect();
    let mut service = site.start();
    let mut seen = std::collections::BTreeMap::new();
    for (number, namespace) in namespaces.iter().enumerate() {
        let addresses = attach(&mut service, "same-name", namespace, &[(&format!("n{number}"), "")]);
        seen.insert(addresses, number);
    }
    assert_eq!(seen.len(), 100);
    drop(service);
    let mut service = site.start();
    for (addresses, number) in &seen {
        let network = format!("n{number}");
        assert_eq!(&attach(&mut service, "same-name", &container(), &[(&network, "")]), addresses);
    }
}

#[test]
fn a_subnet_that_overlaps_with_the_machines_own_networks_is_named() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(
        "routes = [{ destination = '10.90.1.0/24', gateway = '192.0.2.1' }, \
         { destination = '10.91.0.0/16', gateway = '192.0.2.1' }, \
         { destination = 'fd90:0:0:1::/64', gateway = '2001:db8::1' }, \
         { destination = '10.92.1.0/24', gateway = '192.0.2.1', table = 77 }]\n\
         [networks.near]\nsubnets = ['192.0.2.128/25']\n[networks.six]\nsubnets = ['2001:db8::/64']\n\
         [networks.way]\nsubnets = ['10.90.0.0/16']\n[networks.part]\nsubnets = ['10.91.7.0/24']\n\
         [networks.way-six]\nsubnets = ['fd90::/48']\n[networks.other-table]\nsubnets = ['10.92.0.0/16']\n",
    );
    let mut service = site.start();
    for (network, parts) in [
        ("near", ["192.0.2.128/25", "192.0.2.2/24 of the machine's link eth0"]),
        ("six", ["2001:db8::/64", "2001:db8::2/64 of the machine's link eth0"]),
        ("way", ["10.90.0.0/16", "10.90.1.0/24 of the machine's link eth0"]),
        ("way-six", ["fd90::/48", "fd90:0:0:1::/64 of the machine's link eth0"]),
    ] {
        let reason = try_attach(&mut service, "web", &container(), &[(network, "")]).unwrap_err();
        assert!(parts.iter().all(|part| reason.contains(part)) && reason.contains(network), "{reason}");
    }
    // A part of what a route leads to is the machine's to give.
    attach(&mut service, "web", &container(), &[("part", "")]);
    // The machine's own packets do not look there.
    attach(&mut service, "other", &container(), &[("other-table", "")]);
    // An address may come later, such as that of a lease.
    site.machine.namespace.ip("address add 10.91.7.9/16 dev eth0");
    service.wait_lack("eth0", &["10.91.7.9/16 overlaps with 10.91.7.0/24, the subnet of the containers' network part"]);
}

#[test]
fn a_pid_1_that_was_executed_anew_is_told_everything_again() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    attach(&mut service, "web", &container(), &[("default", "")]);
    service.notify(Notice::Resumed, &[]);
    let (mut asked, mut links, mut networks) = (false, false, false);
    service.wait("all of it", |request| {
        match request {
            Request::NetworkConfiguration => asked = true,
            Request::Links { links: told } => links = told.iter().any(|link| link.name == "eth0"),
            Request::Networks { networks: told } => networks = told.iter().any(|network| network.name == "default"),
            _ => {}
        }
        (asked && links && networks).then_some(())
    });
}

#[test]
fn a_network_as_a_whole_sends_and_receives_no_more_than_its_limit() {
    if !possible(&["ip", "nft", "socat"]) {
        return;
    }
    let configuration = |keys: &str| format!("[networks.front]\n{keys}\n");
    let limited = configuration("bandwidth = { ingress = '4M', egress = '8M' }");
    let site = Site::with(&limited);
    let mut service = site.start();
    let ports = [port("", 7001, 7000, "tcp")];
    let containers = ["one", "two"].map(|name| {
        let namespace = container();
        let ports = if name == "one" { ports.as_slice() } else { &[] };
        service.attach_as(on(wanted(name, ports), &[("front", "")]), &namespace).unwrap();
        namespace
    });
    let [one, two] = &containers;
    let _sinks = [&site.outside, one].map(|place| {
        // Says how much came when all has: what is in a buffer has not.
        let sink = place.start(&["socat", "TCP4-LISTEN:7000,fork", "SYSTEM:wc -c"]);
        eventually("it listens", || place.run("cat /proc/net/tcp").contains(":1B58 ").then_some(()));
        sink
    });
    let send = |from: &Namespace, to: &str, bytes: u32| {
        let came = from.run(&format!("sh -c 'head -c {bytes} /dev/zero | socat -t 60 - TCP4:{to}'"));
        assert_eq!(came.trim(), bytes.to_string());
    };
    let together = || {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let sends = [one, two].map(|from| scope.spawn(move || send(from, "192.0.2.1:7000", 2_500_000)));
            sends.into_iter().for_each(|send| send.join().unwrap());
        });
        begun.elapsed()
    };
    let (long, limits) = (Duration::from_secs(3), "limit rate over ");
    assert!(together() > long, "five million bytes at a million in a second");
    let begun = Instant::now();
    send(&site.outside, "192.0.2.2:7001", 2_500_000);
    assert!(begun.elapsed() > long, "two and a half million at half a million");
    let link = one.ip("-o link show eth0");
    service.apply(&site.configuration(&configuration("")));
    eventually("the limits are gone", || {
        (!site.machine.namespace.run("nft list chain inet berth forward").contains(limits)).then_some(())
    });
    together();
    assert_eq!(one.ip("-o link show eth0"), link, "without being started anew");
}
