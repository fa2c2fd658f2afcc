//! The clock: chrony as a server that DHCP names, and one that the configuration names. What is sent to PID 1 counts here; no
//! test sets a clock.

mod support;

use std::fs;
use std::net::UdpSocket;

use berth_control::message::Request;
use support::site::{OUTSIDE, Site};
use support::{Machine, Namespace, Program, Running, eventually, possible};

const SECOND: i64 = 1_000_000;

/// How far the clock is behind, as PID 1 is told.
fn wait_correction(service: &mut Running) -> i64 {
    service.wait("a correction of the clock", |request| match request {
        Request::Clock { behind, next } => {
            assert_eq!(*next, 64);
            Some(*behind)
        }
        _ => None,
    })
}

/// chrony with its machine's time, at an address of the namespace.
fn serve_time(namespace: &Namespace, folder: &std::path::Path, address: &str) -> Program {
    let path = folder.join("chrony.conf");
    let place = folder.display();
    let text = format!(
        "local stratum 3\nallow\nbindaddress {address}\ncmdport 0\nbindcmdaddress {place}/socket\npidfile {place}/pid\n"
    );
    fs::write(&path, text).unwrap();
    // -x: it lets the clock be.
    let running = namespace.start(&["chronyd", "-x", "-d", "-u", "root", "-f", &path.display().to_string()]);
    eventually("chrony is up", || namespace.run("cat /proc/net/udp /proc/net/udp6").contains(":007B ").then_some(()));
    running
}

#[test]
fn a_server_that_dhcp_names_is_asked() {
    if !possible(&["ip", "dnsmasq", "chronyd"]) {
        return;
    }
    let machine = Machine::new("");
    let lan = Namespace::new();
    machine.namespace.connect("eth0", &lan, "lan0");
    lan.ip("address add 10.77.0.1/24 dev lan0");
    lan.ip("link set lan0 up");
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let _clock = serve_time(&lan, folder.path(), "10.77.0.1");
    let leases = folder.path().join("leases").display().to_string();
    let _server = lan.start(&[
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--user=root",
        "--pid-file=",
        "--no-ping",
        "--interface=lan0",
        "--bind-interfaces",
        "--dhcp-range=10.77.0.50,10.77.0.99,1h",
        "--dhcp-option=option:ntp-server,10.77.0.1",
        "--log-facility=/dev/null",
        &format!("--dhcp-leasefile={leases}"),
    ]);
    let mut service = machine.start();
    let behind = wait_correction(&mut service);
    // Both have this machine's clock; an answer may take as long as it is waited for.
    assert!(behind.abs() < SECOND, "{behind}");
}

#[test]
fn one_that_the_configuration_names_is_asked_instead_as_soon_as_it_does() {
    if !possible(&["ip", "nft"]) {
        return;
    }
    let site = Site::new();
    let socket = site.outside.within(|| UdpSocket::bind((OUTSIDE[0], 123))).unwrap();
    std::thread::spawn(move || {
        let mut question = [0; 128];
        while let Ok((_, from)) = socket.recv_from(&mut question) {
            let mut answer = [0; 48];
            answer[..2].copy_from_slice(&[0x24, 1]);
            answer[24..32].copy_from_slice(&question[40..48]);
            // 2036-02-07 06:28:16: where the seconds begin anew.
            answer[39] = 1;
            answer[47] = 1;
            socket.send_to(&answer, from).unwrap();
        }
    });
    let mut service = site.start();
    service.apply(&site.configuration(&format!("[network]\ntime_servers = ['{}']\n", OUTSIDE[0])));
    let behind = wait_correction(&mut service);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let expected = 2_085_978_496 - i64::try_from(since.as_secs()).unwrap();
    // PATIENCE: this test and its machine may be slow.
    assert!((behind / SECOND - expected).abs() < 60, "{behind}, not {expected} s");
}
