//! GUID partition tables: read to find the state partition, written to let it grow.
//!
//! Writing keeps the disk bootable at every point: the backup copy is complete on the disk before the primary one is
//! touched, so that one of the two always holds together (UEFI specification 2.10, section 5.3). The gptman crate
//! writes the primary first and panics on some inconsistent tables, which PID 1 may not.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// In bytes; larger ones are legal and unknown.
const HEADER: usize = 92;
/// The most entry bytes that are read: 16 times the usual 128 entries of 128 bytes.
const MAXIMUM_ENTRIES: u64 = 16 * 128 * 128;

/// Why a table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// The disk could not be read or written.
    #[error("{operation} the partition table")]
    Io {
        /// `read` or `write`.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Neither copy is one.
    #[error("neither copy of the partition table is whole")]
    Invalid,
    /// There is no such partition.
    #[error("there is no partition {number}")]
    NoPartition {
        /// From 1.
        number: u32,
    },
    /// Another partition begins behind it.
    #[error("partition {number} is not the last one on the disk")]
    NotLast {
        /// From 1.
        number: u32,
    },
}

/// A partition's place, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub length: u64,
}

/// A table in memory.
#[derive(Clone, Debug)]
pub struct Gpt {
    sector: u64,
    header: Vec<u8>,
    entries: Vec<u8>,
    entry_size: usize,
}

impl Gpt {
    /// Reads the primary copy, or the backup at the disk's end if that one is damaged.
    ///
    /// `sector` is the disk's logical sector size, `size` the disk's size, both in bytes.
    pub fn read(disk: &File, sector: u64, size: u64) -> Result<Self, GptError> {
        let last = (size / sector).saturating_sub(1);
        Self::read_copy(disk, sector, 1).or_else(|_| Self::read_copy(disk, sector, last))
    }

    fn read_copy(disk: &File, sector: u64, lba: u64) -> Result<Self, GptError> {
        let read = |buffer: &mut Vec<u8>, lba: u64| {
            let offset = lba.checked_mul(sector).ok_or(GptError::Invalid)?;
            disk.read_exact_at(buffer, offset).map_err(|source| GptError::Io { operation: "read", source })
        };
        let mut header = vec![0; HEADER];
        read(&mut header, lba)?;
        let sum = u32_at(&header, 16);
        put(&mut header, 16, &[0; 4]);
        if header.get(..8) != Some(b"EFI PART")
            || u32_at(&header, 12) as usize != HEADER
            || crc32(&header) != sum
            || u64_at(&header, 24) != lba
        {
            return Err(GptError::Invalid);
        }
        let entry_size = u32_at(&header, 84);
        let length = u64::from(entry_size) * u64::from(u32_at(&header, 80));
        if entry_size < 128 || length > MAXIMUM_ENTRIES {
            return Err(GptError::Invalid);
        }
        let mut entries = vec![0; length as usize];
        read(&mut entries, u64_at(&header, 72))?;
        if crc32(&entries) != u32_at(&header, 88) {
            return Err(GptError::Invalid);
        }
        Ok(Self { sector, header, entries, entry_size: entry_size as usize })
    }

    fn entry(&self, number: u32) -> Option<&[u8]> {
        self.entries.chunks_exact(self.entry_size).nth(number.checked_sub(1)? as usize)
    }

    /// A partition's type in the usual notation, lower case; partitions count from 1.
    pub fn type_of(&self, number: u32) -> Option<String> {
        Some(guid(self.entry(number)?.get(..16)?)).filter(|text| text != "00000000-0000-0000-0000-000000000000")
    }

    /// A partition's place.
    pub fn extent(&self, number: u32) -> Option<Extent> {
        self.type_of(number)?;
        let entry = self.entry(number)?;
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        let sectors = last.checked_sub(first)?.checked_add(1)?;
        Some(Extent { start: first.checked_mul(self.sector)?, length: sectors.checked_mul(self.sector)? })
    }

    /// Lets the partition, which must be the last, reach as far as a disk of `size` bytes allows, aligned to 1 MiB.
    /// Says whether that changed anything; a disk that has shrunk changes nothing.
    pub fn grow(&mut self, number: u32, size: u64) -> Result<bool, GptError> {
        let before = self.extent(number).ok_or(GptError::NoPartition { number })?;
        let count = u32::try_from(self.entries.len() / self.entry_size).unwrap_or(0);
        let starts = (1..=count).filter(|other| self.type_of(*other).is_some()).filter_map(|other| self.extent(other));
        if starts.into_iter().any(|other| other.start > before.start) {
            return Err(GptError::NotLast { number });
        }
        let entry_sectors = (self.entries.len() as u64).div_ceil(self.sector);
        let last_lba = (size / self.sector).saturating_sub(1);
        let last_usable = last_lba.saturating_sub(entry_sectors + 1);
        let alignment = (1 << 20) / self.sector;
        let end = (last_usable + 1) / alignment * alignment;
        if end * self.sector <= before.start.saturating_add(before.length) {
            return Ok(false);
        }
        let offset = (number as usize - 1) * self.entry_size;
        put(&mut self.entries, offset + 40, &(end - 1).to_le_bytes());
        put(&mut self.header, 48, &last_usable.to_le_bytes());
        Ok(true)
    }

    /// Writes both copies for a disk of `size` bytes, the backup first; each is on the disk before the next is begun.
    pub fn write(&self, disk: &File, size: u64) -> Result<(), GptError> {
        let last = (size / self.sector).saturating_sub(1);
        let entry_sectors = (self.entries.len() as u64).div_ceil(self.sector);
        for (own, other, entries) in [(last, 1, last.saturating_sub(entry_sectors)), (1, last, 2)] {
            let mut header = self.header.clone();
            put(&mut header, 24, &own.to_le_bytes());
            put(&mut header, 32, &other.to_le_bytes());
            put(&mut header, 72, &entries.to_le_bytes());
            put(&mut header, 88, &crc32(&self.entries).to_le_bytes());
            put(&mut header, 16, &[0; 4]);
            let sum = crc32(&header);
            put(&mut header, 16, &sum.to_le_bytes());
            disk.write_all_at(&self.entries, entries * self.sector)
                .and_then(|()| disk.write_all_at(&header, own * self.sector))
                .and_then(|()| disk.sync_all())
                .map_err(|source| GptError::Io { operation: "write", source })?;
        }
        Ok(())
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..offset + 4).and_then(|slice| slice.try_into().ok()).map(u32::from_le_bytes).unwrap_or(0)
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes.get(offset..offset + 8).and_then(|slice| slice.try_into().ok()).map(u64::from_le_bytes).unwrap_or(0)
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(offset..offset + value.len()) {
        place.copy_from_slice(value);
    }
}

/// The mixed-endian bytes of a GUID in the usual notation (UEFI specification, appendix A).
fn guid(bytes: &[u8]) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::new();
    for (position, index) in ORDER.iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", bytes.get(*index).copied().unwrap_or(0)));
    }
    text
}

/// CRC-32 as in Ethernet and zip (UEFI specification, 5.3.2). Bit by bit: a table is 17 KB at most, read once a boot.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

#[cfg(test)]
#[path = "gpt/tests.rs"]
mod tests;
