//! Sparse files: the map of what is stored, in GNU's old header form and in pax format 1.0's data form.

use std::io::BufRead;

use super::TarError;
use super::header::{self, BLOCK, Header};
use super::reader::read_block;
use crate::limits;

/// A run of stored bytes; everything between runs is a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it lies in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// Checks that the map is in order, inside the file, and accounts for exactly the stored bytes.
pub fn check(map: &[Segment], stored: u64, real_size: u64, offset: u64) -> Result<(), TarError> {
    let malformed = || TarError::Sparse { offset };
    let mut end = 0_u64;
    let mut sum = 0_u64;
    for segment in map {
        if segment.offset < end {
            return Err(malformed());
        }
        end = segment.offset.checked_add(segment.length).ok_or_else(malformed)?;
        sum = sum.checked_add(segment.length).ok_or_else(malformed)?;
    }
    if end > real_size || sum != stored { Err(malformed()) } else { Ok(()) }
}

/// The map of a GNU header (type `S`), with the extension blocks that follow it. Returns it and how many blocks
/// were read.
pub fn old_format<R: BufRead>(header: &Header, input: &mut R, offset: u64) -> Result<(Vec<Segment>, u64), TarError> {
    let mut map = Vec::new();
    let mut blocks = 0;
    let mut more = take_pairs(&header.0[386..482], &mut map, offset)? && header.0[482] != 0;
    while more {
        let block = read_block(input)?.ok_or(TarError::Truncated { place: "a sparse map" })?;
        blocks += 1;
        more = take_pairs(&block[..504], &mut map, offset)? && block[504] != 0;
    }
    Ok((map, blocks))
}

/// Reads pairs of 12-byte numbers; an empty one ends the list.
fn take_pairs(bytes: &[u8], map: &mut Vec<Segment>, offset: u64) -> Result<bool, TarError> {
    let malformed = || TarError::Sparse { offset };
    for pair in bytes.chunks_exact(24) {
        let (position, length) = pair.split_at(12);
        if position[0] == 0 {
            return Ok(false);
        }
        let value = |bytes| header::number(bytes).and_then(|number| u64::try_from(number).ok()).ok_or_else(malformed);
        map.push(Segment { offset: value(position)?, length: value(length)? });
        if map.len() > limits::SPARSE_SEGMENTS {
            return Err(malformed());
        }
    }
    Ok(true)
}

/// The map of pax format 1.0: decimal numbers, a line each, padded to a block. Returns it and its length in bytes.
pub fn data_format<R: BufRead>(input: &mut R, stored: u64, offset: u64) -> Result<(Vec<Segment>, u64), TarError> {
    let malformed = || TarError::Sparse { offset };
    let mut lines = Lines { input, block: [0; BLOCK], position: BLOCK, read: 0, stored };
    let count = lines.number()?.and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|count| *count <= limits::SPARSE_SEGMENTS);
    let mut map = Vec::new();
    for _ in 0..count.ok_or_else(malformed)? {
        let position = lines.number()?.ok_or_else(malformed)?;
        let length = lines.number()?.ok_or_else(malformed)?;
        map.push(Segment { offset: position, length });
    }
    Ok((map, lines.read))
}

struct Lines<'a, R> {
    input: &'a mut R,
    block: [u8; BLOCK],
    position: usize,
    read: u64,
    stored: u64,
}

impl<R: BufRead> Lines<'_, R> {
    /// The next line's number; none if it is malformed or leaves the entry.
    fn number(&mut self) -> Result<Option<u64>, TarError> {
        let mut value = None;
        loop {
            if self.position == BLOCK {
                if self.read + BLOCK as u64 > self.stored {
                    return Ok(None);
                }
                self.block = read_block(self.input)?.ok_or(TarError::Truncated { place: "a sparse map" })?;
                self.read += BLOCK as u64;
                self.position = 0;
            }
            let byte = self.block[self.position];
            self.position += 1;
            match byte {
                b'\n' => return Ok(value),
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    let next = value.unwrap_or(0_u64).checked_mul(10).and_then(|value| value.checked_add(digit));
                    let Some(next) = next else { return Ok(None) };
                    value = Some(next);
                }
                _ => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_must_be_ordered_and_complete() {
        let map = [Segment { offset: 0, length: 5 }, Segment { offset: 10, length: 5 }];
        assert!(check(&map, 10, 15, 0).is_ok());
        assert!(check(&map, 11, 15, 0).is_err());
        assert!(check(&map, 10, 14, 0).is_err());
        assert!(check(&[map[1], map[0]], 10, 15, 0).is_err());
        assert!(check(&[Segment { offset: u64::MAX, length: 2 }], 2, 15, 0).is_err());
    }

    #[test]
    fn a_data_map_stays_inside_its_entry() {
        let mut block = [0; BLOCK];
        block[..12].copy_from_slice(b"1\n100\n4096\n\0");
        let (map, read) = data_format(&mut &block[..], 512, 0).unwrap();
        assert_eq!((map, read), (vec![Segment { offset: 100, length: 4096 }], 512));
        assert!(data_format(&mut &block[..], 511, 0).is_err());
        block[..12].copy_from_slice(b"99999999\n1\n\0");
        assert!(data_format(&mut &block[..], 512, 0).is_err());
    }
}
