//! DHCPv6 and router advertisements, from kea and radvd.

use std::fs;
use std::net::SocketAddrV6;
use std::os::fd::AsRawFd;

use berth_control::message::Request;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sockopt};

use crate::support::router::Router;
use crate::support::site::{Site, container};
use crate::support::{Machine, Namespace, Program, chrony, eventually, name_server, possible};

const TOOLS: &[&str] = &["ip", "radvd", "kea-dhcp6"];

/// Routers say often that there is a network without addresses to be made up.
const NETWORK: &str = "MinRtrAdvInterval 3; MaxRtrAdvInterval 4; prefix fd77::/64 { AdvAutonomous off; };";

fn advertise(router: &Router, flags: &str) -> Program {
    router.advertise(&format!("{flags} {NETWORK}"))
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
    let advertising = advertise(&router, "AdvManagedFlag on;");
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

/// As in a network with a router of small devices beside that to the internet. The kernel keeps what either said last.
#[test]
fn a_router_that_says_nothing_of_dhcpv6_takes_no_lease_away() {
    if !possible(TOOLS) {
        return;
    }
    let machine = Machine::new("");
    let switch = Namespace::new();
    switch.ip("link add switch type bridge mcast_snooping 0");
    switch.ip("link set switch up");
    machine.namespace.connect("eth0", &switch, "machine");
    switch.ip("link set machine master switch up");
    let router = Router::behind(&switch, "first", "fd77::1/64");
    let devices = Router::behind(&switch, "second", "fd78::1/64");
    let _server = router.serve(LONG);
    let mut service = machine.start();
    service.wait_ready();
    let _advertising = advertise(&router, "AdvManagedFlag on;");
    let address = service.wait_address("eth0", "fd77::5");
    // A route is all that it offers.
    let _of_devices = devices.advertise(
        "AdvDefaultLifetime 0; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; prefix fd78::/64 { }; route fd79::/64 { };",
    );
    // Told of when the kernel has looked for a second whether anybody else has it: long after what the message itself says.
    service.wait("an address of its network", |request| match request {
        Request::Links { links } => {
            let of_eth0 = links.iter().filter(|link| link.name == "eth0").flat_map(|link| &link.addresses);
            let addresses: Vec<&String> = of_eth0.collect();
            assert!(addresses.contains(&&address), "it was taken away: {addresses:?}");
            addresses.iter().any(|address| address.starts_with("fd78:")).then_some(())
        }
        _ => None,
    });
    assert!(service.file("resolv.upstream.conf").contains("nameserver fd77::53"));
    if std::path::Path::new("/proc/sys/net/ipv6/conf/lo/accept_ra_rt_info_max_plen").exists() {
        let routes = machine.namespace.ip("-6 route show fd79::/64");
        assert!(routes.contains("via fe80::"), "{}", machine.namespace.ip("-6 route"));
    }
}

#[test]
fn a_lease_of_dhcpv6_outlasts_a_restart_while_its_server_is_silent() {
    if !possible(TOOLS) {
        return;
    }
    let machine = Machine::new("");
    let router = Router::new(&machine);
    let server = router.serve(LONG);
    let _advertising = advertise(&router, "AdvManagedFlag on;");
    let mut service = machine.start();
    service.wait_ready();
    let address = service.wait_address("eth0", "fd77::5");
    drop(service);
    drop(server);
    // As after a reboot.
    machine.namespace.ip("-6 address flush dev eth0 scope global");
    let mut service = machine.start();
    service.wait_ready();
    assert_eq!(service.wait_address("eth0", "fd77::5"), address);
    let shown = machine.namespace.ip("-6 address show dev eth0");
    assert!(shown.contains("valid_lft 39"), "it is not longer than it was: {shown}");
    let resolv_conf = eventually("the resolver", || {
        Some(service.file("resolv.upstream.conf")).filter(|text| text.contains("nameserver fd77::53"))
    });
    assert!(resolv_conf.contains("search six.example"), "{resolv_conf}");
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
    let managed = advertise(&router, "AdvManagedFlag on;");
    service.wait_address("eth0", "fd77::5");
    assert_eq!(machine.namespace.run("cat /proc/sys/net/ipv6/conf/eth0/use_tempaddr").trim(), "2");
    let advertised = router.log().matches("DHCP6_LEASE_RENEW").count();
    eventually("it is renewed", || (router.log().matches("DHCP6_LEASE_RENEW").count() > advertised).then_some(()));
    // The server disappears: the address ends, and the machine says what is missing.
    drop(server);
    service.wait_no_address("eth0", "fd77::5");
    service.wait("what is missing", |request| match request {
        Request::Links { links } => {
            let lacks = |link: &berth_control::message::Link| link.missing.iter().any(|text| text.contains("DHCPv6"));
            links.iter().any(lacks).then_some(())
        }
        _ => None,
    });
    drop(managed);
    fs::remove_file(router.files.path().join("kea.log")).unwrap();
    let _server = router.serve(LONG);
    let _other = advertise(&router, "AdvOtherConfigFlag on; AdvManagedFlag off;");
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
    let _advertising = advertise(&router, "AdvManagedFlag on;");
    let mut service = machine.start();
    let behind = chrony::wait_correction(&mut service);
    // Both have this machine's clock; an answer may take as long as it is waited for.
    assert!(behind.abs() < chrony::SECOND, "{behind}");
}

#[test]
fn with_privacy_there_is_an_address_that_does_not_last() {
    if !possible(&["ip", "radvd"]) {
        return;
    }
    let machine = Machine::new("[network.links.eth0]\nprivacy = true\n");
    let router = Router::new(&machine);
    let mut service = machine.start();
    service.wait_ready();
    let says = "MinRtrAdvInterval 3; MaxRtrAdvInterval 4; prefix fd77::/64 { AdvAutonomous on; };";
    let _advertising = router.advertise(says);
    let lines = || machine.namespace.ip("-6 -o address show dev eth0 scope global");
    eventually("a temporary address and one that stays", || {
        let (shown, passes) = (lines(), |line: &&str| line.contains(" temporary "));
        let of_router = shown.lines().filter(|line| line.contains(" fd77:"));
        let (temporary, lasting): (Vec<&str>, Vec<&str>) = of_router.partition(passes);
        (temporary.len() == 1 && lasting.len() == 1).then_some(())
    });
    // New connections begin with it.
    let temporary = lines()
        .lines()
        .find(|line| line.contains(" temporary "))
        .and_then(|line| line.split_whitespace().find_map(|word| word.strip_suffix("/64")).map(str::to_owned));
    eventually("it is used", || {
        let way = machine.namespace.ip("-6 route get fd77::1");
        temporary.as_ref().is_some_and(|address| way.contains(&format!(" src {address} "))).then_some(())
    });
    service.apply("");
    eventually("it is not renewed any more", || {
        let switch = machine.namespace.run("cat /proc/sys/net/ipv6/conf/eth0/use_tempaddr");
        (switch.trim() == "0").then_some(())
    });
}

#[test]
fn without_ipv4_names_are_asked_of_a_router_by_its_address_on_the_link() {
    if !possible(&["ip", "radvd", "dnsmasq", "dig"]) {
        return;
    }
    let machine = Machine::new("[network.links.eth0]\ndhcp = false\n");
    let router = Router::new(&machine);
    let shown = router.namespace.ip("-6 -o address show dev lan0 scope link");
    let address = shown.split_whitespace().find_map(|word| word.strip_suffix("/64")).unwrap().to_owned();
    let known = ["--interface=lan0", "--address=/six.example/fd77::99"];
    let _server = name_server::serve(&router.namespace, "fd77::1", &known);
    let mut service = machine.start();
    service.wait_ready();
    let _advertising = router.advertise(&format!(
        "MinRtrAdvInterval 3; MaxRtrAdvInterval 4; prefix fd77::/64 {{ }}; RDNSS {address} {{ }};"
    ));
    eventually("the resolver", || {
        service.file("resolv.upstream.conf").contains(&format!("nameserver {address}%eth0\n")).then_some(())
    });
    let answer = eventually("an answer", || {
        let asked = machine.namespace.run("dig +short +time=3 +tries=1 @127.0.0.53 www.six.example AAAA || true");
        asked.contains("fd77::99").then_some(asked)
    });
    assert_eq!(answer.trim(), "fd77::99");
    assert_eq!(machine.namespace.ip("-4 address show dev eth0"), "", "it has an address of IPv4");
}

/// An advertisement of a domain to search, by a router that is no way out (RFC 4861, 4.2; RFC 8106, 5.2).
fn of_domain(name: &str) -> Vec<u8> {
    let mut value = vec![u8::try_from(name.len()).unwrap()];
    value.extend(name.as_bytes());
    value.extend(b"\x04test\x00");
    value.resize(value.len().next_multiple_of(8), 0);
    let units = u8::try_from(1 + value.len() / 8).unwrap();
    [&[134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 31, units, 0, 0, 0, 0, 2, 88][..], &value].concat()
}

#[test]
fn a_router_that_names_ever_other_domains_has_containers_told_now_and_then() {
    if !possible(&["ip", "nft"]) {
        return;
    }
    let site = Site::new();
    let mut service = site.start();
    let web = container();
    service.attach("web", &web, &[]).unwrap();
    let socket = site.outside.within(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket::socket(AddressFamily::Inet6, SockType::Raw, flags, SockProtocol::IcmpV6).unwrap();
        socket::setsockopt(&socket, sockopt::Ipv6MulticastHops, &255).unwrap();
        let link = nix::net::if_::if_nametoindex("up0").unwrap();
        let all = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, link);
        socket::connect(socket.as_raw_fd(), &SockaddrIn6::from(all)).unwrap();
        socket
    });
    eventually("a link-local address to send from", || {
        let shown = site.outside.ip("-6 address show dev up0 scope link");
        (shown.contains("fe80") && !shown.contains("tentative")).then_some(())
    });
    for number in 100..200 {
        socket::send(socket.as_raw_fd(), &of_domain(&format!("d{number}")), MsgFlags::empty()).unwrap();
    }
    let mut told = 0;
    service.wait("one of the last domains", |request| match request {
        Request::NetworkAttached { resolv_conf, .. } => {
            told += 1;
            resolv_conf.contains(" d18").then_some(()).or(resolv_conf.contains(" d19").then_some(()))
        }
        _ => None,
    });
    assert!(told < 30, "{told} times");
}
