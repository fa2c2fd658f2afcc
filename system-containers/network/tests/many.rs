//! Five hundred containers on one network: each is found by its name and reached, and none by another's address.

use std::collections::BTreeSet;

use berth_control::message::Notice;
use serde_json::Value;

use crate::support::site::{HOST, Site, ask, container, port, serve};
use crate::support::{Namespace, eventually, possible};

const TOOLS: &[&str] = &["ip", "nft", "socat", "dig"];
const COUNT: u16 = 500;

/// How many elements a set or map of the table has.
fn elements(host: &Namespace, kind: &str, name: &str) -> usize {
    let text = host.run(&format!("nft -j list {kind} inet berth {name}"));
    let shown: Value = serde_json::from_str(&text).unwrap();
    let object = shown["nftables"].as_array().unwrap().iter().find_map(|each| each.get(kind)).unwrap();
    object["elem"].as_array().map_or(0, Vec::len)
}

fn rules(host: &Namespace) -> usize {
    let shown: Value = serde_json::from_str(&host.run("nft -j list table inet berth")).unwrap();
    shown["nftables"].as_array().unwrap().iter().filter(|each| each.get("rule").is_some()).count()
}

#[test]
fn five_hundred_containers_share_a_network() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let host = &site.machine.namespace;
    let namespaces: Vec<Namespace> = (0..COUNT).map(|_| container()).collect();
    let mut given = BTreeSet::new();
    let mut addresses = Vec::new();
    let mut rules_of_one = 0;
    for (number, namespace) in (0..COUNT).zip(&namespaces) {
        let own = service.attach(&format!("c{number}"), namespace, &[port("", 10_000 + number, 80, "tcp")]).unwrap();
        assert!(
            own.iter().all(|address| given.insert(address.clone())),
            "c{number} has an address of another: {own:?}"
        );
        addresses.push(own);
        if number == 0 {
            rules_of_one = rules(host);
        }
    }
    assert_eq!(rules(host), rules_of_one, "a container needs no rule of its own");
    for map in ["published4", "published6"] {
        assert_eq!(elements(host, "map", map), usize::from(COUNT), "{map}");
    }
    let links: Value = serde_json::from_str(&host.ip("-j link show type veth")).unwrap();
    let cables = links.as_array().unwrap().iter().filter(|link| link["master"] == "berth0").count();
    assert_eq!(cables, usize::from(COUNT));

    // The first, the last and one in between: from a neighbour, from outside, by name.
    let last = usize::from(COUNT) - 1;
    for (number, asker) in [(0, last), (last / 2, 0), (last, 1)] {
        let name = format!("c{number}");
        let _server = serve(&namespaces[number], "TCP", 80, &name);
        for address in &addresses[number] {
            let answer = ask(&namespaces[asker], "TCP", address, 80);
            assert!(answer.starts_with(&format!("{name} sees")), "{name} at {address}: {answer:?}");
        }
        let published = 10_000 + u16::try_from(number).unwrap();
        for address in HOST {
            let answer = ask(&site.outside, "TCP", address, published);
            assert!(answer.starts_with(&format!("{name} sees")), "{name} at {address}: {answer:?}");
        }
        let gateway = host.ip("-4 -br address show dev berth0");
        let gateway = gateway.split_whitespace().nth(2).unwrap().split('/').next().unwrap().to_owned();
        let found = namespaces[asker].run(&format!("dig +short @{gateway} {name}"));
        assert_eq!(found.trim(), addresses[number][0], "{name}");
    }

    // When half of them go, the others keep what they have.
    for number in (0..COUNT).step_by(2) {
        service.notify(Notice::DetachNetwork { name: format!("c{number}") }, &[]);
    }
    eventually("half of the ports", || (elements(host, "map", "published4") == usize::from(COUNT / 2)).then_some(()));
    for number in [1, last] {
        let again = service.attach(
            &format!("c{number}"),
            &namespaces[number],
            &[port("", 10_000 + u16::try_from(number).unwrap(), 80, "tcp")],
        );
        assert_eq!(again.unwrap(), addresses[number]);
    }
}
