//! The content of a directory: blocks, each with entries of 12 bytes and then their names, all in the order of names.

use super::format::{Kind, field};
use super::{BLOCK, Place};

/// The bytes of an entry without its name.
pub const ENTRY_BYTES: usize = 12;

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub name: &'a [u8],
    pub place: Place,
    pub kind: Kind,
}

/// How large a directory with names of these lengths is, in bytes.
pub fn size(lengths: impl Iterator<Item = usize>) -> u64 {
    let (mut whole, mut taken) = (0_u64, 0);
    for length in lengths {
        let bytes = ENTRY_BYTES + length;
        if taken + bytes > BLOCK {
            whole += BLOCK as u64;
            taken = 0;
        }
        taken += bytes;
    }
    whole + taken as u64
}

/// A directory's content, block by block; the last one may be short.
pub fn blocks<'a>(entries: impl Iterator<Item = Entry<'a>>) -> impl Iterator<Item = Vec<u8>> {
    let mut entries = entries.peekable();
    std::iter::from_fn(move || {
        let mut taken = 0;
        let mut block: Vec<Entry<'a>> = Vec::new();
        while let Some(entry) = entries.next_if(|entry| taken + ENTRY_BYTES + entry.name.len() <= BLOCK) {
            taken += ENTRY_BYTES + entry.name.len();
            block.push(entry);
        }
        (!block.is_empty()).then(|| encode(&block))
    })
}

fn encode(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK);
    let mut name_at = entries.len() * ENTRY_BYTES;
    for entry in entries {
        bytes.extend_from_slice(&entry.place.0.to_le_bytes());
        bytes.extend_from_slice(&u16::try_from(name_at).unwrap_or_default().to_le_bytes());
        bytes.extend_from_slice(&[entry.kind as u8, 0]);
        name_at += entry.name.len();
    }
    entries.iter().for_each(|entry| bytes.extend_from_slice(entry.name));
    bytes
}

/// The entries of a block; none if it is damaged.
pub fn parse(block: &[u8]) -> Option<Vec<Entry<'_>>> {
    let first = usize::from(u16::from_le_bytes(field(block, 8)?));
    if first == 0 || !first.is_multiple_of(ENTRY_BYTES) || first > block.len() {
        return None;
    }
    let begin = |index: usize| field(block, index * ENTRY_BYTES + 8).map(|at| usize::from(u16::from_le_bytes(at)));
    let count = first / ENTRY_BYTES;
    let mut entries = Vec::with_capacity(count);
    for index in 0..count {
        let end = if index + 1 < count { begin(index + 1)? } else { block.len() };
        let name = block.get(begin(index)?..end)?;
        // A block that is not full ends with a NUL.
        let name = name.split(|byte| *byte == 0).next().filter(|name| !name.is_empty())?;
        let place = Place(u64::from_le_bytes(field(block, index * ENTRY_BYTES)?));
        entries.push(Entry { name, place, kind: Kind::of_number(*block.get(index * ENTRY_BYTES + 10)?)? });
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_were_written() {
        let names: Vec<Vec<u8>> =
            (0..2000).map(|number| format!("{number:05}{}", "n".repeat(number % 250)).into()).collect();
        let entry = |name| Entry { name, place: Place(u64::from(u32::MAX) + 5), kind: Kind::Fifo };
        let written: Vec<Vec<u8>> = blocks(names.iter().map(|name| entry(&**name))).collect();
        let read: Vec<Entry<'_>> = written.iter().flat_map(|block| parse(block).unwrap()).collect();
        assert!(read.iter().zip(&names).all(|(read, name)| *read == entry(name)) && read.len() == names.len());
        let last = written.last().unwrap().len() as u64;
        assert_eq!(size(names.iter().map(Vec::len)), (written.len() as u64 - 1) * BLOCK as u64 + last);
    }

    #[test]
    fn a_block_is_filled_to_its_end() {
        let names: Vec<String> = (0..17).map(|number| format!("{number:0>244}")).collect();
        for (count, blocks_of) in [(16, vec![BLOCK]), (17, vec![BLOCK, 256])] {
            let written = blocks(names[..count].iter().map(|name| Entry {
                name: name.as_bytes(),
                place: Place(1),
                kind: Kind::File,
            }));
            assert_eq!(written.map(|block| block.len()).collect::<Vec<_>>(), blocks_of);
            assert_eq!(size(names[..count].iter().map(String::len)), blocks_of.iter().sum::<usize>() as u64);
        }
    }

    #[test]
    fn a_damaged_block_is_noticed() {
        let name = &b"name"[..];
        let good = blocks([Entry { name, place: Place(1), kind: Kind::File }].into_iter()).next().unwrap();
        assert!(parse(&good).is_some());
        for (at, value) in [(8, 0), (8, 13), (9, 0xff), (10, 99)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(parse(&bad), None, "{at}");
        }
        assert_eq!(parse(&[]), None);
    }
}
