use proptest::prelude::*;

use super::super::routes::mask_of;
use super::*;

/// A server's message with these options, for the tests of the whole folder.
pub fn server_bytes(kind: Kind, transaction: u32, mac: Mac, address: [u8; 4], options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![2, 1, 6, 0];
    bytes.extend(transaction.to_be_bytes());
    bytes.resize(16, 0);
    bytes.extend(address);
    bytes.resize(28, 0);
    bytes.extend(mac);
    bytes.resize(FIXED, 0);
    bytes.extend(COOKIE);
    bytes.extend([MESSAGE_TYPE, 1, kind as u8]);
    for (code, value) in options {
        bytes.extend([*code, u8::try_from(value.len()).unwrap()]);
        bytes.extend(*value);
    }
    bytes.push(255);
    bytes
}

fn decode(options: &[(u8, &[u8])]) -> ServerMessage {
    ServerMessage::decode(&server_bytes(Kind::Offer, 7, [2; 6], [10, 0, 0, 9], options)).unwrap()
}

#[test]
fn an_ordinary_offer_is_read() {
    let offer = decode(&[
        (SUBNET_MASK, &[255, 255, 255, 0]),
        (ROUTER, &[10, 0, 0, 1]),
        (DNS_SERVER, &[10, 0, 0, 2, 10, 0, 0, 3]),
        (DOMAIN_NAME, b"example.org\0"),
        (HOST_NAME, b"dock1"),
        (INTERFACE_MTU, &[5, 120]),
        (LEASE_TIME, &[0, 0, 14, 16]),
        (SERVER_IDENTIFIER, &[10, 0, 0, 1]),
    ]);
    assert_eq!((offer.kind, offer.transaction, offer.mac), (Kind::Offer, 7, [2; 6]));
    assert_eq!(offer.address, Ipv4Addr::new(10, 0, 0, 9));
    assert_eq!(offer.routers, [Ipv4Addr::new(10, 0, 0, 1)]);
    assert_eq!(offer.dns_servers.len(), 2);
    assert_eq!(offer.domain.as_deref(), Some("example.org"));
    assert_eq!((offer.mtu, offer.lease_time), (Some(1400), Some(3600)));
}

#[test]
fn classless_routes_are_read_as_the_rfc_shows() {
    let offer = decode(&[(CLASSLESS_ROUTES, &[0, 10, 0, 0, 1, 25, 10, 17, 0, 128, 0, 0, 0, 0])]);
    let routes = offer.routes.unwrap();
    assert_eq!(routes[0].prefix_length, 0);
    assert_eq!((routes[1].destination, routes[1].prefix_length), (Ipv4Addr::new(10, 17, 0, 128), 25));
    assert!(routes[1].gateway.is_unspecified());
}

#[test]
fn impossible_routes_are_as_none() {
    assert_eq!(decode(&[(CLASSLESS_ROUTES, &[33, 10, 0, 0, 1, 25, 10, 17, 0])]).routes, None);
    assert_eq!(decode(&[(CLASSLESS_ROUTES, &[24, 10, 0])]).routes, None);
}

#[test]
fn routes_of_microsofts_option_are_read_where_there_are_no_others() {
    let (own, other): (&[u8], &[u8]) = (&[8, 10, 10, 0, 0, 2], &[16, 10, 9, 10, 0, 0, 3]);
    let gateway = |options: &[(u8, &[u8])]| decode(options).routes.map(|routes| routes[0].gateway.octets()[3]);
    assert_eq!(gateway(&[(CLASSLESS_ROUTES_OF_MICROSOFT, own)]), Some(2));
    assert_eq!(gateway(&[(CLASSLESS_ROUTES_OF_MICROSOFT, own), (CLASSLESS_ROUTES, other)]), Some(3));
    assert_eq!(gateway(&[(CLASSLESS_ROUTES_OF_MICROSOFT, &[33])]), None);
}

#[test]
fn static_routes_lead_to_machines_and_to_networks_of_their_class() {
    let value = [
        [10, 1, 2, 3, 10, 0, 0, 1],
        [10, 0, 0, 0, 10, 0, 0, 2],
        [172, 16, 0, 0, 10, 0, 0, 3],
        [192, 168, 7, 0, 10, 0, 0, 4],
        // Not to be: the default route, and gateways that no machine is.
        [0, 0, 0, 0, 10, 0, 0, 5],
        [10, 1, 2, 4, 0, 0, 0, 0],
        [10, 1, 2, 5, 255, 255, 255, 255],
    ];
    let cut: Vec<u8> = value.concat().into_iter().chain([10, 1, 2, 6, 10]).collect();
    let routes = decode(&[(STATIC_ROUTES, &cut)]).static_routes;
    let shown: Vec<String> =
        routes.iter().map(|it| format!("{}/{} {}", it.destination, it.prefix_length, it.gateway)).collect();
    assert_eq!(
        shown,
        ["10.1.2.3/32 10.0.0.1", "10.0.0.0/8 10.0.0.2", "172.16.0.0/16 10.0.0.3", "192.168.7.0/24 10.0.0.4"]
    );
}

#[test]
fn routes_are_asked_for_in_the_order_of_the_rfc() {
    let place = |code: u8| ASKED_FOR.iter().position(|asked| *asked == code).unwrap();
    assert!(place(CLASSLESS_ROUTES) < place(ROUTER) && place(CLASSLESS_ROUTES) < place(STATIC_ROUTES));
    assert!(place(CLASSLESS_ROUTES) < place(CLASSLESS_ROUTES_OF_MICROSOFT));
}

#[test]
fn a_search_list_is_read_with_its_pointers_and_pieces() {
    let whole: Vec<u8> = [&b"\x03eng\x05apple\x03com\x00"[..], &b"\x09marketing\xc0\x04"[..]].concat();
    let (first, second) = whole.split_at(9);
    let offer = decode(&[(DOMAIN_SEARCH, first), (LEASE_TIME, &[0, 0, 0, 60]), (DOMAIN_SEARCH, second)]);
    assert_eq!(offer.search, ["eng.apple.com", "marketing.apple.com"]);
}

#[test]
fn a_pointer_to_itself_ends() {
    assert!(decode(&[(DOMAIN_SEARCH, b"\xc0\x00")]).search.is_empty());
    assert!(decode(&[(DOMAIN_SEARCH, b"\x01a\xc0\x00")]).search.len() <= LIST_LIMIT);
}

#[test]
fn options_in_the_file_field_are_read_where_overloaded() {
    let mut bytes = server_bytes(Kind::Offer, 7, [2; 6], [10, 0, 0, 9], &[(OVERLOAD, &[1])]);
    bytes[108..115].copy_from_slice(&[ROUTER, 4, 10, 0, 0, 1, 255]);
    assert_eq!(ServerMessage::decode(&bytes).unwrap().routers, [Ipv4Addr::new(10, 0, 0, 1)]);
}

#[test]
fn names_that_could_break_a_file_do_not_pass() {
    for name in ["a\nnameserver 1.2.3.4", "a b", "", ".", "-a", "a..b", "ü"] {
        assert!(!is_domain_name(name), "{name:?}");
    }
    assert!(decode(&[(DOMAIN_NAME, b"x\nnameserver 6.6.6.6")]).domain.is_none());
    assert!(decode(&[(HOST_NAME, b"a b")]).host_name.is_none());
}

#[test]
fn what_a_client_sends_has_the_layout_of_the_rfc() {
    let message = ClientMessage {
        kind: Kind::Discover,
        transaction: 0x0102_0304,
        seconds: 5,
        mac: [2, 0, 0, 0, 0, 1],
        address: Ipv4Addr::UNSPECIFIED,
        requested: Some(Ipv4Addr::new(10, 0, 0, 9)),
        server: None,
        host_name: Some("dock1".into()),
    };
    let bytes = message.encode();
    assert!(bytes.len() >= SHORTEST);
    assert_eq!(&bytes[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 5, 0, 0]);
    assert_eq!(&bytes[28..34], [2, 0, 0, 0, 0, 1]);
    let options = collect(&bytes);
    assert_eq!(options[&MESSAGE_TYPE], [1]);
    assert_eq!(options[&CLIENT_IDENTIFIER], [1, 2, 0, 0, 0, 0, 1]);
    assert_eq!(options[&REQUESTED_ADDRESS], [10, 0, 0, 9]);
    assert_eq!(options[&HOST_NAME], b"dock1");
    assert!(options.contains_key(&RAPID_COMMIT));
}

#[test]
fn masks_have_the_length_asked_for() {
    assert_eq!([mask_of(0), mask_of(1), mask_of(24), mask_of(32)], [0, 1 << 31, 0xffff_ff00, u32::MAX]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
        ServerMessage::decode(&bytes);
    }

    #[test]
    fn any_options_are_read_without_harm(
        options in proptest::collection::vec(any::<u8>(), 0..600),
        fields in proptest::collection::vec(any::<u8>(), 192..193),
    ) {
        let mut bytes = server_bytes(Kind::Acknowledge, 1, [2; 6], [10, 0, 0, 9], &[(OVERLOAD, &[3])]);
        bytes[44..236].copy_from_slice(&fields);
        bytes.pop();
        bytes.extend(options);
        if let Some(message) = ServerMessage::decode(&bytes) {
            prop_assert!(message.search.len() <= LIST_LIMIT);
            prop_assert!(message.search.iter().chain(&message.domain).chain(&message.host_name).all(|n| is_domain_name(n)));
            let routes = message.routes.iter().flatten().chain(&message.static_routes);
            prop_assert!(routes.clone().all(|route| route.prefix_length <= 32) && routes.count() <= 2 * LIST_LIMIT);
        }
    }
}
