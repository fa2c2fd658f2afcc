//! The machine's own resolver, asked by `dig`, with dnsmasq as the servers that it asks.

use std::fs;
use std::net::UdpSocket;

use crate::support::{Machine, Namespace, PATIENCE, Program, Running, eventually, name_server, possible};

const TOOLS: &[&str] = &["ip", "dig", "dnsmasq"];

/// Another machine with name servers, over IPv4 and IPv6.
struct Servers {
    namespace: Namespace,
    log: tempfile::NamedTempFile,
}

impl Servers {
    fn new(machine: &Machine) -> Self {
        let namespace = Namespace::new();
        machine.namespace.connect("eth0", &namespace, "lan0");
        namespace.ip("link set lan0 up");
        for address in ["192.0.2.1/24", "192.0.2.2/24", "192.0.2.3/24", "2001:db8::1/64"] {
            namespace
                .ip(&format!("address add {address} dev lan0 {}", if address.contains(':') { "nodad" } else { "" }));
        }
        Self { namespace, log: tempfile::NamedTempFile::new().unwrap() }
    }

    fn start(&self, address: &str, settings: &[&str]) -> Program {
        let log = format!("--log-facility={}", self.log.path().display());
        name_server::serve(&self.namespace, address, &[&["--log-queries", &log], settings].concat())
    }

    /// How often a name was asked for.
    fn asked(&self, name: &str) -> usize {
        fs::read_to_string(self.log.path()).unwrap().matches(&format!("] {name} from")).count()
    }
}

fn dig(machine: &Machine, question: &str) -> String {
    machine.namespace.run(&format!("dig +time=3 +tries=2 @127.0.0.53 {question}"))
}

fn answers(service: &Running) {
    let resolv_conf = service.file("resolv.conf");
    assert!(resolv_conf.contains("nameserver 127.0.0.53\n"), "{resolv_conf}");
}

const ADDRESSES: &str = "[network.links.eth0]\naddresses = ['192.0.2.7/24', '2001:db8::7/64']\nipv6 = 'static'\n";

#[test]
fn answers_are_kept_as_long_as_they_hold_and_domains_have_servers_of_their_own() {
    if !possible(TOOLS) {
        return;
    }
    let configuration = |server: &str| {
        format!(
            "[network]\ndns = ['{server}']\ndomains = {{ 'corp.test' = ['192.0.2.2'], 'zone.test' = ['192.0.2.3'] }}\n{ADDRESSES}"
        )
    };
    let machine = Machine::new(&configuration("192.0.2.1"));
    let servers = Servers::new(&machine);
    let long = format!("--txt-record=long.test,{}", vec!["a".repeat(250); 20].join(","));
    let text = ["--host-record=www.test,203.0.113.1,60", &long];
    let _first = servers.start("192.0.2.1", &text);
    // One that has a zone of its own says for how long there is nothing.
    let _zone = servers.start("192.0.2.3", &["--auth-server=ns.test,192.0.2.3", "--auth-zone=zone.test"]);
    let _second = servers.start("192.0.2.2", &["--host-record=git.corp.test,203.0.113.2,60"]);
    let mut service = machine.start();
    service.wait_ready();
    service.wait_address("eth0", "192.0.2.7/24");
    answers(&service);
    for how in ["", "+tcp", "+noedns", "+nocookie", ""] {
        let answer = dig(&machine, &format!("{how} WWW.test"));
        assert!(answer.contains("203.0.113.1") && answer.contains("WWW.test."), "{answer}");
    }
    // With EDNS and without: two questions to the server, the rest is kept.
    assert_eq!(servers.asked("www.test") + servers.asked("WWW.test"), 2);
    assert!(dig(&machine, "git.corp.test").contains("203.0.113.2"));
    assert!(dig(&machine, "nowhere.zone.test").contains("NXDOMAIN"));
    assert!(dig(&machine, "nowhere.zone.test").contains("NXDOMAIN"));
    assert_eq!(servers.asked("nowhere.zone.test"), 1, "that there is nothing is kept too");
    let text = dig(&machine, "long.test TXT");
    assert!(text.len() > 5000, "{text}");
    // Other servers may have other answers: nothing is kept from before.
    service.apply(&configuration("2001:db8::1"));
    let _third = servers.start("2001:db8::1", &["--host-record=www.test,203.0.113.3,60"]);
    eventually("the IPv6 server is asked", || dig(&machine, "www.test").contains("203.0.113.3").then_some(()));
    // Nobody else is answered.
    let far = servers.namespace.try_run("dig +time=1 +tries=1 @192.0.2.7 www.test");
    assert!(!far.status.success());
}

#[test]
fn another_server_is_asked_where_the_first_refuses_or_is_silent() {
    if !possible(TOOLS) {
        return;
    }
    let configuration = |first: &str| format!("[network]\ndns = ['{first}', '192.0.2.2']\n{ADDRESSES}");
    let machine = Machine::new(&configuration("192.0.2.1"));
    let servers = Servers::new(&machine);
    let names = ["one", "two", "three"];
    let mut records: Vec<String> = names.map(|name| format!("--host-record={name}.test,203.0.113.1")).into();
    records.push("--address=/many.test/203.0.113.1".into());
    // It knows of nothing, and refuses.
    let _first = servers.start("192.0.2.1", &[]);
    let _second = servers.start("192.0.2.2", &records.iter().map(String::as_str).collect::<Vec<_>>());
    let silent = servers.namespace.within(|| UdpSocket::bind("192.0.2.3:53").unwrap());
    silent.set_nonblocking(true).unwrap();
    let mut service = machine.start();
    service.wait_ready();
    service.wait_address("eth0", "192.0.2.7/24");
    for question in ["one.test", "+tcp two.test"] {
        let answer = dig(&machine, question);
        assert!(answer.contains("203.0.113.1"), "{answer}");
    }
    for question in ["nowhere.test", "+tcp nowhere.test"] {
        let answer = dig(&machine, question);
        assert!(answer.contains("REFUSED"), "as both say: {answer}");
    }
    service.apply(&configuration("192.0.2.3"));
    eventually("the silent one is asked", || {
        assert!(dig(&machine, "three.test").contains("203.0.113.1"));
        asked(&silent, b"\x05three").then_some(())
    });
    let mut number = 0;
    eventually("it is asked after one that answers", || {
        number += 1;
        assert!(dig(&machine, &format!("n{number}.many.test")).contains("203.0.113.1"));
        (!asked(&silent, b"\x04many")).then_some(())
    });
}

#[test]
fn a_name_that_nobody_answers_for_says_nothing_against_the_server() {
    if !possible(TOOLS) {
        return;
    }
    let machine = Machine::new(&format!("[network]\ndns = ['192.0.2.1', '192.0.2.2']\n{ADDRESSES}"));
    let servers = Servers::new(&machine);
    let _deaf = servers.namespace.within(|| UdpSocket::bind("192.0.2.3:53").unwrap());
    let own = ["--host-record=git.corp.test,203.0.113.1,60", "--server=/dead.test/192.0.2.3"];
    let first = servers.start("192.0.2.1", &own);
    // It knows of no such names, and for how long there are none.
    let _second = servers.start("192.0.2.2", &["--auth-server=ns.test,192.0.2.2", "--auth-zone=corp.test"]);
    let mut service = machine.start();
    service.wait_ready();
    service.wait_address("eth0", "192.0.2.7/24");
    for name in ["one", "two", "three"] {
        let answer = machine.namespace.run(&format!("dig +time=20 +tries=1 @127.0.0.53 {name}.dead.test"));
        assert!(answer.contains("REFUSED") || answer.contains("SERVFAIL"), "{answer}");
        assert!(dig(&machine, "git.corp.test").contains("203.0.113.1"), "after {name}");
    }
    drop(first);
    for _ in 0..2 {
        assert!(dig(&machine, "new.corp.test").contains("NXDOMAIN"));
    }
    assert_eq!(servers.asked("new.corp.test"), 2, "that there is nothing is for the first to say");
}

#[test]
fn an_answer_that_comes_after_the_servers_have_changed_is_not_kept() {
    if !possible(TOOLS) {
        return;
    }
    let configuration = |server: &str| format!("[network]\ndns = ['{server}']\n{ADDRESSES}");
    let machine = Machine::new(&configuration("192.0.2.3"));
    let servers = Servers::new(&machine);
    let late = servers.namespace.within(|| UdpSocket::bind("192.0.2.3:53").unwrap());
    let records = ["--host-record=www.test,203.0.113.2,60", "--host-record=other.test,203.0.113.2,60"];
    let _second = servers.start("192.0.2.2", &records);
    let mut service = machine.start();
    service.wait_ready();
    service.wait_address("eth0", "192.0.2.7/24");
    std::thread::scope(|scope| {
        let before = scope.spawn(|| machine.namespace.run("dig +noedns +time=20 +tries=1 @127.0.0.53 www.test"));
        let mut question = [0; 512];
        late.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut length, mut from) = late.recv_from(&mut question).unwrap();
        service.apply(&configuration("192.0.2.2"));
        eventually("another server is asked", || dig(&machine, "other.test").contains("203.0.113.2").then_some(()));
        late.set_nonblocking(true).unwrap();
        while let Ok(again) = late.recv_from(&mut question) {
            (length, from) = again;
        }
        let mut answer = question[..length].to_vec();
        (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 203, 0, 113, 3]);
        late.send_to(&answer, from).unwrap();
        let answer = before.join().unwrap();
        assert!(answer.contains("203.0.113.3"), "what was asked of the first is answered by it: {answer}");
    });
    let answer = dig(&machine, "+noedns www.test");
    assert!(answer.contains("203.0.113.2"), "{answer}");
}

/// Whether a socket has got such a question.
fn asked(socket: &UdpSocket, label: &[u8]) -> bool {
    let mut buffer = [0; 512];
    let mut questions = std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()));
    questions.any(|question| question.windows(label.len()).any(|part| part == label))
}

#[test]
fn programs_ask_the_servers_themselves_where_that_is_wanted() {
    if !possible(TOOLS) {
        return;
    }
    let machine = Machine::new(&format!("[network]\ndns = ['192.0.2.1']\nresolver = false\n{ADDRESSES}"));
    let mut service = machine.start();
    service.wait_ready();
    assert!(service.file("resolv.conf").contains("nameserver 192.0.2.1\n"));
    assert!(!machine.namespace.run("cat /proc/net/udp").contains("3500007F:0035"));
    service.apply("[network]\ndns = ['192.0.2.1']\n");
    eventually("the resolver", || service.file("resolv.conf").contains("127.0.0.53").then_some(()));
    assert!(machine.namespace.run("cat /proc/net/udp").contains("3500007F:0035"));
}

#[test]
fn the_servers_of_the_link_that_packets_take_come_first() {
    if !possible(&["ip"]) {
        return;
    }
    let link = |number: u32, metric: &str| {
        format!(
            "[network.links.eth{number}]\nipv6 = 'static'\ndns = ['192.0.{number}.1']\n{metric}\n\
             addresses = ['192.0.{number}.7/24']\ngateways = ['192.0.{number}.1']\n"
        )
    };
    let machine = Machine::new(&(link(1, "metric = 200") + &link(2, "metric = 100")));
    let others = [1, 2].map(|number| {
        let other = Namespace::new();
        machine.namespace.connect(&format!("eth{number}"), &other, "lan0");
        other.ip("link set lan0 up");
        other
    });
    let mut service = machine.start();
    service.wait_ready();
    let in_order = |first: u32, second: u32| {
        let servers = format!("nameserver 192.0.{first}.1\nnameserver 192.0.{second}.1\n");
        eventually(&servers, || service.file("resolv.upstream.conf").contains(&servers).then_some(()));
    };
    in_order(2, 1);
    others[1].ip("link set lan0 down");
    in_order(1, 2);
}
