//! The clock: chrony as a server that DHCP names, and one that the configuration names. What is sent to PID 1 counts here; no
//! test sets a clock.

use std::net::UdpSocket;

use crate::support::lan::Lan;
use crate::support::site::{OUTSIDE, Site};
use crate::support::{Machine, chrony, possible};

#[test]
fn a_server_that_dhcp_names_is_asked() {
    if !possible(&["ip", "dnsmasq", "chronyd"]) {
        return;
    }
    let machine = Machine::new("");
    let lan = Lan::new(&machine);
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let _clock = chrony::serve(&lan.namespace, folder.path(), "10.77.0.1");
    let _server = lan.serve("10.77.0.50,10.77.0.99,1h", &["--dhcp-option=option:ntp-server,10.77.0.1"]);
    let mut service = machine.start();
    let behind = chrony::wait_correction(&mut service);
    // Both have this machine's clock; an answer may take as long as it is waited for.
    assert!(behind.abs() < chrony::SECOND, "{behind}");
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
    let behind = chrony::wait_correction(&mut service);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let expected = 2_085_978_496 - i64::try_from(since.as_secs()).unwrap();
    // PATIENCE: this test and its machine may be slow.
    assert!((behind / chrony::SECOND - expected).abs() < 60, "{behind}, not {expected} s");
}
