//! What the fuzz targets call: everything that reads what other machines send. Each function panics where a promise of
//! its parser is broken.

use std::time::Duration;

use crate::dhcp::client::{Client, Event};
use crate::dhcp::lease::Lease;
use crate::dhcp::message::{ServerMessage, is_domain_name};
use crate::{arp, dhcp6, dns, router_advertisement};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// A DHCPv4 message, and a client that gets it.
pub fn dhcp(bytes: &[u8]) {
    let Some(message) = ServerMessage::decode(bytes) else { return };
    assert!(message.search.iter().all(|name| is_domain_name(name)));
    if let Ok(lease) = Lease::from_message(&message) {
        assert!((1..=32).contains(&lease.prefix_length) && lease.renewal_time <= lease.rebinding_time);
    }
    let mut client = Client::new(message.mac, None, None, u64::from(message.transaction));
    client.step(Duration::ZERO, Event::CarrierUp);
    client.step(Duration::ZERO, Event::Received(Box::new(message)));
}

/// A DHCPv6 message, and a client that gets it.
pub fn dhcp6(bytes: &[u8]) {
    use dhcp6::client::{Client, Event, Wanted};
    let Some(message) = dhcp6::message::ServerMessage::decode(bytes, MAC) else { return };
    assert!(message.search.iter().all(|name| is_domain_name(name)));
    assert!(message.addresses.iter().all(|granted| granted.preferred <= granted.valid));
    let mut client = Client::new(MAC, u64::from(message.transaction));
    client.step(Duration::ZERO, Event::Want(Wanted::Addresses));
    client.step(Duration::ZERO, Event::Received(Box::new(message)));
    if let Some(deadline) = client.deadline() {
        client.step(deadline, Event::Timer);
    }
}

/// What the kernel hands on of router advertisements.
pub fn router_advertisement(bytes: &[u8]) {
    for advertised in router_advertisement::messages(bytes) {
        assert!(advertised.search.iter().all(|name| is_domain_name(name)));
        assert!(advertised.dns_servers.len() <= 16);
    }
}

/// A DNS message, as a query and as an answer.
pub fn dns(bytes: &[u8]) {
    dns::fuzz(bytes);
}

/// An ARP packet.
pub fn arp(bytes: &[u8]) {
    if let Some(packet) = arp::packet::Packet::decode(bytes) {
        let again = arp::packet::Packet::decode(&packet.encode());
        assert_eq!(again, Some(packet));
    }
}
