//! More happens than the socket that tells of it can hold.

use std::io::Write;
use std::process::{Command, Stdio};

use berth_control::message::Request;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::router::Router;
use crate::support::{Machine, Namespace, Running, eventually, possible};

/// Events, of which each takes more than half a KiB of a buffer that has some 200 (net.core.rmem_default).
const MANY: usize = 2000;

fn signal(service: &Running, signal: Signal) {
    kill(Pid::from_raw(service.program.child.id().try_into().unwrap()), signal).unwrap();
}

/// While the service sleeps. What comes now is lost.
fn overflow(machine: &Namespace) {
    let events = "address add 198.51.100.1/32 dev lo\naddress del 198.51.100.1/32 dev lo\n".repeat(MANY / 2);
    let mut batch =
        Command::new("ip").args(["-n", &machine.name, "-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    batch.stdin.take().unwrap().write_all(events.as_bytes()).unwrap();
    assert!(batch.wait().unwrap().success());
    // Drops, of a socket of the routing protocol (0) that belongs to groups.
    let sockets = machine.run("cat /proc/net/netlink");
    let has_lost = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words[1] == "0" && words[3] != "00000000" && words[8] != "0"
    };
    assert!(sockets.lines().skip(1).any(has_lost), "{sockets}");
}

#[test]
fn links_that_came_and_went_unheard_are_known() {
    if !possible(&["ip"]) {
        return;
    }
    let machine = Machine::new("[network.links.late0]\ndhcp = false\naddresses = ['192.0.2.7/24']\n");
    machine.namespace.ip("link add gone0 type veth peer name gone1");
    let mut service = machine.start();
    service.wait_ready();
    signal(&service, Signal::SIGSTOP);
    overflow(&machine.namespace);
    machine.namespace.ip("link del gone0");
    machine.namespace.ip("link add late0 type veth peer name late1");
    signal(&service, Signal::SIGCONT);
    service.wait("what is there now", |request| match request {
        Request::Links { links } => {
            let has = |name: &str| links.iter().find(|link| link.name == name);
            let is_set_up = has("late0").is_some_and(|link| link.addresses == ["192.0.2.7/24"]);
            (is_set_up && has("gone0").is_none()).then_some(())
        }
        _ => None,
    });
}

#[test]
fn an_address_of_dhcpv6_that_was_found_taken_unheard_is_declined() {
    if !possible(&["ip", "radvd", "kea-dhcp6"]) {
        return;
    }
    let machine = Machine::new("");
    let router = Router::new(&machine);
    // Every address that there is to be given.
    for last in 0..16 {
        router.namespace.ip(&format!("address add fd77::5{last:x}/64 dev lan0 nodad"));
    }
    let mut service = machine.start();
    service.wait_ready();
    let _server = router.serve(r#""preferred-lifetime": 3000, "valid-lifetime": 4000,"#);
    let _advertising = router.advertise(
        "AdvManagedFlag on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; prefix fd77::/64 { AdvAutonomous off; };",
    );
    let has_it = || machine.namespace.ip("-6 address show dev eth0").contains("fd77::5");
    // It has it until the kernel has asked the others, a second later.
    while !has_it() {}
    signal(&service, Signal::SIGSTOP);
    overflow(&machine.namespace);
    eventually("the kernel takes it away", || (!has_it()).then_some(()));
    signal(&service, Signal::SIGCONT);
    eventually("the server is told", || router.log().contains("DECLINE").then_some(()));
}
