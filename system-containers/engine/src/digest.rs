//! SHA-256 digests in the notation of the OCI image specification.
//!
//! A [`Digest`] is well-formed by construction, so its hex form is safe as a file name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// Why a text is no digest that the engine can check.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not `algorithm:hex`.
    #[error("{text:?} is not a digest (sha256: and 64 hexadecimal digits)")]
    Malformed {
        /// What was given, shortened.
        text: String,
    },
    /// A registered algorithm that nobody uses for images.
    #[error("the digest algorithm {algorithm:?} is not supported, only sha256 is")]
    Algorithm {
        /// As given.
        algorithm: String,
    },
}

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The first half of it: enough to tell things apart that nobody makes equal on purpose.
    pub fn half(&self) -> [u8; 16] {
        self.0.first_chunk().copied().unwrap_or_default()
    }

    /// The 64 lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let malformed = || DigestError::Malformed { text: text.chars().take(80).collect() };
        let (algorithm, hex) = text.split_once(':').ok_or_else(malformed)?;
        if matches!(algorithm, "sha512" | "sha384" | "blake3") {
            return Err(DigestError::Algorithm { algorithm: algorithm.to_owned() });
        }
        let digits = hex.as_bytes();
        if algorithm != "sha256" || digits.len() != 64 {
            return Err(malformed());
        }
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = match pair {
                [high, low] => (value(*high).ok_or_else(malformed)? << 4) | value(*low).ok_or_else(malformed)?,
                _ => return Err(malformed()),
            };
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes what passes through.
#[derive(Clone, Default)]
pub struct Hasher {
    state: sha2::Sha256,
}

impl Hasher {
    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
    }

    /// The digest of all of them.
    pub fn finish(self) -> Digest {
        Digest(self.state.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_notation_is_read_and_written() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(digest, Digest::of(b""));
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(serde_json::from_str::<Digest>(&format!("{EMPTY:?}")).unwrap(), digest);
    }

    #[test]
    fn other_notations_are_refused() {
        for text in ["", "sha256:", "sha256:E3B0", "md5:00", &EMPTY[..70], &EMPTY.to_uppercase(), "sha256:../../etc"] {
            assert!(matches!(text.parse::<Digest>(), Err(DigestError::Malformed { .. })), "{text}");
        }
        assert!(matches!("sha512:00".parse::<Digest>(), Err(DigestError::Algorithm { .. })));
    }
}
