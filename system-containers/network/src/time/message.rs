//! SNTP messages (RFC 4330; RFC 5905, section 7.3): a question, and whether an answer to it counts. Pure.
//!
//! A question tells a server nothing of this machine: its transmit timestamp is a random number, which the answer must
//! repeat, so that nobody who did not see the question can answer it.

use std::time::Duration;

/// Where servers are asked.
pub const PORT: u16 = 123;
/// Of a message without extension fields and authentication.
pub const LENGTH: usize = 48;
/// Version 4, a client's.
const CLIENT: u8 = (4 << 3) | 3;
const MODE: u8 = 7;
const SERVER: u8 = 4;
/// Of the leap indicator: the server's own clock is not set.
const UNSYNCHRONIZED: u8 = 3;
/// Stratum 16 and what is above mean the same.
const STRATA: std::ops::RangeInclusive<u8> = 1..=15;
/// From the era that began in 1900 to 1970 (RFC 5905, figure 4).
const EPOCH: i64 = 2_208_988_800;
/// Seconds of an era.
const ERA: i64 = 1 << 32;
const MICROSECONDS: i64 = 1_000_000;
/// How far a server may be from its source, there and back: RFC 4330 refuses more (section 5, test 4).
const FARTHEST: Duration = Duration::from_secs(1);

/// What an answer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The server's time when the answer was there, half of its way counted in; microseconds since 1970.
    pub time: i64,
    /// There and back, without what the server took, in microseconds.
    pub delay: i64,
}

/// Why an answer does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not an answer to this question: whoever sent it need not be the server.
    #[error("it answers another question")]
    Strange,
    /// DENY or RSTR: it is not to be asked again (RFC 5905, section 7.4).
    #[error("the server refuses to answer")]
    Denied,
    /// RATE.
    #[error("the server is asked too often")]
    TooOften,
    /// Its own clock is not set.
    #[error("the server does not know the time")]
    Unsynchronized,
    /// No times that can be.
    #[error("the server's answer makes no sense")]
    Nonsense,
}

/// The question with this number.
pub fn question(number: u64) -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    let (head, transmitted) = message.split_at_mut(LENGTH - 8);
    head.iter_mut().take(1).for_each(|first| *first = CLIENT);
    transmitted.copy_from_slice(&number.to_be_bytes());
    message
}

/// Reads the answer to a question that was asked so long ago.
pub fn answer(message: &[u8], number: u64, elapsed: Duration) -> Result<Sample, Unusable> {
    let head = message.first_chunk::<4>().filter(|_| message.len() >= LENGTH).ok_or(Unusable::Strange)?;
    let [first, stratum, ..] = *head;
    if first & MODE != SERVER || word(message, 24) != number {
        return Err(Unusable::Strange);
    }
    match (stratum, message.get(12..16)) {
        (0, Some(b"DENY" | b"RSTR")) => return Err(Unusable::Denied),
        (0, Some(b"RATE")) => return Err(Unusable::TooOften),
        _ if first >> 6 == UNSYNCHRONIZED || !STRATA.contains(&stratum) => return Err(Unusable::Unsynchronized),
        _ => {}
    }
    let [received, transmitted] = [32, 40].map(|place| word(message, place));
    let distance = short(message, 4) / 2 + short(message, 8);
    let delay =
        i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX).saturating_sub(time(transmitted) - time(received));
    let backwards = time(transmitted) < time(received);
    if received == 0 || transmitted == 0 || backwards || delay < 0 || distance > FARTHEST {
        return Err(Unusable::Nonsense);
    }
    Ok(Sample { time: time(transmitted) + delay / 2, delay })
}

fn word(message: &[u8], place: usize) -> u64 {
    let bytes = message.get(place..).and_then(|rest| rest.first_chunk::<8>());
    bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// A time in 16 bits of seconds and 16 of their fraction.
fn short(message: &[u8], place: usize) -> Duration {
    let number = u32::try_from(word(message, place) >> 32).unwrap_or_default();
    Duration::from_nanos((u64::from(number) * 1_000_000_000) >> 16)
}

/// A timestamp in microseconds since 1970: from 1968 to 2036 in the first era, then in the second (RFC 4330, section 3).
fn time(timestamp: u64) -> i64 {
    let (seconds, fraction) = (i64::from((timestamp >> 32) as u32), timestamp & u64::from(u32::MAX));
    let era = if seconds < ERA / 2 { ERA } else { 0 };
    let fraction = i64::try_from((fraction * MICROSECONDS.unsigned_abs()) >> 32).unwrap_or_default();
    (seconds + era - EPOCH) * MICROSECONDS + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: u64 = 0x0123_4567_89ab_cdef;
    /// 2026-01-01 in seconds since 1900.
    const NEW_YEAR: u64 = 3_976_214_400;

    /// Of a good server that took a quarter of a second.
    fn good() -> [u8; LENGTH] {
        let mut message = [0; LENGTH];
        message[..4].copy_from_slice(&[0x24, 2, 6, 0xec]);
        message[24..32].copy_from_slice(&NUMBER.to_be_bytes());
        message[32..40].copy_from_slice(&(NEW_YEAR << 32).to_be_bytes());
        message[40..48].copy_from_slice(&((NEW_YEAR << 32) + (1 << 30)).to_be_bytes());
        message
    }

    fn read(message: &[u8]) -> Result<Sample, Unusable> {
        answer(message, NUMBER, Duration::from_millis(350))
    }

    #[test]
    fn half_of_the_way_is_counted_in() {
        let time = 1_767_225_600_300_000;
        assert_eq!(read(&good()), Ok(Sample { time, delay: 100_000 }));
    }

    #[test]
    fn a_question_says_nothing_but_a_number() {
        let asked = question(NUMBER);
        assert_eq!((asked[0], &asked[40..]), (0x23, &NUMBER.to_be_bytes()[..]));
        assert!(asked[1..40].iter().all(|byte| *byte == 0));
        // It is no answer to itself.
        assert_eq!(read(&asked), Err(Unusable::Strange));
    }

    #[test]
    fn every_test_of_the_rfc_refuses_something() {
        type Change = fn(&mut [u8; LENGTH]);
        let cases: [(&str, Change, Unusable); 11] = [
            ("another question", |message| message[31] ^= 1, Unusable::Strange),
            ("broadcast", |message| message[0] = 0x25, Unusable::Strange),
            ("an alarm", |message| message[0] |= 0xc0, Unusable::Unsynchronized),
            ("stratum 16", |message| message[1] = 16, Unusable::Unsynchronized),
            ("an unknown kiss", |message| message[1] = 0, Unusable::Unsynchronized),
            (
                "a refusal",
                |message| {
                    message[1] = 0;
                    message[12..16].copy_from_slice(b"DENY")
                },
                Unusable::Denied,
            ),
            (
                "a plea",
                |message| {
                    message[1] = 0;
                    message[12..16].copy_from_slice(b"RATE")
                },
                Unusable::TooOften,
            ),
            ("no time", |message| message[40..].fill(0), Unusable::Nonsense),
            ("answered before it was asked", |message| message[40..44].fill(0xd0), Unusable::Nonsense),
            ("answered for longer than it was waited", |message| message[43] += 1, Unusable::Nonsense),
            ("too far from its source", |message| message[5] = 3, Unusable::Nonsense),
        ];
        for (what, change, why) in cases {
            let mut message = good();
            change(&mut message);
            assert_eq!(read(&message), Err(why), "{what}");
        }
        for length in 0..LENGTH {
            assert_eq!(read(&good()[..length]), Err(Unusable::Strange));
        }
        // A refusal that others may have sent is none.
        let mut message = good();
        message[1] = 0;
        message[12..16].copy_from_slice(b"DENY");
        message[24] ^= 1;
        assert_eq!(read(&message), Err(Unusable::Strange));
    }

    #[test]
    fn the_second_era_begins_in_2036() {
        assert_eq!(time(u64::MAX), 2_085_978_495_999_999);
        assert_eq!(time(0), 2_085_978_496_000_000);
    }
}
