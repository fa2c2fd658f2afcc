//! DHCPv4 from a server of another kind than dnsmasq: offers, options, a renewal, an address that the server has no more,
//! and a refusal.

use berth_control::message::Request;

use crate::support::{Machine, Namespace, eventually, kea, possible};

const TOOLS: &[&str] = &["ip", "kea-dhcp4"];

/// Addresses of 10.78.0.50 and on for so many seconds.
fn settings(pool: &str, seconds: u32) -> String {
    format!(
        r#""authoritative": true, "valid-lifetime": {seconds}, "renew-timer": 2, "rebind-timer": {},
        "option-data": [
            {{ "name": "routers", "data": "10.78.0.1" }},
            {{ "name": "domain-name-servers", "data": "10.78.0.1, 10.78.0.2" }},
            {{ "name": "domain-name", "data": "kea.example" }},
            {{ "name": "interface-mtu", "data": "1400" }}
        ],
        "subnet4": [ {{ "id": 1, "subnet": "10.78.0.0/24", "interface": "lan0",
            "pools": [ {{ "pool": "{pool}" }} ] }} ]"#,
        seconds - 2
    )
}

/// A machine and the network at the other end of its cable.
fn cabled() -> (Machine, Namespace) {
    let machine = Machine::new("");
    let lan = Namespace::new();
    machine.namespace.connect("eth0", &lan, "lan0");
    lan.ip("address add 10.78.0.1/24 dev lan0");
    lan.ip("link set lan0 up");
    (machine, lan)
}

#[test]
fn a_lease_of_kea_is_taken_renewed_and_given_up_when_the_server_has_other_addresses() {
    if !possible(TOOLS) {
        return;
    }
    let (machine, lan) = cabled();
    // The server looks for carrier when it starts.
    machine.namespace.ip("link set eth0 up");
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let server = kea::serve(&lan, folder.path(), 4, &settings("10.78.0.50 - 10.78.0.59", 20));
    let mut service = machine.start();
    let address = service.wait_address("eth0", "10.78.0.5");
    assert!(address.ends_with("/24"), "{address}");
    eventually("the way out", || {
        machine.namespace.ip("route").contains("default via 10.78.0.1 dev eth0").then_some(())
    });
    assert!(machine.namespace.ip("link show dev eth0").contains("mtu 1400"));
    let names = eventually("the resolver", || {
        Some(service.file("resolv.upstream.conf")).filter(|text| text.contains("nameserver 10.78.0.2"))
    });
    assert!(names.contains("search kea.example"), "{names}");
    // A renewal is answered with the same address.
    let leases = || kea::log(folder.path()).matches("DHCP4_LEASE_ALLOC").count();
    eventually("a renewal", || (leases() > 1).then_some(()));
    assert!(machine.namespace.ip("address show dev eth0").contains(&address));
    // A server that has other addresses now does not renew it.
    drop(server);
    let _server = kea::serve(&lan, folder.path(), 4, &settings("10.78.0.80 - 10.78.0.89", 20));
    service.wait_address("eth0", "10.78.0.8");
    assert!(!machine.namespace.ip("address show dev eth0").contains(&address));
}

#[test]
fn why_a_link_has_no_address_tells_of_a_refusal() {
    if !possible(TOOLS) {
        return;
    }
    let (machine, lan) = cabled();
    machine.namespace.ip("link set eth0 address 02:00:00:00:78:01 up");
    // What the machine had where it was before, which it asks for again (INIT-REBOOT).
    let leases = machine.state.path().join("state/leases");
    std::fs::create_dir_all(&leases).unwrap();
    let lease = serde_json::json!({
        "address": "10.99.0.5", "prefix_length": 24, "server": "10.99.0.1", "routes": [], "dns_servers": [], "search": [],
        "host_name": null, "ntp_servers": [], "mtu": null,
        "lease_time": 3600, "renewal_time": 1800, "rebinding_time": 3150,
    });
    std::fs::write(leases.join("020000007801.json"), lease.to_string()).unwrap();
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    // It has no address to offer, so that the refusal remains the last thing that it has said.
    let settings =
        r#""authoritative": true, "subnet4": [ { "id": 1, "subnet": "10.78.0.0/24", "interface": "lan0" } ]"#;
    let _server = kea::serve(&lan, folder.path(), 4, settings);
    let mut service = machine.start();
    let missing = service.wait("a refusal", |request| match request {
        Request::Links { links } => {
            let link = links.iter().find(|link| link.name == "eth0")?;
            link.missing.iter().find(|missing| missing.contains("refuses")).cloned()
        }
        _ => None,
    });
    assert!(missing.contains("no DHCP server offers an address"), "{missing}");
    assert!(!leases.join("020000007801.json").exists(), "it would be asked for again at the next boot");
}
