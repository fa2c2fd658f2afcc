//! A bridge of containers is quiet: what a container's kernel tells all others that nobody there listens to does not
//! reach them, and everything else does.

use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};

use crate::support::site::{Site, container};
use crate::support::{Namespace, PATIENCE, possible};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
const PORT: u16 = 7000;

fn socket(namespace: &Namespace) -> (UdpSocket, u32) {
    namespace.within(|| {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        (socket, nix::net::if_::if_nametoindex("eth0").unwrap())
    })
}

#[test]
fn announcements_of_groups_do_not_reach_other_containers_and_other_multicast_does() {
    if !possible(&["ip", "nft"]) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let (web, db) = (container(), container());
    service.attach("web", &web, &[]).unwrap();
    service.attach("db", &db, &[]).unwrap();
    let (listener, link) = socket(&web);
    // The second is joined without asking.
    listener.join_multicast_v6(&MLD_ROUTERS, link).unwrap();
    let (speaker, link) = socket(&db);
    for (group, text) in [(MLD_ROUTERS, "to routers"), (ALL_NODES, "to all")] {
        speaker.send_to(text.as_bytes(), SocketAddrV6::new(group, PORT, 0, link)).unwrap();
    }
    let mut buffer = [0; 64];
    let (length, _) = listener.recv_from(&mut buffer).unwrap();
    assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), "to all");
}

#[test]
fn a_new_container_asks_nobody_whether_its_addresses_are_free() {
    if !possible(&["ip", "nft"]) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let web = container();
    service.attach("web", &web, &[]).unwrap();
    assert_eq!(web.ip("-6 address show tentative"), "");
    assert_eq!(web.run("cat /proc/sys/net/ipv6/conf/eth0/accept_dad"), "0\n");
}

#[test]
fn a_cable_has_one_queue_an_end_and_one_place_among_the_addresses_of_its_bridge() {
    if !possible(&["ip", "nft", "bridge"]) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let web = container();
    service.attach("web", &web, &[]).unwrap();
    let port = site.machine.namespace.ip("-o link show master berth0");
    let name = port.split([' ', '@']).nth(1).unwrap();
    for ends in [site.machine.namespace.ip(&format!("-d link show {name}")), web.ip("-d link show eth0")] {
        assert!(ends.contains("numtxqueues 1 numrxqueues 1 "), "{ends}");
    }
    let entries = site.machine.namespace.run(&format!("bridge fdb show dev {name}"));
    let permanent: Vec<&str> = entries.lines().filter(|line| line.ends_with("permanent")).collect();
    let of_groups = |line: &&&str| line.starts_with("33:33:") || line.starts_with("01:00:5e:");
    let own = permanent.iter().filter(|line| !of_groups(line)).count();
    assert_eq!(own, 1, "{entries}");
}
