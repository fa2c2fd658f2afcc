//! How a container stands beside others that want the same: numbers in a range, as Compose has them.

use std::str::FromStr;

use thiserror::Error;

/// Text that is no such number.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not {expected}")]
pub struct PriorityError {
    /// As written.
    pub text: String,
    /// What would be one.
    pub expected: &'static str,
}

macro_rules! priority {
    ($(#[$doc:meta])* $type:ident, $least:literal, $most:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(u32);

        crate::text::described!($type, { "type": ["integer", "string"], "minimum": $least, "maximum": $most });

        impl $type {
            /// The number.
            #[must_use]
            pub const fn number(self) -> u32 {
                self.0
            }
        }

        impl FromStr for $type {
            type Err = PriorityError;

            fn from_str(text: &str) -> Result<Self, PriorityError> {
                let number = text.parse().ok().filter(|number| ($least..=$most).contains(number));
                number.map(Self).ok_or_else(|| PriorityError { text: text.to_owned(), expected: $expected })
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_u32(self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = crate::text::Text { expected: $expected, scalars: true }.read(deserializer)?;
                text.parse().map_err(|_: PriorityError| {
                    crate::text::refusal(&format_args!("{text:?} is out of range"), $expected)
                })
            }
        }
    };
}

priority! {
    /// A part of the processors' time in relation to those of others, 1,024 in the middle.
    CpuShares, 2, 262_144, "a number from 2 to 262144"
}

priority! {
    /// How soon the kernel ends its processes when the machine runs out of memory (proc(5), `oom_score_adj`). What is below 0
    /// would stay longer than the machine's own.
    OomScore, 0, 1000, "a number from 0 to 1000"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_range() {
        for (text, wanted) in [("2", Some(2)), ("262144", Some(262_144)), ("1", None), ("262145", None), ("", None)] {
            assert_eq!(text.parse::<CpuShares>().ok().map(CpuShares::number), wanted, "{text}");
        }
        for (text, wanted) in [("0", Some(0)), ("1000", Some(1000)), ("1001", None), ("-1", None)] {
            assert_eq!(text.parse::<OomScore>().ok().map(OomScore::number), wanted, "{text}");
        }
    }
}
