//! DHCPv6 messages on the wire (RFC 8415, 3646, 5908).
//!
//! As with DHCPv4, a message may be any bytes: reading never panics, never loops, and takes no more memory than a small
//! multiple of the input. What cannot be read is left out.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use crate::dhcp::message::{Mac, compressed_name, is_domain_name};

/// The most addresses, servers and domains that are taken from one message.
const LIST_LIMIT: usize = 16;
/// The longest DUID (RFC 8415, section 11.1: 128 bytes without its type).
const LONGEST_DUID: usize = 130;

const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_ADDRESS: u16 = 5;
const OPTION_REQUEST: u16 = 6;
const PREFERENCE: u16 = 7;
const ELAPSED_TIME: u16 = 8;
const STATUS: u16 = 13;
const RAPID_COMMIT: u16 = 14;
const DNS_SERVERS: u16 = 23;
const DOMAIN_LIST: u16 = 24;
const INFORMATION_REFRESH: u16 = 32;
const NTP_SERVER: u16 = 56;
const SOLICIT_MAXIMUM: u16 = 82;
const INFORMATION_MAXIMUM: u16 = 83;
const NTP_ADDRESS: u16 = 1;

const ASKED_FOR: [u16; 6] =
    [DNS_SERVERS, DOMAIN_LIST, INFORMATION_REFRESH, NTP_SERVER, SOLICIT_MAXIMUM, INFORMATION_MAXIMUM];

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A client looks for servers.
    Solicit = 1,
    /// A server offers.
    Advertise = 2,
    /// A client wants what was offered.
    Request = 3,
    /// A client asks whether its addresses are of this link.
    Confirm = 4,
    /// A client asks its server to prolong.
    Renew = 5,
    /// A client asks any server to prolong.
    Rebind = 6,
    /// A server grants, or answers whatever else was asked.
    Reply = 7,
    /// A client found an address in use.
    Decline = 9,
    /// A client wants no address, only what there is to know.
    InformationRequest = 11,
}

/// How something went (RFC 8415, section 21.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Well.
    Success,
    /// No address is left.
    NoAddress,
    /// The server does not know the lease.
    NoBinding,
    /// The address is not of this link.
    NotOnLink,
    /// Anything else.
    Failed,
}

/// An address with its times in seconds; `u32::MAX` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The address.
    pub address: Ipv6Addr,
    /// How long new connections use it.
    pub preferred: u32,
    /// How long it may be used at all.
    pub valid: u32,
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerMessage {
    /// Advertise or reply.
    pub kind: Kind,
    /// The client's number for this exchange, of 24 bits.
    pub transaction: u32,
    /// Who the server is.
    pub server: Vec<u8>,
    /// How the whole went.
    pub status: Status,
    /// Why, printable characters only.
    pub text: Option<String>,
    /// The server's opinion of itself; 255 ends the search.
    pub preference: u8,
    /// The server agreed to the short exchange.
    pub rapid_commit: bool,
    /// How it went with the addresses.
    pub address_status: Status,
    /// The client's addresses.
    pub addresses: Vec<Granted>,
    /// When to ask this server again, in seconds; 0 leaves it to the client.
    pub renewal_time: u32,
    /// When to ask any server, in seconds; 0 leaves it to the client.
    pub rebinding_time: u32,
    /// Resolvers.
    pub dns_servers: Vec<Ipv6Addr>,
    /// Domains to search.
    pub search: Vec<String>,
    /// Time servers.
    pub ntp_servers: Vec<Ipv6Addr>,
    /// When to ask for all this again if there is no address, in seconds.
    pub refresh_time: Option<u32>,
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientMessage {
    /// Anything but advertise and reply.
    pub kind: Kind,
    /// Of 24 bits.
    pub transaction: u32,
    /// Since the exchange began, in hundredths of a second.
    pub elapsed: u16,
    /// The link's hardware address, of which the client's identity is made.
    pub mac: Mac,
    /// The server that is meant; all if absent.
    pub server: Option<Vec<u8>>,
    /// The addresses that are asked for, given back, or found in use.
    pub addresses: Vec<Ipv6Addr>,
}

impl ClientMessage {
    /// What UDP carries.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind as u8];
        bytes.extend(self.transaction.to_be_bytes().get(1..).unwrap_or_default());
        let mut options = Vec::new();
        option(&mut options, CLIENT_ID, &duid(self.mac));
        if let Some(server) = &self.server {
            option(&mut options, SERVER_ID, server);
        }
        option(&mut options, ELAPSED_TIME, &self.elapsed.to_be_bytes());
        if self.kind != Kind::InformationRequest {
            option(&mut options, IA_NA, &self.association());
        }
        if self.kind != Kind::Decline {
            let asked: Vec<u8> = ASKED_FOR.iter().flat_map(|code| code.to_be_bytes()).collect();
            option(&mut options, OPTION_REQUEST, &asked);
        }
        if self.kind == Kind::Solicit {
            option(&mut options, RAPID_COMMIT, &[]);
        }
        bytes.extend(options);
        bytes
    }

    /// The one association of the link; its number is the end of the hardware address, which stays over reboots.
    fn association(&self) -> Vec<u8> {
        let mut value = identity(self.mac).to_vec();
        value.extend([0; 8]);
        for address in &self.addresses {
            let mut inner = address.octets().to_vec();
            inner.extend([0; 8]);
            option(&mut value, IA_ADDRESS, &inner);
        }
        value
    }
}

fn option(bytes: &mut Vec<u8>, code: u16, value: &[u8]) {
    bytes.extend(code.to_be_bytes());
    bytes.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(value);
}

/// A DUID-LL (RFC 8415, section 11.4): needs no storage, and the server knows the machine again after any reinstallation.
fn duid(mac: Mac) -> Vec<u8> {
    [&[0, 3, 0, 1][..], &mac].concat()
}

fn identity([_, _, a, b, c, d]: Mac) -> [u8; 4] {
    [a, b, c, d]
}

impl ServerMessage {
    /// Reads a server's message to the client with this hardware address. `None` if it is not one.
    pub fn decode(bytes: &[u8], mac: Mac) -> Option<Self> {
        let (first, rest) = bytes.split_first()?;
        let kind = [Kind::Advertise, Kind::Reply].into_iter().find(|kind| *kind as u8 == *first)?;
        let (transaction, options) = rest.split_at_checked(3)?;
        let transaction = transaction.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        let mut message = Self::empty(kind, transaction);
        let mut is_ours = false;
        for (code, value) in Options(options) {
            match code {
                CLIENT_ID => is_ours = value == duid(mac),
                SERVER_ID if (1..=LONGEST_DUID).contains(&value.len()) => message.server = value.to_vec(),
                IA_NA => message.read_association(value, mac),
                PREFERENCE => message.preference = value.first().copied().unwrap_or(0),
                STATUS => (message.status, message.text) = status(value),
                RAPID_COMMIT => message.rapid_commit = true,
                DNS_SERVERS => message.dns_servers = addresses(value),
                DOMAIN_LIST => message.search = domains(value),
                INFORMATION_REFRESH => message.refresh_time = number(value),
                NTP_SERVER => message.ntp_servers.extend(
                    Options(value).filter(|(code, _)| *code == NTP_ADDRESS).flat_map(|(_, value)| addresses(value)),
                ),
                _ => {}
            }
        }
        message.ntp_servers.truncate(LIST_LIMIT);
        (is_ours && !message.server.is_empty()).then_some(message)
    }

    fn empty(kind: Kind, transaction: u32) -> Self {
        Self {
            kind,
            transaction,
            server: Vec::new(),
            status: Status::Success,
            text: None,
            preference: 0,
            rapid_commit: false,
            address_status: Status::Success,
            addresses: Vec::new(),
            renewal_time: 0,
            rebinding_time: 0,
            dns_servers: Vec::new(),
            search: Vec::new(),
            ntp_servers: Vec::new(),
            refresh_time: None,
        }
    }

    fn read_association(&mut self, value: &[u8], mac: Mac) {
        let (Some(id), Some(renewal), Some(rebinding)) =
            (value.get(..4), value.get(4..8).and_then(number), value.get(8..12).and_then(number))
        else {
            return;
        };
        // RFC 8415, section 21.4: an association whose times contradict each other does not count.
        if id != identity(mac) || (rebinding > 0 && renewal > rebinding) {
            return;
        }
        (self.renewal_time, self.rebinding_time) = (renewal, rebinding);
        for (code, value) in Options(value.get(12..).unwrap_or_default()) {
            match code {
                STATUS => {
                    let (status, text) = status(value);
                    self.address_status = status;
                    self.text = text.or(self.text.take());
                }
                IA_ADDRESS if self.addresses.len() < LIST_LIMIT => self.addresses.extend(granted(value)),
                _ => {}
            }
        }
    }
}

/// The options of a field; ends at the first that is not whole.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let code = u16::from_be_bytes(self.0.get(..2)?.try_into().ok()?);
        let length = usize::from(u16::from_be_bytes(self.0.get(2..4)?.try_into().ok()?));
        let (value, rest) = self.0.get(4..)?.split_at_checked(length)?;
        self.0 = rest;
        Some((code, value))
    }
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// One address, unless it or its times are impossible, or the server says that it is not granted.
fn granted(value: &[u8]) -> Option<Granted> {
    let address: [u8; 16] = value.get(..16)?.try_into().ok()?;
    let (preferred, valid) = (number(value.get(16..20)?)?, number(value.get(20..24)?)?);
    let refused = Options(value.get(24..)?).any(|(code, value)| code == STATUS && status(value).0 != Status::Success);
    let address = Ipv6Addr::from(address);
    let possible = is_usable(&address) && !address.is_unicast_link_local() && preferred <= valid;
    (possible && !refused).then_some(Granted { address, preferred, valid })
}

fn is_usable(address: &Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
}

fn status(value: &[u8]) -> (Status, Option<String>) {
    let code = value.get(..2).and_then(|bytes| bytes.try_into().ok()).map_or(1, u16::from_be_bytes);
    let status = match code {
        0 => Status::Success,
        2 => Status::NoAddress,
        3 => Status::NoBinding,
        4 => Status::NotOnLink,
        _ => Status::Failed,
    };
    let text =
        value.get(2..).unwrap_or_default().iter().take(120).filter(|byte| byte.is_ascii_graphic() || **byte == b' ');
    let text: String = text.map(|byte| char::from(*byte)).collect();
    (status, Some(text).filter(|text| !text.is_empty()))
}

fn addresses(value: &[u8]) -> Vec<Ipv6Addr> {
    let all = value.chunks_exact(16).filter_map(|bytes| <[u8; 16]>::try_from(bytes).ok()).map(Ipv6Addr::from);
    all.filter(is_usable).take(LIST_LIMIT).collect()
}

fn domains(value: &[u8]) -> Vec<String> {
    let (mut domains, mut position) = (Vec::new(), 0);
    while domains.len() < LIST_LIMIT
        && let Some((name, next)) = compressed_name(value, position)
    {
        position = next;
        if is_domain_name(&name) {
            domains.push(name);
        }
    }
    domains
}

#[cfg(test)]
#[path = "message_tests.rs"]
pub mod tests;
