//! The resolver of containers, asked by `dig`, with dnsmasq as the host's server.

use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_control::message::Notice;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage};

use crate::support::site::{Site, container, port};
use crate::support::{Namespace, Running, eventually, name_server, on, possible, wanted};

const TOOLS: &[&str] = &["ip", "nft", "dig", "dnsmasq"];
const NETWORKS: &str = "[network]\ndns = ['192.0.2.1']\ndns_search = ['example.test']\n\
    [networks.front]\nsubnets = ['10.88.0.0/24', 'fd00:88::/64']\n\
    [networks.back]\nsubnets = ['10.89.0.0/24']\ninternal = true\n";
const FRONT: &str = "10.88.0.1";
const BACK: &str = "10.89.0.1";
/// Lets dnsmasq say of its own answers that they may be kept.
const KEPT: &str = "--local-ttl=600";

/// The answer's records, in order.
fn dig(from: &Namespace, server: &str, question: &str) -> Vec<String> {
    let answer = from.run(&format!("dig +short +time=3 +tries=2 @{server} {question}"));
    let mut lines: Vec<String> = answer.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn status(from: &Namespace, server: &str, question: &str) -> String {
    let answer = from.run(&format!("dig +time=3 +tries=2 @{server} {question}"));
    answer.split("status: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default().to_owned()
}

/// Attaches to networks with a service's name and a membership's keys.
fn attach(
    service: &mut Running,
    (name, of): (&str, &str),
    namespace: &Namespace,
    networks: &[(&str, &str)],
) -> Vec<String> {
    let mut wanted = on(wanted(name, &[]), networks);
    wanted.service = of.to_owned();
    service.attach_as(wanted, namespace).unwrap()
}

#[test]
fn containers_find_each_other_by_name_alias_and_address() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let mut service = site.start();
    let (web, db, other) = (container(), container(), container());
    let web_addresses = attach(&mut service, ("web", "web"), &web, &[("front", ""), ("back", "")]);
    let db_addresses = attach(&mut service, ("db", "db"), &db, &[("back", "aliases = ['SQL', 'db.local']")]);
    attach(&mut service, ("other", "other"), &other, &[("front", "")]);
    for question in ["db", "DB", "sql", "db.local"] {
        assert_eq!(dig(&web, FRONT, question), [db_addresses[0].clone()], "{question}");
    }
    assert_eq!(dig(&web, FRONT, "db AAAA"), [db_addresses[1].clone()]);
    assert_eq!(dig(&web, "fd00:88::1", "db"), [db_addresses[0].clone()], "over IPv6");
    assert_eq!(dig(&web, FRONT, "+tcp db"), [db_addresses[0].clone()], "over TCP");
    assert_eq!(dig(&db, BACK, "web"), [web_addresses[2].clone()], "the address on the common network");
    assert_eq!(dig(&other, FRONT, "web"), [web_addresses[0].clone()]);
    for address in &db_addresses {
        assert_eq!(dig(&web, FRONT, &format!("-x {address}")), ["db."]);
    }
    assert_eq!(status(&web, FRONT, "db MX"), "NOERROR", "there is such a name, but nothing of the kind");
    assert!(dig(&web, FRONT, "db MX").is_empty());
    assert!(dig(&other, FRONT, "db").is_empty(), "another network's name");
    service.notify(Notice::DetachNetwork { name: "db".into() }, &[]);
    eventually("the name is gone", || dig(&web, FRONT, "db").is_empty().then_some(()));
}

#[test]
fn a_service_name_is_all_replicas_that_do_their_work() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let mut service = site.start();
    let namespaces: Vec<Namespace> = (0..40).map(|_| container()).collect();
    let mut addresses = Vec::new();
    for (number, namespace) in namespaces.iter().enumerate() {
        let name = format!("web-{number}");
        addresses.push(attach(&mut service, (&name, "web"), namespace, &[("front", "")]).remove(0));
    }
    addresses.sort();
    let asking = &namespaces[0];
    assert_eq!(dig(asking, FRONT, "web"), addresses);
    assert_eq!(dig(asking, FRONT, "+noedns web"), addresses, "more than a plain datagram has room for");
    let truncated = asking.run(&format!("dig +noedns +ignore @{FRONT} web"));
    assert!(truncated.contains("qr aa tc"), "{truncated}");
    let first = dig(asking, FRONT, "web-7").remove(0);
    service.notify(Notice::Serving { name: "web-7".into(), serving: false }, &[]);
    eventually("the one that is ill is left out", || (!dig(asking, FRONT, "web").contains(&first)).then_some(()));
    assert_eq!(dig(asking, FRONT, "web-7"), [first], "by its own name it is found");
    let mut orders = std::collections::BTreeSet::new();
    eventually("another one comes first", || {
        let answer = asking.run(&format!("dig +short @{FRONT} web"));
        orders.insert(answer.lines().next().unwrap_or_default().to_owned());
        (orders.len() > 1).then_some(())
    });
}

#[test]
fn other_names_go_to_the_hosts_servers_whichever_they_are() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let mut service = site.start();
    site.outside.ip("address add 192.0.2.3/24 dev up0");
    let text = format!("--txt-record=long.test,{}", vec!["a".repeat(250); 20].join(","));
    let first = name_server::serve(&site.outside, "192.0.2.1", &["--address=/example.test/203.0.113.1", &text]);
    let _second = name_server::serve(&site.outside, "192.0.2.3", &["--address=/example.test/203.0.113.3"]);
    let (web, db) = (container(), container());
    attach(&mut service, ("web", "web"), &web, &[("front", "")]);
    attach(&mut service, ("db", "db"), &db, &[("back", "")]);
    for how in ["", "+tcp", "+noedns"] {
        assert_eq!(dig(&web, FRONT, &format!("{how} www.example.test")), ["203.0.113.1"], "{how}");
    }
    let long = dig(&web, FRONT, "long.test TXT");
    assert!(long[0].len() > 5000, "what is cut off over UDP comes over TCP: {}", long[0].len());
    assert_eq!(status(&web, FRONT, "nowhere.invalid"), "REFUSED", "as the server itself says");
    assert_eq!(status(&db, BACK, "www.example.test"), "NXDOMAIN", "an internal network knows no outside");
    service.apply(&site.configuration(&NETWORKS.replace("'192.0.2.1'", "'192.0.2.3'")));
    eventually("the other server is asked", || (dig(&web, FRONT, "a.example.test") == ["203.0.113.3"]).then_some(()));
    service.apply(&site.configuration(&NETWORKS.replace("'192.0.2.1'", "'192.0.2.1', '192.0.2.3'")));
    drop(first);
    eventually("the second is asked when the first is gone", || {
        (dig(&web, FRONT, "a.example.test") == ["203.0.113.3"]).then_some(())
    });
    drop(_second);
    assert_eq!(status(&web, FRONT, "a.example.test"), "SERVFAIL");
}

#[test]
fn a_container_with_servers_of_its_own_asks_those_and_still_finds_others_by_name() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let mut service = site.start();
    site.outside.ip("address add 192.0.2.3/24 dev up0");
    let _machines = name_server::serve(&site.outside, "192.0.2.1", &["--address=/example.test/203.0.113.1", KEPT]);
    let _own = name_server::serve(&site.outside, "192.0.2.3", &["--address=/example.test/203.0.113.3", KEPT]);
    let (web, db) = (container(), container());
    attach(&mut service, ("web", "web"), &web, &[("front", "")]);
    let mut own = on(wanted("db", &[]), &[("front", "")]);
    own.resolution.servers = vec!["192.0.2.3".parse().unwrap()];
    own.resolution.search = vec!["corp.test".parse().unwrap()];
    service.attach_as(own, &db).unwrap();
    // One after the other: what the first is told is kept, but not for the second.
    for how in ["", "+tcp", ""] {
        assert_eq!(dig(&web, FRONT, &format!("{how} www.example.test")), ["203.0.113.1"], "{how}");
        assert_eq!(dig(&db, FRONT, &format!("{how} www.example.test")), ["203.0.113.3"], "{how}");
    }
    assert_eq!(dig(&db, FRONT, "web").len(), 1);
    service.notify(Notice::DetachNetwork { name: "db".into() }, &[]);
    attach(&mut service, ("db", "db"), &db, &[("front", "")]);
    assert_eq!(dig(&db, FRONT, "www.example.test"), ["203.0.113.1"], "made anew without them");
}

#[test]
fn only_containers_are_answered_and_no_published_port_takes_the_resolvers_place() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let mut service = site.start();
    let (web, dns) = (container(), container());
    let addresses = attach(&mut service, ("web", "web"), &web, &[("front", "")]);
    let ports = [port("", 53, 53, "udp"), port("", 53, 53, "tcp")];
    service.attach_as(on(wanted("dns", &ports), &[("front", "")]), &dns).unwrap();
    for how in ["", "+tcp"] {
        assert_eq!(dig(&web, FRONT, &format!("{how} web")), [addresses[0].clone()]);
    }
    service.notify(Notice::DetachNetwork { name: "dns".into() }, &[]);
    eventually("the port is free", || {
        (!site.machine.namespace.run("nft list table inet berth").contains("udp . 53")).then_some(())
    });
    site.outside.ip(&format!("route add {FRONT}/32 via 192.0.2.2"));
    let asked = site.outside.try_run(&format!("dig +time=1 +tries=1 @{FRONT} web"));
    assert!(!asked.status.success(), "{}", String::from_utf8_lossy(&asked.stdout));
}

#[test]
fn who_opens_connections_without_end_shuts_out_nobody() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let mut service = site.start();
    let _server = name_server::serve(&site.outside, "192.0.2.1", &["--address=/example.test/203.0.113.1"]);
    let (greedy, web, db) = (container(), container(), container());
    attach(&mut service, ("greedy", "greedy"), &greedy, &[("front", "")]);
    let addresses = attach(&mut service, ("web", "web"), &web, &[("front", ""), ("back", "")]);
    attach(&mut service, ("db", "db"), &db, &[("back", "")]);
    let _open: Vec<TcpStream> = greedy.within(|| (0..200).map(|_| TcpStream::connect((FRONT, 53)).unwrap()).collect());
    assert_eq!(dig(&web, FRONT, "+tcp web"), [addresses[0].clone()], "another on its network");
    assert_eq!(dig(&db, BACK, "+tcp web"), [addresses[2].clone()], "another network");
    let host = &site.machine.namespace;
    assert_eq!(dig(host, "127.0.0.53", "+tcp www.example.test"), ["203.0.113.1"], "the machine");
    assert_eq!(dig(&greedy, FRONT, "+tcp web"), [addresses[0].clone()], "itself");
}

/// Sends questions for a name as if they came from all addresses of the network `front`, until it is told to end.
fn forge_without_end(name: &str, ended: &AtomicBool) {
    let socket = socket::socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).unwrap();
    let mut question = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, u8::try_from(name.len()).unwrap()];
    question.extend(name.as_bytes());
    question.extend([0, 0, 1, 0, 1]);
    let length = u16::try_from(8 + question.len()).unwrap().to_be_bytes();
    // The kernel writes the length and the sum of the header.
    let header = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    let server = SocketAddrV4::new(FRONT.parse().unwrap(), 53);
    for last in (100..=250).cycle() {
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let addresses = [10, 88, 0, last, 10, 88, 0, 1];
        let packet = [&header[..], &addresses, &[0x30, 0x39, 0, 53], &length, &[0, 0], &question].concat();
        let to = SockaddrStorage::from(SocketAddr::from(server));
        let _full = socket::sendto(socket.as_raw_fd(), &packet, &to, MsgFlags::empty());
        std::thread::sleep(Duration::from_micros(500));
    }
}

#[test]
fn who_forges_the_addresses_of_its_questions_takes_no_answer_from_others() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let mut service = site.start();
    let (greedy, web) = (container(), container());
    attach(&mut service, ("greedy", "greedy"), &greedy, &[("front", "")]);
    let addresses = attach(&mut service, ("web", "web"), &web, &[("front", "")]);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| greedy.within(|| forge_without_end("web", &ended)));
        let end = EndOnDrop(&ended);
        eventually("neighbours are looked for that are not there", || {
            (site.machine.namespace.ip("neighbour show").matches("INCOMPLETE").count() > 100).then_some(())
        });
        for _ in 0..200 {
            // Asked once: an answer that is lost does not come.
            let answer = web.try_run(&format!("dig +short +time=2 +tries=1 @{FRONT} web"));
            assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), addresses[0]);
        }
        drop(end);
    });
}

/// Lets the thread end, whatever becomes of the test.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks for one name after the other until it is told to end.
fn ask_without_end(socket: &UdpSocket, domain: &str, ended: &AtomicBool) {
    for number in 0.. {
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in format!("n{number}.{domain}").split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, 1, 0, 1]);
        let _nobody_may_listen_any_more = socket.send(&query);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn who_asks_for_what_nobody_answers_takes_no_answer_from_others() {
    if !possible(TOOLS) {
        return;
    }
    let more = "[network.domains]\n'dead.test' = ['192.0.2.66']\n[networks.side]\nsubnets = ['10.90.0.0/24']\n";
    let site = Site::with(&NETWORKS.replace("[networks.front]", &format!("{more}[networks.front]")));
    let mut service = site.start();
    site.outside.ip("address add 192.0.2.66/24 dev up0");
    let _deaf = site.outside.within(|| UdpSocket::bind("192.0.2.66:53").unwrap());
    let _server = name_server::serve(&site.outside, "192.0.2.1", &["--address=/example.test/203.0.113.1"]);
    let (greedy, web, db) = (container(), container(), container());
    attach(&mut service, ("greedy", "greedy"), &greedy, &[("front", "")]);
    attach(&mut service, ("web", "web"), &web, &[("front", "")]);
    attach(&mut service, ("db", "db"), &db, &[("side", "")]);
    let socket = greedy.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.connect((FRONT, 53)).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| ask_without_end(&socket, "dead.test", &ended));
        let end = EndOnDrop(&ended);
        eventually("its own places are taken", || {
            (status(&greedy, FRONT, "own.example.test") == "SERVFAIL").then_some(())
        });
        for number in 0..5 {
            let name = format!("a{number}.example.test");
            assert_eq!(dig(&web, FRONT, &name), ["203.0.113.1"], "another on its network");
            let name = format!("b{number}.example.test");
            assert_eq!(dig(&db, "10.90.0.1", &name), ["203.0.113.1"], "another network");
            let name = format!("c{number}.example.test");
            assert_eq!(dig(&site.machine.namespace, "127.0.0.53", &name), ["203.0.113.1"], "the machine");
        }
        drop(end);
    });
}

#[test]
fn a_container_is_told_of_its_resolver_and_of_search_domains_as_they_change() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let mut service = site.start();
    let web = container();
    attach(&mut service, ("web", "web"), &web, &[("front", "")]);
    assert_eq!(service.resolv_conf["web"], "nameserver 10.88.0.1\nsearch example.test\noptions ndots:0\n");
    service.apply(&site.configuration(&NETWORKS.replace("example.test", "example.org")));
    service.wait("new search domains", |request| match request {
        berth_control::message::Request::NetworkAttached { resolv_conf, .. } => {
            resolv_conf.contains("search example.org\n").then_some(())
        }
        _ => None,
    });
}

#[test]
fn names_are_answered_again_by_the_next_service() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let web = container();
    let addresses = attach(&mut site.start(), ("web", "shop"), &web, &[("front", "")]);
    let _service = site.start();
    for name in ["web", "shop"] {
        assert_eq!(dig(&web, FRONT, name), [addresses[0].clone()]);
    }
}

#[test]
fn where_another_program_has_the_port_names_are_answered_once_it_has_gone() {
    if !possible(TOOLS) {
        return;
    }
    let site = Site::with(NETWORKS);
    let machine = &site.machine.namespace;
    let taken = machine.within(|| (UdpSocket::bind("0.0.0.0:53").unwrap(), TcpListener::bind("0.0.0.0:53").unwrap()));
    let mut service = site.start();
    let web = container();
    let addresses = attach(&mut service, ("web", "web"), &web, &[("front", "")]);
    service.wait_lack("lo", &["127.0.0.53", "port 53"]);
    service.wait_lack("berth1", &[FRONT, "port 53"]);
    drop(taken);
    eventually("names are answered", || {
        let answer = web.try_run(&format!("dig +short +time=1 +tries=1 @{FRONT} web"));
        (String::from_utf8_lossy(&answer.stdout).trim() == addresses[0]).then_some(())
    });
    eventually("the machine is answered", || {
        let answer = machine.try_run("dig +time=1 +tries=1 @127.0.0.53 web");
        answer.status.success().then_some(())
    });
    service.wait("that nothing is lacking", |request| match request {
        berth_control::message::Request::Links { links } => {
            links.iter().all(|link| !link.name.starts_with("berth") && link.name != "lo").then_some(())
        }
        _ => None,
    });
}
