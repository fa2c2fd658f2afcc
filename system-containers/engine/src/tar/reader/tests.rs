use super::*;

/// A header with a checksum, and data behind it.
fn entry(kind: u8, name: &[u8], data: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; BLOCK];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    block[148..156].fill(b' ');
    block[156] = kind;
    block[257..262].copy_from_slice(b"ustar");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut bytes = [&block, data].concat();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// The kind, path and content of all entries.
fn read(archive: &[u8]) -> Vec<(Kind, String, String)> {
    let mut reader = Reader::new(archive);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut content = String::new();
        if entry.kind == Kind::File {
            reader.data().read_to_string(&mut content).unwrap();
        }
        found.push((entry.kind, String::from_utf8(entry.path).unwrap(), content));
    }
    found
}

#[test]
fn a_name_that_is_cut_off_behind_a_slash_is_no_directory() {
    let path = format!("{}/file", "d".repeat(99));
    let cut = &path.as_bytes()[..100];
    assert!(cut.ends_with(b"/"));
    let pax = entry(b'x', b"pax", format!("{} path={path}\n", path.len() + 10).as_bytes());
    let long = entry(b'L', b"././@LongLink", format!("{path}\0").as_bytes());
    let next = entry(b'0', b"next", b"more");
    for (how, announced) in [("pax", pax), ("GNU", long)] {
        for kind in [b'0', 0] {
            for content in ["", "some content"] {
                let archive = [announced.clone(), entry(kind, cut, content.as_bytes()), next.clone()].concat();
                let expected = [
                    (Kind::File, path.clone(), content.to_owned()),
                    (Kind::File, "next".to_owned(), "more".to_owned()),
                ];
                assert_eq!(read(&archive), expected, "{how} {kind} {content:?}");
            }
        }
    }
}

#[test]
fn a_directory_of_before_posix_is_told_by_its_whole_name() {
    let path = format!("{}/directory/", "d".repeat(99));
    let cut = &path.as_bytes()[..100];
    let pax = entry(b'x', b"pax", format!("{} path={path}\n", path.len() + 10).as_bytes());
    let archive = [pax, entry(b'0', cut, b""), entry(0, b"old/", b"what no directory has"), entry(b'0', b"next", b"")];
    let found: Vec<_> = read(&archive.concat()).into_iter().map(|(kind, path, _)| (kind, path)).collect();
    let expected = [(Kind::Directory, path), (Kind::Directory, "old/".to_owned()), (Kind::File, "next".to_owned())];
    assert_eq!(found, expected);
}

#[test]
fn an_end_has_nothing_but_zeros_or_nothing_behind_it() {
    let file = || entry(b'0', b"file", b"content");
    for zeros in 0..4 {
        assert_eq!(read(&[file(), vec![0; zeros * BLOCK]].concat()).len(), 1);
    }
    // Others read on there, or refuse it: one digest must not mean two trees.
    let two = [file(), vec![0; BLOCK], file(), vec![0; 2 * BLOCK]].concat();
    let mut reader = Reader::new(two.as_slice());
    reader.next_entry().unwrap().unwrap();
    assert!(matches!(reader.next_entry(), Err(TarError::Header { offset: 1024 })));
}
