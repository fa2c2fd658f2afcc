//! Values that are right by themselves and do not go together.

use super::*;

#[test]
fn the_same_port_twice_names_both() {
    let text = "\
[containers.a]
image = 'x'
ports = ['127.0.0.1:8000-8010:80-90', '53:53/udp']
[containers.b]
image = 'x'
ports = ['53:53', '192.0.2.1:8005:80', '0.0.0.0:8010:80']
";
    let wanted = "\
error: containers.b.ports[2]: \"a\" already has the machine's port 8010/tcp
 --> berth.toml:6:40
  |
6 | ports = ['53:53', '192.0.2.1:8005:80', '0.0.0.0:8010:80']
  |                                        ^^^^^^^^^^^^^^^^^
 --> berth.toml:3:10
  |
3 | ports = ['127.0.0.1:8000-8010:80-90', '53:53/udp']
  |          --------------------------- published here
  = help: publish one of them at another port";
    assert_eq!(mistake(text), wanted);
}

#[test]
fn more_ports_than_can_be_handed_on_are_refused() {
    let container = |keys: &str| format!("[containers.a]\nimage = 'x'\n{keys}\n");
    for fits in [
        "ports = ['10000-20000:10000-20000/udp', '1-9999:1-9999', '20000-30000:10000-20000']",
        "replicas = 50\nports = ['10000-20000:10000-20000/udp', '8000-8500:9000-9500']",
    ] {
        assert!(load_text(&container(fits)).is_ok(), "{fits}");
    }
    let shown = mistake(&container("replicas = 2\nports = ['80:80', '10000-20000:20000-30000/udp']"));
    assert!(shown.contains("containers.a.ports: 10002 ports, 256 times as the replicas share them"), "{shown}");
    assert!(shown.contains("help: let the range of the machine be that of the container"), "{shown}");
    let two =
        "ports = ['10000-65535:1000-56535']\n[containers.b]\nimage = 'x'\nreplicas = 2\nports = ['1-1000:2-1001']";
    assert!(mistake(&container(two)).contains("containers.b.ports: 1000 ports"), "all containers together");
    let entries: Vec<String> = (1..=1001).map(|port| format!("'{port}:{port}'")).collect();
    let shown = mistake(&container(&format!("ports = [{}]", entries.join(", "))));
    assert!(shown.contains("containers.a.ports: 1001 entries are too many, 1000 are the most"), "{shown}");
}

#[test]
fn the_port_of_a_tunnel_is_not_published() {
    let text = "\
[network.links.wg0]
wireguard = { listen_port = 51820 }
[containers.a]
image = 'x'
ports = ['51820:80', '51819-51821:80-82/udp']
";
    let shown = mistake(text);
    assert!(
        shown.contains("containers.a.ports[1]: the tunnel \"wg0\" already has the machine's port 51820/udp"),
        "{shown}"
    );
    assert!(shown.contains("berth.toml:5:22") && shown.contains("berth.toml:2:"), "{shown}");
}

#[test]
fn elements_keep_their_index_and_place_beside_wrong_ones() {
    let lines = mistakes("[containers.web]\nimage = 'x'\nports = ['80:80', 'x', '81:80', '80:81']\n");
    assert!(lines[0].starts_with("berth.toml:3:19: containers.web.ports[1]: "), "{lines:#?}");
    assert!(lines[1].starts_with("berth.toml:3:33: containers.web.ports[3]: this container already has"), "{lines:#?}");
    assert_eq!(lines.len(), 2);
}

#[test]
fn a_cycle_is_shown_once_and_whole() {
    let text = "\
[containers.a]
image = 'x'
depends_on = ['b']
[containers.b]
image = 'x'
depends_on = ['d', 'c']
[containers.c]
image = 'x'
depends_on = ['a']
[containers.d]
image = 'x'
";
    let shown = mistake(text);
    assert!(shown.contains("the containers wait for each other: a -> b -> c -> a"), "{shown}");
    assert!(shown.contains("berth.toml:6:20") && shown.contains("berth.toml:9:15"), "{shown}");
    assert!(mistake("[containers.a]\nimage = 'x'\ndepends_on = ['a']\n").contains("depends on itself"));
    let long = "\
[containers.a]\nimage = 'x'\ndepends_on.b = { condition = 'started' }
[containers.b]\nimage = 'x'\ndepends_on = { c = {}, a = {} }
[containers.c]\nimage = 'x'\n";
    let shown = mistake(long);
    assert!(shown.contains("the containers wait for each other: a -> b -> a"), "{shown}");
    assert!(shown.contains("containers.a.depends_on.b") && shown.contains("berth.toml:6:"), "{shown}");
}

#[test]
fn a_diamond_is_no_cycle() {
    let text = "\
[containers.a]\nimage = 'x'\ndepends_on = ['b', 'c']
[containers.b]\nimage = 'x'\ndepends_on = ['d']
[containers.c]\nimage = 'x'\ndepends_on = ['d']
[containers.d]\nimage = 'x'
";
    assert_eq!(load_text(text).expect("nothing is wrong").containers.len(), 4);
}

#[test]
fn contradictions_within_a_container_are_found() {
    let web = "[containers.web]\nimage = 'x'\n";
    let cases = [
        ("network_mode = 'host'\nports = ['80:80']", "its ports are the machine's"),
        ("network_mode = 'none'\nports = ['80:80']", "it cannot have ports"),
        ("volumes = ['a:/x']\ntmpfs = ['/x/']", "something else already appears at /x"),
        ("volumes = ['a:/proc/sys']", "/proc is the kernel's"),
        ("memory = 512", "512 of memory is too little"),
        ("[containers.web.sysctls]\n'kernel.panic' = 1", "it is a setting of the whole machine"),
        ("depends_on = ['network']", "there is no container \"network\""),
        ("replicas = 257\nports = ['80:80']", "connections are shared out among 256 containers at most"),
        ("replicas = 2000", "2000 replicas are too many"),
        ("replicas = 2\n[containers.web-2]\nimage = 'x'", "has the name \"web-2\", as has one of \"web-2\""),
        ("depends_on = ['c-1']\n[containers.c]\nimage = 'x'\nreplicas = 2", "there is no container \"c-1\""),
        ("every = '1h'\nschedule = 'daily'", "has a `schedule` already"),
        ("every = '10ms'", "10ms is too short"),
        ("schedule = '0 3 * *'", "it has 4 fields, not five"),
        ("depends_on = ['c']\n[containers.c]\nimage = 'x'\nevery = '1h'", "runs only when its time comes"),
        (
            "depends_on.c = { condition = 'healthy' }\n[containers.c]\nimage = 'x'\nhealth = { disable = true }",
            "\"c\" has no health check",
        ),
        (
            "depends_on.c = { condition = 'completed' }\n[containers.c]\nimage = 'x'",
            "is started again whenever it ends",
        ),
    ];
    for (text, wanted) in cases {
        let shown = mistake(&format!("{web}{text}\n"));
        assert!(shown.contains(wanted), "{shown}");
    }
    assert!(mistake("[containers.kernel]\nimage = 'x'\n").contains("the name of a log"));
    assert!(mistake("[containers.logs]\nimage = 'x'\n").contains("the name of a system container"));
    assert!(mistake("[watchdog]\ntimeout = '1s'\n").contains("5s to 10m are possible"));
    assert!(mistake("[containers.Web]\nimage = 'x'\n").contains("it has 'W'"));
}

#[test]
fn a_definition_fits_into_a_message() {
    let environment = |length| {
        let long = "x".repeat(length);
        load_text(&format!("[containers.web]\nimage = 'x'\nenvironment = {{ A = '{long}' }}\n"))
    };
    assert!(environment(60 * 1024).is_ok());
    assert!(environment(65 * 1024).unwrap_err()[0].to_string().contains("of 65536 at most"));
}

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
fn a_health_check_is_of_one_kind() {
    let check = |text: &str| mistake(&format!("[containers.a]\nimage = 'x'\n[containers.a.health]\n{text}\n"));
    assert!(check("interval = '1s'").contains("exactly one of"));
    assert!(check("tcp = 1\nexec = 'true'").contains("exactly one of"));
    assert!(check("exec = []").contains("no program"));
    assert!(check("tcp = 80\ninterval = '1ms'").contains("health.interval"));
    assert!(check("http = 'https://localhost/'").contains("http://"));
    let none = "[containers.a]\nimage = 'x'\nnetwork_mode = 'none'\nhealth = { tcp = '192.0.2.1:80' }\n";
    assert!(mistake(none).contains("no network"));
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
fn a_container_runs_in_namespaces_that_another_one_can_lend() {
    let two =
        |web: &str, db: &str| format!("[containers.web]\nimage = 'x'\n{web}\n[containers.db]\nimage = 'x'\n{db}\n");
    for (web, db) in [
        ("ipc = 'container:db'\npid = 'container:db'\nnetwork_mode = 'container:db'", "ipc = 'shareable'"),
        ("pid = 'container:db'\nsecurity.user_namespace = 'host'", "security.user_namespace = 'host'"),
        ("pid = 'private'", "ipc = 'private'"),
    ] {
        let text = two(web, db);
        assert!(load_text(&text).is_ok(), "{text}: {:?}", load_text(&text));
    }
    let third = "ipc = 'shareable'\n[containers.c]\nimage = 'x'\nipc = 'shareable'";
    for (web, db, expected) in [
        ("ipc = 'container:d'", "", "there is no such container"),
        ("ipc = 'container:db'", "", "\"db\" shares its IPC namespace with nobody"),
        ("ipc = 'container:web'", "", "\"web\" has no IPC namespace of its own either"),
        ("pid = 'container:db'", "replicas = 2", "there are replicas of \"db\""),
        ("pid = 'container:db'", "every = '1m'", "\"db\" runs only when its time comes"),
        ("pid = 'container:db'", "depends_on = ['web']", "\"db\" waits for this one"),
        ("pid = 'container:db'", "security.user_namespace = 'host'", "another kind of user namespace than \"db\""),
        ("pid = 'container:db'\nipc = 'container:c'", third, "user namespaces of both \"c\" and \"db\""),
        (
            "pid = 'container:db'",
            "ipc = 'container:c'\n[containers.c]\nimage = 'x'\nipc = 'shareable'",
            "name that one",
        ),
        ("ipc = 'container:db'\nshm_size = '1M'", "ipc = 'shareable'", "the /dev/shm of another one"),
        ("ipc = 'container:db'\nsysctls = { 'kernel.sem' = 1 }", "ipc = 'shareable'", "the IPC namespace of another"),
        ("ipc = 'mine'", "", "says not whose it is"),
    ] {
        let text = two(web, db);
        assert!(mistake(&text).contains(expected), "{text}: {}", mistake(&text));
    }
}

#[test]
fn a_replica_knows_the_name_it_is_declared_by() {
    let text = "[containers.web]\nimage = 'x'\nreplicas = 2\n[containers.a-1]\nimage = 'x'\n";
    let configuration = load_text(text).unwrap();
    let declared = |name| configuration.declared_name(name).map(ToString::to_string);
    assert_eq!(declared("web-2").as_deref(), Some("web"));
    assert_eq!(declared("a-1").as_deref(), Some("a-1"));
    assert_eq!((declared("web-3"), declared("web"), declared("web-0")), (None, None, None));
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
