//! `allow_out` and `deny_out` of containers and networks: where to they may connect.

use std::net::UdpSocket;

use berth_control::message::Attachment;

use crate::support::site::{
    HOST, OUTSIDE, Site, ask, container, is_shut, is_silent, joined, link_local, port, ruled, serve,
};
use crate::support::{Namespace, eventually, on, possible, wanted};

const TOOLS: &[&str] = &["ip", "nft", "socat", "dig"];
/// The machine's own addresses on `front`.
const GATEWAYS: [&str; 2] = ["10.9.0.1", "fd09::1"];
const NETWORKS: &str = "[networks.side]\nallow = [{ network = 'front' }]\n\
    [networks.front]\nsubnets = ['10.9.0.0/24', 'fd09::/64']\n";

fn web(rules: &str) -> Attachment {
    ruled(on(wanted("web", &[port("", 8080, 80, "tcp")]), &[("front", "")]), rules)
}

/// The machine's address on a container's network.
fn gateway_of(container: &Namespace, family: usize) -> String {
    let routes = container.ip(["-4 route show default", "-6 route show default"][family]);
    routes.split_whitespace().nth(2).unwrap().to_owned()
}

#[test]
fn a_container_connects_only_where_it_may() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(&format!("[network]\ninbound = [9000, '9001/udp']\n{NETWORKS}"));
    let mut service = site.start();
    let (outside, host) = (&site.outside, &site.machine.namespace);
    let namespace = container();
    let rules = "allow_out = [{ container = 'db', ports = [5432, '5353/udp'] },
        { address = '192.0.2.1/32', ports = [7100] }, { address = '2001:db8::1/128', ports = [7100] }]";
    let addresses = service.attach_as(web(rules), &namespace).unwrap();
    let db = container();
    let of_db = service.attach_as(on(wanted("db", &[]), &[("front", "")]), &db).unwrap();
    let (other, far) = (joined(&mut service, "other", "front"), container());
    let of_other = service.attach_as(on(wanted("other", &[]), &[("front", "")]), &other).unwrap();
    let of_far = service.attach_as(on(wanted("far", &[]), &[("side", "")]), &far).unwrap();
    let _servers = [
        (&db, "TCP", 5432),
        (&db, "TCP", 80),
        (&db, "UDP", 5353),
        (&other, "TCP", 5432),
        (&other, "UDP", 5353),
        (&far, "TCP", 5432),
        (outside, "TCP", 7100),
        (outside, "TCP", 7101),
        (host, "TCP", 9000),
        (host, "UDP", 9001),
        (&namespace, "TCP", 80),
        (&namespace, "UDP", 7001),
    ]
    .map(|(namespace, protocol, port)| serve(namespace, protocol, port, "it"));
    let hears = |protocol, address: &str, port| ask(&namespace, protocol, address, port).starts_with("it sees");
    for family in 0..2 {
        let (db, other_address, far) = (&of_db[family], &of_other[family], &of_far[family]);
        assert!(hears("TCP", db, 5432) && hears("UDP", db, 5353), "{db}");
        assert!(is_shut(&namespace, db, 80), "another port of {db}");
        assert!(is_shut(&namespace, other_address, 5432), "another container, {other_address}");
        assert!(is_silent(&namespace, other_address, 5353), "another container, {other_address}");
        assert!(is_shut(&namespace, far, 5432), "another network, {far}");
        assert!(ask(&other, "TCP", far, 5432).starts_with("it sees"), "which others reach, {far}");
        assert!(hears("TCP", OUTSIDE[family], 7100));
        assert!(is_shut(&namespace, OUTSIDE[family], 7101), "another port outside");
        for address in [HOST[family], GATEWAYS[family]] {
            assert!(is_shut(&namespace, address, 9000), "the machine, {address}");
            assert!(is_silent(&namespace, address, 9001), "the machine, {address}");
            assert!(ask(&other, "TCP", address, 9000).starts_with("it sees"), "{address}");
        }
        // What others begin is answered, whoever they are.
        let own = &addresses[family];
        assert!(ask(&other, "TCP", own, 80).starts_with("it sees"), "{own}");
        assert!(ask(&other, "UDP", own, 7001).starts_with("it sees"), "{own}");
        assert!(ask(host, "UDP", own, 7001).starts_with("it sees"), "{own}");
        assert!(ask(outside, "TCP", HOST[family], 8080).starts_with("it sees"));
        let name = namespace.run(&format!("dig +short +time=3 +tries=2 @{} other", GATEWAYS[family]));
        assert_eq!(name.trim(), of_other[0], "the resolver");
    }

    // Other rules, without anything being begun anew.
    assert_eq!(service.attach_as(web("deny_out = [{ container = 'other' }]"), &namespace).unwrap(), addresses);
    assert!(is_shut(&namespace, &of_other[0], 5432));
    assert!(hears("TCP", &of_db[0], 80) && hears("TCP", OUTSIDE[1], 7101) && hears("TCP", GATEWAYS[0], 9000));
    // They only take away: who is connected to has the last word, and the machine is as shut as it was.
    let guarded = ruled(on(wanted("db", &[]), &[("front", "")]), "deny = [{ container = 'web' }]");
    service.attach_as(guarded, &db).unwrap();
    let all = "allow_out = [{ address = '0.0.0.0/0' }, { address = '::/0' }, { container = 'db' }]";
    service.attach_as(web(all), &namespace).unwrap();
    let _shut = serve(host, "TCP", 9100, "it");
    for family in 0..2 {
        assert!(is_shut(&namespace, &of_db[family], 80) && is_shut(&namespace, GATEWAYS[family], 9100));
        assert!(hears("TCP", OUTSIDE[family], 7101) && hears("TCP", GATEWAYS[family], 9000));
    }
}

#[test]
fn where_to_a_container_may_holds_for_addresses_of_the_link_and_behind_published_ports() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(&format!("[network]\ninbound = [9000]\n{NETWORKS}"));
    let mut service = site.start();
    let namespace = container();
    service.attach_as(web("allow_out = [{ container = 'db', ports = [80] }]"), &namespace).unwrap();
    let db = container();
    let published = on(wanted("db", &[port("", 8081, 80, "tcp"), port("", 8082, 81, "tcp")]), &[("front", "")]);
    service.attach_as(published, &db).unwrap();
    let (other, host) = (joined(&mut service, "other", "front"), &site.machine.namespace);
    let _servers =
        [(&db, "TCP", 80), (&db, "TCP", 81), (&other, "TCP", 80), (host, "TCP", 9000), (&namespace, "UDP", 7001)]
            .map(|(namespace, protocol, port)| serve(namespace, protocol, port, "it"));
    let bridge = host.ip("-o link show type bridge").split(": ").nth(1).unwrap().to_owned();
    assert!(ask(&namespace, "TCP", &link_local(&db, "eth0", "eth0"), 80).starts_with("it sees"));
    assert!(is_shut(&namespace, &link_local(&other, "eth0", "eth0"), 80));
    assert!(is_shut(&namespace, &link_local(host, &bridge, "eth0"), 9000), "nor the machine");
    assert!(ask(&other, "TCP", &link_local(host, &bridge, "eth0"), 9000).starts_with("it sees"));
    // What the machine asks is answered.
    let of_web = link_local(&namespace, "eth0", &bridge);
    assert!(ask(host, "UDP", &of_web, 7001).starts_with("it sees"));
    for address in HOST {
        assert!(ask(&namespace, "TCP", address, 8081).starts_with("it sees"), "{address}");
        assert!(is_shut(&namespace, address, 8082), "where it ends, {address}");
    }
    // Whatever address it gives itself.
    namespace.ip("address add 2001:db8:5::9/64 dev eth0 nodad");
    other.ip("address add 2001:db8:5::8/64 dev eth0 nodad");
    assert!(is_shut(&namespace, "2001:db8:5::8", 80));
}

#[test]
fn a_network_says_where_to_beyond_it_its_containers_may() {
    if !possible(TOOLS) {
        return;
    }
    let networks = |rules: &str| format!("{NETWORKS}{rules}\n");
    let rules = networks("deny_out = [{ ports = [25] }]\nallow_out = [{ network = 'side' }]");
    let site = Site::with(&format!("[network]\ninbound = [9000, '9001/udp']\n{rules}"));
    let mut service = site.start();
    let (near, namespace, far) = (joined(&mut service, "near", "front"), container(), container());
    let of_near = service.attach_as(on(wanted("near", &[]), &[("front", "")]), &near).unwrap();
    let of_far = service.attach_as(on(wanted("far", &[]), &[("side", "")]), &far).unwrap();
    service.attach_as(web(""), &namespace).unwrap();
    let host = &site.machine.namespace;
    let _servers = [(&near, 80), (&near, 25), (&far, 80), (&far, 25), (&site.outside, 80), (host, 9000)]
        .map(|(namespace, port)| serve(namespace, "TCP", port, "it"));
    let _server = serve(host, "UDP", 9001, "it");
    let hears = |address: &str, port| ask(&namespace, "TCP", address, port).starts_with("it sees");
    for family in 0..2 {
        assert!(hears(&of_near[family], 80) && hears(&of_far[family], 80));
        assert!(is_shut(&namespace, &of_near[family], 25) && is_shut(&namespace, &of_far[family], 25));
        assert!(is_shut(&namespace, OUTSIDE[family], 80));
        for gateway in [GATEWAYS[family], &gateway_of(&far, family)] {
            assert!(is_shut(&namespace, gateway, 9000), "the machine, {gateway}");
            assert!(is_silent(&namespace, gateway, 9001), "the machine, {gateway}");
        }
    }
    // Whatever address it gives itself.
    namespace.ip("address add 10.9.0.77/24 dev eth0");
    let question = "echo hello | socat -t1 -T1 - TCP:10.9.0.1:9000,bind=10.9.0.77,connect-timeout=1";
    assert!(namespace.try_run(&format!("sh -c '{question}'")).stdout.is_empty(), "the machine, from another address");
    // One of its own takes the place of the network's.
    service.attach_as(web("allow_out = [{ address = '192.0.2.1/32' }]"), &namespace).unwrap();
    assert!(hears(OUTSIDE[0], 80) && is_shut(&namespace, &of_near[0], 80) && is_shut(&namespace, OUTSIDE[1], 80));
    service.attach_as(web(""), &namespace).unwrap();
    service.apply(&site.configuration(&networks("")));
    eventually("they may again", || hears(OUTSIDE[1], 80).then_some(()));
    let shown = site.machine.namespace.run("nft list tables");
    assert!(shown.contains("table bridge berth"), "`side` still has rules: {shown}");
}

#[test]
fn a_neighbour_that_asks_without_end_takes_no_answers_from_others() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with("[networks.front]\n");
    let mut service = site.start();
    let (db, other, stranger) = (container(), container(), joined(&mut service, "stranger", "front"));
    let rules = "allow = [{ container = 'web' }]\nallow_out = [{ network = 'front' }]";
    let of_db = service.attach_as(ruled(on(wanted("db", &[]), &[("front", "")]), rules), &db).unwrap();
    let of_other = service.attach_as(on(wanted("other", &[]), &[("front", "")]), &other).unwrap();
    let _server = serve(&other, "UDP", 7000, "other");
    // More than are followed at a time; nothing of it passes.
    stranger.within(|| {
        for port in 2000..60_000 {
            let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
            for to in [7001, 7002] {
                socket.send_to(b"question", (of_db[0].as_str(), to)).unwrap();
            }
        }
    });
    for address in of_other {
        assert!(ask(&db, "UDP", &address, 7000).starts_with("other sees"), "{address}");
    }
}
