//! What the fuzz targets call: everything that reads what other machines send. Each function panics where a promise of
//! its parser is broken.

use std::time::Duration;

use crate::dhcp::client::{Action, Client, Event};
use crate::dhcp::lease::Lease;
use crate::dhcp::message::{ServerMessage, is_domain_name};
use crate::{arp, dhcp, dhcp6, dns, router_advertisement};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// How often a client's timer runs out.
const DEADLINES: u32 = 12;
/// One that is refused begins anew, once.
const QUESTIONS_AT_ONCE: u32 = 6;

/// A DHCPv4 message, and a client whose server answers every question with it.
pub fn dhcp(bytes: &[u8]) {
    let Some(message) = ServerMessage::decode(bytes) else { return };
    assert!(message.search.iter().all(|name| is_domain_name(name)));
    if let Ok(lease) = Lease::from_message(&message) {
        assert!((1..=32).contains(&lease.prefix_length) && lease.renewal_time <= lease.rebinding_time);
        assert!(lease.routes.iter().all(|route| route.prefix_length <= 32));
    }
    let questions = |actions: Vec<Action>| {
        let sent = actions.into_iter().filter_map(|action| match action {
            Action::Broadcast(question) | Action::Unicast(question) => Some((question.kind, question.transaction)),
            _ => None,
        });
        sent.collect()
    };
    let mut client = Client::new(message.mac, None, 1);
    let mut step = |now, what: Happening<_>| {
        let event = match what {
            Happening::Begins => Event::CarrierUp,
            Happening::Timer => Event::Timer,
            Happening::Asked((kind, transaction)) => {
                let first = kind == dhcp::message::Kind::Discover;
                let kind = if first { dhcp::message::Kind::Offer } else { message.kind };
                Event::Received(Box::new(ServerMessage { kind, transaction, ..message.clone() }))
            }
        };
        (questions(client.step(now, event)), client.deadline())
    };
    converse(&mut step);
}

/// A DHCPv6 message, and a client whose server answers every question with it.
pub fn dhcp6(bytes: &[u8]) {
    use dhcp6::client::{Action, Client, Event, Wanted};
    use dhcp6::message::{Kind, ServerMessage};
    let Some(message) = ServerMessage::decode(bytes, MAC) else { return };
    assert!(message.search.iter().all(|name| is_domain_name(name)));
    assert!(message.addresses.iter().all(|granted| granted.preferred <= granted.valid));
    let questions = |actions: Vec<Action>| {
        let sent = actions.into_iter().filter_map(|action| match action {
            Action::Send(question) => Some((question.kind, question.transaction)),
            _ => None,
        });
        sent.collect()
    };
    for wanted in [Wanted::Addresses, Wanted::Information] {
        let mut client = Client::new(MAC, 1);
        let mut step = |now, what: Happening<_>| {
            let event = match what {
                Happening::Begins => Event::Want(wanted),
                Happening::Timer => Event::Timer,
                Happening::Asked((kind, transaction)) => {
                    let kind = if kind == Kind::Solicit { message.kind } else { Kind::Reply };
                    Event::Received(Box::new(ServerMessage { kind, transaction, ..message.clone() }))
                }
            };
            (questions(client.step(now, event)), client.deadline())
        };
        converse(&mut step);
    }
}

/// What a client of either kind sees.
enum Happening<Q> {
    Begins,
    Timer,
    /// Its question is answered.
    Asked(Q),
}

/// Lets a client run for a while whose every question is answered at once. No answer makes it ask without a pause.
fn converse<Q>(step: &mut dyn FnMut(Duration, Happening<Q>) -> (Vec<Q>, Option<Duration>)) {
    let mut now = Duration::ZERO;
    let (mut questions, mut deadline) = step(now, Happening::Begins);
    for _ in 0..DEADLINES {
        let mut asked = 0;
        while let Some(question) = questions.pop() {
            asked += 1;
            assert!(asked <= QUESTIONS_AT_ONCE, "asks without a pause");
            let (more, next) = step(now, Happening::Asked(question));
            questions.extend(more);
            deadline = next;
        }
        let Some(next) = deadline else { return };
        assert!(next > now, "has something to do without a pause");
        now = next;
        (questions, deadline) = step(now, Happening::Timer);
    }
}

/// What the kernel hands on of router advertisements, and a whole one.
pub fn router_advertisement(bytes: &[u8]) {
    for advertised in router_advertisement::messages(bytes) {
        assert!(advertised.search.iter().all(|name| is_domain_name(name)));
        assert!(advertised.dns_servers.len() <= 16);
    }
    if let Some(advertisement) = router_advertisement::packet::Advertisement::decode(bytes) {
        assert!(advertisement.router.is_unicast_link_local());
        assert!(advertisement.prefixes.iter().all(|prefix| prefix.length() <= 128));
    }
}

/// A DNS message, as a query and as an answer.
pub fn dns(bytes: &[u8]) {
    dns::fuzz(bytes);
}

/// An ARP packet.
pub fn arp(bytes: &[u8]) {
    if let Some(packet) = arp::packet::Packet::decode(bytes) {
        let again = arp::packet::Packet::decode(&packet.encode());
        assert_eq!(again, Some(packet));
    }
}
