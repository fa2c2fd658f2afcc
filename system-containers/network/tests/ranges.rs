//! Published ranges of ports: thousands, as voice over IP wants them.

use std::net::UdpSocket;

use berth_control::message::{Notice, Port};

use crate::support::memory::MemoryGroup;
use crate::support::site::{HOST, Site, ask, container, is_silent, range, serve};
use crate::support::{Namespace, Running, eventually, possible, wanted};

const TOOLS: &[&str] = &["ip", "nft", "socat"];
/// As its container.toml says, in bytes.
const MEMORY: u64 = 64 << 20;
/// Half of what the configuration allows, once over TCP and once over UDP.
const MOST_OF_EACH: u16 = 16_384;

/// Ten thousand and one.
fn voice() -> Port {
    range("", (10_000, 10_000), 10_000, "udp")
}

fn attach(service: &mut Running, name: &str, namespace: &Namespace, ports: &[Port]) -> Vec<String> {
    let mut wanted = wanted(name, ports);
    wanted.service = name.split('-').next().unwrap_or_default().to_owned();
    service.attach_as(wanted, namespace).unwrap()
}

fn listed(site: &Site, map: &str) -> String {
    site.machine.namespace.run(&format!("nft list map inet berth {map}"))
}

#[test]
fn ten_thousand_ports_lead_to_a_container_from_everywhere() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let (sip, host) = (container(), &site.machine.namespace);
    attach(&mut service, "sip", &sip, &[voice()]);
    let ports = [10_000, 15_001, 20_000];
    let _servers = ports.map(|port| serve(&sip, "UDP", port, &format!("sip at {port}")));
    for port in ports {
        let answer = |from, address| ask(from, "UDP", address, port);
        for address in HOST {
            assert!(answer(&site.outside, address).starts_with(&format!("sip at {port} sees")), "{address}");
            assert!(answer(&sip, address).starts_with(&format!("sip at {port} sees")), "from itself");
        }
        for localhost in ["127.0.0.1", "::1"] {
            assert!(answer(host, localhost).starts_with(&format!("sip at {port} sees")), "{localhost}");
        }
    }
    assert!(ask(&site.outside, "UDP", HOST[0], 15_001).contains("ffff:c000:0201"), "the source is kept");
    assert!(is_silent(&site.outside, HOST[0], 20_001), "behind the range");
    let map = listed(&site, "ranges4");
    assert!(map.contains("udp . 10000-20000 . "), "{map}");
    drop(service);
    let mut service = site.start();
    assert_eq!(listed(&site, "ranges4"), map);
    attach(&mut service, "sip", &sip, &[voice()]);
    service.notify(Notice::DetachNetwork { name: "sip".into() }, &[]);
    eventually("the range is closed", || (!listed(&site, "ranges4").contains("10000")).then_some(()));
}

#[test]
fn ten_thousand_ports_may_lead_to_others() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let sip = container();
    attach(&mut service, "sip", &sip, &[range("", (20_000, 10_000), 10_000, "tcp")]);
    let _server = serve(&sip, "TCP", 20_000, "sip");
    for address in HOST {
        assert!(ask(&site.outside, "TCP", address, 30_000).starts_with("sip sees"), "{address}");
    }
}

#[test]
fn the_most_ports_that_may_be_published_fit_into_the_memory_that_it_has() {
    if !possible(TOOLS) {
        return;
    }
    let configured = |count: u16| {
        let (last, last_inside) = (1023 + count, 2023 + count);
        let ports = format!("1024-{last}:2024-{last_inside}");
        let text = format!("[containers.sip]\nimage = 'sip:1'\nports = ['{ports}', '{ports}/udp']\n");
        berth_config::load(&[berth_config::Source::new("test.toml", text)]).is_ok()
    };
    assert!(configured(MOST_OF_EACH) && !configured(MOST_OF_EACH + 1), "what is allowed is what is tried here");
    let site = Site::new();
    let Some(memory) = MemoryGroup::new(MEMORY) else { return };
    let start = || {
        let mut service = site.machine.start();
        memory.take(&service.program);
        service.wait_ready();
        service.wait_address("eth0", HOST[0]);
        service
    };
    let (sip, mut service) = (container(), start());
    let ports = ["tcp", "udp"].map(|protocol| range("", (1024, 2024), MOST_OF_EACH - 1, protocol));
    let begun = std::time::Instant::now();
    attach(&mut service, "sip", &sip, &ports);
    eprintln!("{MOST_OF_EACH} ports of each protocol after {:?}, {} KiB at most", begun.elapsed(), memory.most() >> 10);
    let _server = serve(&sip, "TCP", 2023 + MOST_OF_EACH, "sip");
    let is_there = || {
        for address in HOST {
            assert!(ask(&site.outside, "TCP", address, 1023 + MOST_OF_EACH).starts_with("sip sees"), "{address}");
        }
    };
    is_there();
    // The whole table is made anew, by the same service and by the next one.
    service.apply(&site.configuration("[network]\ninbound = [22]\n"));
    eventually("another table", || {
        site.machine.namespace.run("nft list chain inet berth input").contains("22").then_some(())
    });
    eprintln!("made anew: {} KiB at most", memory.most() >> 10);
    drop(service);
    let mut service = start();
    attach(&mut service, "sip", &sip, &ports);
    is_there();
    eprintln!("taken up by the next service: {} KiB at most", memory.most() >> 10);
}

#[test]
fn a_port_within_a_range_is_refused_to_others_and_so_is_one_that_the_machine_has() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let host = &site.machine.namespace;
    let own = host.within(|| UdpSocket::bind("0.0.0.0:12345").unwrap());
    let reason = service.attach("sip", &container(), &[voice()]).unwrap_err();
    assert!(reason.contains("port 12345/udp of the machine is in use by a program"), "{reason}");
    drop(own);
    let sip = container();
    service.attach("sip", &sip, &[voice()]).unwrap();
    let reason = service.attach("other", &container(), &[range("", (19_990, 80), 20, "udp")]).unwrap_err();
    assert!(reason.contains("19990/udp") && reason.contains("container sip"), "{reason}");
}

#[test]
fn replicas_share_ten_thousand_ports() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let namespaces = [container(), container()];
    let addresses: Vec<String> = (0..)
        .zip(&namespaces)
        .map(|(number, namespace)| attach(&mut service, &format!("sip-{number}"), namespace, &[voice()]).remove(0))
        .collect();
    let _servers: Vec<_> =
        namespaces.iter().zip(["one", "two"]).map(|(namespace, name)| serve(namespace, "UDP", 14_000, name)).collect();
    let answers = || {
        let answers = (0..4).map(|_| ask(&site.outside, "UDP", HOST[0], 14_000));
        let mut names: Vec<_> = answers.map(|answer| answer.split(' ').next().unwrap_or_default().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(answers(), ["one", "one", "two", "two"]);
    service.notify(Notice::Serving { name: "sip-1".into(), serving: false }, &[]);
    eventually("the one that is ill gets nothing", || {
        (!listed(&site, "ranges4").contains(&addresses[1])).then_some(())
    });
    assert_eq!(answers(), ["one"; 4]);
    // One of them is started anew with other ports, which the first still has: as with another configuration.
    service.notify(Notice::Serving { name: "sip-1".into(), serving: true }, &[]);
    attach(&mut service, "sip-1", &namespaces[1], &[range("", (14_000, 14_000), 9_000, "udp")]);
    let map = listed(&site, "ranges4");
    assert!(map.contains("udp . 10000-13999 . ") && map.contains("udp . 20001-23000 . "), "{map}");
    assert_eq!(answers(), ["one", "one", "two", "two"]);
}
