use super::*;
use crate::{CapabilityChoice, Container, Ipv6, NetworkMode, RestartPolicy, SYSTEM_CONTAINERS, Volume};

fn load_text(text: &str) -> Result<Configuration, Vec<Diagnostic>> {
    load(&[Source::new("berth.toml", text)]).map(|loaded| loaded.configuration)
}

/// The mistakes in one line each.
fn mistakes(text: &str) -> Vec<String> {
    load_text(text).expect_err("it is wrong").iter().map(Diagnostic::summary).collect()
}

/// The only mistake, as it is shown.
fn mistake(text: &str) -> String {
    let mistakes = load_text(text).expect_err("it is wrong");
    let [mistake] = mistakes.as_slice() else { panic!("one mistake, not {mistakes:#?}") };
    mistake.to_string()
}

fn container(text: &str) -> Container {
    let configuration = load_text(text).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
    configuration.containers.get("web").expect("it is declared").clone()
}

#[test]
fn no_source_and_an_empty_source_are_the_default() {
    assert_eq!(load(&[]).expect("nothing is wrong").configuration, Configuration::default());
    assert_eq!(load_text("").expect("nothing is wrong"), Configuration::default());
    assert_eq!(load_text("\n# nothing\n").expect("nothing is wrong"), Configuration::default());
}

#[test]
fn the_example_of_the_design_loads() {
    let web = container(
        r#"
        hostname = "dock1"

        [network.links.eth0]
        dhcp = true

        [containers.db]
        image = "postgres:17"

        [containers.web]
        image = "docker.io/library/nginx:1.27"
        ports = ["8080:80"]
        volumes = ["web-data:/usr/share/nginx/html", "/srv:/srv:ro"]
        environment = { TZ = "UTC", WORKERS = 4, DEBUG = false }
        restart = "always"
        memory = "256M"
        cpus = 1.5
        depends_on = ["db"]
        "#,
    );
    assert_eq!(web.memory.map(crate::Size::bytes), Some(256 << 20));
    assert_eq!(web.cpus.map(|cpus| cpus.quota(100_000)), Some(150_000));
    assert_eq!(web.environment.lines().collect::<Vec<_>>(), ["DEBUG=false", "TZ=UTC", "WORKERS=4"]);
    assert_eq!(web.port_mappings().map(|port| (port.host_port, port.container_port)).collect::<Vec<_>>(), [(8080, 80)]);
    assert!(matches!(
        web.volumes.as_slice(),
        [Volume::Named { read_only: false, .. }, Volume::Host { read_only: true, .. }]
    ));
}

#[test]
fn what_is_not_written_has_its_default() {
    let web = container("[containers.web]\nimage = 'x'\n");
    assert_eq!(web, Container::new("x".parse().expect("a name")));
    assert_eq!(web.restart, RestartPolicy::Always);
    assert_eq!(web.network_mode, NetworkMode::Bridge);
    assert!(web.security.no_new_privileges);
    assert!(load_text("").expect("nothing is wrong").console.shell);
}

#[test]
fn later_sources_replace_values_and_add_to_tables() {
    let sources = [
        Source::new("berth.toml", "hostname = 'a'\n[containers.web]\nimage = 'x'\nports = ['80:80']\ncpus = 1\n"),
        Source::new("config.d/10.toml", "[containers.web]\nports = ['81:80']\n[containers.db]\nimage = 'y'\n"),
        Source::new("config.d/20.toml", "hostname = 'b'\n"),
    ];
    let loaded = load(&sources).expect("nothing is wrong");
    assert_eq!(loaded.sources, ["berth.toml", "config.d/10.toml", "config.d/20.toml"]);
    assert_eq!(loaded.configuration.hostname.expect("it is there").as_str(), "b");
    let web = loaded.configuration.containers.get("web").expect("it is declared").clone();
    assert_eq!(web.ports, ["81:80".parse().expect("a port")]);
    assert!(web.cpus.is_some());
    assert_eq!(loaded.configuration.containers.len(), 2);
}

#[test]
fn a_mistake_is_shown_in_the_source_where_its_value_stands() {
    let sources = [
        Source::new("berth.toml", "[containers.web]\nimage = 'x'\nmemory = '1Q'\n"),
        Source::new("config.d/10.toml", "[containers.web]\n\n\n  memory = '2Q'\n"),
    ];
    let mistakes = load(&sources).expect_err("it is wrong");
    let [mistake] = mistakes.as_slice() else { panic!("one mistake, not {mistakes:#?}") };
    assert_eq!(mistake.location.to_string(), "config.d/10.toml:4:12");
    assert_eq!(mistake.location.text(), "'2Q'");
    assert_eq!(mistake.key, "containers.web.memory");
}

#[test]
fn an_unknown_key_is_underlined_with_a_suggestion() {
    let text = "[containers.web]\nimage = 'x'\nmemroy = '256M'\n";
    let wanted = "\
error: containers.web.memroy: unknown key
 --> berth.toml:3:1
  |
3 | memroy = '256M'
  | ^^^^^^
  = help: did you mean `memory`?";
    assert_eq!(mistake(text), wanted);
}

#[test]
fn keys_of_compose_that_are_not_here_get_advice() {
    assert!(mistake("[containers.web]\nimage = 'x'\nprivileged = true\n").contains("name what the container needs"));
    assert!(mistake("[services.web]\nimage = 'x'\n").contains("it is `containers` here"));
    assert!(mistake("[network.links.eth0]\ngateway = '192.0.2.1'\n").contains("it is `gateways` here"));
}

#[test]
fn every_mistake_is_found_in_one_go_and_none_follows_from_another() {
    let text = "\
hostname = 'dock_1'
[containers.web]
image = 5
memory = '25Q'
ports = ['8080:80', 'x', '81:80', 7]
depends_on = ['db', 'cache']
colour = 'red'
[containers.db]
command = ['a', 2]
[network]
dns = ['192.0.2.300']
[network.links.eth0]
ipv6 = 'of'
";
    assert_eq!(
        mistakes(text).iter().map(|line| line.split(" (").next().unwrap_or_default()).collect::<Vec<_>>(),
        [
            "berth.toml:1:12: hostname: it has '_', which must not be there",
            "berth.toml:3:9: containers.web.image: it is a number",
            "berth.toml:4:10: containers.web.memory: \"Q\" is not a unit",
            "berth.toml:5:21: containers.web.ports[1]: it does not say which port of the machine leads to the container",
            "berth.toml:5:35: containers.web.ports[3]: it is a number",
            "berth.toml:6:21: containers.web.depends_on[1]: there is no container \"cache\"",
            "berth.toml:7:1: containers.web.colour: unknown key",
            "berth.toml:8:1: containers.db: the key `image` is missing",
            "berth.toml:9:17: containers.db.command[1]: it is a number",
            "berth.toml:11:8: network.dns[0]: it is not an IP address",
            "berth.toml:13:8: network.links.eth0.ipv6: \"of\" is not a choice",
        ]
    );
}

#[test]
fn text_without_quotation_marks_is_one_mistake_among_others() {
    let mistakes =
        mistakes("hostname = dock1\n[containers.web]\nimage = nginx:1.27\nmemory = 256M\nports = 8080:80\nx = 1\n");
    assert_eq!(mistakes.len(), 5, "{mistakes:#?}");
    assert_eq!(mistakes[2], "berth.toml:4:10: \"256M\" is not a value (text stands in quotation marks: \"256M\")");
    assert!(mistakes[4].starts_with("berth.toml:6:1: containers.web.x: unknown key"));
}

#[test]
fn a_broken_structure_is_not_interpreted() {
    let mistakes = mistakes("[containers.web\nimage = 'x'\nfoo = 1\n");
    assert!(mistakes.iter().all(|line| line.contains("unclosed table")), "{mistakes:#?}");
}

#[test]
fn a_key_that_is_there_twice_is_named() {
    assert!(
        mistake("hostname = 'a'\nhostname = 'b'\n")
            .starts_with("error: the key \"hostname\" is there twice\n --> berth.toml:2:1")
    );
}

#[test]
fn lists_are_no_tables_and_numbers_stay_in_their_range() {
    assert!(mistake("console = [true]\n").contains("console: it is a list"));
    assert!(
        mistake("[containers.web]\nimage='x'\npids_limit = 0\n").contains("a whole number between 1 and 4294967295")
    );
    assert!(
        mistake("[containers.web]\nimage='x'\npids_limit = 99999999999999999999\n").contains("the number is too large")
    );
    assert!(mistake("[containers.web]\nimage='x'\nmemory = -1\n").contains("memory: \"-1\" is not a number"));
    assert!(mistake("[containers.web]\nimage='x'\ncpus = nan\n").contains("cpus: \"NaN\" is out of range"));
    assert!(mistake("[containers.web]\nimage=1979-05-27\n").contains("image: it is a date"));
}

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
        ("depends_on.c = { condition = 'healthy' }\n[containers.c]\nimage = 'x'", "\"c\" has no health check"),
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
fn capabilities_are_dropped_before_they_are_added() {
    let names = |text: &str| {
        let web = container(&format!("[containers.web]\nimage = 'x'\n{text}\n"));
        web.capabilities().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(names("").len(), 11);
    assert_eq!(names("cap_drop = ['ALL']\ncap_add = ['CAP_NET_BIND_SERVICE']"), ["NET_BIND_SERVICE"]);
    assert_eq!(names("cap_drop = ['all']\ncap_add = ['net_admin', 'NET_RAW']\n"), ["NET_ADMIN", "NET_RAW"]);
    assert_eq!(names("cap_add = ['ALL']\ncap_drop = ['SYS_MODULE']").len(), 40);
    assert_eq!("ALL".parse(), Ok(CapabilityChoice::All));
    assert!(mistake("[containers.web]\nimage = 'x'\ncap_add = ['NET_ADMINS']\n").contains("there is no capability"));
}

#[test]
fn bytes_that_are_no_utf_8_are_shown_with_their_place() {
    let mistakes =
        load(&[Source::new("berth.toml", *b"hostname = \"a\"\nx = \"\xff\x1b[2J\"\n")]).expect_err("it is wrong");
    assert_eq!(mistakes[0].location.to_string(), "berth.toml:2:6");
    assert!(!mistakes[0].to_string().contains('\x1b'));
    let utf_16: Vec<u8> = [0xfeff_u16].into_iter().chain("a = 1".encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let mistakes = load(&[Source::new("berth.toml", utf_16)]).expect_err("it is wrong");
    assert!(mistakes[0].help.as_deref().is_some_and(|help| help.contains("UTF-16")));
}

#[test]
fn editors_of_other_systems_are_welcome() {
    let text = "\u{feff}hostname = 'a'\r\n[containers.web]\r\nimage = 'x'\r\nfoo = 1\r\n";
    assert!(mistake(text).contains("berth.toml:4:1\n  |\n4 | foo = 1\n  | ^^^\n"));
    assert!(mistake("\u{feff}hostnam = 'a'\r\n").contains("berth.toml:1:1\n  |\n1 | hostnam = 'a'\n  | ^^^^^^^\n"));
}

#[test]
fn a_file_beyond_the_limit_is_refused_and_one_below_it_is_read() {
    let big = "# comment\n".repeat(crate::SIZE_LIMIT / 10 + 1);
    assert!(mistake(&big).contains("it has 1048580 bytes, 1048576 is the most"));
    let mut many = String::new();
    for number in 0..10_000 {
        many.push_str(&format!(
            "[containers.c{number}]\nimage = \"docker.io/library/nginx:1.27\"\nports = [\"{}:80\"]\n",
            number + 1
        ));
    }
    assert_eq!(load_text(&many).expect("nothing is wrong").containers.len(), 10_000);
}

#[test]
fn the_number_of_mistakes_is_limited() {
    let unknown: String = (0..4_000).map(|number| format!("key{number} = 1\n")).collect();
    assert_eq!(mistakes(&unknown).len(), DIAGNOSTIC_LIMIT);
    let broken: String = (0..4_000).map(|number| format!("key{number} = x\n")).collect();
    assert_eq!(mistakes(&broken).len(), DIAGNOSTIC_LIMIT);
    let ports = "'1-65535:1-65535',".repeat(4_000);
    assert_eq!(mistakes(&format!("[containers.web]\nimage = 'x'\nports = [{ports}]\n")).len(), DIAGNOSTIC_LIMIT);
}

#[test]
fn deep_nesting_is_a_mistake_and_not_a_crash() {
    let lists = format!("a = {}{}\n", "[".repeat(200_000), "]".repeat(200_000));
    assert!(mistakes(&lists)[0].contains("nested too deep"));
    let keys = format!("{}b = 1\n", "a.".repeat(200_000));
    assert!(mistakes(&keys)[0].contains("nested too deep"));
    let chain: String = (0..10_000)
        .map(|number| format!("[containers.c{number}]\nimage = 'x'\ndepends_on = ['c{}']\n", (number + 1) % 10_000))
        .collect();
    assert!(mistake(&chain).contains("wait for each other"));
}

#[test]
fn every_system_container_of_the_tree_loads() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../system-containers");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be listed").path();
        let Ok(text) = std::fs::read(path.join("container.toml")) else { continue };
        let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
        let mistakes = load_system_container(&Source::new(format!("{name}/container.toml"), text)).err();
        let shown: Vec<_> = mistakes.into_iter().flatten().map(|mistake| mistake.to_string()).collect();
        assert!(shown.is_empty(), "{}", shown.join("\n\n"));
        names.push(name);
    }
    names.sort();
    assert_eq!(names, SYSTEM_CONTAINERS, "their names cannot be those of user containers");
}

#[test]
fn a_system_container_names_all_it_needs() {
    let text = "\
description = 'Answers QEMU'
command = ['/usr/bin/berth', 'guest-agent']
capabilities = ['SYS_BOOT']
host_namespaces = ['network', 'pid']
view = 'host'
devices = ['/dev/vport0p1']
condition = { virtio_port = 'org.qemu.guest_agent.0' }
mounts = [{ source = '/run/berth', create = true }]
memory = { reserve = '1M', limit = '16M' }
readiness = 'started'
";
    let container = load_system_container(&Source::new("container.toml", text)).expect("nothing is wrong");
    assert_eq!(container.stop_timeout().duration().as_secs(), 5);
    assert_eq!(container.mounts[0].destination().as_str(), "/run/berth");
    let mistakes =
        load_system_container(&Source::new("container.toml", "capabilities = ['X']\n")).expect_err("it is wrong");
    assert!(mistakes.iter().any(|mistake| mistake.message.contains("the key `command` is missing")), "{mistakes:#?}");
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
fn a_replica_knows_the_name_it_is_declared_by() {
    let text = "[containers.web]\nimage = 'x'\nreplicas = 2\n[containers.a-1]\nimage = 'x'\n";
    let configuration = load_text(text).unwrap();
    let declared = |name| configuration.declared_name(name).map(ToString::to_string);
    assert_eq!(declared("web-2").as_deref(), Some("web"));
    assert_eq!(declared("a-1").as_deref(), Some("a-1"));
    assert_eq!((declared("web-3"), declared("web"), declared("web-0")), (None, None, None));
}
