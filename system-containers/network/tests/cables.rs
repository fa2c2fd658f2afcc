//! What becomes of addresses when a cable is taken out and another one put in, or where two lead to one switch.

use crate::support;
use crate::support::lan::Lan;
use crate::support::router::Router;
use crate::support::{Machine, Namespace, Program, Running, eventually, possible};

const SERVER: &[&str] = &["ip", "dnsmasq"];

/// A machine on a switch with another machine.
struct Site {
    machine: Machine,
    switch: Namespace,
    third: Namespace,
}

impl Site {
    fn new() -> Self {
        let (machine, switch, third) = (Machine::new(""), Namespace::new(), Namespace::new());
        switch.ip("link add switch type bridge forward_delay 0");
        switch.ip("link set switch up");
        machine.namespace.connect("eth0", &switch, "machine");
        switch.connect("third", &third, "eth0");
        for port in ["machine", "third"] {
            switch.ip(&format!("link set {port} master switch up"));
        }
        third.ip("link set eth0 up");
        Self { machine, switch, third }
    }

    /// What is done meanwhile is as if the other end of the cable were another network.
    fn another_cable(&self, service: &mut Running, meanwhile: impl FnOnce()) {
        self.switch.ip("link set machine down");
        service.wait_lack("eth0", &["no carrier"]);
        meanwhile();
        self.switch.ip("link set machine up");
    }
}

#[test]
fn the_address_of_a_lease_is_asked_about_again_behind_another_cable() {
    if !possible(SERVER) {
        return;
    }
    let site = Site::new();
    let lan = Lan::behind(&site.switch);
    let _server = lan.serve("10.77.0.50,10.77.0.51,1h", &["--dhcp-sequential-ip"]);
    let mut service = site.machine.start();
    service.wait_address("eth0", "10.77.0.50/24");
    site.another_cable(&mut service, || drop(site.third.ip("address add 10.77.0.50/24 dev eth0")));
    eventually("the address is declined", || lan.log_text().contains("DHCPDECLINE").then_some(()));
    service.wait_address("eth0", "10.77.0.51/24");
}

#[test]
fn an_address_of_the_link_alone_is_asked_about_again_behind_another_cable() {
    if !possible(&["ip"]) {
        return;
    }
    let site = Site::new();
    let mut service = site.machine.start();
    let first = service.wait_address("eth0", "169.254.");
    site.another_cable(&mut service, || drop(site.third.ip(&format!("address add {first} dev eth0"))));
    service.wait_no_address("eth0", &first);
    service.wait_address("eth0", "169.254.");
}

#[test]
fn who_found_no_address_on_one_cable_looks_for_one_on_the_next() {
    if !possible(&["ip", "nft"]) {
        return;
    }
    let site = Site::new();
    // Another machine has all of them.
    site.third.ip("route add local 169.254.0.0/16 dev eth0");
    site.third.run("nft add table arp seen");
    site.third.run("nft add chain arp seen input '{ type filter hook input priority 0; }'");
    site.third.run("nft add rule arp seen input arp daddr ip 169.254.0.0/16 counter");
    let mut service = site.machine.start();
    let asked = || site.third.run("nft list chain arp seen input");
    eventually("it has given up", || {
        let count = asked().split("packets ").nth(1)?.split(' ').next()?.parse::<u32>().ok()?;
        (count >= 10).then_some(())
    });
    site.another_cable(&mut service, || drop(site.third.ip("route del local 169.254.0.0/16 dev eth0")));
    service.wait_address("eth0", "169.254.");
}

#[test]
fn an_address_of_the_link_alone_goes_when_none_is_wanted_any_more() {
    if !possible(&["ip"]) {
        return;
    }
    let site = Site::new();
    let mut service = site.machine.start();
    let address = service.wait_address("eth0", "169.254.");
    service.apply("[network.links.eth0]\nlink_local = false\n");
    service.wait_no_address("eth0", &address);
}

#[test]
fn servers_are_told_the_name_that_the_machine_has_by_now() {
    if !possible(&["ip", "dnsmasq", "nsenter"]) {
        return;
    }
    let site = Site::new();
    let lan = Lan::behind(&site.switch);
    let _server = lan.serve("10.77.0.50,10.77.0.51,1h", &[]);
    let mut service = site.machine.start();
    service.wait_address("eth0", "10.77.0.5");
    let process = service.program.child.id();
    support::run(&format!("nsenter --target {process} --uts hostname dock7"));
    site.another_cable(&mut service, || ());
    eventually("it says its new name", || lan.log_text().contains("dock7").then_some(()));
}

/// Says something only to who asks.
fn advertise(router: &Router, number: u32) -> Program {
    router.advertise(&format!("UnicastOnly on; prefix fd{number}::/64 {{ }}; RDNSS fd{number}::53 {{ }};"))
}

/// Whether all that the router with the number has brought is there, and nothing of another one.
fn has_only(site: &Site, service: &Running, number: u32) -> bool {
    let ip = |question: &str| site.machine.namespace.ip(&format!("-6 {question} dev eth0"));
    let (addresses, routes) = (ip("address show scope global"), ip("route show"));
    let network = format!("fd{number}:");
    let is_one = |text: &str| text.matches("fd7").count() == 1 && text.contains(&network);
    let default: Vec<&str> = routes.lines().filter(|line| line.starts_with("default")).collect();
    is_one(&addresses) && is_one(&routes) && default.len() == 1 && is_one(&service.file("resolv.upstream.conf"))
}

/// Whether it listens to whoever is behind the cable.
fn seeks_routers(site: &Site) -> bool {
    site.machine.namespace.run("cat /proc/net/packet").contains(" 86dd ")
}

#[test]
fn what_routers_brought_goes_when_others_answer_behind_another_cable() {
    if !possible(&["ip", "radvd"]) {
        return;
    }
    let site = Site::new();
    let [first, second] =
        [77, 78].map(|number| Router::behind(&site.switch, &format!("router{number}"), &format!("fd{number}::1/64")));
    let advertising = advertise(&first, 77);
    let mut service = site.machine.start();
    service.wait_ready();
    let has = |service: &Running, number| {
        eventually("what the router brings", || has_only(&site, service, number).then_some(()));
    };
    has(&service, 77);
    // Behind this one is the same router: nothing is lost when the search for others is over.
    let router = || site.machine.namespace.ip("-6 route show default");
    let before = router();
    site.another_cable(&mut service, || ());
    eventually("it seeks routers", || seeks_routers(&site).then_some(()));
    eventually("it has found them", || (!seeks_routers(&site)).then_some(()));
    assert!(has_only(&site, &service, 77));
    assert_eq!(router().split(" metric").next(), before.split(" metric").next());
    // Behind that one is another router, which does not hear the first question.
    site.another_cable(&mut service, || drop(advertising));
    eventually("it seeks routers", || seeks_routers(&site).then_some(()));
    // Until somebody answers, all is as it was.
    assert!(has_only(&site, &service, 77));
    let _advertising = advertise(&second, 78);
    has(&service, 78);
}

#[test]
fn two_cards_of_a_machine_on_one_switch_do_not_take_each_other_for_another_machine() {
    if !possible(SERVER) {
        return;
    }
    let machine = Machine::new("");
    let switch = Namespace::new();
    switch.ip("link add switch type bridge forward_delay 0");
    switch.ip("link set switch up");
    for number in 0..2 {
        machine.namespace.connect(&format!("eth{number}"), &switch, &format!("machine{number}"));
        switch.ip(&format!("link set machine{number} master switch up"));
    }
    let lan = Lan::behind(&switch);
    let _server = lan.serve("10.77.0.50,10.77.0.99,1h", &[]);
    let mut service = machine.start();
    let addresses = ["eth0", "eth1"].map(|link| service.wait_address(link, "10.77.0."));
    eventually("it has been asked who has them", || {
        let sockets = machine.namespace.run("cat /proc/net/packet");
        let is_declined = lan.log_text().contains("DHCPDECLINE");
        (sockets.lines().count() == 1 || is_declined).then_some(())
    });
    assert!(!lan.log_text().contains("DHCPDECLINE"), "{}", lan.log_text());
    for (link, address) in ["eth0", "eth1"].into_iter().zip(addresses) {
        assert!(machine.namespace.ip(&format!("address show dev {link}")).contains(&address), "{link}");
        let answers = machine.namespace.run(&format!("cat /proc/sys/net/ipv4/conf/{link}/arp_ignore"));
        assert_eq!(answers, "1\n", "who asks for the other card's address is not answered by this one");
    }
}
