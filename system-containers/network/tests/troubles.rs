//! What PID 1 is told of links that are made and lack what the kernel does not tell of.

use crate::support::{self, Machine, Namespace, eventually, possible, skip};

fn can_make(kind: &str) -> bool {
    let namespace = Namespace::new();
    let made = namespace.try_run(&format!("ip link add probe type {kind}")).status.success();
    if !made {
        skip(&format!("this kernel has no links of the kind {kind}"));
    }
    made
}

#[test]
fn a_bond_whose_other_end_is_none_says_so_until_it_is_one() {
    if !possible(&["ip"]) || !can_make("bond") {
        return;
    }
    let machine = Machine::new(
        "[network.links.bond0]\nbond = { mode = '802.3ad', ports = ['eth0', 'eth1'], lacp_rate = 'fast' }\n\
         addresses = ['10.10.0.1/24']\ndhcp = false\n",
    );
    let other = Namespace::new();
    for number in 0..2 {
        machine.namespace.connect(&format!("eth{number}"), &other, &format!("far{number}"));
        other.ip(&format!("link set far{number} up"));
    }
    let mut service = machine.start();
    service.wait_lack("bond0", &["nobody answers with LACP (802.3ad) at eth0, eth1"]);
    other.ip("link add bond0 type bond mode 802.3ad miimon 50 lacp_rate fast");
    for number in 0..2 {
        other.ip(&format!("link set far{number} down"));
        other.ip(&format!("link set far{number} master bond0"));
    }
    other.ip("link set bond0 up");
    service.wait("nothing is missing", |request| match request {
        berth_control::message::Request::Links { links } => {
            links.iter().any(|link| link.name == "bond0" && link.missing.is_empty()).then_some(())
        }
        _ => None,
    });
    eventually("both work together", || {
        machine.namespace.run("cat /proc/net/bonding/bond0").contains("Number of ports: 2").then_some(())
    });
}

#[test]
fn a_peer_that_does_not_answer_is_named() {
    if !possible(&["ip", "wg"]) || !can_make("wireguard") {
        return;
    }
    let key = support::run("wg genkey | wg pubkey");
    let machine = Machine::new(&format!(
        "[network.links.eth0]\naddresses = ['192.0.2.2/24']\n\
         [network.links.wg0]\naddresses = ['10.9.0.1/24']\n\
         [[network.links.wg0.wireguard.peers]]\npublic_key = '{}'\nendpoint = '192.0.2.1:51820'\n\
         allowed_ips = ['10.9.0.2/32']\npersistent_keepalive = '5s'\n",
        key.trim(),
    ));
    let other = Namespace::new();
    machine.namespace.connect("eth0", &other, "up0");
    other.ip("address add 192.0.2.1/24 dev up0");
    other.ip("link set up0 up");
    machine.start().wait_lack("wg0", &["the peer ", "at 192.0.2.1:51820 does not answer"]);
}
