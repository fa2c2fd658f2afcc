//! Links and networks that cannot be as they are written.

use super::*;

#[test]
fn links_that_cannot_work_are_found() {
    let cases = [
        ("match = {}", "it matches no link"),
        ("addresses = ['192.0.2.7']", "has no prefix length"),
        ("addresses = ['192.0.2.7/24', '192.0.2.7/24']", "the address is there twice"),
        ("addresses = ['2001:db8::1/64']\nipv6 = 'off'", "IPv6 is switched off"),
        ("addresses = ['192.0.2.7/24']\ngateways = ['198.51.100.1']", "does not reach the gateway"),
        (
            "addresses = ['192.0.2.7/24']\ngateways = ['192.0.2.1', '192.0.2.2']",
            "a default gateway of this family already",
        ),
        ("routes = [{ destination = '10.0.0.0/8', gateway = 'fe80::1' }]", "not of the same family"),
        ("routes = [{ gateway = 'fe80::1' }]", "the key `destination` is missing"),
        ("mtu = 1000", "packets that small"),
        ("mtu = 67", "is not a packet size"),
    ];
    for (text, wanted) in cases {
        let shown = mistake(&format!("[network.links.eth0]\n{text}\n"));
        assert!(shown.contains(wanted), "{shown}");
    }
    let good = load_text(
        "[network.links.lan]\nmatch = { mac = '52:54:*', driver = 'virtio_net' }\naddresses = ['192.0.2.7/24', '2001:db8::7/64']\n\
         gateways = ['192.0.2.1', 'fe80::1']\nipv6 = 'static'\nmtu = 1400\ndns = ['2001:db8::53']\n\
         routes = [{ destination = '10.0.0.0/8', gateway = '192.0.2.9', metric = 10 }, { destination = '10.1.0.0/16' }]\n",
    );
    let network = good.expect("nothing is wrong").network;
    let link = crate::LinkIdentity { name: "eth7", mac: "52:54:00:AB:00:01", driver: "virtio_net", path: "" };
    let (name, settings) = network.link_settings(&link).expect("it matches");
    assert_eq!((name.as_str(), settings.ipv6, settings.uses_dhcp()), ("lan", Ipv6::Static, false));
    assert!(network.link_settings(&crate::LinkIdentity { driver: "e1000e", ..link }).is_none());
}

#[test]
fn the_machines_resolver_is_not_to_ask_itself() {
    for text in [
        "[network]\ndns = ['127.0.0.53']\n",
        "[network]\ndomains = { 'corp.test' = ['192.0.2.53', '127.0.0.53'] }\n",
        "[network]\nresolver = false\ndomains = { 'corp.test' = ['::ffff:127.0.0.53'] }\n",
        "[network.links.eth0]\ndns = ['127.0.0.53']\n",
    ] {
        let shown = mistake(text);
        assert!(shown.contains("the machine's own resolver, which would ask itself"), "{shown}");
    }
    // Whom programs ask where they do not ask it, and another program on the loopback.
    for text in ["[network]\nresolver = false\ndns = ['127.0.0.53']\n", "[network]\ndns = ['127.0.0.1']\n"] {
        assert!(load_text(text).is_ok(), "{text}: {:?}", load_text(text));
    }
}

#[test]
fn a_network_on_a_parent_link_has_what_it_needs_and_no_more() {
    let lan = |keys: &str| format!("[networks.lan]\ndriver = 'macvlan'\nparent = 'eth1'\n{keys}\n");
    let subnet = "subnets = ['192.0.2.0/24']";
    let web = |keys: &str| format!("{}[containers.web]\nimage = 'x'\n{keys}\n", lan(subnet));
    let passthru = |containers: &str| lan(&format!("mode = 'passthru'\n{subnet}\n{containers}"));
    for good in [
        lan(subnet),
        passthru("[containers.a]\nimage = 'x'\nnetworks = ['lan']\n[containers.b]\nimage = 'x'\n"),
        lan(&format!("mode = 'private'\n{subnet}\ngateways = ['192.0.2.1']")),
        format!("[networks.lan]\ndriver = 'ipvlan'\nparent = 'eth1.7'\nmode = 'l3s'\n{subnet}\n"),
        web("networks = ['default', 'lan']\nports = ['80:80']"),
        "[networks.lan]\nisolated = true\n".to_owned(),
    ] {
        assert!(load_text(&good).is_ok(), "{good}: {:?}", load_text(&good));
    }
    for (text, reason) in [
        ("[networks.lan]\nparent = 'eth1'\n".to_owned(), "a bridge has none"),
        ("[networks.lan]\nmode = 'l2'\n".to_owned(), "a bridge has none"),
        (format!("[networks.lan]\ndriver = 'ipvlan'\n{subnet}\n"), "it has no `parent`"),
        (lan("subnets = ['fd00::/64']"), "addresses of the parent's network"),
        (lan(&format!("mode = 'l3'\n{subnet}")), "no such mode"),
        (lan(&format!("internal = true\n{subnet}")), "not up to this machine"),
        (lan(&format!("isolated = true\n{subnet}")), "only a bridge"),
        (web("networks = ['lan', 'default']\nports = ['80:80']"), "by its own address on \"lan\""),
        (
            format!(
                "[networks.lan]\ndriver = 'ipvlan'\nparent = 'eth1'\n{subnet}\n[containers.a]\nimage = 'x'\n\
                 networks = {{ lan = {{ mac_address = '02:00:00:00:00:01' }} }}\n"
            ),
            "have their parent's",
        ),
        (
            passthru("[containers.a]\nimage = 'x'\nnetworks = { lan = { mac_address = '02:00:00:00:00:01' } }\n"),
            "has its hardware address too",
        ),
        (
            passthru(
                "[containers.a]\nimage = 'x'\nnetworks = ['lan']\n[containers.b]\nimage = 'x'\nnetworks = ['lan']\n",
            ),
            "one container has all of its parent link, and 2 are on it",
        ),
        (passthru("[containers.a]\nimage = 'x'\nnetworks = ['lan']\nreplicas = 3\n"), "and 3 are on it"),
    ] {
        assert!(mistake(&text).contains(reason), "{text}: {}", mistake(&text));
    }
}

#[test]
fn rules_name_somebody_who_has_an_address_and_are_where_the_packet_filter_sees_them() {
    let lan = "[networks.lan]\ndriver = 'macvlan'\nparent = 'eth1'\nsubnets = ['192.0.2.0/24']\n";
    let web = |keys: &str| {
        format!("{lan}[containers.side]\nimage = 'x'\nnetwork_mode = 'host'\n[containers.web]\nimage = 'x'\n{keys}\n")
    };
    for good in [
        web(
            "allow = [{ container = 'web', ports = [80, '1-9/udp'] }, { ports = [7] }]\nendpoint_mode = 'vip'\nreplicas = 2",
        ),
        web("deny = [{ network = 'default' }, { address = '2001:db8::/64' }]\nbandwidth = { ingress = '10M' }"),
        web("allow_out = [{ address = '192.0.2.0/24', ports = [443] }]\ndeny_out = [{ ports = [25] }]"),
        web("networks = ['lan']\nbandwidth = { egress = '10M' }"),
    ] {
        assert!(load_text(&good).is_ok(), "{good}: {:?}", load_text(&good));
    }
    for (keys, expected) in [
        ("allow = [{ container = 'web', network = 'lan' }]", "it names more than one"),
        ("allow = [{}]", "it says nothing"),
        ("allow = [{ container = 'db' }]", "there is no such container"),
        ("allow = [{ container = 'side' }]", "no address of its own"),
        ("deny = [{ network = 'back' }]", "there is no such network"),
        ("deny = [{ address = '192.0.2.1/24' }]", "bits behind the prefix"),
        ("deny = [{ ports = [80] }]\nnetworks = ['lan']", "does not pass this machine's packet filter"),
        ("deny = [{ ports = [80] }]\nnetwork_mode = 'none'", "no network of its own"),
        ("allow_out = [{}]", "it says nothing"),
        ("allow_out = [{ container = 'db' }]", "there is no such container"),
        ("deny_out = [{ address = '192.0.2.1/24' }]", "bits behind the prefix"),
        ("deny_out = [{ ports = [25] }]\nnetworks = ['lan']", "does not pass this machine's packet filter"),
        ("bandwidth = { egress = '1M' }\nnetwork_mode = 'none'", "no links of its own"),
        ("bandwidth = { ingress = '1M' }\nnetworks = ['lan']", "not up to this machine"),
        ("bandwidth = { ingress = '1X' }", "is not a rate"),
        ("endpoint_mode = 'vip'", "only replicas have a common address"),
        ("endpoint_mode = 'vip'\nreplicas = 257", "at most"),
    ] {
        let shown = mistake(&web(keys));
        assert!(shown.contains(expected), "{keys}: {shown}");
    }
    let rules = format!("{lan}deny = [{{ ports = [80] }}]\n");
    assert!(mistake(&rules).contains("does not pass this machine's packet filter"));
    let limit = format!("{lan}bandwidth = {{ egress = '1M' }}\n");
    assert!(mistake(&limit).contains("networks.lan.bandwidth: what goes over a parent link does not pass"));
    assert!(load_text("[networks.back]\nbandwidth = { ingress = '1M', egress = '64K' }\n").is_ok());
}

#[test]
fn networks_have_subnets_of_their_own_and_containers_fit_into_them() {
    let web = |keys: &str| format!("[containers.web]\nimage = 'x'\n{keys}\n");
    let back = |keys: &str| format!("[networks.back]\nsubnets = ['10.9.0.0/24', 'fd09::/64']\n{keys}\n");
    let on_back = |keys: &str| format!("{}[containers.web.networks.back]\n{keys}\n", web(""));
    for good in [
        format!("{}{}", back("gateways = ['10.9.0.254']"), on_back("ipv4_address = '10.9.0.1'\naliases = ['www']")),
        format!("{}{}", back("internal = true"), web("networks = ['back', 'default']\nports = ['80:80']")),
        format!("{}[containers.side]\nimage = 'x'\nnetwork_mode = 'container:web'\n", web("")),
    ] {
        assert!(load_text(&good).is_ok(), "{good}: {:?}", load_text(&good));
    }
    let twice = "[containers.b]\nimage = 'x'\nnetworks = { back = { ipv4_address = '10.9.0.7' } }\n";
    for (wrong, expected) in [
        (back("[networks.other]\nsubnets = ['10.9.0.128/25']"), "it overlaps with 10.9.0.0/24"),
        ("[networks.a]\nsubnets = ['10.0.0.0/31']\n".to_owned(), "cannot have this size"),
        ("[networks.a]\nsubnets = ['10.0.0.1/24']\n".to_owned(), "bits behind the prefix"),
        ("[networks.a]\nsubnets = ['10.0.0.0/24', '10.0.1.0/24']\n".to_owned(), "a subnet of this family already"),
        (back("gateways = ['10.8.0.1']"), "no subnet of the network has this gateway"),
        (back("mtu = 1000"), "IPv6 does not work"),
        (web("networks = ['back']"), "there is no network \"back\""),
        (back("") + &web("networks = ['back', 'back']"), "the network is there twice"),
        (back("") + &web("networks = ['back']\nnetwork_mode = 'host'"), "it is on no network of its own"),
        (back("internal = true") + &web("networks = ['back']\nports = ['80:80']"), "nothing leads to it"),
        (back("") + &on_back("ipv4_address = '10.9.0.255'"), "the network does not have this address"),
        (back("") + &on_back("ipv6_address = 'fd09::1'"), "gateway has this address"),
        (back("") + twice + &on_back("ipv4_address = '10.9.0.7'"), "10.9.0.7 is given to two containers"),
        (web("network_mode = 'container:db'"), "there is no such container"),
        (web("network_mode = 'container:web'"), "has no network of its own either"),
        (web("network_mode = 'container:b'\nports = ['80:80']") + "[containers.b]\nimage = 'x'", "another one"),
        (
            web("network_mode = 'container:b'") + "[containers.b]\nimage = 'x'\ndepends_on = ['web']",
            "\"b\" waits for this one",
        ),
    ] {
        assert!(mistake(&wrong).contains(expected), "{wrong}: {}", mistake(&wrong));
    }
}

#[test]
fn links_that_stand_on_each_other_are_shown_as_a_circle() {
    let text = "\
[network.links.lan]
bridge = { ports = ['eth0', 'tagged'] }
[network.links.both]
bond = { ports = ['lan'] }
[network.links.tagged]
vlan = { link = 'both', id = 7 }
";
    let shown = mistake(text);
    assert!(shown.contains("the links stand on each other: both -> lan -> tagged -> both"), "{shown}");
    assert!(shown.contains("berth.toml:4:19") && shown.contains("berth.toml:2:29"), "{shown}");
    assert!(mistake("[network.links.a]\nvlan = { link = 'a', id = 7 }\n").contains("stands on itself"));
    let good = "[network.links.bond0]\nbond = { mode = '802.3ad', ports = ['eth0', 'eth1'] }\n\
                [network.links.tagged]\nvlan = { link = 'bond0', id = 7 }\n[network.links.lan]\nbridge = { ports = ['tagged'] }\n";
    assert!(load(&[Source::new("berth.toml", good)]).is_ok());
}

#[test]
fn links_that_are_made_have_options_that_fit_them() {
    for (keys, wanted) in [
        ("dummy = true\nvlan = { link = 'eth1', id = 7 }", "an entry makes one link"),
        ("dummy = true\nmatch = { driver = 'x' }", "cannot be found"),
        ("dummy = true\ndhcp = true", "no DHCP on such a link"),
        ("rename = 'lan0'", "has its name already"),
        ("match = { driver = 'x' }\nrename = 'berth7'", "own links have such names"),
        ("vlan = { link = 'eth1', id = 4095 }", "from 1 to 4094"),
        ("vrf = { table = 254 }", "the kernel has this table"),
        ("bond = { lacp_rate = 'fast' }", "mode does not have this"),
        ("bond = { coupled_control = false }", "mode does not have this"),
        ("bond = { mode = '802.3ad', primary = 'a', ports = ['a'] }", "mode does not have this"),
        ("bond = { miimon = 1, arp_interval = 1, arp_targets = ['::1'] }", "not both"),
        ("bond = { arp_interval = 1 }", "go together"),
        ("bond = { mode = '802.3ad', arp_interval = 1, arp_targets = ['::1'] }", "cannot ask by ARP"),
        ("bond = { mode = 'active-backup', primary = 'a', ports = ['b'] }", "no port of the bond"),
        ("wireguard = { private_key = 'short' }", "no key of 32 bytes"),
    ] {
        let shown = mistake(&format!("[network.links.new0]\n{keys}\n"));
        assert!(shown.contains(wanted), "{keys}: {shown}");
    }
    let twice =
        "[network.links.a]\nbridge = { ports = ['eth0'] }\n[network.links.b]\nvrf = { table = 7, ports = ['eth0'] }\n";
    assert!(mistake(twice).contains("\"eth0\" is a port already"));
    let address =
        "[network.links.a]\nbridge = { ports = ['eth0'] }\n[network.links.eth0]\naddresses = ['192.0.2.7/24']\n";
    assert!(mistake(address).contains("a port has no addresses of its own"));
    assert!(mistake("[[network.rules]]\nfrom = '192.0.2.0/24'\n").contains("leads nowhere"));
    assert!(mistake("[[network.rules]]\nfrom = '192.0.2.1/24'\ntable = 7\n").contains("bits behind the prefix"));
    assert!(mistake("[[network.rules]]\nfrom = '192.0.2.0/24'\nto = '::/0'\ntable = 7\n").contains("same family"));
    assert!(mistake("[[network.rules]]\naction = 'blackhole'\n").contains("for every packet"));
}
