//! The frames of a zstd stream on their way to the decompressor (RFC 8878, section 3.1): somebody hears of each frame's window
//! before the decompressor takes memory for it. A stream may have frames of every kind: zstd:chunked begins with small ones.

use std::io::{self, BufRead, Read};

/// Hears of a window, in bytes, and may wait or refuse.
pub type Gate<'a> = Box<dyn FnMut(u64) -> io::Result<()> + Send + 'a>;

/// Passes a stream on.
pub struct Frames<'a, R> {
    inner: R,
    walk: Walk<'a>,
    /// How much of what is read next has been looked at.
    seen: usize,
}

impl<'a, R: BufRead> Frames<'a, R> {
    /// From its beginning.
    pub fn new(inner: R, gate: Gate<'a>) -> Self {
        let walk = Walk { gate, gathered: Vec::new(), left: 0, expected: Expected::Frame };
        Self { inner, walk, seen: 0 }
    }

    /// The stream, wherever the reader has left it.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: BufRead> Read for Frames<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        crate::buffered::read(self, buffer)
    }
}

impl<R: BufRead> BufRead for Frames<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let buffer = self.inner.fill_buf()?;
        if self.seen == 0 {
            self.walk.pass(buffer)?;
            self.seen = buffer.len();
        }
        Ok(&buffer[..buffer.len().min(self.seen)])
    }

    fn consume(&mut self, count: usize) {
        self.seen -= count.min(self.seen);
        self.inner.consume(count);
    }
}

/// Where in the stream it is.
struct Walk<'a> {
    gate: Gate<'a>,
    /// The beginning of what is expected.
    gathered: Vec<u8>,
    /// How many bytes there are before it.
    left: u64,
    expected: Expected,
}

#[derive(Clone, Copy)]
enum Expected {
    /// A frame's header.
    Frame,
    /// A block's, in a frame with or without a checksum.
    Block { checksum: bool },
    /// It is no zstd: the decompressor says so.
    Nothing,
}

impl Walk<'_> {
    fn pass(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            let passed = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= passed as u64;
            let Some((first, rest)) = bytes[passed..].split_first() else { return Ok(()) };
            self.gathered.push(*first);
            bytes = rest;
            match self.expected {
                Expected::Frame => self.frame()?,
                Expected::Block { checksum } => self.block(checksum),
                Expected::Nothing => {
                    self.gathered.clear();
                    return Ok(());
                }
            }
        }
    }

    fn frame(&mut self) -> io::Result<()> {
        match header(&self.gathered) {
            Header::Incomplete => return Ok(()),
            Header::Skippable(length) => self.left = length,
            Header::Frame { window, checksum } => {
                (self.gate)(window)?;
                self.expected = Expected::Block { checksum };
            }
            Header::Unknown => self.expected = Expected::Nothing,
        }
        self.gathered.clear();
        Ok(())
    }

    fn block(&mut self, checksum: bool) {
        let [first, second, third] = *self.gathered else { return };
        let header = u32::from_le_bytes([first, second, third, 0]);
        // A block of one byte that repeats says how often.
        self.left = if header >> 1 & 3 == 1 { 1 } else { u64::from(header >> 3) };
        if header & 1 == 1 {
            self.left += if checksum { 4 } else { 0 };
            self.expected = Expected::Frame;
        }
        self.gathered.clear();
    }
}

/// What a frame begins with.
#[derive(Debug, PartialEq, Eq)]
enum Header {
    /// Bytes are missing.
    Incomplete,
    /// So many bytes that mean nothing to a decompressor.
    Skippable(u64),
    /// Content.
    Frame { window: u64, checksum: bool },
    /// No frame.
    Unknown,
}

fn header(bytes: &[u8]) -> Header {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    match number(0) {
        None => return Header::Incomplete,
        Some(0xfd2f_b528) => {}
        Some(0x184d_2a50..=0x184d_2a5f) => {
            return number(4).map_or(Header::Incomplete, |length| Header::Skippable(length.into()));
        }
        Some(_) => return Header::Unknown,
    }
    let Some(descriptor) = bytes.get(4) else { return Header::Incomplete };
    let is_one_segment = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = if descriptor >> 6 == 0 { usize::from(is_one_segment) } else { 1 << (descriptor >> 6) };
    let before = 5 + usize::from(!is_one_segment) + dictionary;
    let Some(content) = bytes.get(before..before + size) else { return Header::Incomplete };
    let window = match bytes.get(5) {
        Some(window) if !is_one_segment => (8 + u64::from(window & 7)) << (7 + (window >> 3)),
        _ => {
            // The whole content. A size of two bytes counts from 256 on.
            let size = content.iter().rev().fold(0, |size, byte| size << 8 | u64::from(*byte));
            if content.len() == 2 { size + 256 } else { size }
        }
    };
    Header::Frame { window, checksum: descriptor & 4 != 0 }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// The windows of a stream's frames, if it comes in pieces of so many bytes.
    fn windows(stream: &[u8], at_once: usize) -> Vec<u64> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&seen);
        let gate = Box::new(move |window| {
            heard.lock().unwrap().push(window);
            Ok(())
        });
        let mut frames = Frames::new(io::BufReader::with_capacity(at_once, stream), gate);
        let mut passed = Vec::new();
        frames.read_to_end(&mut passed).unwrap();
        assert!(passed == stream);
        drop(frames);
        Arc::into_inner(seen).unwrap().into_inner().unwrap()
    }

    fn frame(log: u32, pledged: Option<u64>, checksum: bool, content: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.include_checksum(checksum).unwrap();
        encoder.include_contentsize(pledged.is_some()).unwrap();
        encoder.set_pledged_src_size(pledged).unwrap();
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_frame_is_told_before_it_comes() {
        let noise: Vec<u8> =
            (0..600_000_u32).flat_map(|number| (number.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
        let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"\x28\xb5\x2f\xfd\0"].concat();
        let stream = [
            frame(20, None, true, &noise),
            skippable,
            frame(25, None, false, &vec![7; 3_000_000]),
            // The window is then the whole content, in a field of one, two and four bytes.
            frame(27, Some(200), false, &noise[..200]),
            frame(27, Some(1000), true, &noise[..1000]),
            frame(27, Some(70_000), true, &noise[..70_000]),
            frame(10, None, true, b""),
        ];
        let expected = [1 << 20, 1 << 25, 200, 1000, 70_000, 1 << 10];
        for at_once in [1, 2, 7, 1000, 1 << 20] {
            assert_eq!(windows(&stream.concat(), at_once), expected, "{at_once}");
        }
        assert_eq!(windows(b"no zstd at all", 5), [0; 0]);
    }

    #[test]
    fn a_refused_frame_does_not_reach_the_decompressor() {
        let stream = [frame(10, None, true, b"first"), frame(25, None, true, b"second")].concat();
        let gate = Box::new(|window| if window > 1 << 20 { Err(io::Error::other("too much")) } else { Ok(()) });
        let mut frames = Frames::new(io::BufReader::with_capacity(8, &*stream), gate);
        let mut passed = Vec::new();
        assert_eq!(frames.read_to_end(&mut passed).unwrap_err().to_string(), "too much");
        let first = stream.len() - frame(25, None, true, b"second").len();
        assert!(passed.len() <= first + 5, "{} of {first}", passed.len());
    }
}
