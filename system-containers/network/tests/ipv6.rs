//! DHCPv6 and router advertisements, from kea and radvd.

mod support;

use std::fs;

use support::{Machine, Namespace, Program, chrony, eventually, kea, possible};

const TOOLS: &[&str] = &["ip", "radvd", "kea-dhcp6"];

/// fd77::1, in the form of option 56 (RFC 5908), which kea does not know.
const NTP_SERVER: &str = "00010010fd770000000000000000000000000001";

/// A router with a DHCPv6 server on the cable `eth0`.
struct Router {
    namespace: Namespace,
    files: tempfile::TempDir,
}

impl Router {
    fn new(machine: &Machine) -> Self {
        let namespace = Namespace::new();
        machine.namespace.connect("eth0", &namespace, "lan0");
        namespace.ip("link set lan0 up");
        namespace.ip("address add fd77::1/64 dev lan0 nodad");
        namespace.run("sysctl -qw net.ipv6.conf.all.forwarding=1");
        // The server binds to its link-local address, which comes with carrier and is looked for on the link first.
        machine.namespace.ip("link set eth0 up");
        eventually("a link-local address", || {
            let addresses = namespace.ip("-6 address show dev lan0 scope link");
            (addresses.contains("fe80") && !addresses.contains("tentative")).then_some(())
        });
        Self { namespace, files: tempfile::tempdir_in("/dev/shm").unwrap() }
    }

    fn advertise(&self, flags: &str) -> Program {
        let (configuration, pid) = (self.files.path().join("radvd.conf"), self.files.path().join("radvd.pid"));
        let text = format!(
            "interface lan0 {{ AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; {flags} \
             prefix fd77::/64 {{ AdvAutonomous off; }}; }};"
        );
        fs::write(&configuration, text).unwrap();
        let (configuration, pid) = (configuration.display().to_string(), pid.display().to_string());
        self.namespace.start(&["radvd", "-n", "-C", &configuration, "-p", &pid, "-m", "none"])
    }

    /// Answers with addresses of fd77::50 and on, a resolver and a time server.
    fn serve(&self, lifetimes: &str) -> Program {
        let folder = self.files.path();
        let settings = format!(
            r#""data-directory": "{}",
            {lifetimes}
            "option-data": [
                {{ "name": "dns-servers", "data": "fd77::53" }},
                {{ "name": "domain-search", "data": "six.example" }},
                {{ "code": 56, "csv-format": false, "data": "{NTP_SERVER}" }}
            ],
            "subnet6": [ {{ "id": 1, "subnet": "fd77::/64", "interface": "lan0", "rapid-commit": false,
                "pools": [ {{ "pool": "fd77::50-fd77::5f" }} ] }} ]"#,
            folder.display()
        );
        kea::serve(&self.namespace, folder, 6, &settings)
    }

    fn log(&self) -> String {
        kea::log(self.files.path())
    }
}

const LONG: &str = r#""preferred-lifetime": 3000, "valid-lifetime": 4000,"#;

#[test]
fn where_routers_say_so_addresses_come_from_dhcpv6() {
    if !possible(TOOLS) {
        return;
    }
    let machine = Machine::new("");
    let router = Router::new(&machine);
    let _server = router.serve(LONG);
    let mut service = machine.start();
    service.wait_ready();
    let advertising = router.advertise("AdvManagedFlag on;");
    let address = service.wait_address("eth0", "fd77::5");
    assert!(address.ends_with("/128"), "{address}");
    let shown = machine.namespace.ip("-6 address show dev eth0");
    assert!(shown.contains("preferred_lft 3000sec") || shown.contains("preferred_lft 299"), "{shown}");
    let resolv_conf = eventually("the resolver", || {
        Some(service.file("resolv.upstream.conf")).filter(|text| text.contains("nameserver fd77::53"))
    });
    assert!(resolv_conf.contains("search six.example"), "{resolv_conf}");
    assert!(machine.namespace.ip("-6 route").contains("default via fe80::"));
    // The same machine gets the same address again.
    drop(service);
    machine.namespace.ip("-6 address flush dev eth0 scope global");
    let mut service = machine.start();
    service.wait_ready();
    assert_eq!(service.wait_address("eth0", "fd77::5"), address);
    // Routers no longer say so, and the configuration does.
    drop(advertising);
    service.apply("[network.links.eth0]\ndhcp6 = false\n");
    service.wait_no_address("eth0", "fd77::5");
    service.apply("[network.links.eth0]\ndhcp6 = true\n");
    service.wait_address("eth0", "fd77::5");
}

#[test]
fn a_lease_of_dhcpv6_is_renewed_and_what_there_is_to_know_comes_without_an_address() {
    if !possible(TOOLS) {
        return;
    }
    let machine = Machine::new("[network.links.eth0]\nprivacy = true\n");
    let router = Router::new(&machine);
    let times = r#""preferred-lifetime": 8, "valid-lifetime": 12, "renew-timer": 2, "rebind-timer": 6,"#;
    let server = router.serve(times);
    let mut service = machine.start();
    service.wait_ready();
    let managed = router.advertise("AdvManagedFlag on;");
    service.wait_address("eth0", "fd77::5");
    assert_eq!(machine.namespace.run("cat /proc/sys/net/ipv6/conf/eth0/use_tempaddr").trim(), "2");
    let advertised = router.log().matches("DHCP6_LEASE_RENEW").count();
    eventually("it is renewed", || (router.log().matches("DHCP6_LEASE_RENEW").count() > advertised).then_some(()));
    // The server disappears: the address ends, and the machine says what is missing.
    drop(server);
    service.wait_no_address("eth0", "fd77::5");
    service.wait("what is missing", |request| match request {
        berth_control::message::Request::Links { links } => {
            let lacks = |link: &berth_control::message::Link| link.missing.iter().any(|text| text.contains("DHCPv6"));
            links.iter().any(lacks).then_some(())
        }
        _ => None,
    });
    drop(managed);
    fs::remove_file(router.files.path().join("kea.log")).unwrap();
    let _server = router.serve(LONG);
    let _other = router.advertise("AdvOtherConfigFlag on; AdvManagedFlag off;");
    let resolv_conf = eventually("the resolver", || {
        Some(service.file("resolv.upstream.conf")).filter(|text| text.contains("nameserver fd77::53"))
    });
    assert!(resolv_conf.contains("six.example"), "{resolv_conf}");
    assert!(!machine.namespace.ip("-6 address show dev eth0").contains("fd77::5"));
}

#[test]
fn a_time_server_that_dhcpv6_names_is_asked_over_ipv6() {
    if !possible(&["ip", "radvd", "kea-dhcp6", "chronyd"]) {
        return;
    }
    let machine = Machine::new("");
    let router = Router::new(&machine);
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let _clock = chrony::serve(&router.namespace, folder.path(), "fd77::1");
    let _server = router.serve(LONG);
    let _advertising = router.advertise("AdvManagedFlag on;");
    let mut service = machine.start();
    let behind = chrony::wait_correction(&mut service);
    // Both have this machine's clock; an answer may take as long as it is waited for.
    assert!(behind.abs() < chrony::SECOND, "{behind}");
}
