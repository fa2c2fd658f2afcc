//! Extended headers (POSIX.1-2001 pax): `length key=value\n` records that replace or add to the header's fields.

use super::TarError;
use super::reader::Timestamp;
use super::sparse::Segment;
use crate::limits;

/// What the extended header of one entry says; fields that were not given stay with the plain header.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Extended {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub modified: Option<Timestamp>,
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Option<SparseHeader>,
}

/// GNU's sparse files in pax (GNU tar manual, "Storing Sparse Files").
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SparseHeader {
    /// Format 1.0: the map precedes the data. Formats 0.0 and 0.1 have it in `map`.
    pub map_in_data: bool,
    pub real_size: Option<u64>,
    /// The entry's true name; the header has one for programs that do not know sparse files.
    pub name: Option<Vec<u8>>,
    pub map: Vec<Segment>,
    /// Format 0.0 gives offsets and lengths in records of their own.
    pending_offset: Option<u64>,
}

impl Extended {
    /// Reads all records; `offset` is where the header begins, for errors.
    pub fn parse(mut records: &[u8], offset: u64) -> Result<Self, TarError> {
        let malformed = || TarError::Extended { offset };
        let mut extended = Self::default();
        while !records.is_empty() {
            // Some writers pad with NULs.
            if records.iter().all(|byte| *byte == 0) {
                break;
            }
            let space = records.iter().take(20).position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let length = decimal(&records[..space]).and_then(|length| usize::try_from(length).ok());
            let length = length.filter(|length| *length > space + 1 && *length <= records.len());
            let (record, rest) = records.split_at(length.ok_or_else(malformed)?);
            let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            extended.take(&record[..equals], &record[equals + 1..]).ok_or_else(malformed)?;
            records = rest;
        }
        Ok(extended)
    }

    /// One record; none if its value is malformed.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.attributes.push((name.to_vec(), value.to_vec()));
            return Some(());
        }
        if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.get_or_insert_default().take(key, value);
        }
        // An empty value withdraws what a global header said; there is nothing to withdraw here.
        if value.is_empty() {
            return Some(());
        }
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            // As the header's own sizes, so that sums with it cannot overflow.
            b"size" => self.size = Some(decimal(value).filter(|size| i64::try_from(*size).is_ok())?),
            b"uid" => self.uid = Some(u32::try_from(decimal(value)?).ok()?),
            b"gid" => self.gid = Some(u32::try_from(decimal(value)?).ok()?),
            b"mtime" => self.modified = Some(timestamp(value)?),
            _ => {}
        }
        Some(())
    }
}

impl SparseHeader {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"major" => self.map_in_data = decimal(value)? >= 1,
            b"realsize" | b"size" => self.real_size = Some(decimal(value)?),
            b"name" => self.name = Some(value.to_vec()),
            b"offset" => self.pending_offset = Some(decimal(value)?),
            b"numbytes" => {
                let offset = self.pending_offset.take()?;
                self.push(Segment { offset, length: decimal(value)? })?;
            }
            b"map" => {
                let mut numbers = value.split(|byte| *byte == b',').map(decimal);
                while let Some(offset) = numbers.next() {
                    self.push(Segment { offset: offset?, length: numbers.next()?? })?;
                }
            }
            _ => {}
        }
        Some(())
    }

    fn push(&mut self, segment: Segment) -> Option<()> {
        self.map.push(segment);
        (self.map.len() <= limits::SPARSE_SEGMENTS).then_some(())
    }
}

/// A number without sign.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Seconds since 1970 with a fraction of any length; negative is before.
fn timestamp(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or(b"");
    let nanoseconds = (0..9).try_fold(0_u32, |value, place| match fraction.get(place) {
        Some(digit @ b'0'..=b'9') => Some(value * 10 + u32::from(digit - b'0')),
        Some(_) => None,
        None => Some(value * 10),
    })?;
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds: 0 },
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content: &[u8]) -> Vec<u8> {
        // The length counts itself.
        let length = |digits: usize| content.len() + digits + 2;
        let digits = (1..8).find(|digits| length(*digits).to_string().len() == *digits).unwrap();
        [format!("{} ", length(digits)).as_bytes(), content, b"\n"].concat()
    }

    #[test]
    fn records_replace_fields() {
        let records =
            [&b"path=a\nb/c=d"[..], b"mtime=1.000000005", b"SCHILY.xattr.user.a=b\0", b"uid=70000", b"other="];
        let records: Vec<u8> = records.iter().flat_map(|content| record(content)).collect();
        let extended = Extended::parse(&records, 0).unwrap();
        assert_eq!(extended.path.unwrap(), b"a\nb/c=d");
        assert_eq!(extended.modified.unwrap(), Timestamp { seconds: 1, nanoseconds: 5 });
        assert_eq!(extended.attributes, [(b"user.a".to_vec(), b"b\0".to_vec())]);
        assert_eq!(extended.uid, Some(70000));
    }

    #[test]
    fn malformed_records_are_refused() {
        for records in [
            &b"x"[..],
            b"5 a=b",
            b"6 a=bX",
            b"99 a=b\n",
            b"0 a=b\n",
            b"2 \n",
            b"10 size=-1\n",
            b"9 uid=x9\n",
            b"99999999999999999999999 a=b\n",
            b"24 GNU.sparse.numbytes=1\n",
            b"21 GNU.sparse.map=1,\n",
        ] {
            assert!(Extended::parse(records, 0).is_err(), "{:?}", String::from_utf8_lossy(records));
        }
    }

    #[test]
    fn times_before_1970_are_read() {
        assert_eq!(timestamp(b"-1.25").unwrap(), Timestamp { seconds: -2, nanoseconds: 750_000_000 });
        assert_eq!(timestamp(b"-3").unwrap(), Timestamp { seconds: -3, nanoseconds: 0 });
        assert_eq!(timestamp(b"1.1234567899").unwrap(), Timestamp { seconds: 1, nanoseconds: 123_456_789 });
        assert!(timestamp(b"1.x").is_none());
    }
}
