//! Published ports of replicas, of containers on user-defined networks, of ranges and of SCTP.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use berth_control::message::{Notice, Port};

use crate::support;
use crate::support::lan::Lan;
use crate::support::site::{HOST, OUTSIDE, Site, ask, container, is_shut, port, serve};
use crate::support::{Machine, Namespace, Program, Running, eventually, on, possible, sctp, wanted};

const TOOLS: &[&str] = &["ip", "nft", "socat"];

/// Replicas of `web` that serve on port 80.
struct Replicas {
    namespaces: Vec<Namespace>,
    _servers: Vec<Program>,
}

impl Replicas {
    fn attach(service: &mut Running, count: usize, ports: &[Port]) -> Self {
        let namespaces: Vec<Namespace> = (0..count).map(|_| container()).collect();
        for (number, namespace) in namespaces.iter().enumerate() {
            attach_replica(service, number, namespace, ports);
        }
        let serve = |(number, namespace): (usize, &Namespace)| serve(namespace, "TCP", 80, &format!("web-{number}"));
        let servers = namespaces.iter().enumerate().map(serve).collect();
        Self { namespaces, _servers: servers }
    }
}

fn attach_replica(service: &mut Running, number: usize, namespace: &Namespace, ports: &[Port]) -> Vec<String> {
    let mut wanted = wanted(&format!("web-{number}"), ports);
    wanted.service = "web".to_owned();
    service.attach_as(wanted, namespace).unwrap()
}

/// Who answers how often.
fn answers(from: &Namespace, address: &str, port: u16, times: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        let answer = ask(from, "TCP", address, port);
        *counts.entry(answer.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn connections_are_shared_out_among_replicas_that_do_their_work() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let ports = [port("", 8080, 80, "tcp"), port("127.0.0.1", 9090, 80, "tcp")];
    let replicas = Replicas::attach(&mut service, 3, &ports);
    for host in HOST {
        let counts = answers(&site.outside, host, 8080, 9);
        assert_eq!(counts.values().copied().collect::<Vec<_>>(), [3, 3, 3], "{host}: {counts:?}");
    }
    let host = &site.machine.namespace;
    for (from, address, port) in [
        (host, "127.0.0.1", 8080),
        (host, "::1", 8080),
        (host, "127.0.0.1", 9090),
        (&replicas.namespaces[0], HOST[0], 8080),
    ] {
        let counts = answers(from, address, port, 6);
        assert_eq!(counts.len(), 3, "{address}:{port}: {counts:?}");
        assert!(!counts.contains_key(""), "{counts:?}");
    }
    let answer = ask(&site.outside, "TCP", HOST[0], 8080);
    assert!(answer.contains("ffff:c000:0201"), "the source is kept: {answer}");

    let elements = |address: &str| host.run("nft list map inet berth shared4").matches(address).count();
    let mut addresses: Vec<String> = Vec::new();
    for (number, namespace) in replicas.namespaces.iter().enumerate() {
        addresses.push(attach_replica(&mut service, number, namespace, &ports).remove(0));
    }
    service.notify(Notice::Serving { name: "web-1".into(), serving: false }, &[]);
    eventually("the one that is ill gets nothing", || (elements(&addresses[1]) == 0).then_some(()));
    let counts = answers(&site.outside, HOST[0], 8080, 6);
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["web-0", "web-2"], "{counts:?}");
    service.notify(Notice::DetachNetwork { name: "web-2".into() }, &[]);
    eventually("the one that has gone gets nothing", || (elements(&addresses[2]) == 0).then_some(()));
    assert_eq!(answers(&site.outside, HOST[0], 8080, 3).keys().collect::<Vec<_>>(), ["web-0"]);
    service.notify(Notice::Serving { name: "web-1".into(), serving: true }, &[]);
    eventually("the one that is well again gets its part", || (elements(&addresses[1]) == 128).then_some(()));
}

#[test]
fn a_restarted_service_shares_out_as_before_and_knows_who_is_ill() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let ports = [port("", 8080, 80, "tcp")];
    let (_replicas, before) = {
        let mut service = site.start();
        let replicas = Replicas::attach(&mut service, 3, &ports);
        service.notify(Notice::Serving { name: "web-1".into(), serving: false }, &[]);
        let map = || site.machine.namespace.run("nft list map inet berth shared4");
        // An answered request comes after the notice.
        attach_replica(&mut service, 0, &replicas.namespaces[0], &ports);
        (replicas, map())
    };
    assert_eq!(answers(&site.outside, HOST[0], 8080, 4).len(), 2, "while nobody is there");
    let _service = site.start();
    assert_eq!(site.machine.namespace.run("nft list map inet berth shared4"), before);
    assert_eq!(answers(&site.outside, HOST[0], 8080, 4).len(), 2);
}

#[test]
fn ports_of_replicas_are_nobody_elses() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let replicas = Replicas::attach(&mut service, 2, &[port("", 8080, 80, "tcp")]);
    let reason = service.attach("other", &container(), &[port("", 8080, 80, "tcp")]).unwrap_err();
    assert!(reason.contains("8080/tcp") && reason.contains("web-0"), "{reason}");
    drop(replicas);
}

#[test]
fn the_ports_of_a_container_on_a_network_of_its_own_are_reached_from_everywhere() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with("[networks.closed]\ninternal = true\n[networks.front]\nsubnets = ['10.88.0.0/24']\n");
    let mut service = site.start();
    let (web, other, neighbour) = (container(), container(), container());
    let ports = [
        port("", 8080, 80, "tcp"),
        port("192.0.2.2", 8081, 80, "tcp"),
        port("", 9000, 80, "tcp"),
        port("", 9001, 81, "tcp"),
    ];
    service.attach_as(on(wanted("web", &ports), &[("closed", ""), ("front", "")]), &web).unwrap();
    service.attach("other", &other, &[]).unwrap();
    service.attach_as(on(wanted("neighbour", &[]), &[("front", "")]), &neighbour).unwrap();
    let _servers = [serve(&web, "TCP", 80, "web"), serve(&web, "TCP", 81, "second")];
    let host = &site.machine.namespace;
    for from in [&site.outside, host, &web, &other, &neighbour] {
        for address in HOST {
            assert!(ask(from, "TCP", address, 8080).starts_with("web sees"), "{address}");
        }
        assert!(ask(from, "TCP", HOST[0], 8081).starts_with("web sees"));
        assert!(ask(from, "TCP", HOST[0], 9001).starts_with("second sees"), "the second of a range");
    }
    for localhost in ["127.0.0.1", "::1"] {
        assert!(ask(host, "TCP", localhost, 8080).starts_with("web sees"), "{localhost}");
        assert!(is_shut(host, localhost, 8081), "another address");
    }
    assert!(ask(&site.outside, "TCP", HOST[0], 8080).contains("ffff:c000:0201"), "the source is kept");
}

#[test]
fn a_port_that_the_machine_has_in_use_is_refused_and_says_by_whom() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with("ipv6 = 'static'\n[network.links.wg0]\nwireguard = { listen_port = 51820 }\n");
    let mut service = site.start();
    let host = &site.machine.namespace;
    let _servers = [serve(host, "TCP", 9000, "host"), serve(host, "UDP", 9005, "host")];
    let _local = host.within(|| TcpListener::bind("127.0.0.1:9001").unwrap());
    // A program that waits for an answer listens to nobody.
    let asking = host.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let asking = asking.local_addr().unwrap().port();
    let refused = [
        (port("", 9000, 80, "tcp"), "port 9000/tcp of the machine is in use by a program of the machine itself"),
        (port("127.0.0.1", 9000, 80, "tcp"), "listens on :: (user 0)"),
        (port("", 9005, 80, "udp"), "9005/udp"),
        (port("", 9001, 80, "tcp"), "listens on 127.0.0.1"),
        (port("", 51_820, 80, "udp"), "51820/udp of the machine is in use by the tunnel wg0"),
        (port("192.0.2.99", 9002, 80, "tcp"), "\"192.0.2.99\" is not an address of the machine"),
        (port("2001:db8::99", 9002, 80, "tcp"), "\"2001:db8::99\" is not an address of the machine"),
    ];
    for (port, part) in refused {
        let reason = service.attach("web", &container(), std::slice::from_ref(&port)).unwrap_err();
        assert!(reason.contains(part), "{port:?}: {reason}");
    }
    let free = [
        port("", 9000, 80, "udp"),
        port("", 9005, 80, "tcp"),
        port(HOST[0], 9001, 80, "tcp"),
        port(HOST[1], 9002, 80, "tcp"),
        port("", 51_820, 80, "tcp"),
        port("", asking, 80, "udp"),
    ];
    let web = container();
    service.attach("web", &web, &free).unwrap();
    let _server = serve(&web, "TCP", 80, "web");
    assert!(ask(&site.outside, "TCP", HOST[0], 9001).starts_with("web sees"));
    assert!(ask(host, "TCP", "127.0.0.1", 9000).starts_with("host sees"));
}

#[test]
fn an_address_that_may_still_come_is_not_refused() {
    if !possible(&["ip", "nft", "socat", "dnsmasq"]) {
        return;
    }
    let machine = Machine::new("");
    let lan = Lan::new(&machine);
    let mut service = machine.start();
    service.wait_ready();
    let web = container();
    // Nobody has answered yet: PID 1 starts containers as soon as the network is ready.
    service.attach("web", &web, &[port("10.77.0.50", 8080, 80, "tcp"), port("2001:db8::99", 8080, 80, "tcp")]).unwrap();
    let _answers = (serve(&web, "TCP", 80, "web"), lan.serve("10.77.0.50,10.77.0.50,1h", &[]));
    service.wait_address("eth0", "10.77.0.50");
    assert!(ask(&lan.namespace, "TCP", "10.77.0.50", 8080).starts_with("web sees"));
    let reason = service.attach("other", &container(), &[port("10.77.0.99", 8081, 80, "tcp")]).unwrap_err();
    assert!(reason.contains("\"10.77.0.99\" is not an address of the machine"), "{reason}");
}

#[test]
fn a_container_may_have_the_port_of_name_servers_and_the_machine_asks_its_own_resolver_all_the_same() {
    if !possible(&["ip", "nft", "socat", "dig"]) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let (web, neighbour) = (container(), container());
    service.attach("neighbour", &neighbour, &[]).unwrap();
    service.attach("web", &web, &[port("", 53, 53, "udp"), port("", 53, 53, "tcp")]).unwrap();
    let _servers = [serve(&web, "UDP", 53, "web"), serve(&web, "TCP", 53, "web")];
    assert!(ask(&site.outside, "UDP", HOST[0], 53).starts_with("web sees"));
    for (from, server) in [(&site.machine.namespace, "127.0.0.53"), (&neighbour, "172.30.0.1")] {
        for protocol in ["+notcp", "+tcp"] {
            let answer = from.run(&format!("dig {protocol} +time=5 +tries=1 @{server} localhost A"));
            assert!(answer.contains("status:"), "{server}: {answer}");
        }
    }
}

#[test]
fn sctp_is_published_too() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let web = container();
    let attached = service.attach("web", &web, &[port("", 7000, 7001, "sctp")]);
    if !Path::new("/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established").exists() {
        assert!(attached.is_err_and(|reason| reason.contains("SCTP")), "what cannot work is said");
        support::skip("this kernel does not follow SCTP");
        return;
    }
    attached.unwrap();
    let host = &site.machine.namespace;
    let ways =
        [(&site.outside, HOST[0]), (&site.outside, HOST[1]), (host, "127.0.0.1"), (host, "::1"), (&web, HOST[0])];
    for (number, (from, address)) in (50_000..).zip(ways) {
        let (to, ports) = (address.parse::<IpAddr>().unwrap(), (number, 7000));
        let (client, server) = (sctp::listen(from, to.is_ipv4()), sctp::listen(&web, to.is_ipv4()));
        // A packet may get lost while neighbours are looked for.
        let asked = eventually("a question", || {
            sctp::ask(&client, to, ports);
            sctp::answer(&server, 7001)
        });
        assert!(sctp::is_answered(&client, to, ports), "{address}");
        if from.name == site.outside.name {
            assert_eq!(asked, SocketAddr::new(OUTSIDE[usize::from(to.is_ipv6())].parse().unwrap(), number));
        }
    }
}
