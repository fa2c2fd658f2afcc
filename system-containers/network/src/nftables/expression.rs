//! The expressions that our rules are made of, each as `nft --debug=netlink` shows it.

use super::wire::Attributes;

/// A register: 4 bytes each, numbered as NFT_REG32_00 and following. A longer value takes several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u32);

/// The first register.
pub const FIRST: Register = Register(8);

impl Register {
    /// The register so many bytes further on.
    pub const fn after(self, bytes: u32) -> Self {
        Self(self.0 + bytes.div_ceil(4))
    }
}

/// What `meta` loads (enum nft_meta_keys).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Meta {
    /// The number that Ethernet has for what the frame carries, in network byte order.
    EtherType = 1,
    /// What policy rules are told by.
    Mark = 3,
    /// The name of the link the packet came in on.
    InputName = 6,
    /// The name of the link it leaves on.
    OutputName = 7,
    /// 2 for IPv4, 10 for IPv6.
    Family = 15,
    /// TCP, UDP and so on.
    Protocol = 16,
}

/// Which header `payload` loads from.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Header {
    /// IPv4 or IPv6.
    Network = 1,
    /// TCP, UDP, SCTP.
    Transport = 2,
}

/// What `ct` loads (enum nft_ct_keys).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Conntrack {
    /// Established, related and so on, as bits.
    State = 0,
    /// Which of the two ways the packet goes: [`REPLY`] for answers.
    Direction = 1,
    /// What was done to the connection, as bits.
    Status = 2,
    /// What all of its packets share.
    Mark = 3,
}

/// Established or related: bits 1 and 2 of [`Conntrack::State`].
pub const STATE_KNOWN: u32 = 0b110;
/// The destination was changed: bit 5 of [`Conntrack::Status`] (IPS_DST_NAT).
pub const STATUS_DNAT: u32 = 1 << 5;
/// IP_CT_DIR_REPLY
pub const REPLY: u8 = 1;
/// RTN_LOCAL: an address of this machine.
const ADDRESS_LOCAL: u32 = 2;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// It goes nowhere.
    Drop,
    /// This hook has no more to say about it.
    Accept,
    /// Another chain decides; after it the next rule.
    Jump(&'static str),
    /// Back to the chain that jumped here.
    Return,
}

/// The expressions of one rule.
#[derive(Clone, Debug, Default)]
pub struct Expressions {
    attributes: Attributes,
}

impl Expressions {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The attributes of the whole list.
    pub fn into_attributes(self) -> Attributes {
        self.attributes
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Self {
        self.attributes.nested(1, |element| {
            element.text(1, name).nested(2, fill);
        });
        self
    }

    /// Loads a fact about the packet.
    pub fn meta(self, key: Meta, to: Register) -> Self {
        self.expression("meta", |data| {
            data.number(2, key as u32).number(1, to.0);
        })
    }

    /// Loads what is always the same.
    pub fn load(self, to: Register, value: &[u8]) -> Self {
        self.expression("immediate", |data| {
            data.number(1, to.0).nested(2, |inner| {
                inner.bytes(1, value);
            });
        })
    }

    /// Loads a part of the packet.
    pub fn payload(self, header: Header, offset: u32, length: u32, to: Register) -> Self {
        self.expression("payload", |data| {
            data.number(1, to.0).number(2, header as u32).number(3, offset).number(4, length);
        })
    }

    /// Loads a part of an IPv6 extension header; goes on if there is one.
    pub fn extension(self, header: u8, offset: u32, length: u32, to: Register) -> Self {
        self.expression("exthdr", |data| {
            data.number(1, to.0).bytes(2, &[header]).number(3, offset).number(4, length);
        })
    }

    /// Goes on if the register holds the bytes.
    pub fn equal(self, register: Register, value: &[u8]) -> Self {
        self.compare(register, 0, value)
    }

    fn compare(self, register: Register, operation: u32, value: &[u8]) -> Self {
        self.expression("cmp", |data| {
            data.number(1, register.0).number(2, operation).nested(3, |inner| {
                inner.bytes(1, value);
            });
        })
    }

    /// Goes on if the register holds a number in network byte order between two, both included.
    pub fn between(self, register: Register, first: u16, last: u16) -> Self {
        self.expression("range", |data| {
            data.number(1, register.0).number(2, 0);
            for (kind, value) in [(3, first), (4, last)] {
                data.nested(kind, |inner| {
                    inner.bytes(1, &value.to_be_bytes());
                });
            }
        })
    }

    /// Goes on if the bits of the mask, which is as long as the value, are those of the value.
    pub fn prefix(self, register: Register, mask: &[u8], value: &[u8]) -> Self {
        self.mask(register, mask).compare(register, 0, value)
    }

    /// Goes on if the register does not hold the bytes.
    pub fn differ(self, register: Register, value: &[u8]) -> Self {
        self.compare(register, 1, value)
    }

    /// Leaves only the bits of the mask.
    pub fn mask(self, register: Register, mask: &[u8]) -> Self {
        self.expression("bitwise", |data| {
            let length = u32::try_from(mask.len()).unwrap_or(4);
            data.number(1, register.0).number(2, register.0).number(3, length);
            data.nested(4, |inner| {
                inner.bytes(1, mask);
            });
            data.nested(5, |inner| {
                inner.bytes(1, &vec![0; mask.len()]);
            });
        })
    }

    /// Loads a fact about the connection.
    pub fn of_connection(self, key: Conntrack, to: Register) -> Self {
        self.expression("ct", |data| {
            data.number(2, key as u32).number(1, to.0);
        })
    }

    /// Gives the connection the mark that a register holds.
    pub fn mark_connection(self, from: Register) -> Self {
        self.expression("ct", |data| {
            data.number(2, Conntrack::Mark as u32).number(4, from.0);
        })
    }

    /// Gives the packet the mark that a register holds.
    pub fn mark_packet(self, from: Register) -> Self {
        self.expression("meta", |data| {
            data.number(2, Meta::Mark as u32).number(3, from.0);
        })
    }

    /// Goes on if the connection has any of the bits.
    pub fn conntrack(self, key: Conntrack, bits: u32) -> Self {
        let loaded = self.of_connection(key, FIRST);
        loaded.mask(FIRST, &bits.to_ne_bytes()).compare(FIRST, 1, &[0; 4])
    }

    /// Goes on if the packet is for an address of this machine.
    pub fn for_this_machine(self) -> Self {
        let loaded = self.expression("fib", |data| {
            data.number(1, FIRST.0).number(2, 3).number(3, 2);
        });
        loaded.equal(FIRST, &ADDRESS_LOCAL.to_ne_bytes())
    }

    /// Goes on if the packet is for an address of the link that it came in on.
    pub fn for_its_link(self) -> Self {
        let loaded = self.expression("fib", |data| {
            data.number(1, FIRST.0).number(2, 3).number(3, 2 | 8);
        });
        loaded.equal(FIRST, &ADDRESS_LOCAL.to_ne_bytes())
    }

    /// Goes on if no route leads back to the packet's source by the link that it came in on.
    pub fn has_no_way_back(self) -> Self {
        // NFT_FIB_RESULT_OIF; NFTA_FIB_F_SADDR, NFTA_FIB_F_IIF and NFTA_FIB_F_PRESENT.
        let loaded = self.expression("fib", |data| {
            data.number(1, FIRST.0).number(2, 1).number(3, 1 | 8 | 32);
        });
        loaded.equal(FIRST, &[0])
    }

    /// Goes on if the route to the packet's source leads to a link whose name is in the set.
    pub fn way_back_in(self, set: &str) -> Self {
        // NFT_FIB_RESULT_OIFNAME; NFTA_FIB_F_SADDR.
        let loaded = self.expression("fib", |data| {
            data.number(1, FIRST.0).number(2, 2).number(3, 1);
        });
        loaded.in_set(set, false)
    }

    /// Goes on if the name of a link is in the set; with `not`, if it is not.
    pub fn link_in(self, key: Meta, set: &str, not: bool) -> Self {
        self.meta(key, FIRST).in_set(set, not)
    }

    /// Goes on if what the first registers hold is in the set; with `not`, if it is not.
    pub fn in_set(self, set: &str, not: bool) -> Self {
        self.expression("lookup", |data| {
            data.text(1, set).number(2, FIRST.0);
            if not {
                data.number(5, 1);
            }
        })
    }

    /// Loads the next number below a limit; each such expression counts for itself.
    pub fn count(self, below: u32, to: Register) -> Self {
        self.expression("numgen", |data| {
            data.number(1, to.0).number(2, below).number(3, 0).number(4, 0);
        })
    }

    /// Replaces what the first registers hold by what the map has for it; goes on if it has.
    pub fn look_up(self, map: &str) -> Self {
        self.expression("lookup", |data| {
            data.text(1, map).number(2, FIRST.0).number(3, FIRST.0);
        })
    }

    /// Goes on if there are more bytes in a second than that, after so many at once.
    pub fn over(self, bytes: u64, burst: u32) -> Self {
        self.expression("limit", |data| {
            // NFT_LIMIT_PKT_BYTES, NFT_LIMIT_F_INV
            data.bytes(1, &bytes.to_be_bytes())
                .bytes(2, &1_u64.to_be_bytes())
                .number(3, burst)
                .number(4, 1)
                .number(5, 1);
        })
    }

    /// Does what the map has for what the first registers hold, if it has.
    pub fn decide(self, map: &str) -> Self {
        self.expression("lookup", |data| {
            data.text(1, map).number(2, FIRST.0).number(3, 0);
        })
    }

    /// Puts what the first registers hold into the set for a time in milliseconds, or begins its time anew.
    pub fn note(self, set: &str, time: u64) -> Self {
        self.expression("dynset", |data| {
            data.text(1, set).number(3, 1).number(4, FIRST.0).bytes(6, &time.to_be_bytes());
        })
    }

    /// Sends the connection to the address in the first registers, and the port behind so many bytes of them.
    pub fn redirect(self, family: u32, port_behind: Option<u32>) -> Self {
        self.expression("nat", |data| {
            data.number(1, 1).number(2, family).number(3, FIRST.0);
            if let Some(length) = port_behind {
                data.number(5, FIRST.after(length).0);
            }
        })
    }

    /// The connection leaves with the address of the link it leaves on.
    pub fn masquerade(self) -> Self {
        self.expression("masq", |_| {})
    }

    /// Ends the rule.
    pub fn verdict(self, verdict: Verdict) -> Self {
        self.expression("immediate", |data| {
            data.number(1, 0).nested(2, |value| {
                value.nested(2, |inner| match verdict {
                    Verdict::Drop => {
                        inner.number(1, 0);
                    }
                    Verdict::Accept => {
                        inner.number(1, 1);
                    }
                    Verdict::Jump(chain) => {
                        inner.number(1, (-3_i32).cast_unsigned()).text(2, chain);
                    }
                    Verdict::Return => {
                        inner.number(1, (-5_i32).cast_unsigned());
                    }
                });
            });
        })
    }
}
