//! The address of a service: connections to it are shared out in the kernel among the replicas that do their work.

use std::collections::BTreeMap;

use berth_control::message::{Attachment, Notice};

use crate::support::site::{Site, ask, container, is_shut, serve};
use crate::support::{Namespace, Program, Running, eventually, on, possible, wanted};

const TOOLS: &[&str] = &["ip", "nft", "socat", "dig"];
const NETWORKS: &str = "[networks.front]\nsubnets = ['10.88.0.0/24', 'fd00:88::/64']\n\
    [networks.back]\nsubnets = ['10.89.0.0/24', 'fd00:89::/64']\ninternal = true\n";

fn replica(number: usize, network: &str) -> Attachment {
    let mut wanted = on(wanted(&format!("web-{number}"), &[]), &[(network, "")]);
    (wanted.service, wanted.service_address) = ("web".to_owned(), true);
    wanted
}

struct Replicas {
    namespaces: Vec<Namespace>,
    addresses: Vec<Vec<String>>,
    _servers: Vec<Program>,
}

fn replicas(service: &mut Running, network: &str) -> Replicas {
    let namespaces: Vec<Namespace> = (0..3).map(|_| container()).collect();
    let attach = |(number, namespace): (usize, &Namespace)| service.attach_as(replica(number, network), namespace);
    let addresses = namespaces.iter().enumerate().map(attach).collect::<Result<_, _>>().unwrap();
    let serve = |(number, namespace): (usize, &Namespace)| serve(namespace, "TCP", 80, &format!("web-{number}"));
    let servers = namespaces.iter().enumerate().map(serve).collect();
    Replicas { namespaces, addresses, _servers: servers }
}

fn dig(from: &Namespace, server: &str, question: &str) -> Vec<String> {
    let answer = from.run(&format!("dig +short +time=3 +tries=2 @{server} {question}"));
    let mut lines: Vec<String> = answer.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Who answers how often.
fn answers(from: &Namespace, address: &str, times: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        let answer = ask(from, "TCP", address, 80);
        *counts.entry(answer.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn a_service_has_one_address_that_leads_to_all_that_do_their_work() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    for (network, gateway) in [("front", "10.88.0.1"), ("back", "10.89.0.1")] {
        let mut service = site.start();
        let client = container();
        service.attach_as(on(wanted("client", &[]), &[(network, "")]), &client).unwrap();
        let all = replicas(&mut service, network);
        let address = [dig(&client, gateway, "web a"), dig(&client, gateway, "web aaaa")].concat();
        assert_eq!(address.len(), 2, "{address:?}");
        assert!(!all.addresses.iter().flatten().any(|each| address.contains(each)), "{address:?}");
        let mut own: Vec<String> = all.addresses.iter().map(|each| each[0].clone()).collect();
        own.sort();
        assert_eq!(dig(&client, gateway, "tasks.web a"), own);
        for from in [&client, &site.machine.namespace, &all.namespaces[0]] {
            for address in &address {
                let counts = answers(from, address, 6);
                assert_eq!(counts.values().copied().collect::<Vec<_>>(), [2, 2, 2], "{network} {address}: {counts:?}");
            }
        }

        service.notify(Notice::Serving { name: "web-1".into(), serving: false }, &[]);
        let elements = || site.machine.namespace.run("nft list map inet berth services4");
        eventually("the one that is ill gets nothing", || (!elements().contains(&all.addresses[1][0])).then_some(()));
        let counts = answers(&client, &address[0], 4);
        assert_eq!(counts.keys().collect::<Vec<_>>(), ["web-0", "web-2"], "{counts:?}");

        // The next service finds all of it.
        let before = elements();
        drop(service);
        assert_eq!(answers(&client, &address[1], 4).len(), 2, "while nobody is there");
        let mut service = site.start();
        assert_eq!(elements(), before);
        assert_eq!(service.attach_as(replica(0, network), &all.namespaces[0]).unwrap(), all.addresses[0]);
        assert_eq!(dig(&client, gateway, "web a"), address[..1]);

        for name in ["web-0", "web-1", "web-2", "client"] {
            service.notify(Notice::DetachNetwork { name: name.into() }, &[]);
        }
        eventually("nothing is left", || {
            let left = site.machine.namespace.ip("address");
            (!elements().contains("elements") && !left.contains(&address[0]) && !left.contains(&address[1]))
                .then_some(())
        });
    }
}

#[test]
fn nobody_on_another_network_reaches_the_address_of_a_service() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let mut service = site.start();
    let all = replicas(&mut service, "front");
    let stranger = container();
    service.attach("stranger", &stranger, &[]).unwrap();
    let address = dig(&all.namespaces[0], "10.88.0.1", "web a").remove(0);
    assert!(ask(&all.namespaces[0], "TCP", &address, 80).starts_with("web-"));
    assert!(is_shut(&stranger, &address, 80));
    site.outside.ip(&format!("route add {address} via 192.0.2.2"));
    assert!(is_shut(&site.outside, &address, 80));
}

#[test]
fn an_address_that_a_killed_service_left_is_removed() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let all = replicas(&mut site.start(), "front");
    let address = site.machine.namespace.ip("-o -4 address");
    let address = address.split_whitespace().find(|word| word.ends_with("/32")).unwrap().to_owned();
    drop(all);
    let service = site.start();
    service.notify(Notice::AllAttached, &[]);
    eventually("it is gone", || (!site.machine.namespace.ip("-4 address").contains(&address)).then_some(()));
}
