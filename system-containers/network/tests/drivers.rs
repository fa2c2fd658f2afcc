//! Networks whose containers are kept apart, and networks on a link of the machine.

use std::net::{TcpListener, UdpSocket};

use berth_control::message::{Notice, Request};

use crate::support;
use crate::support::site::{HOST, OUTSIDE, Site, ask, container, is_shut, port, serve};
use crate::support::{Namespace, eventually, name_server, on, possible, try_run, wanted};

const TOOLS: &[&str] = &["ip", "nft", "socat"];

#[test]
fn containers_of_an_isolated_network_reach_what_is_outside_and_not_each_other() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with("[networks.apart]\nisolated = true\n");
    let mut service = site.start();
    let (web, other) = (container(), container());
    let ports = [port("", 8080, 80, "tcp")];
    let addresses = service.attach_as(on(wanted("web", &ports), &[("apart", "")]), &web).unwrap();
    service.attach_as(on(wanted("other", &[]), &[("apart", "")]), &other).unwrap();
    let _servers = [serve(&web, "TCP", 80, "web"), serve(&site.outside, "TCP", 7000, "outside")];
    for family in 0..2 {
        assert!(ask(&other, "TCP", OUTSIDE[family], 7000).starts_with("outside sees"));
        assert!(ask(&other, "TCP", HOST[family], 8080).starts_with("web sees"), "what is published is for all");
        assert!(ask(&site.machine.namespace, "TCP", &addresses[family], 80).starts_with("web sees"));
        assert!(is_shut(&other, &addresses[family], 80), "{}", addresses[family]);
    }
}

/// A site whose uplink has a second address for containers of its own, and `false` if the kernel has no such links.
fn lan(driver: &str, mode: &str) -> Option<Site> {
    let probe = Namespace::new();
    probe.ip("link add probe0 type veth peer name probe1");
    if !try_run(&format!("ip -n {} link add test0 link probe0 type {driver}", probe.name)).status.success() {
        support::skip(&format!("this kernel has no {driver}"));
        return None;
    }
    Some(Site::with(&format!(
        "[networks.lan]\ndriver = '{driver}'\nparent = 'eth0'\nmtu = 1400\nmode = '{mode}'\n\
         subnets = ['192.0.2.0/24', '2001:db8::/64']\ngateways = ['192.0.2.1', '2001:db8::1']\n"
    )))
}

fn containers_are_machines_of_their_parents_network(driver: &str, mode: &str, apart: bool) {
    if !possible(TOOLS) {
        return;
    }
    let Some(site) = lan(driver, mode) else { return };
    let (web, other) = (container(), container());
    let web_wanted =
        || on(wanted("web", &[]), &[("lan", "ipv4_address = '192.0.2.77'\nipv6_address = '2001:db8::77'")]);
    let mut service = site.start();
    assert_eq!(service.attach_as(web_wanted(), &web).unwrap(), ["192.0.2.77", "2001:db8::77"]);
    let others = service.attach_as(on(wanted("other", &[]), &[("lan", "")]), &other).unwrap();
    let _servers = [serve(&web, "TCP", 80, "web"), serve(&site.outside, "TCP", 7000, "outside")];
    for (family, address) in ["192.0.2.77", "2001:db8::77"].into_iter().enumerate() {
        assert!(ask(&site.outside, "TCP", address, 80).starts_with("web sees"), "{address}");
        let seen = ask(&other, "TCP", OUTSIDE[family], 7000);
        assert!(seen.starts_with("outside sees"), "{seen}");
        assert_eq!(is_shut(&other, address, 80), apart, "{address} in mode {mode}");
    }
    assert!(web.ip("link show eth0").contains("mtu 1400"), "{}", web.ip("link show eth0"));
    let detection = web.run("cat /proc/sys/net/ipv6/conf/eth0/accept_dad");
    assert_eq!(detection, "1\n", "others on that network may have its addresses");
    assert!(web.ip("route show default").contains("via 192.0.2.1"), "{}", web.ip("route"));

    // The next service takes up what there is, knows the addresses, and forgets who has ended meanwhile.
    drop(service);
    let mut service = site.start();
    assert_eq!(service.attach_as(web_wanted(), &web).unwrap(), ["192.0.2.77", "2001:db8::77"]);
    assert!(ask(&site.outside, "TCP", "192.0.2.77", 80).starts_with("web sees"));
    // As with its namespace.
    other.ip("link del eth0");
    service.notify(Notice::AllAttached, &[]);
    eventually("the one that was not named is forgotten", || {
        (!service.run.join("network/other.json").exists()).then_some(())
    });
    let fixed = format!("ipv4_address = '{}'", others[0]);
    assert_eq!(service.attach_as(on(wanted("heir", &[]), &[("lan", &fixed)]), &container()).unwrap()[0], others[0]);

    // What a service left in the middle of its work is made anew.
    drop(service);
    let file = site.machine.state.path().join("run/network/web.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"whole\":true", "\"whole\":false")).unwrap();
    let mut service = site.start();
    assert_eq!(service.attach_as(web_wanted(), &web).unwrap(), ["192.0.2.77", "2001:db8::77"]);
    assert!(ask(&site.outside, "TCP", "192.0.2.77", 80).starts_with("web sees"));
    assert_eq!(web.ip("-o link").lines().count(), 2, "{}", web.ip("link"));
}

#[test]
fn a_container_without_the_link_that_it_had_gets_another_whichever_namespace_it_has_now() {
    if !possible(TOOLS) {
        return;
    }
    let Some(site) = lan("macvlan", "bridge") else { return };
    let (web, mut service) = (container(), site.start());
    let web_wanted = || on(wanted("web", &[]), &[("lan", "ipv4_address = '192.0.2.77'")]);
    service.attach_as(web_wanted(), &web).unwrap();
    drop(service);
    // A new namespace may have the number of the one that ended.
    web.ip("link del eth0");
    let mut service = site.start();
    assert_eq!(service.attach_as(web_wanted(), &web).unwrap()[0], "192.0.2.77");
    let _server = serve(&web, "TCP", 80, "web");
    assert!(ask(&site.outside, "TCP", "192.0.2.77", 80).starts_with("web sees"), "{}", web.ip("address"));
    let before = web.ip("-o link show eth0");
    assert_eq!(service.attach_as(web_wanted(), &web).unwrap()[0], "192.0.2.77");
    assert_eq!(web.ip("-o link show eth0"), before, "it has what it had");
}

#[test]
fn macvlan_containers_are_machines_of_their_parents_network() {
    containers_are_machines_of_their_parents_network("macvlan", "bridge", false);
}

#[test]
fn private_macvlan_containers_do_not_reach_each_other() {
    containers_are_machines_of_their_parents_network("macvlan", "private", true);
}

#[test]
fn ipvlan_containers_are_machines_of_their_parents_network() {
    containers_are_machines_of_their_parents_network("ipvlan", "l2", false);
}

/// The switch does not send back what it gets, so whoever is on it reaches only what is outside.
#[test]
fn macvlan_containers_that_leave_it_to_the_switch_do_not_reach_each_other_without_it() {
    containers_are_machines_of_their_parents_network("macvlan", "vepa", true);
}

#[test]
fn a_container_can_have_all_of_its_parent_link() {
    if !possible(TOOLS) {
        return;
    }
    let Some(site) = lan("macvlan", "passthru") else { return };
    let web = container();
    let mut service = site.start();
    let fixed = "ipv4_address = '192.0.2.77'\nipv6_address = '2001:db8::77'";
    let given = service.attach_as(on(wanted("web", &[]), &[("lan", fixed)]), &web).unwrap();
    let _servers = [serve(&web, "TCP", 80, "web"), serve(&site.outside, "TCP", 7000, "outside")];
    for (address, outside) in given.iter().zip(OUTSIDE) {
        assert!(ask(&site.outside, "TCP", address, 80).starts_with("web sees"), "{address}");
        assert!(ask(&web, "TCP", outside, 7000).starts_with("outside sees"), "{address}");
    }
    let mac = |namespace: &Namespace| namespace.run("cat /sys/class/net/eth0/address");
    assert_eq!(mac(&web), mac(&site.machine.namespace));
    // It is the link's when the container has gone.
    web.ip("link del eth0");
    service.notify(Notice::AllAttached, &[]);
    eventually("the machine has it again", || {
        site.machine.namespace.try_run("ping -c 1 -W 1 192.0.2.1").status.success().then_some(())
    });
}

/// The parent's routing decides where packets go, and neither ARP nor neighbour discovery passes: others need a route.
fn containers_are_behind_their_parent(mode: &str) {
    if !possible(TOOLS) {
        return;
    }
    let Some(mut site) = lan("ipvlan", mode) else { return };
    // In the mode l3s what comes for a container passes the machine's own packet filter.
    site.machine.network.host.inbound = support::networking("[network]\ninbound = [80]\n").host.inbound;
    let (web, other) = (container(), container());
    let mut service = site.start();
    let fixed = "ipv4_address = '192.0.2.77'\nipv6_address = '2001:db8::77'";
    let given = service.attach_as(on(wanted("web", &[]), &[("lan", fixed)]), &web).unwrap();
    service.attach_as(on(wanted("other", &[]), &[("lan", "")]), &other).unwrap();
    for (address, host) in given.iter().zip(HOST) {
        site.outside.ip(&format!("route add {address} via {host}"));
    }
    let _servers = [serve(&web, "TCP", 80, "web"), serve(&site.outside, "TCP", 7000, "outside")];
    for (address, outside) in given.iter().zip(OUTSIDE) {
        assert!(ask(&site.outside, "TCP", address, 80).starts_with("web sees"), "{address} in mode {mode}");
        assert!(ask(&other, "TCP", address, 80).starts_with("web sees"), "{address} in mode {mode}");
        assert!(ask(&web, "TCP", outside, 7000).starts_with("outside sees"), "{outside} in mode {mode}");
    }
}

#[test]
fn ipvlan_containers_can_be_behind_their_parent() {
    containers_are_behind_their_parent("l3");
}

#[test]
fn ipvlan_containers_can_be_behind_their_parents_packet_filter() {
    containers_are_behind_their_parent("l3s");
}

#[test]
fn an_address_that_a_machine_outside_has_is_not_given() {
    if !possible(TOOLS) {
        return;
    }
    let Some(site) = lan("macvlan", "bridge") else { return };
    let mut service = site.start();
    let free = service.attach_as(on(wanted("web", &[]), &[("lan", "")]), &container()).unwrap();
    service.notify(Notice::DetachNetwork { name: "web".into() }, &[]);
    site.outside.ip(&format!("address add {}/24 dev up0", free[0]));
    site.outside.ip("address add 2001:db8::77/64 dev up0 nodad");
    let link = site.outside.ip("-o link show up0");
    let mac = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
    let fixed = format!("ipv4_address = '{}'", free[0]);
    let reason = service.attach_as(on(wanted("web", &[]), &[("lan", &fixed)]), &container()).unwrap_err();
    assert!(reason.contains(&free[0]) && reason.contains(mac), "{reason}");
    let reason = service.attach_as(on(wanted("web", &[]), &[("lan", "ipv4_address = '192.0.2.2'")]), &container());
    assert!(reason.unwrap_err().contains("the machine itself"));
    let web = container();
    let given = service.attach_as(on(wanted("web", &[]), &[("lan", "ipv6_address = '2001:db8::77'")]), &web).unwrap();
    assert_ne!(given[0], free[0]);
    // The kernel looks for others with an address of IPv6, and does not use it then.
    let shown = eventually("what became of it", || {
        let shown = web.ip("-6 address show dev eth0 scope global");
        (!shown.contains("tentative") || shown.contains("dadfailed")).then_some(shown)
    });
    assert!(shown.contains("dadfailed"), "{shown}");
    // Which the kernel tells only in there.
    let parts = ["container web ", "2001:db8::77", "network lan"];
    service.wait_lack("eth0", &parts);
    drop(service);
    let mut service = site.start();
    service.attach_as(on(wanted("web", &[]), &[("lan", "ipv6_address = '2001:db8::77'")]), &web).unwrap();
    service.wait_lack("eth0", &parts);
    web.ip("address del 2001:db8::77/64 dev eth0");
    service.wait("nobody lacks it any more", |request| match request {
        Request::Links { links } => links.iter().all(|link| link.missing.is_empty()).then_some(()),
        _ => None,
    });
    // RTMGRP_IPV6_IFADDR
    let listens = || web.run("cat /proc/net/netlink").lines().any(|line| line.contains(" 00000100 "));
    assert!(listens(), "{}", web.run("cat /proc/net/netlink"));
    service.notify(Notice::DetachNetwork { name: "web".into() }, &[]);
    eventually("nobody listens any more, which would keep the namespace", || (!listens()).then_some(()));
}

#[test]
fn nobody_waits_while_machines_outside_are_asked_about_the_address_of_another() {
    if !possible(TOOLS) {
        return;
    }
    let Some(site) = lan("macvlan", "bridge") else { return };
    let mut service = site.start();
    // The bridge is there then.
    let first = container();
    service.attach("first", &first, &[]).unwrap();
    let (web, gone, near) = (container(), container(), container());
    let on_lan = |name| on(wanted(name, &[]), &[("lan", "")]);
    service.begin_to_attach(on_lan("gone"), &gone);
    service.begin_to_attach(on_lan("web"), &web);
    service.notify(Notice::DetachNetwork { name: "gone".into() }, &[]);
    service.begin_to_attach(wanted("near", &[]), &near);
    let mut attached = Vec::new();
    service.wait("both", |request| {
        if let Request::NetworkAttached { name, .. } = request {
            attached.push(name.clone());
        }
        (attached.len() == 2).then_some(())
    });
    assert_eq!(attached, ["near", "web"]);
    service.attach("last", &container(), &[]).unwrap();
    let has_link = |namespace: &Namespace| namespace.ip("-o link").contains("eth0");
    assert!(has_link(&web) && !has_link(&gone), "its answer came when it was gone");
}

#[test]
fn a_network_without_its_parent_says_so() {
    if !possible(TOOLS) {
        return;
    }
    let lan = "[networks.lan]\ndriver = 'macvlan'\nparent = 'eth7'\nsubnets = ['192.0.2.0/24']\n";
    let site = Site::with(lan);
    let mut service = site.start();
    let reason = service.attach_as(on(wanted("web", &[]), &[("lan", "")]), &container()).unwrap_err();
    assert!(reason.contains("eth7"), "{reason}");
    assert!(!service.run.join("network/web.json").exists());
}

#[test]
fn containers_on_a_link_of_the_machine_find_each_other_by_name() {
    if !possible(&["ip", "nft", "socat", "dig", "dnsmasq"]) {
        return;
    }
    let Some(mut site) = lan("macvlan", "bridge") else { return };
    let names = |server: &str| format!("[network]\ndns = ['{server}']\n");
    let configuration = site.configuration(
        "[networks.lan]\ndriver = 'macvlan'\nparent = 'eth0'\nsubnets = ['192.0.2.0/24']\ngateways = ['192.0.2.1']\n",
    );
    site.machine.network = support::networking(&(names("192.0.2.1") + &configuration));
    let mut service = site.start();
    let _server = name_server::serve(&site.outside, "192.0.2.1", &["--address=/example.test/203.0.113.1"]);
    let (web, db) = (container(), container());
    let wanted_web = || on(wanted("web", &[]), &[("lan", "")]);
    service.attach_as(wanted_web(), &web).unwrap();
    let address = service.attach_as(on(wanted("db", &[]), &[("lan", "aliases = ['sql']")]), &db).unwrap().remove(0);
    assert_eq!(service.resolv_conf["web"], "nameserver 127.0.0.11\noptions ndots:0\n");
    let ask =
        |question: &str| web.run(&format!("dig +short +time=3 +tries=2 @127.0.0.11 {question}")).trim().to_owned();
    for question in ["db", "sql", "+tcp db"] {
        assert_eq!(ask(question), address, "{question}");
    }
    assert_eq!(ask("www.example.test"), "203.0.113.1");
    site.outside.ip("address add 192.0.2.3/24 dev up0");
    let _second = name_server::serve(&site.outside, "192.0.2.3", &["--address=/example.test/203.0.113.3"]);
    service.apply(&(names("192.0.2.3") + &configuration));
    eventually("the host's other server is asked", || (ask("www.example.test") == "203.0.113.3").then_some(()));
    assert_eq!(ask("db"), address);
    // It may be a name server itself.
    let _own = web.within(|| (UdpSocket::bind("0.0.0.0:53").unwrap(), TcpListener::bind("0.0.0.0:53").unwrap()));
    assert_eq!(ask("db"), address);
    drop(service);
    let mut service = site.start();
    service.attach_as(wanted_web(), &web).unwrap();
    assert_eq!(ask("db"), address, "as the next service answers");
    service.notify(Notice::DetachNetwork { name: "web".into() }, &[]);
    eventually("its sockets are closed", || {
        let sockets = web.run("cat /proc/net/udp /proc/net/tcp");
        // Connections that have ended are remembered for a minute (TIME_WAIT).
        let open = |line: &&str| line.contains(" 0B00007F:") && !line.contains(" 06 ");
        sockets.lines().find(open).is_none().then_some(())
    });
}
