use proptest::prelude::*;

use super::*;

pub const MAC: Mac = [2, 0, 0, 0, 0, 9];
pub const SERVER: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

/// A server's message in bytes, with an address and what comes with it.
pub fn bytes(kind: Kind, transaction: u32, addresses: &[(Ipv6Addr, u32, u32)], further: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![kind as u8];
    bytes.extend(&transaction.to_be_bytes()[1..]);
    option(&mut bytes, CLIENT_ID, &duid(MAC));
    option(&mut bytes, SERVER_ID, SERVER);
    if !addresses.is_empty() {
        let mut value = identity(MAC).to_vec();
        value.extend(1800_u32.to_be_bytes());
        value.extend(2880_u32.to_be_bytes());
        for (address, preferred, valid) in addresses {
            let inner = [&address.octets()[..], &preferred.to_be_bytes(), &valid.to_be_bytes()].concat();
            option(&mut value, IA_ADDRESS, &inner);
        }
        option(&mut bytes, IA_NA, &value);
    }
    for (code, value) in further {
        option(&mut bytes, *code, value);
    }
    bytes
}

#[test]
fn a_reply_is_read() {
    let address: Ipv6Addr = "2001:db8::9".parse().unwrap();
    let dns: Ipv6Addr = "2001:db8::53".parse().unwrap();
    let mut time = Vec::new();
    option(&mut time, NTP_ADDRESS, &dns.octets());
    let further = [
        (DNS_SERVERS, dns.octets().to_vec()),
        (DOMAIN_LIST, b"\x03lab\x03org\x00\x01x\x00".to_vec()),
        (NTP_SERVER, time),
        (PREFERENCE, vec![255]),
        (999, vec![1, 2, 3]),
    ];
    let bytes = bytes(Kind::Reply, 0x01_02_03, &[(address, 3600, 7200)], &further);
    let message = ServerMessage::decode(&bytes, MAC).unwrap();
    assert_eq!((message.kind, message.transaction, message.server.as_slice()), (Kind::Reply, 0x01_02_03, SERVER));
    assert_eq!(message.addresses, [Granted { address, preferred: 3600, valid: 7200 }]);
    assert_eq!((message.renewal_time, message.rebinding_time, message.preference), (1800, 2880, 255));
    assert_eq!((message.dns_servers, message.ntp_servers), (vec![dns], vec![dns]));
    assert_eq!(message.search, ["lab.org", "x"]);
    assert_eq!(ServerMessage::decode(&bytes, [9; 6]), None, "it is for another client");
}

#[test]
fn nonsense_is_left_out() {
    let bad = [
        ("::".parse().unwrap(), 1, 2),
        ("ff02::1".parse().unwrap(), 1, 2),
        ("fe80::1".parse().unwrap(), 1, 2),
        ("2001:db8::1".parse().unwrap(), 3, 2),
    ];
    let message = ServerMessage::decode(&bytes(Kind::Reply, 7, &bad, &[]), MAC).unwrap();
    assert!(message.addresses.is_empty());
    let refused = [(STATUS, [&[0, 2][..], b"no\x07 room"].concat())];
    let message = ServerMessage::decode(&bytes(Kind::Reply, 7, &[], &refused), MAC).unwrap();
    assert_eq!((message.status, message.text.as_deref()), (Status::NoAddress, Some("no room")));
}

#[test]
fn a_client_says_who_it_is_and_what_it_wants() {
    let address: Ipv6Addr = "2001:db8::9".parse().unwrap();
    let message = ClientMessage {
        kind: Kind::Renew,
        transaction: 0xff_01_02_03,
        elapsed: 7,
        mac: MAC,
        server: Some(SERVER.to_vec()),
        addresses: vec![address],
    };
    let bytes = message.encode();
    assert_eq!(bytes[..4], [5, 1, 2, 3]);
    let options: Vec<(u16, &[u8])> = Options(&bytes[4..]).collect();
    let codes: Vec<u16> = options.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [CLIENT_ID, SERVER_ID, ELAPSED_TIME, IA_NA, OPTION_REQUEST]);
    assert_eq!(options[3].1.len(), 12 + 4 + 24);
    let solicit = ClientMessage { kind: Kind::Solicit, server: None, ..message };
    assert!(Options(&solicit.encode()[4..]).any(|(code, _)| code == RAPID_COMMIT));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        ServerMessage::decode(&bytes, MAC);
        let known = self::bytes(Kind::Reply, 1, &[], &[(IA_NA, bytes.clone()), (DOMAIN_LIST, bytes)]);
        if let Some(message) = ServerMessage::decode(&known, MAC) {
            prop_assert!(message.search.iter().all(|name| is_domain_name(name)));
            prop_assert!(message.addresses.len() <= LIST_LIMIT);
        }
    }
}
