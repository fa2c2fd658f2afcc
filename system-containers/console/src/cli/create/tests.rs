use std::net::IpAddr;

use super::*;
use berth_config::{NetworkMode, Seccomp, UserNamespace};
use berth_control::images::End;
use berth_control::message::{self, ContainerState};
use clap::Parser;

use crate::cli::api::peer;

#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn definition(line: &str) -> Result<String, Error> {
    let words = ["run"].into_iter().chain(line.split_whitespace());
    New::of(Line::try_parse_from(words).unwrap().arguments)?.definition("job", &[])
}

fn read(text: &str) -> Container {
    let loaded = berth_config::load(&[berth_config::Source::new("line", text)]).unwrap();
    loaded.configuration.containers.into_values().next().unwrap()
}

#[test]
fn flags_become_the_keys_of_a_configuration() {
    let line = "-it -e A=1=2 -v data:/d:ro -v /srv:/s -p 127.0.0.1:8080:80 -w /tmp -u 7:8 -m 64m --cpus 1.5 \
        --restart on-failure:3 --entrypoint sh --network none --hostname h --cap-drop ALL -l x=y a:1 -c true";
    // A published port needs a network; it is only about the flags here.
    let text = definition(&line.replace("--network none ", "")).unwrap();
    let container = read(&text);
    assert!(container.tty && container.stdin_open);
    assert_eq!(container.environment.variables()["A"], "1=2");
    assert_eq!(container.volumes.len(), 2);
    assert_eq!(container.port_mappings().next().map(|port| port.host_port), Some(8080));
    assert_eq!(container.memory, Some(Size::from_bytes(64 << 20)));
    assert_eq!(container.entrypoint.unwrap().words(), ["sh"]);
    assert_eq!(container.command.unwrap().words(), ["-c", "true"]);
    let behind = read(&definition("--entrypoint ls -q a:1 -l --rm -- x").unwrap());
    assert_eq!(behind.command.unwrap().words(), ["-l", "--rm", "--", "x"], "of the program, whatever it looks like");
    assert_eq!(container.labels["x"], "y");
    assert_eq!(read(&definition(&line.replace("-p 127.0.0.1:8080:80 ", "")).unwrap()).network_mode, NetworkMode::None);
}

#[test]
fn without_flags_a_container_runs_once_as_its_image_says() {
    let wanted = Container { restart: RestartPolicy::No, ..Container::new("a:1".parse().unwrap()) };
    assert_eq!(read(&definition("a:1").unwrap()), wanted);
}

#[test]
fn an_init_and_servers_for_names() {
    let line = "--init --dns 192.0.2.53 --dns 2001:db8::53 --dns-search corp.example --dns-option timeout:1 --dns-opt \
        rotate a:1";
    let container = read(&definition(line).unwrap());
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(container.init);
    assert_eq!(container.dns, ["192.0.2.53".parse::<IpAddr>().unwrap(), "2001:db8::53".parse().unwrap()]);
    assert_eq!(container.dns_search.iter().map(ToString::to_string).collect::<Vec<_>>(), ["corp.example"]);
    assert_eq!(container.dns_opt.iter().map(ToString::to_string).collect::<Vec<_>>(), texts(&["timeout:1", "rotate"]));
    let file = |line: &str| {
        let text = definition(line).unwrap();
        let refusals = berth_config::load(&[berth_config::Source::new("line", text)]).unwrap_err();
        format!("{refusals:?}")
    };
    assert!(file("--network container:db --dns 192.0.2.53 a:1").contains("the resolv.conf of another one"));
    assert!(file("--dns 127.0.0.1 a:1").contains("127.0.0.1 would be the machine"));
    assert!(file("--dns-search . --dns-search a.org a:1").contains("no domains at all"));
}

#[test]
fn more_flags_that_docker_has() {
    let line = "--device /dev/null:/dev/x:r --ulimit nofile=10:20 --ulimit core=0 --sysctl net.core.somaxconn=9 \
        --shm-size 1m --stop-timeout 3 --health-cmd true --health-interval 2s -h name a:1";
    let container = read(&definition(line).unwrap());
    assert_eq!(container.devices.len(), 1);
    assert_eq!(container.ulimits.len(), 2);
    assert_eq!(container.sysctls.iter().next(), Some(("net.core.somaxconn", "9")));
    assert_eq!(container.shm_size, Some(Size::from_bytes(1 << 20)));
    assert_eq!(container.stop_grace_period().to_string(), "3s");
    assert_eq!(container.health.unwrap().exec.unwrap().words(), ["/bin/sh", "-c", "true"]);
    assert_eq!(container.hostname.unwrap().as_str(), "name");
    assert!(read(&definition("--no-healthcheck a:1").unwrap()).health.unwrap().disable);
    let of_image = read(&definition("--health-interval 2s --health-retries 5 a:1").unwrap()).health.unwrap();
    assert_eq!(
        (of_image.is_complete(), of_image.interval().to_string(), of_image.retries()),
        (false, "2s".to_owned(), 5)
    );
    assert_eq!(read(&definition("--net host a:1").unwrap()).network_mode, NetworkMode::Host);
    assert!(definition("--ulimit nofile a:1").unwrap_err().to_string().contains("nofile=1024"));
    let text = definition("--network front --network back a:1").unwrap();
    assert!(text.contains("networks = [\"front\", \"back\"]"), "{text}");
    let text = definition("--network container:db a:1").unwrap();
    assert!(text.contains("network_mode = \"container:db\""), "{text}");
    let container = read(&definition("--ipc shareable --pid private a:1").unwrap());
    assert_eq!((container.ipc, container.pid), (IpcMode::Shareable, PidMode::Private));
    let text = definition("--ipc container:db --pid container:db a:1").unwrap();
    assert!(text.contains("ipc = \"container:db\"\npid = \"container:db\""), "{text}");
}

#[test]
fn names_groups_and_processors_are_added() {
    let line =
        "--add-host db:192.0.2.7 --add-host six=[2001:db8::7] --group-add 44 --group-add video --cpuset-cpus 0-1 a:1";
    let container = read(&definition(line).unwrap());
    let hosts: Vec<String> = container.extra_hosts.iter().map(|(name, address)| format!("{name} {address}")).collect();
    assert_eq!(hosts, ["db 192.0.2.7", "six 2001:db8::7"]);
    assert_eq!(container.group_add, [Group::Number(44), Group::Name("video".into())]);
    assert_eq!(container.cpuset.unwrap().to_string(), "0-1");
    let error = Line::try_parse_from(["run", "--add-host", "db:host-gateway", "a"]).unwrap_err().to_string();
    assert!(error.contains("berth network ls"), "{error}");
}

#[test]
fn limits_are_given_as_docker_gives_them() {
    let container =
        read(&definition("--cpu-quota 150000 -c 512 --memory-reservation 32m --oom-score-adj 500 a:1").unwrap());
    assert_eq!((container.cpus, container.cpu_shares), (Some("1.5".parse().unwrap()), Some("512".parse().unwrap())));
    assert_eq!(container.mem_reservation, Some(Size::from_bytes(32 << 20)));
    assert_eq!(container.oom_score_adj, Some("500".parse().unwrap()));
    let cpus = |line: &str| read(&definition(line).unwrap()).cpus;
    assert_eq!(cpus("--cpu-period 50000 --cpu-quota 25000 a:1"), Some("0.5".parse().unwrap()));
    assert_eq!(cpus("--cpu-quota 0 a:1"), None);
    let refused = |line: &str| Line::try_parse_from(line.split(' ')).unwrap_err().to_string();
    assert!(refused("run --cpus 1 --cpu-quota 5 a").contains("cannot be used with"));
    assert!(refused("run --oom-score-adj -5 a").contains("0 to 1000"), "{}", refused("run --oom-score-adj -5 a"));
    assert_eq!(read(&definition("--userns host a:1").unwrap()).security.user_namespace, UserNamespace::Host);
    assert!(refused("run --userns keep-id a").contains("there is host"));
}

#[test]
fn labels_come_from_files_too_and_those_of_the_line_count_more() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "# of the file\n\ntier=db\nPATH\n").unwrap();
    let line = format!("--label-file {} -l tier=web a:1", file.path().display());
    let labels = read(&definition(&line).unwrap()).labels;
    assert_eq!((labels["tier"].as_str(), labels["PATH"].as_str()), ("web", ""), "no variable of this command");
}

#[test]
fn the_platform_is_this_machines() {
    let here = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    assert!(definition(&format!("--platform {here} -q a:1")).is_ok());
    let error = Line::try_parse_from(["run", "--platform", "linux/s390x", "a"]).unwrap_err().to_string();
    assert!(error.contains(here), "{error}");
}

#[test]
fn standard_input_is_passed_on_if_it_is_among_the_streams() {
    let new = |line: &str| New::of(Line::try_parse_from(line.split(' ')).unwrap().arguments);
    let input = |line: &str| new(line).unwrap().input;
    assert!(input("run -i a") && input("run -i -a stdin -a STDOUT -a stderr a"));
    assert!(!input("run a") && !input("run -i -a stdout -a stderr a"));
    assert!(new("run -a stdout a").unwrap_err().to_string().contains("2>/dev/null"));
}

#[test]
fn flags_of_networks_are_of_the_first_one() {
    let text = definition("--ip 10.0.0.7 --network-alias db --mac-address 02:42:ac:11:00:02 a:1").unwrap();
    assert!(text.contains("networks.default]") && text.contains("ipv4_address = \"10.0.0.7\""), "{text}");
    let text = definition("--network front --network back --network-alias db a:1").unwrap();
    assert!(text.contains("networks.front]\naliases = [\"db\"]") && text.contains("networks.back]"), "{text}");
    // Of the first one that is named, wherever the flags stand, and not of the first in the table, which is by name.
    let flags = ["--ip 10.0.0.7", "--ip6 fd00::7", "--mac-address 02:42:ac:11:00:02"];
    let networks = "--network front --network back";
    let declared = "[networks.front]\nsubnets = ['10.0.0.0/24', 'fd00::/64']\n[networks.back]\n";
    for line in [format!("{} {networks}", flags.join(" ")), format!("{networks} {}", flags.join(" "))] {
        let container = read(&(declared.to_owned() + &definition(&format!("{line} a:1")).unwrap()));
        let memberships = container.memberships();
        let fixed = |name: &str| {
            let (_, membership) = memberships.iter().find(|(network, _)| network.as_str() == name).unwrap();
            (membership.ipv4_address.is_some(), membership.ipv6_address.is_some(), membership.mac_address.is_some())
        };
        assert_eq!((fixed("front"), fixed("back")), ((true, true, true), (false, false, false)), "{line}");
    }
    let error = definition("--network host --ip 10.0.0.7 a:1").unwrap_err().to_string();
    assert!(error.contains("--network host"), "{error}");
}

#[test]
fn what_a_container_may_is_loosened_as_docker_has_it() {
    let container = read(&definition("--privileged a:1").unwrap());
    let security = &container.security;
    assert_eq!((security.seccomp, security.user_namespace), (Seccomp::Unconfined, UserNamespace::Host));
    assert!(!security.no_new_privileges && container.capabilities().len() > 30);
    let container =
        read(&definition("--security-opt seccomp=unconfined --security-opt no-new-privileges a:1").unwrap());
    assert!(container.security.no_new_privileges && container.security.seccomp == Seccomp::Unconfined);
    let error = Line::try_parse_from(["run", "--security-opt", "seccomp=x.json", "a"]).unwrap_err().to_string();
    assert!(error.contains("profile of its own"), "{error}");
    let container = read(&definition("--mount type=tmpfs,target=/t --mount source=data,target=/d a:1").unwrap());
    assert_eq!((container.tmpfs.len(), container.volumes.len()), (1, 1));
}

#[tokio::test]
async fn the_name_goes_to_the_file_of_the_id() {
    let (api, mut peer) = peer::pair().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("id");
    let words = ["run", "--name", "job", "--cidfile", path.to_str().unwrap(), "a:1"];
    let line = || Line::try_parse_from(words).unwrap().arguments;
    let (made, ()) = tokio::join!(run(&api, line(), false), peer.answer("Create", &()));
    assert_eq!(made.unwrap(), "job\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "job");
    assert!(New::of(line()).unwrap_err().to_string().contains("--cidfile"));
}

#[tokio::test]
async fn exposed_ports_are_published_on_others_if_somebody_was_faster() {
    let (api, mut peer) = peer::pair().await;
    let image = r#"{"configuration":{"config":{"ExposedPorts":{"80/tcp":{}}}}}"#.to_owned();
    let inspected = || peer::of_engine(&End::Done(vec![image.clone()]));
    let list = |host_ports: &[u16]| -> Vec<berth_control::dbus::Container> {
        let port = |host_port: &u16| message::Port {
            host_address: String::new(),
            host_port: *host_port,
            container_port: 9,
            further_ports: 0,
            protocol: "tcp".into(),
        };
        let ports = host_ports.iter().map(port).collect();
        vec![message::Container { ports, ..peer::container("web", ContainerState::Running) }.into()]
    };
    let served = async {
        peer.answer("Inspect", &inspected()).await;
        peer.answer("List", &list(&[61_000])).await;
        let call = peer.call("Create").await;
        let definition: (String, berth_control::dbus::Creation) = call.body().deserialize().unwrap();
        assert!(definition.0.contains("\"61001:7/udp\", \"61002:80\""), "{}", definition.0);
        peer.refuse(&call, "port 61001 of the machine leads to container web already").await;
        peer.answer("List", &list(&[61_000, 61_001])).await;
        peer.answer("Inspect", &inspected()).await;
        peer.answer("List", &list(&[61_000, 61_001])).await;
        let call = peer.call("Create").await;
        let definition: (String, berth_control::dbus::Creation) = call.body().deserialize().unwrap();
        assert!(definition.0.contains("\"61002:7/udp\", \"61003:80\""), "{}", definition.0);
        peer.reply(&call, &()).await;
    };
    let line = Line::try_parse_from(["run", "-P", "--expose", "80", "--expose", "7/udp", "--name", "job", "a:1"])
        .unwrap()
        .arguments;
    let served = tokio::time::timeout(std::time::Duration::from_secs(10), served);
    let (made, served) = tokio::join!(run(&api, line, false), served);
    served.expect("it tries once more");
    assert_eq!(made.unwrap(), "job\n");
}

#[test]
fn what_is_removed_is_not_started_again() {
    let error = definition("--rm --restart always a").unwrap_err().to_string();
    assert!(error.contains("--rm"), "{error}");
}

#[test]
fn a_made_up_name_is_a_name() {
    for _ in 0..100 {
        let name = made_up_name();
        assert!(name.parse::<ContainerName>().is_ok(), "{name}");
    }
}
