//! DHCPv4 messages on the wire (RFC 2131, 2132, 3396, 3397, 3442, 4039), and Microsoft's option 249 (MS-DHCPE, section 2.2.12).
//!
//! Reads what a server sends and writes what a client sends; nothing else. A message comes from the network and may
//! be anything: reading never panics, never loops and takes no more memory than a small multiple of the input.
//! Options that cannot be read are left out, as if they had not been sent: a client that falls over a strange option
//! has no network at all.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::routes::{Route, classless, of_classes};

/// A hardware address of Ethernet.
pub type Mac = [u8; 6];

/// What begins the options (RFC 2131, section 3).
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Length of the fixed part in bytes, without the cookie.
const FIXED: usize = 236;
/// Old relays drop shorter messages (BOOTP's length: 300 bytes).
const SHORTEST: usize = 300;
/// The most domains and routes that are taken from one message, so that a message cannot fill memory or tables.
pub const LIST_LIMIT: usize = 64;

const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const DNS_SERVER: u8 = 6;
const HOST_NAME: u8 = 12;
const DOMAIN_NAME: u8 = 15;
const INTERFACE_MTU: u8 = 26;
const STATIC_ROUTES: u8 = 33;
const NTP_SERVER: u8 = 42;
const REQUESTED_ADDRESS: u8 = 50;
const LEASE_TIME: u8 = 51;
const OVERLOAD: u8 = 52;
const MESSAGE_TYPE: u8 = 53;
const SERVER_IDENTIFIER: u8 = 54;
const PARAMETER_LIST: u8 = 55;
const MESSAGE_TEXT: u8 = 56;
const MAXIMUM_SIZE: u8 = 57;
const RENEWAL_TIME: u8 = 58;
const REBINDING_TIME: u8 = 59;
const CLIENT_IDENTIFIER: u8 = 61;
const RAPID_COMMIT: u8 = 80;
const DOMAIN_SEARCH: u8 = 119;
const CLASSLESS_ROUTES: u8 = 121;
const CLASSLESS_ROUTES_OF_MICROSOFT: u8 = 249;

/// What this client asks servers for; 121 comes before 3 and 33 (RFC 3442).
const ASKED_FOR: [u8; 13] = [
    SUBNET_MASK,
    CLASSLESS_ROUTES,
    CLASSLESS_ROUTES_OF_MICROSOFT,
    ROUTER,
    STATIC_ROUTES,
    DNS_SERVER,
    HOST_NAME,
    DOMAIN_NAME,
    INTERFACE_MTU,
    NTP_SERVER,
    DOMAIN_SEARCH,
    RENEWAL_TIME,
    REBINDING_TIME,
];

/// The kind of a message (option 53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A client looks for servers.
    Discover = 1,
    /// A server offers an address.
    Offer = 2,
    /// A client wants, or wants to keep, an address.
    Request = 3,
    /// A client found the address in use.
    Decline = 4,
    /// A server confirms.
    Acknowledge = 5,
    /// A server refuses.
    Refuse = 6,
    /// A client gives an address back.
    Release = 7,
}

impl Kind {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Discover, Self::Offer, Self::Request, Self::Decline, Self::Acknowledge, Self::Refuse, Self::Release]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerMessage {
    /// Offer, acknowledge or refuse.
    pub kind: Kind,
    /// The client's number for this exchange.
    pub transaction: u32,
    /// The client's hardware address.
    pub mac: Mac,
    /// `yiaddr`: the client's address.
    pub address: Ipv4Addr,
    /// Option 54.
    pub server: Option<Ipv4Addr>,
    /// Option 1, as it came.
    pub subnet_mask: Option<Ipv4Addr>,
    /// Option 3.
    pub routers: Vec<Ipv4Addr>,
    /// Option 121, else 249, which is the same of before there was one; where it is given, `routers` and `static_routes` do not
    /// count.
    pub routes: Option<Vec<Route>>,
    /// Option 33: routes to single machines, and to networks of before there were masks.
    pub static_routes: Vec<Route>,
    /// Option 6.
    pub dns_servers: Vec<Ipv4Addr>,
    /// Option 15, checked to be a domain name.
    pub domain: Option<String>,
    /// Option 119, each checked to be a domain name.
    pub search: Vec<String>,
    /// Option 12, checked to be a host name.
    pub host_name: Option<String>,
    /// Option 42.
    pub ntp_servers: Vec<Ipv4Addr>,
    /// Option 26, in bytes.
    pub mtu: Option<u16>,
    /// Option 51, in seconds; 0xffff_ffff is for ever.
    pub lease_time: Option<u32>,
    /// Option 58, in seconds.
    pub renewal_time: Option<u32>,
    /// Option 59, in seconds.
    pub rebinding_time: Option<u32>,
    /// Option 80: the server agreed to the short exchange.
    pub rapid_commit: bool,
    /// Option 56: why it refuses, printable characters only.
    pub text: Option<String>,
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientMessage {
    /// Discover, request, decline or release.
    pub kind: Kind,
    /// The number of this exchange.
    pub transaction: u32,
    /// Seconds since the exchange began.
    pub seconds: u16,
    /// The client's hardware address.
    pub mac: Mac,
    /// `ciaddr`: the address the client has and answers for; else 0.0.0.0.
    pub address: Ipv4Addr,
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 54.
    pub server: Option<Ipv4Addr>,
    /// Option 12.
    pub host_name: Option<String>,
}

impl ClientMessage {
    /// The message's bytes, from `op` on: what UDP carries.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SHORTEST);
        bytes.extend([1, 1, 6, 0]);
        bytes.extend(self.transaction.to_be_bytes());
        bytes.extend(self.seconds.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.address.octets());
        bytes.resize(28, 0);
        bytes.extend(self.mac);
        bytes.resize(FIXED, 0);
        bytes.extend(COOKIE);
        let mut option = |code: u8, value: &[u8]| {
            let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
            bytes.extend([code, length]);
            bytes.extend(value.iter().take(usize::from(length)));
        };
        option(MESSAGE_TYPE, &[self.kind as u8]);
        let mut identifier = [1; 7];
        identifier.iter_mut().skip(1).zip(self.mac).for_each(|(to, from)| *to = from);
        option(CLIENT_IDENTIFIER, &identifier);
        if let Some(server) = self.server {
            option(SERVER_IDENTIFIER, &server.octets());
        }
        if let Some(requested) = self.requested {
            option(REQUESTED_ADDRESS, &requested.octets());
        }
        if matches!(self.kind, Kind::Discover | Kind::Request) {
            option(PARAMETER_LIST, &ASKED_FOR);
            option(MAXIMUM_SIZE, &1500_u16.to_be_bytes());
            if let Some(host_name) = &self.host_name {
                option(HOST_NAME, host_name.as_bytes());
            }
        }
        if self.kind == Kind::Discover {
            option(RAPID_COMMIT, &[]);
        }
        bytes.push(255);
        bytes.resize(bytes.len().max(SHORTEST), 0);
        bytes
    }
}

impl ServerMessage {
    /// Reads a server's message: what UDP carried. `None` if it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let fixed = bytes.get(..FIXED)?;
        if fixed.get(..3)? != [2, 1, 6] || bytes.get(FIXED..FIXED + 4)? != COOKIE {
            return None;
        }
        let options = collect(bytes);
        let get = |code: u8| options.get(&code).map(Vec::as_slice);
        let domain = get(DOMAIN_NAME).and_then(text).filter(|name| is_domain_name(name));
        Some(Self {
            kind: get(MESSAGE_TYPE)
                .and_then(|value| Kind::from_number(*value.first()?))
                .filter(|kind| matches!(kind, Kind::Offer | Kind::Acknowledge | Kind::Refuse))?,
            transaction: u32::from_be_bytes(array(fixed.get(4..8)?)?),
            mac: array(fixed.get(28..34)?)?,
            address: address(fixed.get(16..20)?)?,
            server: get(SERVER_IDENTIFIER).and_then(address),
            subnet_mask: get(SUBNET_MASK).and_then(address),
            routers: get(ROUTER).map(addresses).unwrap_or_default(),
            routes: get(CLASSLESS_ROUTES).or_else(|| get(CLASSLESS_ROUTES_OF_MICROSOFT)).and_then(classless),
            static_routes: get(STATIC_ROUTES).map(of_classes).unwrap_or_default(),
            dns_servers: get(DNS_SERVER).map(addresses).unwrap_or_default(),
            domain,
            search: get(DOMAIN_SEARCH).map(search_list).unwrap_or_default(),
            host_name: get(HOST_NAME).and_then(text).filter(|name| is_domain_name(name)),
            ntp_servers: get(NTP_SERVER).map(addresses).unwrap_or_default(),
            mtu: get(INTERFACE_MTU).and_then(|value| array(value).map(u16::from_be_bytes)),
            lease_time: get(LEASE_TIME).and_then(seconds),
            renewal_time: get(RENEWAL_TIME).and_then(seconds),
            rebinding_time: get(REBINDING_TIME).and_then(seconds),
            rapid_commit: get(RAPID_COMMIT).is_some(),
            text: get(MESSAGE_TEXT).and_then(text),
        })
    }
}

/// The options of a whole message by their codes. The pieces of a long option are joined (RFC 3396), and `file` and
/// `sname` are read too where option 52 says that they hold options.
fn collect(bytes: &[u8]) -> BTreeMap<u8, Vec<u8>> {
    let mut options = BTreeMap::new();
    collect_field(bytes.get(FIXED + 4..).unwrap_or_default(), &mut options);
    let overload = options.get(&OVERLOAD).and_then(|value: &Vec<u8>| value.first().copied()).unwrap_or(0);
    if overload & 1 != 0 {
        collect_field(bytes.get(108..FIXED).unwrap_or_default(), &mut options);
    }
    if overload & 2 != 0 {
        collect_field(bytes.get(44..108).unwrap_or_default(), &mut options);
    }
    options
}

fn collect_field(mut field: &[u8], options: &mut BTreeMap<u8, Vec<u8>>) {
    loop {
        match field {
            [0, rest @ ..] => field = rest,
            [] | [255, ..] | [_] => return,
            [code, length, rest @ ..] => {
                let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else { return };
                options.entry(*code).or_default().extend(value);
                field = rest;
            }
        }
    }
}

fn array<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

/// One that stands alone.
pub fn address(value: &[u8]) -> Option<Ipv4Addr> {
    array::<4>(value).map(Ipv4Addr::from)
}

/// The addresses of a list that can be those of another machine.
fn addresses(value: &[u8]) -> Vec<Ipv4Addr> {
    value.chunks_exact(4).filter_map(address).filter(|each| is_usable(*each)).take(LIST_LIMIT).collect()
}

fn seconds(value: &[u8]) -> Option<u32> {
    array(value).map(u32::from_be_bytes)
}

/// Whether it can be the address of one machine.
pub fn is_usable(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

/// Printable ASCII without the zeros that some servers append.
fn text(value: &[u8]) -> Option<String> {
    let end = value.iter().rposition(|byte| *byte != 0)? + 1;
    let text = std::str::from_utf8(value.get(..end)?).ok()?;
    (text.bytes().all(|byte| (0x20..0x7f).contains(&byte))).then(|| text.to_owned())
}

/// Whether it is a domain name of letters, digits, `-`, `_` and dots; these go into files and to the kernel, so
/// nothing else passes. A host name is one too.
pub fn is_domain_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

/// Option 119: names in DNS encoding with compression (RFC 3397). A pointer must point before itself, so reading ends.
fn search_list(value: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut position = 0;
    while position < value.len() && names.len() < LIST_LIMIT {
        let Some((name, next)) = compressed_name(value, position) else { break };
        position = next;
        if is_domain_name(&name) {
            names.push(name);
        }
    }
    names
}

/// A name at `position` and where the next one begins. Also used for RFC 8106, which has no compression.
pub fn compressed_name(value: &[u8], mut position: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut next = None;
    loop {
        let length = *value.get(position)?;
        match length {
            0 => return Some((name, next.unwrap_or(position + 1))),
            1..=63 => {
                let label = value.get(position + 1..position + 1 + usize::from(length))?;
                if name.len() + label.len() > 253 || !label.is_ascii() {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(label.iter().map(|byte| char::from(*byte)));
                position += 1 + usize::from(length);
            }
            0xc0.. => {
                let target = usize::from(length & 0x3f) << 8 | usize::from(*value.get(position + 1)?);
                next.get_or_insert(position + 2);
                if target >= position {
                    return None;
                }
                position = target;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
pub mod tests;
