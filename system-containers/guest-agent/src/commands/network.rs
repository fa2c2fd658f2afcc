//! The links and their addresses.

use nix::ifaddrs::InterfaceAddress;
use nix::sys::socket::SockaddrStorage;
use serde_json::{Map, Value, json};

use super::{Arguments, CommandError, Host, Nothing, read};
use crate::protocol::Answer;

/// The counters of QEMU's GuestNetworkInterfaceStat, and the kernel's names for them.
const STATISTICS: [(&str, &str); 8] = [
    ("rx-bytes", "rx_bytes"),
    ("rx-packets", "rx_packets"),
    ("rx-errs", "rx_errors"),
    ("rx-dropped", "rx_dropped"),
    ("tx-bytes", "tx_bytes"),
    ("tx-packets", "tx_packets"),
    ("tx-errs", "tx_errors"),
    ("tx-dropped", "tx_dropped"),
];

#[derive(Default)]
struct Link {
    name: String,
    hardware_address: Option<String>,
    addresses: Vec<Value>,
}

pub fn interfaces(_: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    read::<Nothing>("guest-network-get-interfaces", arguments)?;
    let found = nix::ifaddrs::getifaddrs()
        .map_err(|error| CommandError::System { operation: "list the network links", source: error.into() })?;
    let mut links: Vec<Link> = Vec::new();
    for entry in found {
        let index = links.iter().position(|link| link.name == entry.interface_name).unwrap_or_else(|| {
            links.push(Link { name: entry.interface_name.clone(), ..Link::default() });
            links.len() - 1
        });
        if let Some(link) = links.get_mut(index) {
            add(link, &entry);
        }
    }
    Ok(Answer::Return(links.into_iter().map(describe).collect()))
}

fn add(link: &mut Link, entry: &InterfaceAddress) {
    let Some(address) = &entry.address else { return };
    if let Some(hardware) = address.as_link_addr() {
        let bytes = hardware.addr().unwrap_or_default();
        let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        link.hardware_address = Some(bytes.join(":"));
    } else if let Some(address) = address.as_sockaddr_in() {
        let mask = entry.netmask.as_ref().and_then(SockaddrStorage::as_sockaddr_in);
        let prefix = mask.map(|mask| u32::from(mask.ip()).leading_ones());
        link.addresses.push(ip_address(&address.ip().to_string(), "ipv4", prefix));
    } else if let Some(address) = address.as_sockaddr_in6() {
        let mask = entry.netmask.as_ref().and_then(SockaddrStorage::as_sockaddr_in6);
        let prefix = mask.map(|mask| u128::from(mask.ip()).leading_ones());
        link.addresses.push(ip_address(&address.ip().to_string(), "ipv6", prefix));
    }
}

fn ip_address(address: &str, kind: &str, prefix: Option<u32>) -> Value {
    json!({ "ip-address": address, "ip-address-type": kind, "prefix": prefix.unwrap_or_default() })
}

fn describe(link: Link) -> Value {
    let mut object = Map::new();
    let counters = STATISTICS.iter().filter_map(|(member, attribute)| {
        let path = format!("/sys/class/net/{}/statistics/{attribute}", link.name);
        let count: u64 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
        Some(((*member).to_owned(), count.into()))
    });
    let counters: Map<String, Value> = counters.collect();
    // All or none: the members are not optional.
    if counters.len() == STATISTICS.len() {
        object.insert("statistics".to_owned(), Value::Object(counters));
    }
    if let Some(address) = link.hardware_address {
        object.insert("hardware-address".to_owned(), address.into());
    }
    if !link.addresses.is_empty() {
        object.insert("ip-addresses".to_owned(), link.addresses.into());
    }
    object.insert("name".to_owned(), link.name.into());
    Value::Object(object)
}
