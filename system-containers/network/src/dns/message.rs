//! DNS messages (RFC 1035) as far as we need them: the question of a query, and answers of our own. Pure.
//!
//! What comes in is any bytes: nothing is read but by checked access, and nothing is followed, so that no message can
//! make this loop or fail. Queries that are passed on are passed on as they came.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Of the header, before the question.
const HEADER: usize = 12;
/// What a message over UDP has without EDNS (RFC 1035, 4.2.1).
const PLAIN_SIZE: usize = 512;
/// What passes every network in one piece (dnsflagday.net/2020), and what we say that we take.
const LARGEST_SIZE: usize = 1232;
/// How long others may keep our answers, in seconds: containers come and go.
const TIME_TO_LIVE: u32 = 5;
const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;
const CODE: u8 = 0x0f;
const AUTHORITATIVE: u8 = 0x04;
/// The flags AD and CD of a query, which change its answer (RFC 4035, 6840).
const CHECKING: u8 = 0x30;
/// DO, in the third byte of the OPT record's time (RFC 3225).
const DNSSEC: u8 = 0x80;
const CLASS_INTERNET: u16 = 1;
const TYPE_OPT: u16 = 41;
/// A pointer to the question's name.
const SAME_NAME: [u8; 2] = [0xc0, HEADER as u8];

/// What is asked for, of those that a directory of containers has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name of an address.
    Ptr,
    /// Anything else.
    Other,
}

/// A query with one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    id: [u8; 2],
    recursion_desired: bool,
    /// Small letters, labels parted by dots, without the dot at the end.
    pub name: String,
    /// What of it.
    pub kind: Kind,
    /// As it stands in the message.
    question: Vec<u8>,
    /// With EDNS: how long an answer over UDP may be.
    size: Option<usize>,
    checking: u8,
    dnssec: bool,
}

/// How a query went (RFC 1035, 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Answered, if only by saying that there is nothing of this kind.
    Good = 0,
    /// The query is not understood.
    Malformed = 1,
    /// Nobody could be asked.
    Failed = 2,
    /// There is no such name.
    NoSuchName = 3,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An address of the question's name.
    Address(IpAddr),
    /// The name of the question's address.
    Name(String),
}

impl Query {
    /// Reads a message; `None` if it is no query with exactly one question of the class internet.
    pub fn read(message: &[u8]) -> Option<Self> {
        let flags = *message.get(2)?;
        if flags & (RESPONSE | OPCODE) != 0 || number(message, 4)? != 1 {
            return None;
        }
        let (name, end) = name(message, HEADER)?;
        let (kind, class) = (number(message, end)?, number(message, end + 2)?);
        let kind = match kind {
            1 => Kind::A,
            28 => Kind::Aaaa,
            12 => Kind::Ptr,
            _ => Kind::Other,
        };
        // The OPT record comes first in queries, which have no other.
        let opt = message.get(end + 4..).filter(|rest| rest.first() == Some(&0) && number(rest, 1) == Some(TYPE_OPT));
        let size = opt.and_then(|opt| number(opt, 3)).map(|size| usize::from(size).clamp(PLAIN_SIZE, LARGEST_SIZE));
        let dnssec = opt.and_then(|opt| opt.get(7)).is_some_and(|flags| flags & DNSSEC != 0);
        (class == CLASS_INTERNET).then_some(Self {
            id: message.get(..2)?.try_into().ok()?,
            recursion_desired: flags & RECURSION_DESIRED != 0,
            name,
            kind,
            question: message.get(HEADER..end + 4)?.to_vec(),
            size,
            checking: message.get(3).copied().unwrap_or(0) & CHECKING,
            dnssec,
        })
    }

    /// The query as it goes on to other servers: without an id, and without what is between the client and us alone, such
    /// as cookies.
    pub fn forwarded(&self) -> Vec<u8> {
        let mut message = vec![0, 0, u8::from(self.recursion_desired), self.checking];
        message.extend([0, 1, 0, 0, 0, 0, 0, u8::from(self.size.is_some())]);
        message.extend(&self.question);
        if self.size.is_some() {
            message.push(0);
            message.extend(TYPE_OPT.to_be_bytes());
            message.extend([(LARGEST_SIZE >> 8) as u8, (LARGEST_SIZE & 0xff) as u8]);
            message.extend([0, 0, if self.dnssec { DNSSEC } else { 0 }, 0, 0, 0]);
        }
        message
    }

    /// What is the same for all queries that have the same answer.
    pub fn key(&self) -> Vec<u8> {
        let mut key = self.forwarded();
        key.make_ascii_lowercase();
        key
    }

    /// Another server's answer as it goes to the client: with its id and its spelling of the question. Over UDP one that
    /// is too long goes without its records, and says so.
    pub fn deliver(&self, mut answer: Vec<u8>, stream: bool) -> Vec<u8> {
        set_id(&mut answer, self.id);
        let end = HEADER + self.question.len();
        if let Some(place) = answer.get_mut(HEADER..end) {
            place.copy_from_slice(&self.question);
        }
        if !stream && answer.len() > self.size.unwrap_or(PLAIN_SIZE) {
            answer.truncate(end);
            if let Some(counts) = answer.get_mut(6..HEADER) {
                counts.fill(0);
            }
            if let Some(flags) = answer.get_mut(2) {
                *flags |= TRUNCATED;
            }
        }
        answer
    }

    /// An answer of our own. Over UDP what does not fit is left out, and the answer says so.
    pub fn answer(&self, code: Code, records: &[Record], stream: bool) -> Vec<u8> {
        let limit = if stream { usize::from(u16::MAX) } else { self.size.unwrap_or(PLAIN_SIZE) };
        let mut message = self.id.to_vec();
        message.extend([RESPONSE | AUTHORITATIVE | u8::from(self.recursion_desired), RECURSION_AVAILABLE | code as u8]);
        message.extend([0, 1, 0, 0, 0, 0, 0, u8::from(self.size.is_some())]);
        message.extend(&self.question);
        let mut opt = Vec::new();
        if self.size.is_some() {
            opt.push(0);
            opt.extend(TYPE_OPT.to_be_bytes());
            opt.extend([(LARGEST_SIZE >> 8) as u8, (LARGEST_SIZE & 0xff) as u8]);
            opt.extend([0; 6]);
        }
        let mut count = 0_u16;
        for record in records {
            let data = data(record);
            if message.len() + SAME_NAME.len() + 10 + data.len() + opt.len() > limit {
                if let Some(flags) = message.get_mut(2) {
                    *flags |= TRUNCATED;
                }
                break;
            }
            message.extend(SAME_NAME);
            message.extend(type_of(record).to_be_bytes());
            message.extend(CLASS_INTERNET.to_be_bytes());
            message.extend(TIME_TO_LIVE.to_be_bytes());
            message.extend(u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
            message.extend(data);
            count += 1;
        }
        message.extend(opt);
        if let Some(place) = message.get_mut(6..8) {
            place.copy_from_slice(&count.to_be_bytes());
        }
        message
    }

    /// The address that a question for its name is about, as in `4.3.2.1.in-addr.arpa`.
    pub fn address(&self) -> Option<IpAddr> {
        if self.kind != Kind::Ptr {
            return None;
        }
        if let Some(octets) = self.name.strip_suffix(".in-addr.arpa") {
            let mut octets: Vec<&str> = octets.split('.').collect();
            octets.reverse();
            return octets.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
        }
        let digits = self.name.strip_suffix(".ip6.arpa")?;
        let (mut bits, mut count) = (0_u128, 0);
        for digit in digits.split('.').rev() {
            let value = digit.chars().next().filter(|_| digit.len() == 1)?.to_digit(16)?;
            bits = bits << 4 | u128::from(value);
            count += 1;
        }
        (count == 32).then_some(IpAddr::V6(Ipv6Addr::from_bits(bits)))
    }
}

/// An answer to bytes that are no query we understand; `None` for what is not to be answered at all.
pub fn refusal(message: &[u8]) -> Option<Vec<u8>> {
    let (id, flags) = (message.get(..2)?, *message.get(2)?);
    if flags & RESPONSE != 0 || message.len() < HEADER {
        return None;
    }
    let mut answer = id.to_vec();
    answer.extend([RESPONSE | flags & (OPCODE | RECURSION_DESIRED), RECURSION_AVAILABLE | Code::Malformed as u8]);
    answer.resize(HEADER, 0);
    Some(answer)
}

/// Whether a message is an answer to the query, of which the id may be another one.
pub fn answers(message: &[u8], query: &[u8]) -> bool {
    let is_response = message.get(2).is_some_and(|flags| flags & RESPONSE != 0);
    let question = |message: &[u8]| -> Option<Vec<u8>> {
        let (name, end) = name(message, HEADER)?;
        let rest = message.get(end..end + 4)?;
        (number(message, 4)? == 1).then(|| [name.as_bytes(), rest].concat())
    };
    is_response && question(message).is_some_and(|asked| Some(asked) == question(query))
}

/// Whether an answer says that the server cannot or will not answer (SERVFAIL, REFUSED), so that another may.
pub fn is_refusal(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|flags| matches!(flags & CODE, 2 | 5))
}

/// Whether an answer says that there is nothing: no such name, or nothing of the kind.
pub fn is_negative(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|flags| flags & CODE != 0) || number(answer, 6) == Some(0)
}

/// Puts an id in the place of the one that is there.
pub fn set_id(message: &mut [u8], id: [u8; 2]) {
    if let Some(place) = message.get_mut(..2) {
        place.copy_from_slice(&id);
    }
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

/// A name without pointers, in small letters, and where it ends. Bytes that are no letters, digits, `-` or `_` become
/// `?`, which no container's name has.
fn name(message: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut name, mut at) = (String::new(), start);
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        if length > 63 || at - start + length > 255 {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        let good = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let label = message.get(at..at + length)?;
        name.extend(label.iter().map(|byte| if good(byte) { byte.to_ascii_lowercase().into() } else { '?' }));
        at += length;
    }
}

fn type_of(record: &Record) -> u16 {
    match record {
        Record::Address(IpAddr::V4(_)) => 1,
        Record::Address(IpAddr::V6(_)) => 28,
        Record::Name(_) => 12,
    }
}

fn data(record: &Record) -> Vec<u8> {
    match record {
        Record::Address(IpAddr::V4(address)) => address.octets().to_vec(),
        Record::Address(IpAddr::V6(address)) => address.octets().to_vec(),
        Record::Name(name) => {
            let mut bytes = Vec::new();
            for label in name.split('.').filter(|label| !label.is_empty()) {
                let label = label.as_bytes().get(..label.len().min(63)).unwrap_or_default();
                bytes.push(u8::try_from(label.len()).unwrap_or(0));
                bytes.extend(label);
            }
            bytes.push(0);
            bytes
        }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
