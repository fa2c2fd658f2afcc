//! The .xz file format (version 1.2.1), as archives of images are compressed with it.

use std::io::{self, BufRead, Read};

use xz4rust::{XzDecoder, XzError, XzNextBlockResult};

use crate::limits;

/// What the first dictionary holds; a file that wants a larger one gets it, up to [`limits::XZ_DICTIONARY_BYTES`].
const DICTIONARY_BYTES: usize = 64 << 10;

/// The format's unit: streams and the padding between them are multiples of it (section 2.2).
const UNIT: u64 = 4;

/// Decompresses all streams of a file, one after the other.
pub struct XzReader<R> {
    input: R,
    decoder: Box<XzDecoder<'static>>,
    /// Whether a stream has begun and not ended.
    within: bool,
}

impl<R: BufRead> XzReader<R> {
    /// Nothing is read yet.
    pub fn new(input: R) -> Self {
        let decoder = XzDecoder::in_heap_with_alloc_dict_size(DICTIONARY_BYTES, limits::XZ_DICTIONARY_BYTES);
        Self { input, decoder, within: true }
    }

    /// The compressed stream, wherever decompression left it.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// Passes over the padding behind a stream. False if nothing comes behind it.
    fn begin_next(&mut self) -> io::Result<bool> {
        let mut padding = 0;
        loop {
            let buffer = self.input.fill_buf()?;
            let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
            let (empty, ends) = (buffer.is_empty(), zeros < buffer.len());
            self.input.consume(zeros);
            padding += zeros as u64;
            if !empty && !ends {
                continue;
            }
            if !padding.is_multiple_of(UNIT) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the padding of an xz stream is no multiple of four",
                ));
            }
            if ends {
                self.decoder.reset();
                self.within = true;
            }
            return Ok(ends);
        }
    }
}

impl<R: BufRead> Read for XzReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !buffer.is_empty() {
            if !self.within && !self.begin_next()? {
                break;
            }
            let input = self.input.fill_buf()?;
            if input.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (consumed, produced) = match self.decoder.decode(input, buffer).map_err(refused)? {
                XzNextBlockResult::NeedMoreData(consumed, produced) => (consumed, produced),
                XzNextBlockResult::EndOfStream(consumed, produced) => {
                    self.within = false;
                    (consumed, produced)
                }
            };
            self.input.consume(consumed);
            if produced > 0 {
                return Ok(produced);
            }
        }
        Ok(0)
    }
}

fn refused(error: XzError) -> io::Error {
    let text = match error {
        XzError::DictionaryTooLarge(bytes) => {
            let most = limits::XZ_DICTIONARY_BYTES;
            format!("it needs a dictionary of {bytes} bytes, at most {most} are taken: those of `xz -9`")
        }
        error => format!("the xz stream is damaged or of a kind that is not taken: {error}"),
    };
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Seek as _, Write as _};
    use std::process::Command;

    use super::*;

    /// What `xz` makes of it.
    fn compressed(arguments: &[&str], content: &[u8]) -> Vec<u8> {
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(content).unwrap();
        input.rewind().unwrap();
        let output =
            Command::new("xz").args(arguments).args(["-c", "-T1"]).stdin(input).output().expect("xz is installed");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output.stdout
    }

    fn decompressed(bytes: &[u8], at_once: usize) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        XzReader::new(BufReader::with_capacity(at_once, bytes)).read_to_end(&mut content)?;
        Ok(content)
    }

    /// Some of it repeats, some does not.
    fn content() -> Vec<u8> {
        let mut state = 7_u32;
        let mut content = Vec::new();
        for number in 0..100_000_u32 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            content.extend(if number % 3 == 0 { state.to_le_bytes() } else { number.to_le_bytes() });
        }
        content
    }

    #[test]
    fn every_form_of_the_tool_is_read() {
        let content = content();
        for arguments in
            [&["-6"][..], &["-9e"], &["-0", "--check=crc32"], &["-1", "--check=none"], &["-6", "--block-size=65536"]]
        {
            let bytes = compressed(arguments, &content);
            for at_once in [1, 1000, 1 << 20] {
                assert!(decompressed(&bytes, at_once).unwrap() == content, "{arguments:?} by {at_once}");
            }
        }
        assert_eq!(decompressed(&compressed(&[], b""), 100).unwrap(), b"");
    }

    #[test]
    fn several_streams_are_read_whole_and_damage_is_told() {
        let [one, two] = [compressed(&[], b"one "), compressed(&["-0"], b"two")];
        let both = |padding: usize, end: usize| [&one[..], &vec![0; padding], &two, &vec![0; end]].concat();
        for at_once in [1, 7, 1000] {
            assert_eq!(decompressed(&both(0, 0), at_once).unwrap(), b"one two");
            assert_eq!(decompressed(&both(8, 4), at_once).unwrap(), b"one two");
            assert!(decompressed(&both(3, 0), at_once).is_err() && decompressed(&both(0, 2), at_once).is_err());
        }
        let whole = both(0, 0);
        for length in [1, one.len() - 1, one.len() + 1, whole.len() - 1] {
            assert!(decompressed(&whole[..length], 100).is_err(), "{length} bytes of {}", whole.len());
        }
        let mut damaged = one.clone();
        let middle = one.len() / 2;
        damaged[middle] ^= 1;
        assert!(decompressed(&damaged, 100).is_err());
    }

    #[test]
    fn a_dictionary_beyond_the_limit_is_refused() {
        let with = |dictionary: &str| compressed(&[&format!("--lzma2=preset=0,dict={dictionary}")], b"content");
        assert_eq!(decompressed(&with("64MiB"), 100).unwrap(), b"content");
        let refused = decompressed(&with("96MiB"), 100).unwrap_err().to_string();
        assert!(refused.contains("100663296"), "{refused}");
    }
}
