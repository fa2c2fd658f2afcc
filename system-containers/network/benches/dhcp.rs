//! How long after the DHCP server's answer has gone out the address is configured.
//!
//! `cargo bench -p berth-network --bench dhcp`, as root; dnsmasq is the server. The program is started anew each time; the
//! answer is seen on the server's link, the address in the kernel's own report of it. The bench fails if the bar is missed.

#[path = "../tests/support/mod.rs"]
mod support;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use support::Machine;
use support::bars::{self, Bar, judged};
use support::lan::Lan;

const RUNS: usize = 15;
/// Of issue 6, in milliseconds.
const BAR: f64 = 50.0;
/// RTMGRP_IPV4_IFADDR of linux/rtnetlink.h.
const ADDRESSES: u32 = 0x10;
/// The option that says what a message is, with its length and DHCPACK (RFC 2132, section 9.6).
const ACKNOWLEDGEMENT: [u8; 3] = [53, 1, 5];
/// What the server's addresses begin with.
const NETWORK: [u8; 3] = [10, 77, 0];

fn main() -> ExitCode {
    if !support::possible(&["ip", "dnsmasq"]) {
        return ExitCode::SUCCESS;
    }
    let mut times: Vec<f64> = (0..RUNS).map(|_| once().as_secs_f64() * 1000.0).collect();
    times.sort_by(f64::total_cmp);
    let (middle, last) = (times[RUNS / 2], times[RUNS - 1]);
    let line = format!("DHCP: address {middle:.1} ms after the server's answer, at most {last:.1} ms");
    judged(&line, middle, Bar::AtMost(BAR));
    bars::verdict()
}

fn once() -> Duration {
    let machine = Machine::new("");
    let lan = Lan::new(&machine);
    let _server = lan.serve("10.77.0.50,10.77.0.99,1h", &[]);
    let wire = lan
        .namespace
        .within(|| socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll));
    let wire = wire.expect("root may listen");
    let reports = machine.namespace.within(|| {
        let made = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        bind(made.as_raw_fd(), &NetlinkAddr::new(0, ADDRESSES)).map(|()| made)
    });
    let reports = reports.expect("the kernel reports");
    let mut service = machine.start();
    service.wait_ready();
    between(&wire, &reports)
}

/// From the answer on the wire to the report of the address.
fn between(wire: &OwnedFd, reports: &OwnedFd) -> Duration {
    let patience = PollTimeout::try_from(support::PATIENCE).expect("some seconds");
    let mut answered = None;
    loop {
        let mut polled = [wire, reports].map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        assert!(poll(&mut polled, patience).expect("sockets can be waited for") > 0, "no address has come");
        let now = Instant::now();
        let [on_wire, reported] = polled.map(|each| each.any().unwrap_or(false));
        if on_wire && contains(wire, &ACKNOWLEDGEMENT) {
            answered = Some(now);
        }
        if reported && contains(reports, &NETWORK) {
            return answered.map_or(Duration::ZERO, |answered| now - answered);
        }
    }
}

fn contains(socket: &OwnedFd, bytes: &[u8]) -> bool {
    let mut buffer = [0; 2048];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("it is readable");
    buffer[..length].windows(bytes.len()).any(|window| window == bytes)
}
