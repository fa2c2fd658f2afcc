//! The network of user containers, against the kernel: `ip` and `nft` read back what was made, and connections come
//! from outside, from the host and from the container itself.

use std::time::Duration;

use berth_control::message::Notice;

use crate::support;
use crate::support::site::{HOST, OUTSIDE, Site, ask, container, is_shut, port, range, serve};
use crate::support::{Machine, Namespace, eventually, on, possible, wanted};

const TOOLS: &[&str] = &["ip", "nft", "socat"];

#[test]
fn a_container_gets_addresses_routes_and_the_way_out() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let web = container();
    let addresses = service.attach("web", &web, &[]).unwrap();
    assert!(addresses[0].starts_with("172.30.") && addresses[1].starts_with("fd"), "{addresses:?}");
    let inside = web.ip("address");
    assert!(inside.contains(&format!("inet {}/16", addresses[0])), "{inside}");
    assert!(inside.contains(&format!("inet6 {}/64", addresses[1])), "{inside}");
    assert!(!inside.contains("tentative noprefix"), "{inside}");
    assert!(web.ip("link show lo").contains("UP"));
    assert!(web.ip("route").contains("default via 172.30.0.1 dev eth0"));
    assert!(web.ip("-6 route").contains("default via fd"));
    let _server = serve(&site.outside, "TCP", 7000, "outside");
    for (family, address) in OUTSIDE.iter().enumerate() {
        // The outside has no route to the container: it must see the host.
        let answer = ask(&web, "TCP", address, 7000);
        assert!(
            answer.starts_with("outside sees") && answer.contains(["ffff:c000:0202", "2001:0db8"][family]),
            "{answer:?}"
        );
    }
    assert!(!service.links.iter().any(|link| link.name.starts_with("berth")), "{:?}", service.links);
}

#[test]
fn a_published_port_is_reached_from_everywhere_over_both_families_and_protocols() {
    reach_from_everywhere("default");
}

#[test]
fn so_is_one_of_a_container_on_a_network_that_is_declared() {
    reach_from_everywhere("front");
}

fn reach_from_everywhere(network: &str) {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with("[networks.front]\n");
    let mut service = site.start();
    let (web, other) = (container(), container());
    let ports = [port("", 8080, 80, "tcp"), port("", 8053, 53, "udp")];
    let addresses = service.attach_as(on(wanted("web", &ports), &[(network, "")]), &web).unwrap();
    service.attach_as(on(wanted("other", &[]), &[(network, "")]), &other).unwrap();
    let _servers = [serve(&web, "TCP", 80, "web"), serve(&web, "UDP", 53, "web")];
    for address in &addresses {
        let answer = ask(&other, "TCP", address, 80);
        assert!(answer.starts_with("web sees"), "{address} from a neighbour, directly: {answer:?}");
    }
    for (protocol, published) in [("TCP", 8080), ("UDP", 8053)] {
        for (family, host) in HOST.iter().enumerate() {
            let from_outside = ask(&site.outside, protocol, host, published);
            let source = ["ffff:c000:0201", "2001:0db8:0000:0000:0000:0000:0000:0001"][family];
            assert!(from_outside.starts_with("web sees"), "{protocol} {host} from outside: {from_outside:?}");
            assert!(from_outside.contains(source), "the source is kept: {from_outside:?}");
            for (place, namespace) in [("host", &site.machine.namespace), ("itself", &web), ("other", &other)] {
                let answer = ask(namespace, protocol, host, published);
                assert!(answer.starts_with("web sees"), "{protocol} {host} from {place}: {answer:?}");
            }
        }
        for localhost in ["127.0.0.1", "::1"] {
            let answer = ask(&site.machine.namespace, protocol, localhost, published);
            assert!(answer.starts_with("web sees"), "{protocol} {localhost}: {answer:?}");
        }
    }
}

#[test]
fn a_port_of_one_address_is_not_reached_through_another() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let web = container();
    service.attach("web", &web, &[port("127.0.0.1", 8080, 80, "tcp"), port("::1", 8080, 80, "tcp")]).unwrap();
    let _server = serve(&web, "TCP", 80, "web");
    for localhost in ["127.0.0.1", "::1"] {
        assert!(ask(&site.machine.namespace, "TCP", localhost, 8080).starts_with("web sees"), "{localhost}");
    }
    for host in HOST {
        assert!(is_shut(&site.outside, host, 8080));
        assert!(is_shut(&site.machine.namespace, host, 8080));
    }
}

#[test]
fn nobody_outside_reaches_a_container_or_the_hosts_loopback_directly() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let web = container();
    let addresses = service.attach("web", &web, &[]).unwrap();
    let _server = serve(&web, "TCP", 80, "web");
    let _on_host = site.machine.namespace.start(&["socat", "TCP4-LISTEN:9000,bind=127.0.0.1,fork", "SYSTEM:echo host"]);
    eventually("the host's server", || {
        (ask(&site.machine.namespace, "TCP", "127.0.0.1", 9000) == "host").then_some(())
    });
    site.outside.ip(&format!("route add {}/32 via {}", addresses[0], HOST[0]));
    site.outside.ip(&format!("-6 route add {}/128 via {}", addresses[1], HOST[1]));
    for address in &addresses {
        assert!(ask(&site.machine.namespace, "TCP", address, 80).starts_with("web sees"), "the host may");
        assert!(is_shut(&site.outside, address, 80), "{address}");
    }
    web.ip("address del 127.0.0.1/8 dev lo");
    web.run("sysctl -qw net.ipv4.conf.all.route_localnet=1");
    web.ip("route add 127.0.0.1/32 via 172.30.0.1 dev eth0");
    // Neither what listens on a port that is open to all, nor what is published there.
    let other = container();
    service.attach("other", &other, &[port("127.0.0.1", 9090, 80, "tcp")]).unwrap();
    let _published = serve(&other, "TCP", 80, "other");
    let _open = site.machine.namespace.start(&["socat", "TCP4-LISTEN:9001,fork", "SYSTEM:echo host"]);
    service.apply(&site.configuration("[network]\ninbound = ['9000-9001']\n"));
    eventually("the ports are open", || (ask(&web, "TCP", "172.30.0.1", 9001) == "host").then_some(()));
    assert!(ask(&site.machine.namespace, "TCP", "127.0.0.1", 9090).starts_with("other sees"));
    let open: Vec<u16> = [9000, 9001, 9090].into_iter().filter(|port| !is_shut(&web, "127.0.0.1", *port)).collect();
    assert_eq!(open, [0; 0]);
}

#[test]
fn what_is_published_at_127_0_0_1_is_not_for_a_neighbour_of_the_machine() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let (web, other) = (container(), container());
    service.attach("web", &web, &[port("127.0.0.1", 8080, 80, "tcp"), port("", 8081, 80, "tcp")]).unwrap();
    service.attach("other", &other, &[range("127.0.0.1", (9000, 2000), 99, "tcp")]).unwrap();
    let _servers = [serve(&web, "TCP", 80, "web"), serve(&other, "TCP", 2001, "other")];
    for port in [8080, 9001] {
        assert!(ask(&site.machine.namespace, "TCP", "127.0.0.1", port).contains(" sees"), "{port}");
    }
    // A neighbour that says of 127.0.0.1 that the machine has it.
    let outside = &site.outside;
    outside.ip("address del 127.0.0.1/8 dev lo");
    outside.run("sysctl -qw net.ipv4.conf.all.route_localnet=1");
    outside.ip(&format!("route add 127.0.0.1/32 via {} dev up0", HOST[0]));
    assert!(ask(outside, "TCP", HOST[0], 8081).starts_with("web sees"), "the way there");
    let open: Vec<u16> = [8080, 8081, 9001].into_iter().filter(|port| !is_shut(outside, "127.0.0.1", *port)).collect();
    assert_eq!(open, [0; 0]);
}

#[test]
fn a_port_conflict_names_the_owner_and_leaves_nothing_behind() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let (web, other) = (container(), container());
    service.attach("web", &web, &[port("", 8080, 80, "tcp")]).unwrap();
    let reason = service.attach("other", &other, &[port("", 8080, 80, "tcp")]).unwrap_err();
    assert!(reason.contains("8080/tcp") && reason.contains("web"), "{reason}");
    assert!(!other.ip("link").contains("eth0"));
    service.attach("other", &other, &[port("", 8081, 80, "tcp")]).unwrap();
}

#[test]
fn a_detached_container_leaves_no_link_rule_or_file_and_its_name_keeps_its_address() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let first = container();
    let addresses = service.attach("web", &first, &[port("", 8080, 80, "tcp")]).unwrap();
    let host = &site.machine.namespace;
    assert!(host.run("nft list ruleset").contains(&addresses[0]));
    service.notify(Notice::DetachNetwork { name: "web".into() }, &[]);
    eventually("the table is without the container", || {
        (!host.run("nft list ruleset").contains(&addresses[0])).then_some(())
    });
    eventually("the cable is gone", || (!host.ip("link").contains("berth0-")).then_some(()));
    eventually("the file is gone", || {
        (std::fs::read_dir(service.run.join("network")).unwrap().count() == 0).then_some(())
    });
    let second = container();
    assert_eq!(service.attach("web", &second, &[port("", 8080, 80, "tcp")]).unwrap(), addresses);
}

#[test]
fn a_killed_service_takes_up_what_is_there_and_removes_what_nobody_has() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let (web, ended) = (container(), container());
    let ports = [port("", 8080, 80, "tcp")];
    let host = &site.machine.namespace;
    let (addresses, rules) = {
        let mut service = site.start();
        service.attach("ended", &ended, &[port("", 9090, 90, "tcp")]).unwrap();
        let addresses = service.attach("web", &web, &ports).unwrap();
        (addresses, host.run("nft list table inet berth"))
    };
    let _server = serve(&web, "TCP", 80, "web");
    assert!(ask(&site.outside, "TCP", HOST[0], 8080).starts_with("web sees"), "it works while nobody is there");
    let ended_link = ended.ip("link show eth0");
    drop(ended);
    host.ip("link add berth0-ffff type bridge");
    eventually("the ended container's cable is gone", || {
        (host.ip("link").matches("berth0-").count() == 2).then_some(())
    });
    let mut service = site.start();
    let links = host.ip("link");
    assert_eq!(links.matches("berth0-").count(), 1, "{links} {ended_link}");
    let after = host.run("nft list table inet berth");
    assert!(!after.contains("9090") && after.contains("8080"), "{after}");
    let chains = |text: &str| text.split_once("chain guard").unwrap().1.to_owned();
    assert_eq!(chains(&rules), chains(&after));
    assert_eq!(service.attach("web", &web, &ports).unwrap(), addresses);
    assert!(ask(&site.outside, "TCP", HOST[0], 8080).starts_with("web sees"));
    let again = container();
    service.attach("ended", &again, &[port("", 9090, 90, "tcp")]).unwrap();
}

#[test]
fn a_service_killed_in_the_middle_of_its_work_is_made_good_by_the_next() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let namespaces: Vec<Namespace> = (0..12).map(|_| container()).collect();
    let host = &site.machine.namespace;
    for round in 0..6_u64 {
        let service = site.start();
        for (number, namespace) in (0_u16..).zip(&namespaces) {
            let wanted = support::wanted(&format!("c{number}"), &[port("", 9000 + number, 80, "tcp")]);
            service.begin_to_attach(wanted, namespace);
        }
        // Ended wherever it happens to be; the time differs from round to round and decides nothing.
        std::thread::sleep(Duration::from_millis(5 + round * 7));
    }
    let mut service = site.start();
    for (number, namespace) in (0_u16..).zip(&namespaces) {
        let ports = [port("", 9000 + number, 80, "tcp")];
        let addresses = service.attach(&format!("c{number}"), namespace, &ports).unwrap();
        assert!(namespace.ip("address").contains(&addresses[0]), "{number}");
        assert!(namespace.ip("route").contains("default"), "{number}");
    }
    assert_eq!(host.ip("link").matches("berth0-").count(), namespaces.len());
    let ruleset = host.run("nft list table inet berth");
    assert_eq!(ruleset.matches("tcp . 90").count(), 2 * namespaces.len(), "{ruleset}");
}

#[test]
fn a_subnet_that_the_host_uses_is_avoided() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    site.machine.namespace.ip("address add 172.30.9.1/24 dev eth0");
    let addresses = service.attach("web", &container(), &[]).unwrap();
    assert!(addresses[0].starts_with("172.29."), "{addresses:?}");
}

#[test]
fn a_subnet_that_a_later_lease_collides_with_is_given_up_once_nobody_is_there() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let web = container();
    let first = service.attach("web", &web, &[]).unwrap();
    assert!(first[0].starts_with("172.30."), "{first:?}");
    site.machine.namespace.ip("address add 172.30.9.1/24 dev eth0");
    service
        .wait_lack("eth0", &["172.30.9.1/24 overlaps with 172.30.0.0/16", "another one when the machine starts anew"]);
    drop(service);
    let mut service = site.start();
    assert_eq!(service.attach("web", &web, &[]).unwrap(), first, "it is in use");
    service.notify(Notice::DetachNetwork { name: "web".into() }, &[]);
    eventually("it is detached", || (!service.run.join("network/web.json").exists()).then_some(()));
    drop(service);
    // As before the lease of the next boot.
    site.machine.namespace.ip("address del 172.30.9.1/24 dev eth0");
    let mut service = site.start();
    let second = service.attach("web", &container(), &[]).unwrap();
    assert!(second[0].starts_with("172.29."), "{second:?}");
    let bridge = site.machine.namespace.ip("-4 address show dev berth0");
    assert!(bridge.contains("172.29.0.1/16") && !bridge.contains("172.30."), "{bridge}");
}

#[test]
fn a_hundred_containers_need_no_more_rules_than_one() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let namespaces: Vec<Namespace> = (0..100).map(|_| container()).collect();
    let mut seen = std::collections::BTreeSet::new();
    for (number, namespace) in (0_u16..).zip(&namespaces) {
        let addresses = service.attach(&format!("c{number}"), namespace, &[port("", 10_000 + number, 80, "tcp")]);
        assert!(seen.insert(addresses.unwrap()), "no address twice");
    }
    let rules = site.machine.namespace.run("nft list chain inet berth publish");
    assert_eq!(rules.matches("dnat").count(), 12, "{rules}");
}

#[test]
fn without_a_free_descriptor_a_container_is_told_so() {
    if !possible(&["ip", "nft", "prlimit"]) {
        return;
    }
    let machine = Machine::new("");
    let mut service = machine.start();
    service.wait_ready();
    let pid = service.program.child.id();
    // Room for the one that comes with the container.
    let taken: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let free = (0..).find(|number: &u32| !taken.contains(&number.to_string())).unwrap();
    let second = (free + 1..).find(|number| !taken.contains(&number.to_string())).unwrap();
    support::run(&format!("prlimit --pid {pid} --nofile={second}"));
    let error = service.attach("web", &Namespace::new(), &[]).unwrap_err();
    assert!(error.contains("Too many open files"), "{error}");
}
