//! What of the machine itself can be reached: nothing but what the configuration opens.

use std::io::Write;
use std::process::{Command, Stdio};

use berth_control::message::Request;

use crate::support::site::{HOST, Site, ask, container, is_shut, serve};
use crate::support::{Machine, Namespace, Program, eventually, possible};

const TOOLS: &[&str] = &["ip", "nft", "socat", "ping"];

#[test]
fn a_packet_filter_that_cannot_be_set_up_is_said_and_tried_again() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let host = &site.machine.namespace;
    // A table that belongs to another program, which nobody else may change as long as it runs.
    let owner = Command::new("ip").args(["netns", "exec", &host.name, "nft", "-i"]).stdin(Stdio::piped()).spawn();
    let mut owner = Program { child: owner.unwrap() };
    let mut says = owner.child.stdin.take().unwrap();
    says.write_all(b"add table inet berth { flags owner; }\n").unwrap();
    eventually("the table of another", || host.run("nft list tables").contains("berth").then_some(()));
    let mut service = site.machine.start();
    service.wait_ready();
    service.wait_lack("eth0", &["the packet filter is not set up"]);
    drop((says, owner));
    service.wait("that nothing is lacking", |request| match request {
        Request::Links { links } => links.iter().all(|link| link.missing.is_empty()).then_some(()),
        _ => None,
    });
    assert!(host.run("nft list chain inet berth input").contains("policy drop"));
}

#[test]
fn a_port_of_the_machine_is_shut_until_the_configuration_opens_it() {
    if !possible(TOOLS) {
        return;
    }
    let mut site = Site::new();
    let mut service = site.start();
    let web = container();
    service.attach("web", &web, &[]).unwrap();
    let host = &site.machine.namespace;
    let _servers = [serve(host, "TCP", 9000, "host"), serve(host, "UDP", 9005, "host")];
    for address in HOST {
        assert!(ask(host, "TCP", address, 9000).starts_with("host sees"), "the machine itself may");
        assert!(is_shut(&site.outside, address, 9000));
        let family = if address.contains(':') { "-6" } else { "-4" };
        site.outside.run(&format!("ping {family} -c1 -W5 {address}"));
    }
    assert!(is_shut(&web, "172.30.0.1", 9000), "containers are not let in either");
    service.apply(&site.configuration("[network]\ninbound = ['8999-9001', '9005/udp']\n"));
    for address in HOST {
        eventually("it is open", || ask(&site.outside, "TCP", address, 9000).starts_with("host sees").then_some(()));
    }
    assert!(ask(&site.outside, "UDP", HOST[0], 9005).starts_with("host sees"));
    assert!(ask(&web, "TCP", "172.30.0.1", 9000).starts_with("host sees"));
    site.machine.network = service.network.clone();
    drop(service);
    let mut service = site.start();
    assert!(ask(&site.outside, "TCP", HOST[0], 9000).starts_with("host sees"), "a restart shuts nothing");
    service.apply(&site.configuration("[network]\ninbound = ['9000/udp']\n"));
    eventually("it is shut again", || is_shut(&site.outside, HOST[0], 9000).then_some(()));
}

#[test]
fn the_machine_is_shut_before_any_container_comes() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let _service = site.start();
    let host = &site.machine.namespace;
    let _server = serve(host, "TCP", 9000, "host");
    assert!(ask(host, "TCP", HOST[0], 9000).starts_with("host sees"));
    assert!(is_shut(&site.outside, HOST[0], 9000));
}

#[test]
fn what_passes_between_ports_of_a_bridge_is_not_for_the_machine_to_refuse() {
    if !possible(TOOLS) {
        return;
    }
    let machine = Machine::new(
        "[network.links.lan]\nbridge = { ports = ['cards'] }\ndhcp = false\n\
         [network.links.cards]\nmatch = { name = 'card*' }\n",
    );
    let ends = [1, 2].map(|number| {
        let end = Namespace::new();
        machine.namespace.connect(&format!("card{number}"), &end, "eth0");
        end.ip("link set eth0 up");
        end.ip(&format!("address add 198.51.100.{number}/24 dev eth0"));
        end.ip(&format!("address add 2001:db8:9::{number}/64 dev eth0 nodad"));
        end
    });
    let mut service = machine.start();
    service.wait_ready();
    let _server = serve(&ends[0], "TCP", 9000, "one");
    for address in ["198.51.100.1", "2001:db8:9::1"] {
        let family = if address.contains(':') { "-6" } else { "-4" };
        ends[1].run(&format!("ping {family} -c1 -w10 {address}"));
        assert!(ask(&ends[1], "TCP", address, 9000).starts_with("one sees"), "{address}");
    }
}
