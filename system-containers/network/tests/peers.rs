//! Peers of tunnels that are known by a host name.

use std::fs;

use crate::support::{self, Machine, Namespace, Program, eventually, name_server, possible, skip};

const KEY: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

/// A machine with a tunnel to a peer with this key, `vpn.example`.
fn machine(key: &str) -> Machine {
    let machine = Machine::new(&format!(
        "[network]\ndns = ['192.0.2.1']\n[network.links.eth0]\ndhcp = false\naddresses = ['192.0.2.2/24']\n\
         [network.links.wg0]\naddresses = ['10.9.0.1/24']\n\
         [[network.links.wg0.wireguard.peers]]\npublic_key = '{key}'\nendpoint = 'vpn.example:51820'\n\
         allowed_ips = ['10.9.0.2/32']\npersistent_keepalive = '5s'\n",
    ));
    machine.ask_itself();
    machine
}

/// The other end of its cable.
fn beside(machine: &Machine) -> Namespace {
    let other = Namespace::new();
    machine.namespace.connect("eth0", &other, "up0");
    other.ip("address add 192.0.2.1/24 dev up0");
    other.ip("link set up0 up");
    other
}

/// A server that knows the names of `example` that are told it.
fn serve(other: &Namespace, more: &[&str]) -> Program {
    name_server::serve(other, "192.0.2.1", &[&["--local=/example/"], more].concat())
}

#[test]
fn a_name_that_leads_nowhere_is_said_and_looked_up_again() {
    if !possible(&["ip", "dnsmasq", "dig"]) {
        return;
    }
    let machine = machine(KEY);
    let other = beside(&machine);
    // In the place of the tunnel, which not every kernel has: it is left alone, and looking up goes on.
    machine.namespace.ip("link add wg0 type veth peer name wg1");
    let nameless = serve(&other, &[]);
    let mut service = machine.start();
    service.wait_lack("wg0", &[&format!("the peer {KEY}: vpn.example leads nowhere: ")]);
    drop(nameless);
    let _serving = serve(&other, &["--host-record=vpn.example,192.0.2.9"]);
    service.wait_lack(
        "wg0",
        &[&format!("the peer {KEY}: vpn.example is 192.0.2.9:51820, of which the kernel cannot be told: ")],
    );
}

#[test]
fn a_peer_is_found_by_its_name_and_found_again_when_it_does_not_answer() {
    if !possible(&["ip", "wg", "dnsmasq", "dig", "ping"]) {
        return;
    }
    if !Namespace::new().try_run("ip link add wg0 type wireguard").status.success() {
        return skip("this kernel has no links of the kind wireguard");
    }
    let keys = tempfile::tempdir().unwrap();
    let private = keys.path().join("key");
    fs::write(&private, support::run("wg genkey")).unwrap();
    let public = support::run(&format!("wg pubkey < {}", private.display()));
    let machine = machine(public.trim());
    let other = beside(&machine);
    other.ip("link add wg0 type wireguard");
    let nameless = serve(&other, &[]);
    let mut service = machine.start();
    service.wait_lack("wg0", &["the peer ", ": vpn.example leads nowhere: "]);

    // It has moved meanwhile, which the servers do not know yet: nobody is at this address.
    drop(nameless);
    let outdated = serve(&other, &["--host-record=vpn.example,192.0.2.9"]);
    let shown = |what: &str| machine.namespace.run(&format!("wg show wg0 {what}"));
    eventually("the address of the name", || shown("endpoints").contains("192.0.2.9:51820").then_some(()));
    service.wait("nothing is missing", |request| match request {
        berth_control::message::Request::Links { links } => {
            let is_whole = |text: &String| !text.contains("leads nowhere");
            links.iter().any(|link| link.name == "wg0" && link.missing.iter().all(is_whole)).then_some(())
        }
        _ => None,
    });

    drop(outdated);
    let _current = serve(&other, &["--host-record=vpn.example,192.0.2.1"]);
    let own = machine.namespace.run("wg show wg0 public-key");
    let own = own.trim();
    other.run(&format!(
        "wg set wg0 listen-port 51820 private-key {} peer {own} allowed-ips 10.9.0.1/32",
        private.display()
    ));
    other.ip("link set wg0 up");
    eventually("the peer answers at its new address", || {
        let (endpoints, handshakes) = (shown("endpoints"), shown("latest-handshakes"));
        (endpoints.contains("192.0.2.1:51820") && !handshakes.trim().ends_with("\t0")).then_some(())
    });
    other.ip("address add 10.9.0.2/24 dev wg0");
    eventually("an answer through the tunnel", || {
        machine.namespace.try_run("ping -c 1 -W 1 10.9.0.2").status.success().then_some(())
    });
}
