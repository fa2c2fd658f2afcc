//! How much a container may send and receive.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::text::text_value;

/// Text that is no rate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a rate between 64K and 32G")]
pub struct RateError {
    /// As written.
    pub text: String,
}

/// Bits in a second, with the decimal units that network cards are sold by: `10M` is 10,000,000. From 64K to 32G: less
/// than the first holds up a single packet for a second, and the kernel's token bucket counts bytes in 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitRate(u64);

text_value!(BitRate, scalars, "bits in a second, such as \"10M\" or \"1G\"");

const UNITS: [(char, u64); 3] = [('G', 1_000_000_000), ('M', 1_000_000), ('K', 1_000)];
const LEAST: u64 = 64_000;
const MOST: u64 = 32_000_000_000;

impl BitRate {
    /// Bytes in a second.
    pub const fn bytes(self) -> u64 {
        self.0 / 8
    }
}

impl FromStr for BitRate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let unit = UNITS.iter().find_map(|(name, factor)| {
            let number = text.strip_suffix(*name).or_else(|| text.strip_suffix(name.to_ascii_lowercase()))?;
            Some((number, *factor))
        });
        let (number, factor) = unit.unwrap_or((text, 1));
        let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let bits = plain.then(|| number.parse::<u64>().ok()?.checked_mul(factor)).flatten();
        let fits = bits.filter(|bits| (LEAST..=MOST).contains(bits));
        fits.map(Self).ok_or_else(|| RateError { text: text.to_owned() })
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match UNITS.iter().find(|(_, factor)| self.0.is_multiple_of(*factor)) {
            Some((name, factor)) => write!(formatter, "{}{name}", self.0 / factor),
            None => write!(formatter, "{}", self.0),
        }
    }
}

/// On each of its links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Bandwidth {
    /// What it receives; no limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<BitRate>,
    /// What it sends; no limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<BitRate>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_in_bits_and_decimal_units() {
        let shown = |text: &str| text.parse::<BitRate>().map(|rate| (rate.to_string(), rate.bytes()));
        assert_eq!(shown("10M"), Ok(("10M".to_owned(), 1_250_000)));
        assert_eq!(shown("1500k"), Ok(("1500K".to_owned(), 187_500)));
        assert_eq!(shown("64001"), Ok(("64001".to_owned(), 8_000)));
        for text in ["", "M", "63K", "33G", "1.5M", "-1M", "10Mbit", "99999999999G"] {
            assert!(text.parse::<BitRate>().is_err(), "{text}");
        }
    }
}
