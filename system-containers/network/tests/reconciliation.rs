//! The service is killed while containers come and go: what the kernel has afterwards is what was asked for, no more.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use berth_control::message::{Attachment, Notice};
use support::site::{Site, container, port};
use support::{Namespace, eventually, on, possible, wanted};

const TOOLS: &[&str] = &["ip", "nft", "dig"];
const NETWORKS: &str = "[networks.front]\n[networks.back]\ninternal = true\n";
const CONTAINERS: u32 = 20;
const ROUNDS: u32 = 10;

/// Numbers that look random and are the same in each run (Knuth's MMIX generator).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Every third is a replica of one service with a common port, every other has a port of its own.
fn definition(number: u32) -> Attachment {
    let own = [port("", 9000 + u16::try_from(number).unwrap(), 80, "tcp")];
    let networks: &[(&str, &str)] = match number % 4 {
        0 => &[("default", "")],
        1 => &[("front", "")],
        2 => &[("back", ""), ("front", "")],
        _ => &[("front", ""), ("default", "")],
    };
    let mut wanted = on(wanted(&format!("c{number}"), &own), networks);
    if number.is_multiple_of(3) {
        wanted.service = "all".to_owned();
        wanted.ports = vec![port("", 8080, 80, "tcp")];
    }
    wanted
}

#[test]
fn nothing_is_left_over_or_missing_however_often_the_service_is_killed() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let mut chance = Chance(1);
    let mut running: BTreeMap<u32, Namespace> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let mut service = site.start();
        for (number, namespace) in &running {
            service.begin_to_attach(definition(*number), namespace);
        }
        for _ in 0..chance.below(30) {
            let number = chance.below(CONTAINERS);
            if running.remove(&number).is_some() {
                service.notify(Notice::DetachNetwork { name: format!("c{number}") }, &[]);
            } else {
                let namespace = container();
                service.begin_to_attach(definition(number), &namespace);
                running.insert(number, namespace);
            }
        }
        // It is in the middle of something: what it has answered so far differs from round to round.
        let answers = chance.below(8);
        let mut heard = 0;
        if !running.is_empty() && answers > 0 {
            service.wait("some answers", |request| {
                heard += u32::from(matches!(request, berth_control::message::Request::NetworkAttached { .. }));
                (heard == answers.min(u32::try_from(running.len()).unwrap())).then_some(())
            });
        }
    }
    let mut service = site.start();
    let mut given = BTreeSet::new();
    for (number, namespace) in &running {
        for address in service.attach_as(definition(*number), namespace).unwrap() {
            assert!(namespace.ip("address").contains(&format!(" {address}/")), "c{number} has not {address}");
            assert!(given.insert(address), "an address twice");
        }
    }
    assert!(running.len() > 4 && running.contains_key(&9), "chance made too little of it: {:?}", running.keys());
    let host = &site.machine.namespace;
    let cables: usize = running.keys().map(|number| definition(*number).networks.len()).sum();
    eventually("as many cables as there should be", || {
        (host.ip("-o link show type veth").matches("berth").count() == 2 * cables).then_some(())
    });
    for (number, namespace) in &running {
        assert_eq!(namespace.ip("-o link show type veth").lines().count(), definition(*number).networks.len());
    }
    let alone = running.keys().filter(|number| *number % 3 != 0).count();
    let ports = host.run("nft list map inet berth published4");
    assert_eq!(ports.matches("tcp . 90").count(), alone, "{ports}");
    let shared = host.run("nft list map inet berth shared4");
    assert_eq!(shared.matches("tcp . 8080").count(), 256);
    assert_eq!(std::fs::read_dir(service.run.join("network")).unwrap().count(), running.len());
    // All elements lead to containers that there are.
    for line in (ports + &shared).lines().flat_map(|line| line.split(',')) {
        if let Some((_, to)) = line.split_once(" : ").filter(|(key, _)| key.contains("tcp . ")) {
            assert!(given.contains(to.split(' ').next().unwrap()), "{line}");
        }
    }
}
