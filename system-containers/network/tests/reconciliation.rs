//! The service is killed while containers come and go: what the kernel has afterwards, read back as JSON from `ip` and
//! `nft`, is what is declared, no more and no less.

use std::collections::{BTreeMap, BTreeSet};

use berth_control::message::{Attachment, Notice, Request};
use serde_json::Value;

use crate::support::site::{Site, container, port, ruled};
use crate::support::{Namespace, Running, eventually, on, possible, wanted};

const TOOLS: &[&str] = &["ip", "nft", "tc"];
const NETWORKS: &str = "[networks.front]\n[networks.back]\ninternal = true\n";
const CONTAINERS: u32 = 50;
const ROUNDS: u32 = 12;
/// Of one round.
const CHANGES: u32 = 50;
/// How many shares a port of replicas has.
const SLOTS: usize = 256;

/// Numbers that look random and are the same in each run (Knuth's MMIX generator).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % limit
    }
}

fn name(number: u32) -> String {
    format!("c{number}")
}

/// Every third is a replica of one service with a common port and addresses of its own, every other has a port of its own.
fn is_replica(number: u32) -> bool {
    number.is_multiple_of(3)
}

fn is_limited(number: u32) -> bool {
    number % 5 == 1
}

fn has_rules(number: u32) -> bool {
    number % 5 == 2
}

fn own_port(number: u32) -> u16 {
    9000 + u16::try_from(number).unwrap()
}

fn definition(number: u32) -> Attachment {
    let networks: &[(&str, &str)] = match number % 4 {
        0 => &[("default", "")],
        1 => &[("front", "")],
        2 => &[("back", ""), ("front", "")],
        _ => &[("front", ""), ("default", "")],
    };
    let mut wanted = on(wanted(&name(number), &[port("", own_port(number), 80, "tcp")]), networks);
    if is_replica(number) {
        (wanted.service, wanted.service_address) = ("all".to_owned(), true);
        wanted.ports = vec![port("", 8080, 80, "tcp")];
    }
    let limit = if is_limited(number) { "bandwidth = { ingress = '10M', egress = '10M' }\n" } else { "" };
    let rules = if has_rules(number) { "deny = [{ container = 'nobody' }]\n" } else { "" };
    ruled(wanted, &(limit.to_owned() + rules))
}

/// Lets containers come and go, and ends the service in the middle of it.
fn one_round(site: &Site, chance: &mut Chance, running: &mut BTreeMap<u32, Namespace>) {
    let mut service = site.start();
    for (number, namespace) in &*running {
        service.begin_to_attach(definition(*number), namespace);
    }
    let mut asked = u32::try_from(running.len()).unwrap();
    for _ in 0..chance.below(CHANGES) {
        let number = chance.below(CONTAINERS);
        if running.remove(&number).is_some() {
            service.notify(Notice::DetachNetwork { name: name(number) }, &[]);
        } else {
            let namespace = container();
            service.begin_to_attach(definition(number), &namespace);
            running.insert(number, namespace);
            asked += 1;
        }
    }
    // It is in the middle of something: what it has answered so far differs from round to round, and is not all.
    let answers = chance.below(asked.max(1));
    let mut heard = 0;
    if answers > 0 {
        service.wait("some answers", |request| {
            let answered = matches!(request, Request::NetworkAttached { .. } | Request::NetworkFailed { .. });
            heard += u32::from(answered);
            (heard == answers).then_some(())
        });
    }
    // Dropped, it is killed.
}

fn json(text: &str) -> Vec<Value> {
    serde_json::from_str::<Value>(text).unwrap().as_array().unwrap().clone()
}

/// Addresses of a link without those that the kernel makes by itself.
fn addresses(link: &Value) -> BTreeSet<String> {
    let all = link["addr_info"].as_array().into_iter().flatten();
    let own = all.filter(|each| each["scope"] == "global");
    own.map(|each| each["local"].as_str().unwrap().to_owned()).collect()
}

/// The elements of a map of the table: what they are found by, without slots, and the address they lead to.
fn map(host: &Namespace, name: &str) -> Vec<(u64, String)> {
    let shown: Value = serde_json::from_str(&host.run(&format!("nft -j list map inet berth {name}"))).unwrap();
    let map = shown["nftables"].as_array().unwrap().iter().find_map(|each| each.get("map")).unwrap().clone();
    let elements = map["elem"].as_array().cloned().unwrap_or_default();
    let part = |element: &Value, side: usize, index: usize| {
        let side = &element[side];
        side["concat"][index].clone()
    };
    elements
        .iter()
        .map(|element| {
            let port = part(element, 0, 1).as_u64().unwrap_or_else(|| panic!("{name}: {element}"));
            let to = element[1].as_str().map_or_else(|| part(element, 1, 0), Value::from);
            (port, to.as_str().unwrap_or_else(|| panic!("{name}: {element}")).to_owned())
        })
        .collect()
}

/// What the containers were given, by number.
type Given = BTreeMap<u32, Vec<String>>;

fn check_links(host: &Namespace, running: &BTreeMap<u32, Namespace>, given: &Given) {
    let wanted: usize = running.keys().map(|number| definition(*number).networks.len()).sum();
    eventually("as many cables as there should be", || {
        let links = json(&host.ip("-j link show type veth"));
        (links.iter().filter(|link| link["ifname"].as_str().unwrap().starts_with("berth")).count() == wanted)
            .then_some(())
    });
    let bridges: BTreeSet<String> =
        json(&host.ip("-j link show type bridge")).iter().map(|link| link["ifname"].as_str().unwrap().into()).collect();
    let links = json(&host.ip("-j link"));
    let own = links.iter().filter(|link| link["ifname"].as_str().unwrap().starts_with("berth"));
    for link in own.filter(|link| !bridges.contains(link["ifname"].as_str().unwrap())) {
        let bridge = link["master"].as_str().unwrap_or_else(|| panic!("no bridge: {link}"));
        assert!(bridges.contains(bridge), "{link}");
        assert_eq!(link["operstate"], "UP", "{link}");
    }
    assert!(bridges.len() <= 3, "{bridges:?}");
    for (number, namespace) in running {
        let definition = definition(*number);
        let links = json(&namespace.ip("-j address"));
        let cables: Vec<_> = links.iter().filter(|link| link["ifname"] != "lo").collect();
        assert_eq!(cables.len(), definition.networks.len(), "c{number}: {links:?}");
        let there: BTreeSet<String> = cables.iter().flat_map(|link| addresses(link)).collect();
        assert_eq!(there, given[number].iter().cloned().collect(), "c{number}");
        for family in ["-4", "-6"] {
            let routes = json(&namespace.ip(&format!("-j {family} route show default")));
            assert_eq!(routes.len(), 1, "c{number}, {family}: {routes:?}");
            let way_out = if number % 4 == 2 { "eth1" } else { "eth0" };
            assert_eq!(routes[0]["dev"], way_out, "c{number}, {family}");
        }
    }
}

/// The addresses of a container on the network of its way out: IPv4 or IPv6.
fn on_way_out(number: u32, given: &Given, ipv4: bool) -> String {
    let first = if number % 4 == 2 { 2 } else { 0 };
    given[&number][first + usize::from(!ipv4)].clone()
}

fn check_filter(host: &Namespace, running: &BTreeMap<u32, Namespace>, given: &Given) {
    let (replicas, alone): (Vec<u32>, Vec<u32>) = running.keys().partition(|number| is_replica(**number));
    for (ipv4, published, shared) in [(true, "published4", "shared4"), (false, "published6", "shared6")] {
        let there: BTreeSet<_> = map(host, published).into_iter().collect();
        let wanted = alone.iter().map(|number| (own_port(*number).into(), on_way_out(*number, given, ipv4)));
        assert_eq!(there, wanted.collect(), "{published}");
        let slots = map(host, shared);
        assert_eq!(slots.len(), if replicas.is_empty() { 0 } else { SLOTS }, "{shared}");
        let there: BTreeSet<_> = slots.into_iter().collect();
        let wanted = replicas.iter().map(|number| (8080, on_way_out(*number, given, ipv4)));
        assert_eq!(there, wanted.collect(), "{shared}");
    }
    let networks: BTreeSet<_> =
        replicas.iter().flat_map(|number| definition(*number).networks).map(|(network, _)| network).collect();
    for (first, services) in [(0, "services4"), (1, "services6")] {
        let slots = map(host, services);
        assert_eq!(slots.len(), SLOTS * networks.len(), "{services}");
        let there: BTreeSet<String> = slots.into_iter().map(|(_, to)| to).collect();
        let wanted = replicas.iter().flat_map(|number| given[number].iter().skip(first).step_by(2).cloned());
        assert_eq!(there, wanted.collect(), "{services}");
    }
    for map in ["published4_at", "published6_at", "shared4_at", "shared6_at"] {
        let shown: Value = serde_json::from_str(&host.run(&format!("nft -j list map inet berth {map}"))).unwrap();
        assert!(!shown.to_string().contains("\"elem\""), "{map}: {shown}");
    }
    let tables: Value = serde_json::from_str(&host.run("nft -j list tables")).unwrap();
    let tables = tables["nftables"].as_array().unwrap().iter().filter_map(|each| each.get("table"));
    let tables: BTreeSet<_> = tables.map(|table| format!("{} {}", table["family"], table["name"])).collect();
    let wanted = ["\"bridge\" \"berth\"", "\"bridge\" \"berth-quiet\"", "\"inet\" \"berth\""].map(str::to_owned);
    assert_eq!(tables, wanted.into_iter().collect(), "nothing of earlier rounds");
}

/// The cables with a limit, and the chains of those with rules.
fn check_limits_and_rules(host: &Namespace, running: &BTreeMap<u32, Namespace>) {
    let cables = |is_one: fn(u32) -> bool| {
        let numbers = running.keys().copied().filter(move |number| is_one(*number));
        numbers.flat_map(|number| definition(number).networks.into_iter().map(move |(network, _)| (number, network)))
    };
    let queues = json(&host.run("tc -j qdisc show"));
    let limited = queues.iter().filter(|queue| queue["kind"] == "tbf").count();
    assert!(limited > 0, "chance made too little of it: {:?}", running.keys());
    assert_eq!(limited, cables(is_limited).count(), "{queues:?}");
    for family in ["inet", "bridge"] {
        let shown: Value = serde_json::from_str(&host.run(&format!("nft -j list chains {family}"))).unwrap();
        let chains = shown["nftables"].as_array().unwrap().iter().filter_map(|each| each["chain"]["name"].as_str());
        let there: BTreeSet<String> = chains.filter(|name| name.contains('/')).map(str::to_owned).collect();
        let wanted = cables(has_rules).map(|(number, network)| format!("to/{network}/{}", name(number)));
        assert_eq!(there, wanted.collect(), "{family}");
        assert!(!there.is_empty(), "chance made too little of it: {:?}", running.keys());
    }
}

fn attach_all(service: &mut Running, running: &BTreeMap<u32, Namespace>) -> Given {
    let mut seen = BTreeSet::new();
    let attach = |(number, namespace): (&u32, &Namespace)| {
        let addresses = service.attach_as(definition(*number), namespace).unwrap();
        for address in &addresses {
            assert!(seen.insert(address.clone()), "{address} is given twice");
        }
        (*number, addresses)
    };
    running.iter().map(attach).collect()
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
        one_round(&site, &mut chance, &mut running);
    }
    let mut service = site.start();
    let given = attach_all(&mut service, &running);
    service.notify(Notice::AllAttached, &[]);
    // An answered request comes after the notice.
    let (number, namespace) = running.first_key_value().unwrap();
    service.attach_as(definition(*number), namespace).unwrap();
    assert!(running.len() > 10, "chance made too little of it: {:?}", running.keys());
    let replicas = running.keys().filter(|number| is_replica(**number)).count();
    assert!(replicas > 1 && replicas < running.len(), "chance made too little of it: {:?}", running.keys());
    let host = &site.machine.namespace;
    check_links(host, &running, &given);
    check_filter(host, &running, &given);
    check_limits_and_rules(host, &running);
    assert_eq!(std::fs::read_dir(service.run.join("network")).unwrap().count(), running.len());
}
