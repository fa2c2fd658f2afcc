//! What single sources and values come to; what does not go together is in [`contradictions`], of links and networks in
//! [`networks`].

mod contradictions;
mod networks;

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
