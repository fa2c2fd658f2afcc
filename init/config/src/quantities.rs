//! Sizes, times and shares of the processor.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::text::text_value;

/// Why a quantity is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// No digits, or something in between.
    #[error("{text:?} is not a number")]
    Number {
        /// What stands there.
        text: String,
    },
    /// A unit that is not in the list.
    #[error("{unit:?} is not a unit")]
    Unit {
        /// What stands behind the number.
        unit: String,
    },
    /// More than can be counted, or less than there can be.
    #[error("{text:?} is out of range")]
    Range {
        /// What stands there.
        text: String,
    },
}

/// A number of bytes. Units are powers of 1024, as in Docker and Compose: `256M`, `1.5G`, `512KiB`; a number alone
/// is bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

text_value!(Size, scalars, "a size such as \"256M\" or \"1.5G\"");

const SIZE_UNITS: [(&str, u64); 5] = [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10), ("", 1)];

impl Size {
    /// This many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split_number(text);
        if number.is_empty() {
            return Err(QuantityError::Number { text: text.to_owned() });
        }
        let wanted = unit.to_ascii_uppercase();
        let wanted = wanted.strip_suffix("IB").or_else(|| wanted.strip_suffix('B')).unwrap_or(&wanted);
        let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == wanted) else {
            return Err(QuantityError::Unit { unit: unit.to_owned() });
        };
        scaled(number, *factor, text).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let fitting = SIZE_UNITS.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor));
        let (name, factor) = fitting.unwrap_or(&("", 1));
        write!(formatter, "{}{name}", self.0 / factor)
    }
}

/// A length of time: `10s`, `1m30s`, `500ms`, `2h`; a number alone is seconds. Kept to the microsecond, at most 100
/// days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSpan(Duration);

text_value!(TimeSpan, scalars, "a time such as \"10s\", \"1m30s\" or \"500ms\"");

/// In microseconds.
const TIME_UNITS: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// So that a deadline made from it never overflows.
const LONGEST: u64 = 100 * 86_400_000_000;

impl TimeSpan {
    /// This many seconds; `None` beyond 100 days.
    pub const fn from_seconds(seconds: u64) -> Option<Self> {
        if seconds <= LONGEST / 1_000_000 { Some(Self(Duration::from_secs(seconds))) } else { None }
    }

    /// For constants of this crate.
    pub(crate) const fn from_whole_seconds(seconds: u16) -> Self {
        Self(Duration::from_secs(seconds as u64))
    }

    /// For constants of this crate, up to 100 days.
    pub(crate) const fn from_days(days: u8) -> Self {
        Self(Duration::from_secs(days as u64 * 86_400))
    }

    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for TimeSpan {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let range = || QuantityError::Range { text: text.to_owned() };
        let mut total: u64 = 0;
        let mut rest = text;
        loop {
            let (number, behind) = split_number(rest);
            if number.is_empty() {
                return Err(QuantityError::Number { text: text.to_owned() });
            }
            let end = behind.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(behind.len());
            let (unit, next) = behind.split_at_checked(end).unwrap_or((behind, ""));
            let factor = match TIME_UNITS.iter().find(|(name, _)| *name == unit) {
                Some((_, factor)) => *factor,
                // A number without a unit only makes sense alone.
                None if unit.is_empty() && rest.len() == text.len() && next.is_empty() => 1_000_000,
                None => return Err(QuantityError::Unit { unit: unit.to_owned() }),
            };
            total = total.checked_add(scaled(number, factor, text)?).ok_or_else(range)?;
            if next.is_empty() {
                break;
            }
            rest = next;
        }
        if total > LONGEST { Err(range()) } else { Ok(Self(Duration::from_micros(total))) }
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_micros()).unwrap_or(LONGEST);
        if rest == 0 {
            return formatter.write_str("0s");
        }
        for (name, factor) in TIME_UNITS {
            if rest >= factor {
                write!(formatter, "{}{name}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

/// A share of the machine's processors: 1.5 is one and a half of them. At least 0.01, at most 4096. Counted in
/// billionths, as Docker does: JSON's floating point numbers do not always come back as they went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpus(u64);

impl Cpus {
    /// In processors.
    pub fn count(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Microseconds of processor time in a period of `period` microseconds: cgroup v2's `cpu.max`.
    pub fn quota(self, period: u32) -> u64 {
        // At most 2^42 times 2^32, over 2^29: it fits.
        u64::try_from(u128::from(self.0) * u128::from(period) / 1_000_000_000).unwrap_or(u64::MAX)
    }
}

crate::text::described!(Cpus, { "type": ["number", "string"], "minimum": 0.01, "maximum": 4096 });

impl TryFrom<f64> for Cpus {
    type Error = QuantityError;

    fn try_from(count: f64) -> Result<Self, QuantityError> {
        if (0.01..=4096.0).contains(&count) {
            // Positive and below 2^43, so that the cast loses nothing.
            Ok(Self((count * 1e9).round() as u64))
        } else {
            Err(QuantityError::Range { text: count.to_string() })
        }
    }
}

impl FromStr for Cpus {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let count: f64 = text.parse().map_err(|_| QuantityError::Number { text: text.to_owned() })?;
        Self::try_from(count)
    }
}

impl serde::Serialize for Cpus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.count())
    }
}

impl<'de> serde::Deserialize<'de> for Cpus {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a number of processors between 0.01 and 4096, such as 1.5";
        let text = crate::text::Text { expected, scalars: true }.read(deserializer)?;
        text.parse().map_err(|error: QuantityError| crate::text::refusal(&error, expected))
    }
}

/// Cuts off the leading digits and decimal point.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// `number` times `factor`, exact for up to nine decimals, which is more than the units need.
fn scaled(number: &str, factor: u64, whole: &str) -> Result<u64, QuantityError> {
    let bad = || QuantityError::Number { text: whole.to_owned() };
    let range = || QuantityError::Range { text: whole.to_owned() };
    let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
    if integer.is_empty() || fraction.contains('.') || fraction.len() > 9 || number.ends_with('.') {
        return Err(bad());
    }
    let integer: u128 = integer.parse().map_err(|_| range())?;
    let mut total = integer.checked_mul(u128::from(factor)).ok_or_else(range)?;
    if !fraction.is_empty() {
        let decimals = u32::try_from(fraction.len()).map_err(|_| bad())?;
        let fraction: u128 = fraction.parse().map_err(|_| bad())?;
        total = total.checked_add(fraction * u128::from(factor) / 10u128.pow(decimals)).ok_or_else(range)?;
    }
    // TOML's integers end at i64::MAX, and no machine has more bytes.
    u64::try_from(total).ok().filter(|total| *total <= i64::MAX as u64).ok_or_else(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_powers_of_1024() {
        let bytes = |text: &str| text.parse::<Size>().map(Size::bytes);
        for (text, wanted) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("1k", 1024),
            ("256M", 256 << 20),
            ("256MB", 256 << 20),
            ("256MiB", 256 << 20),
            ("1.5G", 3 << 29),
            ("0.5T", 1 << 39),
            ("1.000000001K", 1024),
            ("9223372036854775807", i64::MAX as u64),
        ] {
            assert_eq!(bytes(text), Ok(wanted), "{text}");
        }
        for text in [
            "",
            "M",
            "-1",
            "+1",
            "1.",
            ".5",
            "1.2.3M",
            "1,5G",
            "1 M",
            "256Mi",
            "1e3",
            "0x10",
            "9223372036854775808",
            "8388608T",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_fits() {
        for text in ["0", "1", "1023", "1K", "1536K", "256M", "1T"] {
            assert_eq!(text.parse::<Size>().map(|size| size.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn times_are_sums_of_units() {
        let micros = |text: &str| text.parse::<TimeSpan>().map(|time| time.duration().as_micros());
        for (text, wanted) in [
            ("10", 10_000_000),
            ("0", 0),
            ("10s", 10_000_000),
            ("1m30s", 90_000_000),
            ("500ms", 500_000),
            ("1.5s", 1_500_000),
            ("1h1us", 3_600_000_001),
            ("100d", 8_640_000_000_000),
        ] {
            assert_eq!(micros(text), Ok(wanted), "{text}");
        }
        for text in ["", "s", "10 s", "1m30", "-1s", "1w", "1.s", "101d", "99999999999999999999s", "1s-1s"] {
            assert!(micros(text).is_err(), "{text}");
        }
    }

    #[test]
    fn processors_are_counted_in_billionths() {
        assert_eq!("1.5".parse::<Cpus>().map(|cpus| cpus.quota(100_000)), Ok(150_000));
        assert_eq!("0.01".parse::<Cpus>().map(|cpus| cpus.quota(100_000)), Ok(1_000));
        assert_eq!("4096".parse::<Cpus>().map(|cpus| cpus.quota(u32::MAX)), Ok(4096 * u64::from(u32::MAX)));
        for text in ["0", "0.009", "-1", "4096.1", "inf", "NaN", "two", ""] {
            assert!(text.parse::<Cpus>().is_err(), "{text}");
        }
    }
}
