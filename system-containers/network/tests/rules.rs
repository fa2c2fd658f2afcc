//! `allow` and `deny` of containers and networks, and limits of what they send and receive.

use std::net::{SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use berth_control::message::{Attachment, Notice};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn6, sockopt};

use crate::support::site::{HOST, Site, ask, container, is_shut, is_silent, joined, link_local, port, ruled, serve};
use crate::support::{Namespace, PATIENCE, Program, Running, eventually, on, possible, wanted};

const TOOLS: &[&str] = &["ip", "nft", "socat"];

struct Db {
    namespace: Namespace,
    addresses: Vec<String>,
    _servers: Vec<Program>,
}

/// A container on `front` that listens on 5432 and 80 over TCP and on 53 over UDP; 5432 is published as 8080.
fn db(service: &mut Running, rules: &str) -> Db {
    let namespace = container();
    let addresses = service.attach_as(db_wanted(rules), &namespace).unwrap();
    let servers = [("TCP", 5432), ("TCP", 80), ("UDP", 5353)];
    let servers = servers.map(|(protocol, port)| serve(&namespace, protocol, port, "db")).into();
    Db { namespace, addresses, _servers: servers }
}

fn db_wanted(rules: &str) -> Attachment {
    ruled(on(wanted("db", &[port("", 8080, 5432, "tcp")]), &[("front", "")]), rules)
}

#[test]
fn a_container_lets_in_whom_it_allows_and_nobody_it_denies() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with("[networks.front]\n");
    let mut service = site.start();
    // It may come before those that it names.
    let db = db(&mut service, "allow = [{ container = 'web', ports = [5432, '5353/udp'] }]\n");
    let (web, other) = (joined(&mut service, "web", "front"), joined(&mut service, "other", "front"));
    let _others = serve(&other, "UDP", 7000, "other");
    for address in &db.addresses {
        assert!(ask(&web, "TCP", address, 5432).starts_with("db sees"), "{address}");
        assert!(ask(&web, "UDP", address, 5353).starts_with("db sees"), "{address}");
        assert!(is_shut(&web, address, 80), "another port");
        assert!(is_shut(&other, address, 5432), "another container");
        assert!(is_silent(&other, address, 5353), "another container");
    }
    assert!(is_shut(&site.outside, HOST[0], 8080), "nor who is outside");
    // What it asks itself is answered, also where nothing tracks connections.
    let asked = service.attach_as(on(wanted("other", &[]), &[("front", "")]), &other).unwrap();
    for address in &asked {
        assert!(ask(&db.namespace, "UDP", address, 7000).starts_with("other sees"), "{address}");
    }

    // Other rules, without anything being begun anew.
    let link = db.namespace.ip("-o link show eth0");
    let rules = "deny = [{ container = 'web' }]\n";
    assert_eq!(service.attach_as(db_wanted(rules), &db.namespace).unwrap(), db.addresses);
    assert_eq!(db.namespace.ip("-o link show eth0"), link);
    assert!(is_shut(&web, &db.addresses[0], 5432));
    assert!(ask(&other, "TCP", &db.addresses[0], 5432).starts_with("db sees"));
    assert!(ask(&site.outside, "TCP", HOST[1], 8080).starts_with("db sees"));
    let rules = "deny = [{ address = '192.0.2.0/24' }]\n";
    service.attach_as(db_wanted(rules), &db.namespace).unwrap();
    assert!(is_shut(&site.outside, HOST[0], 8080));
    assert!(ask(&site.outside, "TCP", HOST[1], 8080).starts_with("db sees"), "the other family is not meant");
    assert!(ask(&web, "TCP", &db.addresses[0], 5432).starts_with("db sees"));
    service.attach_as(db_wanted(""), &db.namespace).unwrap();
    assert!(ask(&site.outside, "TCP", HOST[0], 8080).starts_with("db sees"));
    let tables = site.machine.namespace.run("nft list tables");
    let filters = tables.lines().any(|line| line.trim_end() == "table bridge berth");
    assert!(!filters, "without rules nothing is in the way: {tables}");
}

#[test]
fn rules_hold_for_addresses_of_the_link_and_for_what_is_sent_to_many() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with("[networks.front]\n[networks.side]\n");
    let mut service = site.start();
    let db = db(&mut service, "deny = [{ container = 'web' }]\n");
    let (web, other) = (joined(&mut service, "web", "front"), joined(&mut service, "other", "front"));
    let of_db = link_local(&db.namespace, "eth0", "eth0");
    assert!(ask(&other, "TCP", &of_db, 5432).starts_with("db sees"), "{of_db}");
    assert!(is_shut(&web, &of_db, 5432), "{of_db}");
    // Whatever address it gives itself.
    web.ip("address add 2001:db8:5::9/64 dev eth0 nodad");
    db.namespace.ip("address add 2001:db8:5::8/64 dev eth0 nodad");
    assert!(is_shut(&web, "2001:db8:5::8", 5432));
    // What it asks itself is answered.
    let _webs = serve(&web, "UDP", 7000, "web");
    assert!(ask(&db.namespace, "UDP", &link_local(&web, "eth0", "eth0"), 7000).starts_with("web sees"));

    // To all who are there: the one that may comes after the one that may not.
    let heard = db.namespace.within(|| {
        let socket = UdpSocket::bind("[::]:7001").unwrap();
        socket.join_multicast_v6(&"ff02::1".parse().unwrap(), link_number()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    });
    for (namespace, text) in [(&web, "denied"), (&other, "free")] {
        namespace.within(|| {
            let to = SocketAddrV6::new("ff02::1".parse().unwrap(), 7001, 0, link_number());
            UdpSocket::bind("[::]:0").unwrap().send_to(text.as_bytes(), to).unwrap();
        });
    }
    let mut first = [0; 16];
    let length = heard.recv(&mut first).unwrap();
    assert_eq!(&first[..length], b"free");

    // The other way round: those of a network are let in by addresses of the link too, where the network is.
    service.attach_as(db_wanted("allow = [{ network = 'front' }]\n"), &db.namespace).unwrap();
    assert!(ask(&web, "TCP", &of_db, 5432).starts_with("db sees"));
    service.attach_as(db_wanted("allow = [{ network = 'side' }, { container = 'other' }]\n"), &db.namespace).unwrap();
    assert!(is_shut(&web, &of_db, 5432));
    assert!(ask(&other, "TCP", &of_db, 5432).starts_with("db sees"));
}

/// Sends a datagram as if it came from an address that the namespace does not have, for which no capability is needed.
fn send_as(namespace: &Namespace, address: &str, (to, port): (&str, u16), text: &str) {
    let with_port = |address: &str, port| SockaddrIn6::from(SocketAddrV6::new(address.parse().unwrap(), port, 0, 0));
    namespace.within(|| {
        let socket = socket::socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::empty(), None).unwrap();
        socket::setsockopt(&socket, sockopt::IpFreebind, &true).unwrap();
        socket::bind(socket.as_raw_fd(), &with_port(address, 0)).unwrap();
        socket::sendto(socket.as_raw_fd(), text.as_bytes(), &with_port(to, port), MsgFlags::empty()).unwrap();
    });
}

#[test]
fn who_sends_with_the_address_of_another_is_not_taken_for_that_one() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with("[networks.front]\n[networks.side]\n");
    let mut service = site.start();
    let (db, web, near) = (container(), container(), joined(&mut service, "near", "front"));
    let far = joined(&mut service, "far", "side");
    let db_wanted = |rules| ruled(on(wanted("db", &[port("", 9001, 7001, "udp")]), &[("front", "")]), rules);
    let of_db = service.attach_as(db_wanted(""), &db).unwrap().remove(1);
    let of_web = service.attach_as(on(wanted("web", &[]), &[("front", "")]), &web).unwrap().remove(1);
    let heard = db.within(|| UdpSocket::bind("[::]:7001").unwrap());
    heard.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut bytes = [0; 16];
        let length = heard.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let (directly, published) = ((of_db.as_str(), 7001), (HOST[1], 9001));
    let ways = [(&near, directly), (&near, published), (&far, published), (&site.outside, published)];
    // Neighbours that are known are sent to at once, so that the order stays.
    for (namespace, to) in ways.into_iter().chain([(&web, directly)]) {
        namespace.within(|| UdpSocket::bind("[::]:0").unwrap().send_to(b"free", to).unwrap());
        assert_eq!(next(), "free");
    }
    service.attach_as(db_wanted("allow = [{ container = 'web' }]\n"), &db).unwrap();
    for (number, (namespace, to)) in (0..).zip(ways) {
        send_as(namespace, &of_web, to, &format!("forged {number}"));
    }
    web.within(|| UdpSocket::bind("[::]:0").unwrap().send_to(b"its own", directly).unwrap());
    assert_eq!(next(), "its own");
    web.within(|| UdpSocket::bind("[::]:0").unwrap().send_to(b"and published", published).unwrap());
    assert_eq!(next(), "and published");
}

/// Of `eth0` in the namespace of the calling thread.
fn link_number() -> u32 {
    nix::net::if_::if_nametoindex("eth0").unwrap()
}

#[test]
fn rules_about_ports_decide_about_datagrams_in_fragments() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with("[networks.front]\n");
    let mut service = site.start();
    let db = container();
    let addresses =
        service.attach_as(db_wanted("allow = [{ container = 'web', ports = ['7001/udp'] }]\n"), &db).unwrap();
    let web = joined(&mut service, "web", "front");
    let listen = |namespace: &Namespace, port| {
        let socket = namespace.within(|| UdpSocket::bind(("::", port)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (open, shut) = (listen(&db, 7001), listen(&db, 7002));
    shut.set_nonblocking(true).unwrap();
    let mut buffer = [0; 8000];
    for address in &addresses {
        let any = if address.contains(':') { "::" } else { "0.0.0.0" };
        let socket = web.within(|| UdpSocket::bind((any, 7003)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(&[2; 6000], (address.as_str(), 7002)).unwrap();
        socket.send_to(&[1; 5000], (address.as_str(), 7001)).unwrap();
        let (length, from) = open.recv_from(&mut buffer).unwrap();
        assert_eq!((length, from.port()), (5000, 7003), "{address}");
        // What was sent before has not come.
        assert!(shut.recv(&mut buffer).is_err(), "{address}");
        // The answer to what it asks itself.
        open.send_to(&[3; 16], from).unwrap();
        assert_eq!(socket.recv(&mut buffer).unwrap(), 16);
    }
    // An answer in fragments to a container that nobody may reach.
    service.attach_as(db_wanted("allow = [{ address = '192.0.2.99/32' }]\n"), &db).unwrap();
    for address in service.attach_as(on(wanted("web", &[]), &[("front", "")]), &web).unwrap() {
        let server = listen(&web, 7004);
        open.send_to(&[4; 16], (address.as_str(), 7004)).unwrap();
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&[5; 7000], from).unwrap();
        assert_eq!(open.recv(&mut buffer).unwrap(), 7000, "{address}");
    }
}

#[test]
fn a_network_lets_in_other_networks_that_it_allows() {
    if !possible(TOOLS) {
        return;
    }
    let networks = |rules: &str| {
        format!("[networks.front]\n{rules}\n[networks.side]\n[networks.far]\n[containers.bad]\nimage = 'x'\n")
    };
    let rules = "allow = [{ network = 'side', ports = [5432] }]\ndeny = [{ container = 'bad' }]";
    let site = Site::with(&networks(rules));
    let mut service = site.start();
    let namespace = container();
    let addresses = service.attach_as(on(wanted("db", &[]), &[("front", "")]), &namespace).unwrap();
    let _servers = [serve(&namespace, "TCP", 5432, "db"), serve(&namespace, "TCP", 80, "db")];
    let near = joined(&mut service, "near", "front");
    let side = joined(&mut service, "side", "side");
    let bad = joined(&mut service, "bad", "side");
    let far = joined(&mut service, "far", "far");
    for address in &addresses {
        assert!(ask(&near, "TCP", address, 80).starts_with("db sees"), "its own");
        assert!(ask(&side, "TCP", address, 5432).starts_with("db sees"), "{address}");
        assert!(is_shut(&side, address, 80));
        assert!(is_shut(&bad, address, 5432));
        assert!(is_shut(&far, address, 5432));
    }
    service.apply(&site.configuration(&networks("")));
    eventually("nobody is let in any more", || is_shut(&side, &addresses[0], 5432).then_some(()));
    assert!(ask(&near, "TCP", &addresses[0], 80).starts_with("db sees"), "and nothing was begun anew");
}

#[test]
fn rules_are_there_again_with_the_next_service_and_go_with_their_container() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with("[networks.front]\n");
    let rules = "allow = [{ container = 'web' }]\n";
    let mut service = site.start();
    let db = db(&mut service, rules);
    let web = joined(&mut service, "web", "front");
    let shown = || {
        let text = site.machine.namespace.run("nft -s list ruleset");
        // Which answers are waited for is not a rule.
        text.lines().filter(|line| !line.contains("expires")).map(|line| format!("{line}\n")).collect::<String>()
    };
    let before = shown();
    assert!(before.contains("to/front/db") && before.contains("table bridge berth {"), "{before}");
    drop(service);
    assert!(ask(&web, "TCP", &db.addresses[0], 80).starts_with("db sees"), "while nobody is there");
    let mut service = site.start();
    assert_eq!(shown(), before);
    service.attach_as(db_wanted(rules), &db.namespace).unwrap();
    assert_eq!(shown(), before);
    service.notify(berth_control::message::Notice::DetachNetwork { name: "db".into() }, &[]);
    eventually("its rules are gone", || (!shown().contains("to/front/db")).then_some(()));
    assert!(!shown().contains("table bridge berth {"));
}

#[test]
fn bandwidth_is_limited_both_ways() {
    if !possible(&["ip", "nft", "tc"]) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let web = container();
    service.attach_as(ruled(wanted("web", &[]), "bandwidth = { ingress = '10M', egress = '1500K' }"), &web).unwrap();
    let inside = web.run("tc qdisc show dev eth0");
    assert!(inside.contains("tbf") && inside.contains("rate 1500Kbit"), "{inside}");
    let cable = site.machine.namespace.ip("-o link show type veth");
    let cable = cable.split_whitespace().find(|word| word.starts_with("berth0-")).unwrap();
    let outside = site.machine.namespace.run(&format!("tc qdisc show dev {}", cable.split('@').next().unwrap()));
    assert!(outside.contains("tbf") && outside.contains("rate 10Mbit"), "{outside}");
    let free = container();
    service.attach("free", &free, &[]).unwrap();
    assert!(!free.run("tc qdisc show dev eth0").contains("tbf"));
}

#[test]
fn what_is_sent_beyond_the_limit_waits() {
    if !possible(&["ip", "nft", "socat", "tc"]) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let web = container();
    let limited = ruled(wanted("web", &[]), "bandwidth = { egress = '8M' }");
    service.attach_as(limited, &web).unwrap();
    let sink = site.outside.start(&["socat", "-u", "TCP4-LISTEN:7000", "OPEN:/dev/null"]);
    eventually("it listens", || site.outside.run("cat /proc/net/tcp").contains(":1B58 ").then_some(()));
    web.run("sh -c 'head -c 3000000 /dev/zero | socat -u - TCP4:192.0.2.1:7000'");
    let counted = web.run("tc -s qdisc show dev eth0");
    let waited = counted.split("overlimits ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(waited.parse::<u64>().unwrap() > 0, "{counted}");
    drop(sink);
}

#[test]
fn a_filter_that_somebody_has_taken_away_is_made_anew_for_the_next_container() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with("[networks.front]\n");
    let mut service = site.start();
    let _before = db(&mut service, "");
    let host = &site.machine.namespace;
    for (rules, name) in [("allow = [{ container = 'other' }]", "web"), ("", "plain")] {
        host.run("nft delete table inet berth");
        let wanted = ruled(on(wanted(name, &[port("", 8090, 80, "tcp")]), &[("front", "")]), rules);
        let namespace = container();
        service.attach_as(wanted, &namespace).unwrap();
        assert!(host.run("nft list ruleset").contains("table inet berth"));
        service.notify(Notice::DetachNetwork { name: name.into() }, &[]);
    }
    eventually("nothing of them is left", || {
        let shown = host.run("nft list ruleset");
        (!shown.contains("to/front/web") && !shown.contains("8090")).then_some(())
    });
}

#[test]
fn nobody_reaches_a_container_that_goes_without_its_rules() {
    if !possible(&["ip", "nft"]) {
        return;
    }
    let site = Site::with("[networks.front]\n");
    let mut service = site.start();
    let other = joined(&mut service, "other", "front");
    let shy = container();
    let wanted = || ruled(on(wanted("shy", &[]), &[("front", "")]), "allow = [{ container = 'nobody' }]\n");
    let heard = shy.within(|| UdpSocket::bind("0.0.0.0:9000").unwrap());
    heard.set_nonblocking(true).unwrap();
    for _ in 0..20 {
        let addresses = service.attach_as(wanted(), &shy).unwrap();
        let asking = other.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        asking.connect((addresses[0].as_str(), 9000)).unwrap();
        service.notify(Notice::DetachNetwork { name: "shy".into() }, &[]);
        while shy.ip("-o link show").contains("eth0") {
            for _ in 0..2000 {
                let _it_may_be_gone = asking.send(b"hello");
            }
        }
        assert!(heard.recv(&mut [0; 16]).is_err(), "its rules were gone before its cable");
    }
}
