//! One 512-byte header block: checksum, numbers and names (POSIX.1-1988 ustar, GNU tar manual "Basic Tar Format").

/// The size of a block in bytes.
pub const BLOCK: usize = 512;

/// A header block.
pub struct Header(pub [u8; BLOCK]);

/// Where a field lies in the block.
#[derive(Clone, Copy)]
pub struct Field(pub usize, pub usize);

pub const NAME: Field = Field(0, 100);
pub const MODE: Field = Field(100, 8);
pub const UID: Field = Field(108, 8);
pub const GID: Field = Field(116, 8);
pub const SIZE: Field = Field(124, 12);
pub const MTIME: Field = Field(136, 12);
const CHECKSUM: Field = Field(148, 8);
pub const LINK: Field = Field(157, 100);
pub const DEVICE_MAJOR: Field = Field(329, 8);
pub const DEVICE_MINOR: Field = Field(337, 8);
const PREFIX: Field = Field(345, 155);
/// GNU's old sparse format: the size of the file with its holes.
pub const SPARSE_REAL_SIZE: Field = Field(483, 12);

/// Whether this block could begin a tar archive.
pub fn is_header(block: &[u8]) -> bool {
    block.first_chunk::<BLOCK>().is_some_and(|block| Header(*block).checksum_matches())
}

impl Header {
    /// The bytes of a field.
    pub fn bytes(&self, Field(offset, length): Field) -> &[u8] {
        &self.0[offset..offset + length]
    }

    /// The bytes of a field up to its NUL.
    pub fn text(&self, field: Field) -> &[u8] {
        let bytes = self.bytes(field);
        bytes.split(|byte| *byte == 0).next().unwrap_or(bytes)
    }

    /// The type flag.
    pub fn kind(&self) -> u8 {
        self.0[156]
    }

    /// Two of these end an archive.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Whether the checksum is that of the block, as unsigned or (some old writers) signed bytes.
    pub fn checksum_matches(&self) -> bool {
        let Some(expected) = number(self.bytes(CHECKSUM)) else { return false };
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| i64::from(*byte)).sum::<i64>();
        // The field itself counts as spaces.
        let unsigned = sum(&self.0) - sum(self.bytes(CHECKSUM)) + 8 * i64::from(b' ');
        if expected == unsigned {
            return true;
        }
        let high = |bytes: &[u8]| bytes.iter().filter(|byte| **byte >= 0x80).count() as i64;
        expected == unsigned - 256 * (high(&self.0) - high(self.bytes(CHECKSUM)))
    }

    /// The whole name: ustar's prefix belongs to it, GNU uses the same bytes otherwise.
    pub fn name(&self) -> Vec<u8> {
        let name = self.text(NAME);
        let is_ustar = &self.0[257..263] == b"ustar\0";
        let prefix = self.text(PREFIX);
        if is_ustar && !prefix.is_empty() { [prefix, b"/", name].concat() } else { name.to_vec() }
    }

    /// A numeric field; none if it is not a number.
    pub fn number(&self, field: Field) -> Option<i64> {
        number(self.bytes(field))
    }
}

/// Octal digits between spaces and NULs, or GNU's base-256 with the first bit set. An empty field is 0.
pub fn number(bytes: &[u8]) -> Option<i64> {
    let (first, rest) = bytes.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement over the rest; bit 6 of the first byte is the sign.
        let sign = if first & 0x40 != 0 { -1_i64 } else { 0 };
        let start = (sign << 6) | i64::from(first & 0x3f);
        return rest.iter().try_fold(start, |value, byte| value.checked_mul(256).map(|value| value | i64::from(*byte)));
    }
    let digits: &[u8] = bytes.trim_ascii_start();
    let end = digits.iter().position(|byte| *byte == 0 || *byte == b' ').unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_count_bytes_with_a_sign_or_without() {
        let matches = |sum: u32| {
            let mut block = [0; BLOCK];
            block[..14].copy_from_slice("äézzzzzzzzzz".as_bytes());
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            block[155] = 0xff;
            Header(block).checksum_matches()
        };
        // The field itself counts as eight spaces.
        let unsigned = 0xc3 + 0xa4 + 0xc3 + 0xa9 + 10 * 0x7a + 8 * 0x20;
        assert!(matches(unsigned) && matches(unsigned - 4 * 256));
        assert!([1, 256, 3 * 256, 5 * 256].iter().all(|less| !matches(unsigned - less)));
    }

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x01\0\0\0\0"), Some(1 << 32));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), Some(-1));
        assert_eq!(number(b"00009\0"), None);
        assert_eq!(number(b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
        assert_eq!(number(b"-1\0"), None);
    }
}
