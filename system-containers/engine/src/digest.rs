//! SHA-256 digests in the notation of the OCI image specification, and readers that compute them on the way.
//!
//! A [`Digest`] is well-formed by construction, so its hex form is safe as a file name.

use std::fmt;
use std::io::{self, BufRead, Read};
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

/// A reader that hashes what is consumed from it.
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: BufRead> HashingReader<R> {
    /// Wraps a reader.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::default() }
    }

    /// Reads to the end, which must come within `limit` bytes; the reader and the digest of everything.
    pub fn finish(mut self, limit: u64) -> io::Result<(R, Digest)> {
        let mut read = 0;
        loop {
            let length = self.fill_buf()?.len();
            read += length as u64;
            if read > limit {
                return Err(io::Error::other("too much follows the end of the archive"));
            }
            if length == 0 {
                return Ok((self.inner, self.hasher.finish()));
            }
            self.consume(length);
        }
    }
}

impl<R: BufRead> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for HashingReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // A BufRead returns the same bytes until they are consumed, without reading again.
        if let Ok(buffer) = self.inner.fill_buf() {
            self.hasher.update(&buffer[..count.min(buffer.len())]);
        }
        self.inner.consume(count);
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

    #[test]
    fn a_reader_hashes_what_is_read_and_what_is_consumed() {
        let mut reader = HashingReader::new(io::Cursor::new(b"hello world"));
        let mut first = [0; 3];
        reader.read_exact(&mut first).unwrap();
        reader.consume(4);
        assert_eq!(reader.finish(4).unwrap().1, Digest::of(b"hello world"));
    }
}
