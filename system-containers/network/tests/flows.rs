//! What the kernel knows of connections when their container goes, falls ill or comes: over UDP, which has no end, the next
//! packet of a flow must find the way that is right then.

use std::net::UdpSocket;
use std::os::fd::AsFd;

use berth_control::message::{Notice, Port};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::support;
use crate::support::site::{HOST, OUTSIDE, Site, ask, container, port, serve};
use crate::support::{Namespace, Running, eventually, possible, wanted};

const TOOLS: &[&str] = &["ip", "nft", "socat"];

fn listen(namespace: &Namespace, port: u16) -> UdpSocket {
    let socket = namespace.within(|| UdpSocket::bind(("::", port)).unwrap());
    socket.set_nonblocking(true).unwrap();
    socket
}

fn flow(from: &Namespace, family: usize, to: u16) -> UdpSocket {
    let socket = from.within(|| UdpSocket::bind((OUTSIDE[family], 0)).unwrap());
    socket.connect((HOST[family], to)).unwrap();
    socket
}

/// Which of them a flow leads to now; a packet may get lost, or be refused, until a way is there.
fn leads_to(flow: &UdpSocket, servers: &[UdpSocket]) -> usize {
    let mut buffer = [0; 16];
    for server in servers {
        while server.recv(&mut buffer).is_ok() {}
    }
    eventually("a packet comes to somebody", || {
        let _refused_before = flow.send(b"question");
        let mut waiting: Vec<PollFd> =
            servers.iter().map(|server| PollFd::new(server.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut waiting, PollTimeout::from(200_u16)).unwrap();
        servers.iter().position(|server| server.recv(&mut buffer).is_ok())
    })
}

fn attach_replica(service: &mut Running, number: usize, namespace: &Namespace, ports: &[Port]) {
    let mut wanted = wanted(&format!("web-{number}"), ports);
    wanted.service = "web".to_owned();
    service.attach_as(wanted, namespace).unwrap();
}

#[test]
fn a_flow_goes_on_with_another_replica_when_its_own_is_ill_or_has_gone() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let namespaces = [container(), container(), container()];
    let ports = [port("", 8080, 80, "udp")];
    for (number, namespace) in namespaces.iter().enumerate() {
        attach_replica(&mut service, number, namespace, &ports);
    }
    let servers = namespaces.each_ref().map(|namespace| listen(namespace, 80));
    for family in 0..2 {
        let flows: Vec<UdpSocket> = (0..6).map(|_| flow(&site.outside, family, 8080)).collect();
        let before: Vec<usize> = flows.iter().map(|flow| leads_to(flow, &servers)).collect();
        assert_eq!(flows.iter().map(|flow| leads_to(flow, &servers)).collect::<Vec<_>>(), before);
        let ill = before[0];
        let name = format!("web-{ill}");
        service.notify(Notice::Serving { name: name.clone(), serving: false }, &[]);
        eventually("the ill one gets nothing", || (leads_to(&flows[0], &servers) != ill).then_some(()));
        for (flow, before) in flows.iter().zip(&before) {
            let now = leads_to(flow, &servers);
            assert!(now != ill && (*before == ill || now == *before), "{before} {now}: the others' flows stay");
        }
        let second = leads_to(&flows[0], &servers);
        service.notify(Notice::DetachNetwork { name: format!("web-{second}") }, &[]);
        service.notify(Notice::Serving { name, serving: true }, &[]);
        eventually("the one that has gone gets nothing", || (leads_to(&flows[0], &servers) != second).then_some(()));
        attach_replica(&mut service, second, &namespaces[second], &ports);
    }
}

#[test]
fn a_flow_to_the_machine_of_before_its_port_was_published_comes_to_the_container_and_no_other_ends() {
    if !possible(TOOLS) {
        return;
    }
    // Open, or the kernel would remember nothing.
    let site = Site::with("[network]\ninbound = ['9090/udp']\n");
    let mut service = site.start();
    let (web, neighbour) = (container(), container());
    service.attach("neighbour", &neighbour, &[]).unwrap();
    let flows = [0, 1].map(|family| flow(&site.outside, family, 9090));
    for flow in &flows {
        flow.send(b"early").unwrap();
    }
    // Through the machine and from it, to the same port elsewhere.
    for from in [&neighbour, &site.machine.namespace] {
        for outside in OUTSIDE {
            let socket = from.within(|| UdpSocket::bind(("::", 0)).unwrap());
            socket.send_to(b"elsewhere", (outside, 9090)).unwrap();
        }
    }
    let known = || site.machine.namespace.run("cat /proc/net/nf_conntrack").matches("dport=9090").count();
    eventually("the kernel knows of them", || (known() == 6).then_some(()));
    service.attach("web", &web, &[port("", 9090, 80, "udp")]).unwrap();
    assert_eq!(known(), 4, "what goes elsewhere is not for the container");
    let server = [listen(&web, 80)];
    for flow in &flows {
        leads_to(flow, &server);
    }
}

/// More than fit into one message to the kernel.
const MANY: usize = 110_000;

#[test]
fn as_many_flows_as_the_kernel_follows_are_forgotten() {
    if !possible(TOOLS) {
        return;
    }
    let most = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").unwrap();
    if most.trim().parse::<usize>().unwrap() < 2 * MANY {
        support::skip("this kernel does not follow so many connections");
        return;
    }
    let site = Site::with("[network]\ninbound = ['9090/udp']\n");
    let mut service = site.start();
    site.outside.ip("address add 192.0.2.3/24 dev up0");
    let known = || -> usize {
        let text = site.machine.namespace.run("cat /proc/sys/net/netfilter/nf_conntrack_count");
        text.trim().parse().unwrap()
    };
    site.outside.within(|| {
        for (number, port) in (0..MANY).zip((5000..60_000_u16).cycle()) {
            let address = if number < 55_000 { OUTSIDE[0] } else { "192.0.2.3" };
            let _full = UdpSocket::bind((address, port)).unwrap().send_to(b"early", (HOST[0], 9090));
        }
    });
    let before = known();
    assert!(before > MANY - 1000, "{before}");
    service.attach("web", &container(), &[port("", 9090, 80, "udp")]).unwrap();
    let after = known();
    assert!(after < 1000, "{after} of {before} are left");
}

#[test]
fn connections_of_a_container_are_forgotten_with_it() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let web = container();
    service.attach("web", &web, &[port("", 8080, 80, "tcp")]).unwrap();
    let _servers = [serve(&web, "TCP", 80, "web"), serve(&site.outside, "TCP", 7000, "outside")];
    for family in 0..2 {
        assert!(ask(&site.outside, "TCP", HOST[family], 8080).starts_with("web sees"));
        assert!(ask(&web, "TCP", OUTSIDE[family], 7000).starts_with("outside sees"));
    }
    let known = || {
        let text = site.machine.namespace.run("cat /proc/net/nf_conntrack");
        text.lines().filter(|line| line.contains("dport=8080") || line.contains("dport=7000")).count()
    };
    assert_eq!(known(), 4);
    service.notify(Notice::DetachNetwork { name: "web".into() }, &[]);
    eventually("they are forgotten", || (known() == 0).then_some(()));
}
