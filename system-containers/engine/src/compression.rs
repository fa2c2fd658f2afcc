//! What compresses an archive or a layer, told by its first bytes: names and media types are often wrong.
//!
//! zstd is the C library (decoder only; the linker drops the rest): it is twice as fast as `ruzstd`, and the image's
//! build needs a C compiler for the kernel anyway. Its checksums, which only its experimental interface lets be, are a
//! fortieth of a pull. gzip is zlib-rs behind flate2. Whole archives also come by xz and
//! bzip2, as `docker load` takes them.

mod frames;
mod xz;

use std::io::{self, BufRead, BufReader, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use zstd::zstd_safe::DParameter;

use self::frames::Frames;
pub use self::frames::Gate;
use self::xz::XzReader;
use crate::limits;
use crate::tar::{self, Input};

/// How many decompressed bytes are handed on at once: what a pipe or a large write takes comfortably.
const BUFFER_BYTES: usize = 128 << 10;

/// How many of a file's first bytes [`Compression::detect`] needs.
pub const MAGIC_BYTES: usize = 512;

/// A method of compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// None.
    Plain,
    /// RFC 1952, also several members one after the other.
    Gzip,
    /// RFC 8878, also several frames, skippable ones among them.
    Zstd,
    /// The .xz file format 1.2, also several streams. No layer is.
    Xz,
    /// Also several streams, as `pbzip2` makes them. No layer is.
    Bzip2,
}

/// A method that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// Known, but not by the image specification.
    #[error(
        "it is compressed with {method}; a layer may be with gzip, zstd or nothing, an archive of images also with xz or bzip2"
    )]
    Unsupported {
        /// The program's name.
        method: &'static str,
    },
    /// Neither compressed nor an archive.
    #[error("it is neither a tar archive nor one compressed with gzip, zstd, xz or bzip2")]
    Unknown,
}

impl Compression {
    /// Looks at the beginning of a tar archive that may be compressed.
    pub fn detect(start: &[u8]) -> Result<Self, CompressionError> {
        match start {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            // A frame, or a skippable frame as zstd:chunked and pzstd put before one.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [b'B', b'Z', b'h', ..] => Ok(Self::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Self::Xz),
            [0x04, 0x22, 0x4d, 0x18, ..] => Err(CompressionError::Unsupported { method: "lz4" }),
            [b'P', b'K', 3, 4, ..] => Err(CompressionError::Unsupported { method: "zip" }),
            // An empty layer is two blocks of zeros.
            start if tar::is_header(start) || (start.len() >= 512 && start.iter().all(|byte| *byte == 0)) => {
                Ok(Self::Plain)
            }
            _ => Err(CompressionError::Unknown),
        }
    }

    /// The same of a layer: the image specification knows fewer methods (OCI image specification, "Image Layer
    /// Filesystem Changeset").
    pub fn detect_layer(start: &[u8]) -> Result<Self, CompressionError> {
        // Nothing at all is an empty layer, as for Docker; its digest says whether that is all there should be.
        if start.is_empty() {
            return Ok(Self::Plain);
        }
        match Self::detect(start)? {
            Self::Xz => Err(CompressionError::Unsupported { method: "xz" }),
            Self::Bzip2 => Err(CompressionError::Unsupported { method: "bzip2" }),
            method => Ok(method),
        }
    }
}

/// Decompresses a stream.
pub enum Decoder<'a, R: BufRead> {
    /// Nothing to do.
    Plain(R),
    /// gzip.
    Gzip(Box<BufReader<MultiGzDecoder<R>>>),
    /// zstd.
    Zstd(BufReader<zstd::stream::read::Decoder<'static, Frames<'a, R>>>),
    /// xz.
    Xz(BufReader<XzReader<R>>),
    /// bzip2.
    Bzip2(BufReader<MultiBzDecoder<R>>),
}

impl<'a, R: BufRead> Decoder<'a, R> {
    /// Puts a decompressor before the stream. `gate` hears of every window that zstd wants; a decompressor of xz takes up to
    /// [`limits::XZ_DICTIONARY_BYTES`], the others little.
    pub fn new(compression: Compression, input: R, gate: Gate<'a>) -> io::Result<Self> {
        Ok(match compression {
            Compression::Plain => Self::Plain(input),
            Compression::Gzip => {
                Self::Gzip(Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(input))))
            }
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(Frames::new(input, gate))?;
                decoder.window_log_max(limits::ZSTD_WINDOW_LOG)?;
                Self::Zstd(BufReader::with_capacity(BUFFER_BYTES, decoder))
            }
            Compression::Xz => Self::Xz(BufReader::with_capacity(BUFFER_BYTES, XzReader::new(input))),
            Compression::Bzip2 => Self::Bzip2(BufReader::with_capacity(BUFFER_BYTES, MultiBzDecoder::new(input))),
        })
    }

    /// Leaves the checksums in the stream alone, for a caller who digests what comes out of it.
    pub fn without_checksums(mut self) -> io::Result<Self> {
        if let Self::Zstd(decoder) = &mut self {
            decoder.get_mut().set_parameter(DParameter::ForceIgnoreChecksum(true))?;
        }
        Ok(self)
    }

    /// The compressed stream, wherever decompression left it.
    pub fn into_inner(self) -> R {
        match self {
            Self::Plain(input) => input,
            Self::Gzip(decoder) => decoder.into_inner().into_inner(),
            Self::Zstd(decoder) => decoder.into_inner().finish().into_inner(),
            Self::Xz(decoder) => decoder.into_inner().into_inner(),
            Self::Bzip2(decoder) => decoder.into_inner().into_inner(),
        }
    }
}

impl<R: BufRead> Read for Decoder<'_, R> {
    /// Decompresses straight into the buffer, if nothing is left of what was decompressed for [`BufRead`].
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Gzip(decoder) if decoder.buffer().is_empty() => decoder.get_mut().read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) if decoder.buffer().is_empty() => decoder.get_mut().read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Xz(decoder) => decoder.read(buffer),
            Self::Bzip2(decoder) => decoder.read(buffer),
        }
    }
}

impl<R: BufRead> BufRead for Decoder<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Plain(input) => input.fill_buf(),
            Self::Gzip(decoder) => decoder.fill_buf(),
            Self::Zstd(decoder) => decoder.fill_buf(),
            Self::Xz(decoder) => decoder.fill_buf(),
            Self::Bzip2(decoder) => decoder.fill_buf(),
        }
    }

    fn consume(&mut self, count: usize) {
        match self {
            Self::Plain(input) => input.consume(count),
            Self::Gzip(decoder) => decoder.consume(count),
            Self::Zstd(decoder) => decoder.consume(count),
            Self::Xz(decoder) => decoder.consume(count),
            Self::Bzip2(decoder) => decoder.consume(count),
        }
    }
}

impl<R: BufRead> Input for Decoder<'_, R> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of ten bytes that asks for this window: its descriptor says nothing of the content, and its only block is
    /// not compressed (RFC 8878, sections 3.1.1.1 and 3.1.1.2).
    fn asking_for(log: u8, eighths: u8) -> Vec<u8> {
        let header = [0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3 | eighths, 10 << 3 | 1, 0, 0];
        [&header[..], b"0123456789"].concat()
    }

    fn decompressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        Decoder::new(Compression::Zstd, bytes, Box::new(|_| Ok(())))?.read_to_end(&mut all).map(|_| all)
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        let most = limits::ZSTD_WINDOW_LOG as u8;
        assert!(1_usize << most <= 32 << 20, "the engine has 64 MiB in all");
        assert_eq!(decompressed(&asking_for(most, 0)).unwrap(), b"0123456789");
        for (log, eighths) in [(most, 1), (most + 1, 0), (31, 7), (41, 7)] {
            assert!(decompressed(&asking_for(log, eighths)).is_err(), "{log} {eighths}");
        }
    }

    #[test]
    fn checksums_are_left_alone_only_where_somebody_else_looks() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        io::Write::write_all(&mut encoder, b"content").unwrap();
        let mut bytes = encoder.finish().unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(decompressed(&bytes).is_err());
        let decoder = Decoder::new(Compression::Zstd, &*bytes, Box::new(|_| Ok(()))).unwrap();
        assert_eq!(io::read_to_string(decoder.without_checksums().unwrap()).unwrap(), "content");
    }

    #[test]
    fn several_frames_are_read_whole() {
        let skippable = |number: u8, content: &[u8]| {
            [&[0x50 | number, 0x2a, 0x4d, 0x18][..], &(content.len() as u32).to_le_bytes(), content].concat()
        };
        let frame = |text: &str| zstd::encode_all(text.as_bytes(), 1).unwrap();
        let parts = [
            skippable(0, b"x"),
            frame("one "),
            frame("two "),
            skippable(15, b""),
            frame("three"),
            skippable(0, &[1; 99]),
        ];
        let bytes = parts.concat();
        assert_eq!(Compression::detect(&bytes), Ok(Compression::Zstd));
        assert_eq!(decompressed(&bytes).unwrap(), b"one two three");
        // One that is cut off is an error, also behind the last content.
        assert!(decompressed(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn methods_are_told_by_their_first_bytes() {
        assert_eq!(Compression::detect(&[0x1f, 0x8b, 8]), Ok(Compression::Gzip));
        assert_eq!(Compression::detect(&[0x28, 0xb5, 0x2f, 0xfd]), Ok(Compression::Zstd));
        assert_eq!(Compression::detect(&[0; 512]), Ok(Compression::Plain));
        for (start, method, name) in
            [(&b"BZh9"[..], Compression::Bzip2, "bzip2"), (b"\xfd7zXZ\0\0\x04", Compression::Xz, "xz")]
        {
            assert_eq!(Compression::detect(start), Ok(method));
            let refused = Err(CompressionError::Unsupported { method: name });
            assert_eq!(Compression::detect_layer(start), refused, "a layer");
        }
        assert_eq!(Compression::detect(b"hello"), Err(CompressionError::Unknown));
        assert_eq!(Compression::detect(b""), Err(CompressionError::Unknown));
        assert_eq!(Compression::detect_layer(b""), Ok(Compression::Plain), "an empty layer");
    }
}
