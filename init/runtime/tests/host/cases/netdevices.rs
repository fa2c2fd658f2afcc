//! Network devices that are moved into a container.

use std::process::Command;

use berth_runtime::spec::{NamespaceKind, NetDevice};

use super::Test;
use crate::container::Case;

pub const CASES: &[Test] = &[
    ("a_device_moves_in_with_its_addresses", a_device_moves_in_with_its_addresses),
    ("a_device_moves_into_a_joined_namespace_by_template", a_device_moves_into_a_joined_namespace_by_template),
    (
        "a_device_that_cannot_move_is_named_and_nothing_has_moved",
        a_device_that_cannot_move_is_named_and_nothing_has_moved,
    ),
    ("a_device_comes_back_from_a_failed_create", a_device_comes_back_from_a_failed_create),
];

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// One end of a pair, which goes with the test.
struct Device(&'static str);

impl Device {
    fn new(name: &'static str) -> Self {
        ip(&format!("link add {name} address 02:00:00:00:00:07 mtu 1400 type veth peer name {name}-peer"));
        ip(&format!("link set {name}-peer up"));
        ip(&format!("addr add 192.0.2.7/24 brd + dev {name}"));
        ip(&format!("addr add 192.0.2.9/32 scope link dev {name}"));
        ip(&format!("addr add 2001:db8::7/64 dev {name} nodad"));
        ip(&format!("addr add 192.0.2.10/24 dev {name} valid_lft 1000 preferred_lft 1000"));
        ip(&format!("link set {name} up"));
        Self(name)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // With the container's namespace both ends have gone already.
        let peer = format!("{}-peer", self.0);
        let _ = Command::new("ip").args(["link", "del", &peer]).stderr(std::process::Stdio::null()).status();
    }
}

fn move_in(case: &mut Case, name: &str, wanted: Option<&str>) {
    case.linux().net_devices.insert(name.to_owned(), NetDevice { name: wanted.map(str::to_owned) });
}

fn a_device_moves_in_with_its_addresses() {
    let script = "ip -o addr show dev inside; cat /sys/class/net/inside/mtu /sys/class/net/inside/address \
                  /proc/sys/net/ipv4/conf/inside/forwarding; ip -o link show dev inside";
    for mut case in [Case::new(script), Case::unprivileged(script)] {
        let _device = Device::new("berth-a");
        move_in(&mut case, "berth-a", Some("inside"));
        case.linux().sysctl = [("net.ipv4.conf.inside.forwarding".to_owned(), "1".to_owned())].into();
        let output = case.run().output;
        assert!(output.contains("192.0.2.7/24 brd 192.0.2.255 scope global inside"), "{output}");
        assert!(output.contains("2001:db8::7/64 scope global") && output.contains("UP"), "{output}");
        assert!(!output.contains("192.0.2.9/32") && !output.contains("192.0.2.10/24"), "{output}");
        assert!(output.contains("\n1400\n02:00:00:00:00:07\n1\n"), "{output}");
        assert!(!ip("link").contains("berth-a:"));
    }
}

fn a_device_moves_into_a_joined_namespace_by_template() {
    let _device = Device::new("berth-b");
    ip("netns add berth-runtime-test");
    ip("-n berth-runtime-test link add eth0 type veth peer name other");
    let mut case = Case::new("ip -o addr show dev eth1");
    let network = case.linux().namespaces.iter_mut().find(|namespace| namespace.kind == NamespaceKind::Network);
    network.unwrap().path = Some("/run/netns/berth-runtime-test".into());
    move_in(&mut case, "berth-b", Some("eth0"));
    let text = case.fails();
    assert!(text.contains("linux.netDevices[\"berth-b\"].name must not be eth0"), "{text}");
    move_in(&mut case, "berth-b", Some("eth%d"));
    let output = case.run().output;
    ip("netns del berth-runtime-test");
    assert!(output.contains("192.0.2.7/24"), "{output}");
}

fn a_device_that_cannot_move_is_named_and_nothing_has_moved() {
    let _device = Device::new("berth-c");
    let before = ip("addr show dev berth-c");
    let mut case = Case::new("true");
    move_in(&mut case, "berth-c", None);
    move_in(&mut case, "none-such", None);
    let text = case.fails();
    assert!(text.contains("linux.netDevices[\"none-such\"] is not a network device"), "{text}");
    assert_same(&ip("addr show dev berth-c"), &before);
    case.linux().net_devices.remove("none-such");
    case.linux().namespaces.retain(|namespace| namespace.kind != NamespaceKind::Network);
    assert!(case.fails().contains("linux.netDevices needs a network namespace"));
}

fn a_device_comes_back_from_a_failed_create() {
    let _device = Device::new("berth-d");
    let before = ip("addr show dev berth-d");
    for mut case in [Case::new("true"), Case::unprivileged("true")] {
        move_in(&mut case, "berth-d", Some("inside"));
        case.process().args = vec!["no-such-program".into()];
        assert!(case.fails().contains("no-such-program"));
        assert_same(&ip("addr show dev berth-d"), &before);
    }
}

/// All but the index, which is the next free one, what the kernel adds when it goes up, and addresses that do not move.
fn assert_same(now: &str, before: &str) {
    let lines = |text: &str| {
        let kept = |line: &&str| ["mtu", "link/ether", "192.0.2.7/", "2001:db8"].iter().any(|word| line.contains(word));
        let plain = |line: &str| line.split_once(": berth").map_or(line.to_owned(), |(_, rest)| rest.to_owned());
        text.lines().filter(kept).map(plain).collect::<Vec<_>>()
    };
    assert_eq!(lines(now), lines(before));
}
