use proptest::prelude::*;

use super::*;

/// As `dig +noedns`, or with EDNS and a size, would ask.
fn query(name: &str, kind: u16, size: Option<u16>) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, u8::from(size.is_some())];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    if let Some(size) = size {
        message.extend([0, 0, 41]);
        message.extend(size.to_be_bytes());
        message.extend([0; 6]);
    }
    message
}

fn v4(last: u8) -> Record {
    Record::Address(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)))
}

#[test]
fn a_question_is_read_whatever_its_case() {
    let read = Query::read(&query("Web.Example", 28, None)).unwrap();
    assert_eq!((read.name.as_str(), read.kind, read.size), ("web.example", Kind::Aaaa, None));
    assert_eq!(Query::read(&query("web", 1, Some(4096))).unwrap().size, Some(1232));
    assert_eq!(Query::read(&query("we.b\u{e4}", 1, None)).unwrap().name, "we.b??");
    let mut response = query("web", 1, None);
    response[2] |= 0x80;
    assert_eq!(Query::read(&response), None);
    assert_eq!(refusal(&response), None, "two servers must not answer each other's answers for ever");
}

#[test]
fn an_answer_has_the_question_and_its_records() {
    let asked = query("web", 1, Some(512));
    let answer = Query::read(&asked).unwrap().answer(Code::Good, &[v4(7)], false);
    let expected = [
        &[0xab, 0xcd, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 1, 3, b'w', b'e', b'b', 0, 0, 1, 0, 1][..],
        &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 7],
        &[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(answer, expected.concat());
    assert!(answers(&answer, &asked));
    assert!(!answers(&answer, &query("db", 1, None)) && !answers(&asked, &asked));
}

#[test]
fn what_does_not_fit_a_datagram_is_cut_off_and_said_so() {
    let records: Vec<Record> = (0..200).map(v4).collect();
    let read = Query::read(&query("web", 1, None)).unwrap();
    let cut = read.answer(Code::Good, &records, false);
    assert!(cut.len() <= 512 && cut[2] & 2 != 0);
    let whole = read.answer(Code::Good, &records, true);
    assert!(whole[2] & 2 == 0 && whole[6..8] == [0, 200]);
}

#[test]
fn an_address_is_read_from_its_name() {
    let address = |name: &str| Query::read(&query(name, 12, None)).unwrap().address();
    assert_eq!(address("4.3.2.1.in-addr.arpa"), Some(IpAddr::V4(Ipv4Addr::new(1, 2, 3, 4))));
    let loopback = format!("1.{}ip6.arpa", "0.".repeat(31));
    assert_eq!(address(&loopback), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    for wrong in ["3.2.1.in-addr.arpa", "x.3.2.1.in-addr.arpa", "1.ip6.arpa", "web"] {
        assert_eq!(address(wrong), None, "{wrong}");
    }
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..600), stream in any::<bool>()) {
        if let Some(query) = Query::read(&bytes) {
            let answer = query.answer(Code::NoSuchName, &[v4(1), Record::Name("a.b".into())], stream);
            prop_assert!(answers(&answer, &bytes));
            query.address();
        }
        prop_assert!(!answers(&bytes, &bytes[..bytes.len() / 2]) || bytes.len() > 12);
        refusal(&bytes);
    }

    /// The same where most of it is right, so that chance gets further in.
    #[test]
    fn no_query_is_too_strange(name in "[a-z.]{0,40}", place in 0..60_usize, byte in any::<u8>(), length in 0..80_usize) {
        let mut bytes = query(name.trim_matches('.'), 1, Some(700));
        if let Some(there) = bytes.get_mut(place) {
            *there = byte;
        }
        bytes.truncate(length);
        if let Some(query) = Query::read(&bytes) {
            prop_assert!(query.name.len() <= 255);
            prop_assert!(query.answer(Code::Good, &vec![v4(1); 100], false).len() <= 1232);
        }
    }
}
