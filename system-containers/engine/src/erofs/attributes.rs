//! The extended attributes behind an inode: a header of 12 bytes, of which nothing is used here, and one entry after the
//! other, each at a multiple of 4 bytes.

use super::format::field;

/// The first words of names, by the numbers that stand for them. What is complete in itself comes first.
const PREFIXES: [(u8, &[u8]); 5] = [
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (1, b"user."),
    (4, b"trusted."),
    (6, b"security."),
];

const HEADER_BYTES: usize = 12;
const ENTRY_BYTES: usize = 4;

/// The most bytes of an inode's attributes. ext4 has one block for them; Linux takes no value above 64 KiB.
pub const MOST_BYTES: usize = 64 << 10;

/// Names and values.
pub type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// The area of these attributes; none if they are too large, or one's name has a prefix that EROFS does not know.
pub fn encode<'a>(attributes: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Option<Vec<u8>> {
    let mut area = Vec::new();
    for (name, value) in attributes {
        if area.is_empty() {
            area.resize(HEADER_BYTES, 0);
        }
        let found = PREFIXES.iter().find_map(|(number, prefix)| Some((*number, name.strip_prefix(*prefix)?)));
        let (number, rest) = found?;
        area.extend_from_slice(&[u8::try_from(rest.len()).ok()?, number]);
        area.extend_from_slice(&u16::try_from(value.len()).ok()?.to_le_bytes());
        area.extend_from_slice(rest);
        area.extend_from_slice(value);
        area.resize(area.len().next_multiple_of(4), 0);
        if area.len() > MOST_BYTES {
            return None;
        }
    }
    Some(area)
}

/// The attributes of an area; none if it is damaged.
pub fn parse(area: &[u8]) -> Option<Attributes> {
    let mut attributes = Vec::new();
    let mut at = HEADER_BYTES;
    while at + ENTRY_BYTES <= area.len() {
        let [name_length, number] = field(area, at)?;
        let value_length = usize::from(u16::from_le_bytes(field(area, at + 2)?));
        let (_, prefix) = PREFIXES.iter().find(|(known, _)| *known == number)?;
        let name = at + ENTRY_BYTES;
        let value = name + usize::from(name_length);
        let name = [prefix, area.get(name..value)?].concat();
        attributes.push((name, area.get(value..value + value_length)?.to_vec()));
        at = (value + value_length).next_multiple_of(4);
    }
    Some(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let attributes: Vec<(&[u8], &[u8])> = vec![
            (b"user.note", b"a\0\nb"),
            (b"security.capability", &[1; 20]),
            (b"trusted.overlay.opaque", b"y"),
            (b"system.posix_acl_access", b""),
            (b"system.posix_acl_default", b"abc"),
        ];
        let area = encode(attributes.clone()).unwrap();
        let owned = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
        assert_eq!(parse(&area), Some(attributes.into_iter().map(owned).collect()));
        assert_eq!(encode([]), Some(Vec::new()));
        assert_eq!(parse(&[]), Some(Vec::new()));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(encode([(&b"other.x"[..], &b""[..])]), None);
        assert_eq!(encode([(&[&b"user."[..], &[b'n'; 256]].concat()[..], &b""[..])]), None);
        assert_eq!(encode([(&b"user.x"[..], &vec![0; MOST_BYTES][..])]), None);
        let mut area = encode([(&b"user.note"[..], &b"text"[..])]).unwrap();
        area[14] = 200;
        assert_eq!(parse(&area), None);
    }
}
