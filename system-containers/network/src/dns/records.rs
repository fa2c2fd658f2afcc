//! The records of an answer (RFC 1035, 4.1.3): how long it holds, and what it says after some time. Pure.
//!
//! An answer comes from the network and may be any bytes: names are stepped over, not followed, so nothing loops.

/// Of the header.
const HEADER: usize = 12;
const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;
const TYPE_SOA: u16 = 6;
const TYPE_OPT: u16 = 41;
const NO_SUCH_NAME: u8 = 3;
/// More than any answer that is kept has.
const MOST: usize = 512;

/// A record's place.
struct Record {
    kind: u16,
    section: u8,
    ttl_at: usize,
    ttl: u32,
    data: std::ops::Range<usize>,
}

/// How long an answer may be kept, in seconds: the shortest time of its records. Of one that says that there is nothing,
/// what its zone says (RFC 2308, section 5). `None` for what is not to be kept: failures, and what is not whole.
pub fn holds(answer: &[u8]) -> Option<u32> {
    let (flags, code) = (*answer.get(2)?, *answer.get(3)? & 0x0f);
    if flags & RESPONSE == 0 || flags & TRUNCATED != 0 || (code != 0 && code != NO_SUCH_NAME) {
        return None;
    }
    let records = all(answer)?;
    let is_positive = code == 0 && records.iter().any(|record| record.section == 0);
    if !is_positive {
        let soa = records.iter().find(|record| record.section == 1 && record.kind == TYPE_SOA)?;
        let minimum = answer.get(soa.data.end.checked_sub(4)?..soa.data.end).and_then(number32)?;
        return Some(minimum.min(soa.ttl));
    }
    records.iter().filter(|record| record.kind != TYPE_OPT).map(|record| record.ttl).min()
}

/// Takes so many seconds from the times of all records.
pub fn age(answer: &mut [u8], seconds: u32) {
    for record in all(answer).unwrap_or_default() {
        if record.kind != TYPE_OPT
            && let Some(place) = answer.get_mut(record.ttl_at..record.ttl_at + 4)
        {
            place.copy_from_slice(&record.ttl.saturating_sub(seconds).to_be_bytes());
        }
    }
}

/// Every record, if the message is whole.
fn all(message: &[u8]) -> Option<Vec<Record>> {
    let mut at = HEADER;
    for _ in 0..number16(message, 4)? {
        at = behind_name(message, at)? + 4;
    }
    let mut records = Vec::new();
    for section in 0..3_u8 {
        for _ in 0..number16(message, 6 + 2 * usize::from(section))? {
            let fixed = behind_name(message, at)?;
            let length = usize::from(number16(message, fixed + 8)?);
            let data = fixed + 10..fixed + 10 + length;
            message.get(data.clone())?;
            at = data.end;
            let ttl = message.get(fixed + 4..fixed + 8).and_then(number32)?;
            if records.len() == MOST {
                return None;
            }
            // RFC 2181, section 8: the highest bit is no time.
            let ttl = if ttl > i32::MAX.cast_unsigned() { 0 } else { ttl };
            records.push(Record { kind: number16(message, fixed)?, section, ttl_at: fixed + 4, ttl, data });
        }
    }
    Some(records)
}

/// Where a name ends, which may do so in a pointer.
fn behind_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

fn number16(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

fn number32(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUESTION: &[u8] = b"\x01a\x07example\x00\x00\x01\x00\x01";

    /// An answer with a record of each of these times, and an OPT.
    pub fn answer(times: &[u32]) -> Vec<u8> {
        let count = u8::try_from(times.len()).unwrap();
        let mut bytes = vec![0, 0, 0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 1];
        bytes.extend(QUESTION);
        for time in times {
            bytes.extend([0xc0, 12, 0, 1, 0, 1]);
            bytes.extend(time.to_be_bytes());
            bytes.extend([0, 4, 192, 0, 2, 1]);
        }
        bytes.extend([0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
        bytes
    }

    /// An answer with this code and the SOA of its zone.
    pub fn negative(code: u8, time: u32, minimum: u32) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0x81, 0x80 | code, 0, 1, 0, 0, 0, 1, 0, 0];
        bytes.extend(QUESTION);
        bytes.extend([0xc0, 14, 0, 6, 0, 1]);
        bytes.extend(time.to_be_bytes());
        bytes.extend([0, 22, 0, 0]);
        bytes.extend([0; 16]);
        bytes.extend(minimum.to_be_bytes());
        bytes
    }

    #[test]
    fn an_answer_holds_as_long_as_its_shortest_record() {
        assert_eq!(holds(&answer(&[300, 60, 900])), Some(60));
        assert_eq!(holds(&answer(&[0x8000_0000])), Some(0));
        assert_eq!(holds(&answer(&[])), None, "nothing says for how long there is nothing");
        assert_eq!(holds(&negative(3, 900, 30)), Some(30));
        assert_eq!(holds(&negative(0, 20, 30)), Some(20));
        let mut cut = answer(&[60]);
        cut[2] |= TRUNCATED;
        assert_eq!(holds(&cut), None);
        let whole = answer(&[60]);
        assert_eq!(holds(&whole[..whole.len() - 1]), None);
    }

    #[test]
    fn times_run_down_and_the_flags_of_edns_stay() {
        let mut bytes = answer(&[300, 60]);
        age(&mut bytes, 100);
        assert_eq!(bytes, answer(&[200, 0]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            holds(&bytes);
            let mut known = [&[0, 0, 0x81, 0x80, 0, 1, 0, 2, 0, 2, 0, 2][..], &bytes].concat();
            let length = known.len();
            holds(&known);
            age(&mut known, 1);
            prop_assert_eq!(known.len(), length);
        }
    }
}
