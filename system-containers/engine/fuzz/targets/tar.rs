//! The tar reader: it ends, takes nothing for data that is not there, and its sparse maps stay within their files.
#![no_main]

use std::io::Read as _;

use berth_engine::tar::{Kind, Reader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &[u8])| {
    let (read_data, bytes) = input;
    let mut reader = Reader::new(bytes);
    let mut end = 0;
    while let Ok(Some(entry)) = reader.next_entry() {
        assert!(entry.offset >= end + 512, "each entry has a header");
        end = entry.offset;
        assert!(entry.mode <= 0o7777 && entry.modified.nanoseconds < 1_000_000_000);
        assert!(entry.kind == Kind::File || (entry.size, entry.stored) == (0, 0));
        let segments = entry.segments.iter().flatten();
        let mut reached = 0;
        for segment in segments {
            assert!(segment.offset >= reached && segment.length <= entry.size - segment.offset);
            reached = segment.offset + segment.length;
        }
        if read_data {
            let mut data = Vec::new();
            match reader.data().read_to_end(&mut data) {
                Ok(count) => {
                    assert_eq!(count as u64, entry.stored);
                    let start = usize::try_from(entry.offset).expect("it is in memory");
                    assert_eq!(data, bytes[start..start + count]);
                }
                Err(_) => assert!(entry.offset + entry.stored > bytes.len() as u64),
            }
        }
    }
});
