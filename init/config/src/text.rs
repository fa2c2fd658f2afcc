//! Values that are written as text: how a type with `FromStr` and `Display` becomes a serde value.
//!
//! The error of such a value reads `why it is wrong; expected what it wants`; [`EXPECTED`] separates the two, and
//! the diagnostics show the second half as help.

use std::fmt;

use serde::Deserializer;
use serde::de::{Error, Visitor};

/// Stands between what is wrong and what would be right.
pub(crate) const EXPECTED: &str = "; expected ";

/// Reads text, and numbers and booleans as text where a type says so. One visitor for all types: a generic one
/// would be compiled for each of them.
pub(crate) struct Text {
    pub expected: &'static str,
    pub scalars: bool,
}

impl Text {
    /// The text as it stands, or its decimal form.
    pub fn read<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        if self.scalars { deserializer.deserialize_any(self) } else { deserializer.deserialize_str(self) }
    }

    fn scalar<E: Error>(self, unexpected: serde::de::Unexpected, text: String) -> Result<String, E> {
        if self.scalars { Ok(text) } else { Err(E::invalid_type(unexpected, &self)) }
    }
}

/// The error of a value that is text, but not the right one.
#[cold]
pub(crate) fn refusal<E: Error>(error: &dyn fmt::Display, expected: &str) -> E {
    E::custom(format_args!("{error}{EXPECTED}{expected}"))
}

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<String, E> {
        self.scalar(serde::de::Unexpected::Signed(value), value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<String, E> {
        self.scalar(serde::de::Unexpected::Unsigned(value), value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<String, E> {
        self.scalar(serde::de::Unexpected::Float(value), value.to_string())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<String, E> {
        self.scalar(serde::de::Unexpected::Bool(value), value.to_string())
    }
}

/// Makes a type with `FromStr` and `Display` a serde value: `text_value!(Size, scalars, "a size such as \"256M\"")`.
macro_rules! text_value {
    ($type:ty, $expected:literal) => {
        crate::text::text_value!(@ $type, false, $expected);
    };
    ($type:ty, scalars, $expected:literal) => {
        crate::text::text_value!(@ $type, true, $expected);
    };
    (@ $type:ty, $scalars:literal, $expected:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = crate::text::Text { expected: $expected, scalars: $scalars }.read(deserializer)?;
                text.parse().map_err(|error| crate::text::refusal(&error, $expected))
            }
        }

        crate::text::described!(
            $type,
            { "type": if $scalars { &["string", "number"][..] } else { &["string"][..] }, "description": concat!("Takes ", $expected, ".") }
        );

        impl TryFrom<String> for $type {
            type Error = <$type as std::str::FromStr>::Err;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl TryFrom<&str> for $type {
            type Error = <$type as std::str::FromStr>::Err;

            fn try_from(text: &str) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
    };
}

/// A JSON schema for a type that is read by hand. Says no more than the kind of the value: what is stricter than the
/// code would call good files bad.
macro_rules! described {
    ($type:ty, { $($schema:tt)* }) => {
        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ $($schema)* })
            }
        }
    };
}

/// Makes a newtype around a checked `String`: `checked_string!(HostName, NameError, check_host_name, "…")`.
macro_rules! checked_string {
    ($(#[$doc:meta])* $type:ident, $error:ty, $check:path, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $type {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        crate::text::text_value!($type, $expected);
    };
}

pub(crate) use {checked_string, described, text_value};
