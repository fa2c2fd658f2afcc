//! Sets and maps of the table, and their elements: all that differs from container to container.

use std::net::{IpAddr, SocketAddr};

use super::wire::{Attributes, Batch, Kind};

/// Between how many places connections to replicas are shared out: more than a service has replicas, and with a few of
/// them nobody has much more than another.
pub const SLOTS: u32 = 256;
/// IFNAMSIZ
pub const LINK_NAME_LENGTH: usize = 16;
/// NFT_SET_MAP
const IS_MAP: u32 = 8;
/// NFT_SET_INTERVAL and NFT_SET_CONCAT: each part of an element's key is a range.
const HAS_RANGES: u32 = 4 | 0x80;
/// NFT_SET_TIMEOUT and NFT_SET_EVAL: rules add elements, and time takes them away.
const IS_DYNAMIC: u32 = 0x10 | 0x20;
/// NFT_DATA_VERDICT
const VERDICTS: u32 = 0xffff_ff00;
/// NFT_JUMP
pub const JUMP: u32 = (-3_i32).cast_unsigned();

/// A part of a key or a value; several are joined, each filled up to four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An address.
    Ipv4,
    /// An address.
    Ipv6,
    /// The number of a protocol.
    Protocol,
    /// A port.
    Port,
    /// Below [`SLOTS`].
    Slot,
    /// The name of a link.
    Link,
}

impl Part {
    /// nft's number for the type (its `nft describe`), six bits each where they are joined. The kernel only keeps them, so
    /// that `nft list ruleset` can show the elements.
    const fn kind(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Slot => 19,
            Self::Link => 41,
        }
    }

    /// In bytes.
    const fn own_length(self) -> u32 {
        match self {
            Self::Protocol => 1,
            Self::Port => 2,
            _ => self.length(),
        }
    }

    /// In bytes, filled up.
    const fn length(self) -> u32 {
        match self {
            Self::Ipv4 | Self::Protocol | Self::Port | Self::Slot => 4,
            Self::Ipv6 | Self::Link => 16,
        }
    }
}

/// A set, or a map where it has values.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    /// Its name.
    pub name: &'static str,
    /// Of each element.
    pub key: &'a [Part],
    /// Of each element; empty for a set.
    pub value: &'a [Part],
    /// Whether an element has all keys between two.
    pub ranges: bool,
}

impl<'a> Set<'a> {
    /// Each element has one key.
    pub const fn new(name: &'static str, key: &'a [Part], value: &'a [Part]) -> Self {
        Self { name, key, value, ranges: false }
    }

    /// Each element has all keys between two.
    pub const fn of_ranges(name: &'static str, key: &'a [Part], value: &'a [Part]) -> Self {
        Self { name, key, value, ranges: true }
    }

    /// Makes a map of verdicts.
    pub fn declare_verdicts(batch: &mut Batch, table: &str, name: &str, key: Part, id: u32) {
        batch.message(Kind::NewSet, |set| {
            set.text(1, table).text(2, name).number(3, IS_MAP).number(4, key.kind()).number(5, key.length());
            set.number(6, VERDICTS).number(7, 0).number(10, id);
        });
    }

    /// Makes a set whose elements come by rules.
    pub fn declare_dynamic(
        batch: &mut Batch,
        (table, name): (&str, &str),
        key: &[Part],
        id: u32,
        more: impl FnOnce(&mut Attributes),
    ) {
        batch.message(Kind::NewSet, |set| {
            set.text(1, table).text(2, name).number(3, IS_DYNAMIC).number(4, kind_of(key)).number(5, length_of(key));
            set.number(10, id);
            more(set);
        });
    }

    /// Makes it.
    pub fn declare(&self, batch: &mut Batch, table: &str, id: u32) {
        let map = if self.value.is_empty() { 0 } else { IS_MAP };
        let kind = map | if self.ranges { HAS_RANGES } else { 0 };
        batch.message(Kind::NewSet, |set| {
            set.text(1, table).text(2, self.name).number(3, kind);
            set.number(4, kind_of(self.key)).number(5, length_of(self.key));
            if !self.value.is_empty() {
                set.number(6, kind_of(self.value)).number(7, length_of(self.value));
            }
            if self.ranges {
                describe(set, self.key);
            }
            set.number(10, id);
        });
    }
}

/// Says where the parts of a key are (NFTA_SET_DESC, NFTA_SET_DESC_CONCAT, NFTA_LIST_ELEM, NFTA_SET_FIELD_LEN).
fn describe(set: &mut Attributes, key: &[Part]) {
    set.nested(9, |description| {
        description.nested(2, |parts| {
            for part in key {
                parts.nested(1, |it| {
                    it.number(1, part.own_length());
                });
            }
        });
    });
}

fn kind_of(parts: &[Part]) -> u32 {
    parts.iter().fold(0, |kind, part| kind << 6 | part.kind())
}

fn length_of(parts: &[Part]) -> u32 {
    parts.iter().map(|part| part.length()).sum()
}

/// What an element of a map has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Nothing,
    Bytes(Vec<u8>),
    /// A chain.
    Jump(String),
}

/// An element of one of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    set: &'static str,
    key: Vec<u8>,
    /// The last one, where it has several.
    key_end: Option<Vec<u8>>,
    value: Value,
}

impl Element {
    /// Of a set.
    pub fn new(set: &'static str, key: Vec<u8>) -> Self {
        Self { set, key, key_end: None, value: Value::Nothing }
    }

    /// Of a map.
    pub fn with_value(set: &'static str, key: Vec<u8>, value: Vec<u8>) -> Self {
        Self { set, key, key_end: None, value: Value::Bytes(value) }
    }

    /// Of a map with ranges: it has all keys whose parts are each between those of the two.
    pub fn with_range(set: &'static str, (first, last): (Vec<u8>, Vec<u8>), value: Vec<u8>) -> Self {
        Self { set, key: first, key_end: Some(last), value: Value::Bytes(value) }
    }

    /// Of a map of verdicts: what has the key goes through a chain.
    pub fn jump(set: &'static str, key: Vec<u8>, chain: &str) -> Self {
        Self { set, key, key_end: None, value: Value::Jump(chain.to_owned()) }
    }

    /// Adds it to its set.
    pub fn add(&self, batch: &mut Batch, table: &str) {
        self.message(batch, table, Kind::NewElements, &self.value);
    }

    /// Removes it.
    pub fn remove(&self, batch: &mut Batch, table: &str) {
        self.message(batch, table, Kind::DeleteElements, &Value::Nothing);
    }

    fn message(&self, batch: &mut Batch, table: &str, kind: Kind, value: &Value) {
        batch.message(kind, |message| {
            message.text(1, table).text(2, self.set).nested(3, |list| {
                list.nested(1, |element| {
                    element.nested(1, |data| {
                        data.bytes(1, &self.key);
                    });
                    if let Some(end) = &self.key_end {
                        element.nested(10, |data| {
                            data.bytes(1, end);
                        });
                    }
                    match value {
                        Value::Nothing => {}
                        Value::Bytes(value) => {
                            element.nested(2, |data| {
                                data.bytes(1, value);
                            });
                        }
                        Value::Jump(chain) => {
                            element.nested(2, |data| {
                                data.nested(2, |verdict| {
                                    verdict.number(1, JUMP).text(2, chain);
                                });
                            });
                        }
                    }
                });
            });
        });
    }
}

/// Keys and values, part by part.
#[derive(Clone, Debug, Default)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an address.
    pub fn address(mut self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.0.extend(address.octets()),
            IpAddr::V6(address) => self.0.extend(address.octets()),
        }
        self
    }

    /// Adds the number of a protocol.
    pub fn protocol(mut self, protocol: u8) -> Self {
        self.0.extend([protocol, 0, 0, 0]);
        self
    }

    /// Adds a port.
    pub fn port(mut self, port: u16) -> Self {
        self.0.extend(port.to_be_bytes());
        self.0.extend([0, 0]);
        self
    }

    /// Adds a slot.
    pub fn slot(mut self, slot: u32) -> Self {
        self.0.extend(slot.to_ne_bytes());
        self
    }

    /// Adds the name of a link.
    pub fn link(mut self, name: &str) -> Self {
        let mut name = name.as_bytes().to_vec();
        name.resize(LINK_NAME_LENGTH, 0);
        self.0.extend(name);
        self
    }

    /// All of it.
    pub fn end(self) -> Vec<u8> {
        self.0
    }
}

/// A port of the machine that leads to one of a container, for one family; or a range whose ports lead to the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Redirection {
    /// The machine's address; `None` for all.
    pub host_address: Option<IpAddr>,
    /// The machine's port; the first of a range.
    pub host_port: u16,
    /// The last of a range; else the same.
    pub last_port: u16,
    /// The number of the protocol.
    pub protocol: u8,
    /// Below [`SLOTS`]: it leads there for one connection of as many.
    pub slot: Option<u32>,
    /// The container's address and port; of the same family as `host_address`.
    pub to: SocketAddr,
}

impl Redirection {
    /// Whether it is of more than one port.
    pub const fn is_range(&self) -> bool {
        self.host_port != self.last_port
    }

    /// What it is found by, with one of its ports.
    fn key(&self, port: u16, slot: Option<u32>) -> Vec<u8> {
        let address = self.host_address.map_or(Bytes::new(), |address| Bytes::new().address(address));
        let key = address.protocol(self.protocol).port(port);
        slot.map_or(key.clone(), |slot| key.slot(slot)).end()
    }
}

impl From<Redirection> for Element {
    fn from(it: Redirection) -> Self {
        let (at, ipv4) = (it.host_address.is_some(), it.to.is_ipv4());
        if it.is_range() {
            // Without replicas it has all slots.
            let slots = it.slot.map_or((0, SLOTS - 1), |slot| (slot, slot));
            let keys = (it.key(it.host_port, Some(slots.0)), it.key(it.last_port, Some(slots.1)));
            let set = match (at, ipv4) {
                (true, true) => "ranges4_at",
                (true, false) => "ranges6_at",
                (false, true) => "ranges4",
                (false, false) => "ranges6",
            };
            return Self::with_range(set, keys, Bytes::new().address(it.to.ip()).end());
        }
        let set = match (at, it.slot.is_some(), ipv4) {
            (true, false, true) => "published4_at",
            (true, false, false) => "published6_at",
            (true, true, true) => "shared4_at",
            (true, true, false) => "shared6_at",
            (false, false, true) => "published4",
            (false, false, false) => "published6",
            (false, true, true) => "shared4",
            (false, true, false) => "shared6",
        };
        Self::with_value(set, it.key(it.host_port, it.slot), Bytes::new().address(it.to.ip()).port(it.to.port()).end())
    }
}
