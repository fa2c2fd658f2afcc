//! Links that the configuration makes, read back with `ip` and tried against another host with bonding and VLANs.

use std::collections::BTreeMap;

use crate::support::{self, Machine, Namespace, Running, eventually, possible, skip};

/// Whether this kernel has these kinds of links; says so if not.
fn has(kinds: &[&str]) -> bool {
    let namespace = Namespace::new();
    // The loopback takes no VLANs.
    namespace.ip("link add below type bridge");
    let missing: Vec<_> = kinds
        .iter()
        .filter(|kind| {
            let line = match **kind {
                "vlan" => "link add link below name probe type vlan id 7".to_owned(),
                "vrf" => "link add probe type vrf table 7".to_owned(),
                kind => format!("link add probe type {kind}"),
            };
            let made = support::try_run(&format!("ip -n {} {line}", namespace.name)).status.success();
            if made {
                namespace.ip("link del probe");
            }
            !made
        })
        .collect();
    if !missing.is_empty() {
        skip(&format!("this kernel has no links of the kinds {missing:?}; the case links/ has Berth's own"));
    }
    missing.is_empty()
}

/// What `ip -d -j link` says of a link, as text; empty if there is none.
fn shown(namespace: &Namespace, link: &str) -> String {
    let output = namespace.try_run(&format!("ip -d -j link show {link}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until a link is as wanted.
fn until(namespace: &Namespace, link: &str, parts: &[&str]) -> String {
    eventually(&format!("{link} with {parts:?}: {}", shown(namespace, link)), || {
        Some(shown(namespace, link)).filter(|text| !text.is_empty() && parts.iter().all(|part| text.contains(part)))
    })
}

fn until_gone(namespace: &Namespace, link: &str) {
    eventually(&format!("{link} is gone"), || shown(namespace, link).is_empty().then_some(()));
}

/// The numbers of all links by their names: a link that was made anew has another one.
fn numbers(namespace: &Namespace) -> BTreeMap<String, u64> {
    let links: serde_json::Value = serde_json::from_str(&namespace.ip("-j link")).unwrap();
    let links = links.as_array().unwrap().iter();
    links.map(|link| (link["ifname"].as_str().unwrap().to_owned(), link["ifindex"].as_u64().unwrap())).collect()
}

/// Waits until a configuration that changes nothing has been dealt with: answers come in order.
fn settled(service: &mut Running, configuration: &str) {
    service.apply(configuration);
    service.apply(configuration);
}

/// A trunk of two cables to another host that bonds them too, with VLAN 10 on it.
fn trunk(machine: &Machine, mode: &str) -> Namespace {
    let other = Namespace::new();
    machine.namespace.connect("eth0", &other, "far0");
    machine.namespace.connect("eth1", &other, "far1");
    other.ip(&format!("link add bond0 type bond mode {mode} miimon 50"));
    for port in ["far0", "far1"] {
        other.ip(&format!("link set {port} master bond0"));
    }
    other.ip("link set bond0 up");
    other.ip("link add link bond0 name vlan10 type vlan id 10");
    other.ip("address add 10.10.0.2/24 dev vlan10");
    other.ip("link set vlan10 up");
    other
}

const NESTED: &str = r#"
    [network.links.bond0]
    bond = { mode = "802.3ad", ports = ["eth0", "eth1"], miimon = "50ms", lacp_rate = "fast", xmit_hash_policy = "layer3+4" }
    dhcp = false
    mtu = 1450
    [network.links.vlan10]
    vlan = { link = "bond0", id = 10 }
    [network.links.lan]
    bridge = { ports = ["vlan10"], priority = 4096, ageing_time = "1m" }
    addresses = ["10.10.0.1/24"]
"#;

#[test]
fn a_bridge_on_a_vlan_on_a_bond_talks_to_a_host_that_bonds_too() {
    if !possible(&["ip"]) || !has(&["bond", "vlan"]) {
        return;
    }
    let mut machine = Machine::new(NESTED);
    let other = trunk(&machine, "802.3ad");
    let mut service = machine.start();
    service.wait_ready();
    service.wait_address("lan", "10.10.0.1/24");
    let bond = until(&machine.namespace, "bond0", &["\"mode\":\"802.3ad\"", "\"ad_lacp_rate\":\"fast\"", "layer3+4"]);
    assert!(bond.contains("\"miimon\":50") && bond.contains("\"mtu\":1450"), "{bond}");
    until(&machine.namespace, "eth0", &["\"master\":\"bond0\"", "\"info_slave_kind\":\"bond\""]);
    until(&machine.namespace, "vlan10", &["\"id\":10", "\"link\":\"bond0\"", "\"master\":\"lan\""]);
    until(&machine.namespace, "lan", &["\"priority\":4096", "\"ageing_time\":6000", "\"forward_delay\":0"]);
    eventually("an answer over the trunk", || other.try_run("ping -c 1 -W 1 10.10.0.1").status.success().then_some(()));
    assert!(!machine.namespace.ip("address show dev eth0").contains("inet"), "a port has no addresses");

    // Applied twice, nothing changes; neither does it after a restart.
    let before = numbers(&machine.namespace);
    settled(&mut service, NESTED);
    assert_eq!(numbers(&machine.namespace), before);
    drop(service);
    let mut service = machine.start();
    service.wait_ready();
    service.wait_address("lan", "10.10.0.1/24");
    assert_eq!(numbers(&machine.namespace), before);

    // What has no entry any more goes, and the cards are cards again.
    machine.network = support::networking("");
    service.apply("");
    for link in ["lan", "vlan10", "bond0"] {
        until_gone(&machine.namespace, link);
    }
    until(&machine.namespace, "eth0", &["\"UP\""]);
    assert!(!shown(&machine.namespace, "eth0").contains("master"));
}

/// Keys and their values.
type Read = &'static [(&'static str, &'static str)];

/// Modes with options, and what `ip` says of each option. The case links/every-kind-and-every-mode has the same.
#[rustfmt::skip]
const BONDS: [(&str, &str, Read); 8] = [
    ("balance-rr", "packets_per_port = 7, resend_igmp = 2, updelay = '200ms', downdelay = '300ms'",
     &[("packets_per_slave", "7"), ("resend_igmp", "2"), ("updelay", "200"), ("downdelay", "300"), ("miimon", "100")]),
    ("active-backup", "primary = 'eth1', primary_reselect = 'failure', fail_over_mac = 'active', num_peer_notif = 3, \
      peer_notif_delay = '400ms'",
     &[("primary", "\"eth1\""), ("primary_reselect", "\"failure\""), ("fail_over_mac", "\"active\""),
       ("num_peer_notif", "3"), ("peer_notify_delay", "400")]),
    ("balance-xor", "xmit_hash_policy = 'layer2+3', miimon = '50ms'",
     &[("xmit_hash_policy", "\"layer2+3\""), ("miimon", "50")]),
    ("broadcast", "min_links = 1", &[("min_links", "1")]),
    ("802.3ad", "lacp_rate = 'fast', lacp_active = false, ad_select = 'bandwidth', ad_actor_sys_prio = 7, \
      ad_actor_system = '02:00:00:00:77:07', ad_user_port_key = 9, coupled_control = false",
     &[("ad_lacp_rate", "\"fast\""), ("ad_lacp_active", "\"off\""), ("ad_select", "\"bandwidth\""),
       ("ad_actor_sys_prio", "7"), ("ad_actor_system", "\"02:00:00:00:77:07\""), ("ad_user_port_key", "9")]),
    ("balance-tlb", "tlb_dynamic_lb = false, lp_interval = '5s'", &[("tlb_dynamic_lb", "0"), ("lp_interval", "5")]),
    ("balance-alb", "all_ports_active = true", &[("all_slaves_active", "1")]),
    ("active-backup", "arp_interval = '1s', arp_targets = ['10.10.0.2', 'fd10::2'], arp_validate = 'all', \
      arp_all_targets = 'all', missed_max = 3",
     &[("arp_interval", "1000"), ("arp_validate", "\"all\""), ("arp_all_targets", "\"all\""),
       ("arp_missed_max", "3")]),
];

#[test]
fn every_mode_of_a_bond_can_be_had_and_changed_to() {
    if !possible(&["ip"]) || !has(&["bond"]) {
        return;
    }
    let machine = Machine::new("");
    let _other = trunk(&machine, "balance-rr");
    let mut service = machine.start();
    service.wait_ready();
    for (mode, options, wanted) in BONDS {
        service.apply(&format!(
            "[network.links.bond0]\ndhcp = false\nbond = {{ mode = '{mode}', ports = ['eth0', 'eth1'], {options} }}\n"
        ));
        let parts: Vec<String> = wanted.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        let mode = format!("\"mode\":\"{mode}\"");
        let parts: Vec<&str> = parts.iter().map(String::as_str).chain([mode.as_str()]).collect();
        until(&machine.namespace, "bond0", &parts);
        for port in ["eth0", "eth1"] {
            until(&machine.namespace, port, &["\"master\":\"bond0\"", "\"UP\""]);
        }
    }
}

#[test]
fn an_option_is_changed_where_the_link_is_and_a_vlan_comes_back_with_its_card() {
    if !possible(&["ip"]) || !has(&["vlan"]) {
        return;
    }
    let configuration = |ageing: &str| {
        format!(
            "[network.links.lan]\ndhcp = false\nbridge = {{ ports = ['tagged'], ageing_time = '{ageing}' }}\n\
             [network.links.tagged]\nvlan = {{ link = 'eth0', id = 7, protocol = '802.1ad' }}\n"
        )
    };
    let machine = Machine::new(&configuration("1m"));
    let other = Namespace::new();
    let mut service = machine.start();
    service.wait_ready();
    until(&machine.namespace, "lan", &["\"ageing_time\":6000"]);
    assert_eq!(shown(&machine.namespace, "tagged"), "", "its card is missing, and nothing waits for it");
    for _ in 0..2 {
        machine.namespace.connect("eth0", &other, "far0");
        until(&machine.namespace, "tagged", &["\"id\":7", "802.1ad", "\"master\":\"lan\""]);
        machine.namespace.ip("link del eth0");
        until_gone(&machine.namespace, "tagged");
    }
    let before = numbers(&machine.namespace);
    service.apply(&configuration("2m"));
    until(&machine.namespace, "lan", &["\"ageing_time\":12000"]);
    assert_eq!(numbers(&machine.namespace), before);
    // Somebody takes the bridge away.
    machine.namespace.ip("link del lan");
    until(&machine.namespace, "lan", &["\"ageing_time\":12000"]);
}

#[test]
fn links_of_others_are_left_alone_and_names_are_given() {
    if !possible(&["ip"]) || !has(&["dummy", "vrf"]) {
        return;
    }
    let machine = Machine::new("");
    let other = Namespace::new();
    for (link, mac) in [("eth0", "02:00:00:00:66:01"), ("eth1", "02:00:00:00:66:02")] {
        machine.namespace.connect(link, &other, link);
        machine.namespace.ip(&format!("link set {link} address {mac}"));
    }
    machine.namespace.ip("link add own type dummy");
    machine.namespace.ip("link add taken type bridge");
    let mut service = machine.start();
    service.wait_ready();
    // The two cards change their names, which each other has.
    let swapped = "
        [network.links.one]
        match = { mac = '02:00:00:00:66:01' }
        rename = 'eth1'
        mac = '02:00:00:00:66:99'
        [network.links.two]
        match = { mac = '02:00:00:00:66:02' }
        rename = 'eth0'
        [network.links.taken]
        dummy = true
        [network.links.red]
        vrf = { table = 1001, ports = ['one'] }
    ";
    service.apply(swapped);
    until(&machine.namespace, "eth1", &["02:00:00:00:66:99", "\"master\":\"red\""]);
    until(&machine.namespace, "eth0", &["02:00:00:00:66:02"]);
    until(&machine.namespace, "red", &["\"table\":1001"]);
    settled(&mut service, swapped);
    until(&machine.namespace, "eth1", &["02:00:00:00:66:99", "\"master\":\"red\""]);
    until(&machine.namespace, "taken", &["\"info_kind\":\"bridge\""]);
    service.apply("");
    until_gone(&machine.namespace, "red");
    assert!(!shown(&machine.namespace, "own").is_empty() && !shown(&machine.namespace, "taken").is_empty());
}

#[test]
fn routes_of_a_link_are_in_its_table_and_rules_lead_there() {
    if !possible(&["ip"]) {
        return;
    }
    let configuration = "
        [network]
        rules = [
            { from = '192.0.2.0/24', table = 1000, priority = 100 },
            { mark = 7, table = 1000 },
            { to = '2001:db8:7::/48', action = 'prohibit' },
        ]
        [network.links.eth0]
        addresses = ['192.0.2.7/24']
        gateways = ['192.0.2.1']
        routes = [{ destination = '198.51.100.0/24', gateway = '192.0.2.9', table = 254 }]
        table = 1000
        metric = 77
    ";
    let machine = Machine::new(configuration);
    let other = Namespace::new();
    machine.namespace.connect("eth0", &other, "lan0");
    other.ip("link set lan0 up");
    machine.namespace.ip("rule add from 203.0.113.0/24 lookup 7 priority 50");
    let mut service = machine.start();
    service.wait_ready();
    service.wait_address("eth0", "192.0.2.7/24");
    let routes = machine.namespace.ip("route show table 1000");
    assert!(routes.contains("default via 192.0.2.1 dev eth0 proto static metric 77"), "{routes}");
    assert!(machine.namespace.ip("route").contains("198.51.100.0/24 via 192.0.2.9 dev eth0 proto static metric 77"));
    let rules = machine.namespace.ip("rule") + &machine.namespace.ip("-6 rule");
    assert!(rules.contains("100:\tfrom 192.0.2.0/24 lookup 1000"), "{rules}");
    assert_eq!(rules.matches("from all fwmark 0x7 lookup 1000").count(), 2, "{rules}");
    assert!(rules.contains("20002:\tfrom all to 2001:db8:7::/48 prohibit"), "{rules}");
    assert!(machine.namespace.ip("route get 203.0.113.9 from 192.0.2.7").contains("via 192.0.2.1"));
    settled(&mut service, configuration);
    assert_eq!(machine.namespace.ip("rule") + &machine.namespace.ip("-6 rule"), rules);
    settled(&mut service, "");
    let rules = machine.namespace.ip("rule");
    assert!(rules.contains("from 203.0.113.0/24") && !rules.contains("1000"), "{rules}");
}

#[test]
fn a_tunnel_talks_to_a_peer_that_wg_has_set_up() {
    if !possible(&["ip", "wg"]) || !has(&["wireguard"]) {
        return;
    }
    let machine = Machine::new("");
    let other = Namespace::new();
    machine.namespace.connect("eth0", &other, "lan0");
    other.ip("link set lan0 up");
    other.ip("address add 192.0.2.2/24 dev lan0");
    other.ip("link add wg0 type wireguard");
    other.run("sh -c 'wg genkey > /tmp/key.$$; wg set wg0 private-key /tmp/key.$$ listen-port 51820; rm /tmp/key.$$'");
    other.ip("address add 10.9.0.2/24 dev wg0");
    other.ip("link set wg0 up");
    let theirs = other.run("wg show wg0 public-key");
    let configuration = format!(
        "[network.links.eth0]\naddresses = ['192.0.2.1/24']\n\
         [network.links.wg0]\naddresses = ['10.9.0.1/24']\nwireguard = {{ listen_port = 51821, mark = 9, peers = [{{ \
         public_key = '{}', endpoint = '192.0.2.2:51820', allowed_ips = ['10.9.0.2/32', 'fd09::/64'], \
         persistent_keepalive = '25s' }}] }}\n",
        theirs.trim()
    );
    let mut service = machine.start();
    service.wait_ready();
    service.apply(&configuration);
    service.wait_address("wg0", "10.9.0.1/24");
    let ours = machine.namespace.run("wg show wg0 public-key");
    other.run(&format!("wg set wg0 peer {} allowed-ips 10.9.0.1/32", ours.trim()));
    eventually("an answer through the tunnel", || {
        machine.namespace.try_run("ping -c 1 -W 1 10.9.0.2").status.success().then_some(())
    });
    let dump = machine.namespace.run("wg show wg0 dump");
    assert!(
        dump.contains("\t51821\t0x9\n") && dump.contains("10.9.0.2/32,fd09::/64") && dump.contains("\t25\n"),
        "{dump}"
    );
    // The key that was made stays, with a restart too.
    let before = numbers(&machine.namespace);
    machine.namespace.ip("link del wg0");
    until(&machine.namespace, "wg0", &["wireguard"]);
    eventually("the same key", || (machine.namespace.run("wg show wg0 public-key") == ours).then_some(()));
    assert_ne!(numbers(&machine.namespace), before);
}

#[test]
fn a_bridge_comes_changes_and_goes_and_its_ports_with_it() {
    if !possible(&["ip"]) {
        return;
    }
    let configuration = |ageing: &str| {
        format!(
            "[network.links.lan]\nbridge = {{ ports = ['cards'], ageing_time = '{ageing}' }}\n\
             addresses = ['10.10.0.1/24']\n[network.links.cards]\nmatch = {{ name = 'card*' }}\nmtu = 1400\n\
             [network.links.named]\nmatch = {{ mac = '02:00:00:00:66:07' }}\nrename = 'uplink'\ndhcp = false\n"
        )
    };
    let machine = Machine::new(&configuration("1m"));
    let other = Namespace::new();
    for (link, far) in [("card0", "far0"), ("card1", "far1"), ("strange", "far2")] {
        machine.namespace.connect(link, &other, far);
        other.ip(&format!("link set {far} up"));
    }
    machine.namespace.ip("link set strange address 02:00:00:00:66:07");
    other.ip("address add 10.10.0.2/24 dev far1");
    let mut service = machine.start();
    service.wait_ready();
    service.wait_address("lan", "10.10.0.1/24");
    until(&machine.namespace, "lan", &["\"ageing_time\":6000", "\"forward_delay\":0"]);
    for card in ["card0", "card1"] {
        until(&machine.namespace, card, &["\"master\":\"lan\"", "\"UP\"", "\"mtu\":1400"]);
        assert!(!machine.namespace.ip(&format!("address show dev {card}")).contains("inet"));
    }
    until(&machine.namespace, "uplink", &["02:00:00:00:66:07"]);
    eventually("an answer over the bridge", || {
        other.try_run("ping -c 1 -W 1 10.10.0.1").status.success().then_some(())
    });
    let before = numbers(&machine.namespace);
    settled(&mut service, &configuration("2m"));
    until(&machine.namespace, "lan", &["\"ageing_time\":12000"]);
    drop(service);
    let mut service = machine.start();
    service.wait_ready();
    settled(&mut service, &configuration("1m"));
    assert_eq!(numbers(&machine.namespace), before, "nothing was made anew");
    // A card that comes later is a port too; a bridge that somebody removes comes back.
    machine.namespace.connect("card7", &other, "far7");
    until(&machine.namespace, "card7", &["\"master\":\"lan\""]);
    machine.namespace.ip("link del lan");
    for card in ["card0", "card1", "card7"] {
        until(&machine.namespace, card, &["\"master\":\"lan\"", "\"UP\""]);
    }
    settled(&mut service, "");
    until_gone(&machine.namespace, "lan");
    for card in ["card0", "card1"] {
        until(&machine.namespace, card, &["\"UP\""]);
        assert!(!shown(&machine.namespace, card).contains("master"));
    }
}
