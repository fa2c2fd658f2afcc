use super::super::message::tests::server_bytes;
use super::question::LONGEST_WAIT;
use super::*;

#[path = "client_tests/kept.rs"]
mod kept;

const MAC: Mac = [2, 0, 0, 0, 0, 1];
const SERVER: [u8; 4] = [10, 0, 0, 1];
const OTHER_SERVER: [u8; 4] = [10, 0, 0, 2];
const ADDRESS: [u8; 4] = [10, 0, 0, 9];
const HOUR: u32 = 3600;

/// A client and a clock that only this test moves.
struct Bench {
    client: Client,
    now: Duration,
}

impl Bench {
    fn new(kept: Option<Lease>) -> Self {
        Self { client: Client::new(MAC, kept, 99), now: Duration::from_secs(1000) }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        self.client.step(self.now, event)
    }

    /// Lets the time pass up to the deadline.
    fn wait(&mut self) -> (Duration, Vec<Action>) {
        let deadline = self.client.deadline().unwrap();
        let passed = deadline.saturating_sub(self.now);
        self.now = deadline;
        (passed, self.step(Event::Timer))
    }

    fn hear(&mut self, kind: Kind, transaction: u32, server: [u8; 4], address: [u8; 4]) -> Vec<Action> {
        self.hear_with(
            kind,
            transaction,
            address,
            &[(54, &server), (51, &HOUR.to_be_bytes()), (1, &[255, 255, 255, 0])],
        )
    }

    fn hear_with(&mut self, kind: Kind, number: u32, address: [u8; 4], options: &[(u8, &[u8])]) -> Vec<Action> {
        let message = ServerMessage::decode(&server_bytes(kind, number, MAC, address, options)).unwrap();
        self.step(Event::Received(Box::new(message)))
    }

    /// Goes through a whole exchange.
    fn bind(&mut self) -> Lease {
        let discover = sent(&self.step(Event::CarrierUp));
        let request = sent(&self.hear(Kind::Offer, discover.transaction, SERVER, ADDRESS));
        let actions = self.hear(Kind::Acknowledge, request.transaction, SERVER, ADDRESS);
        configured(&actions).unwrap()
    }
}

fn sent(actions: &[Action]) -> ClientMessage {
    try_sent(actions).unwrap_or_else(|| panic!("nothing sent: {actions:?}"))
}

fn try_sent(actions: &[Action]) -> Option<ClientMessage> {
    actions.iter().find_map(|action| match action {
        Action::Broadcast(message) | Action::Unicast(message) => Some(message.clone()),
        _ => None,
    })
}

fn configured(actions: &[Action]) -> Option<Lease> {
    actions.iter().find_map(|action| match action {
        Action::Configure(lease) => Some(lease.clone()),
        _ => None,
    })
}

fn unconfigured(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Unconfigure(_)))
}

#[test]
fn discover_goes_out_the_moment_there_is_carrier() {
    let mut bench = Bench::new(None);
    assert_eq!(bench.client.deadline(), None);
    assert_eq!(sent(&bench.step(Event::CarrierUp)).kind, Kind::Discover);
}

#[test]
fn an_offer_is_requested_and_its_acknowledgement_configured_and_kept() {
    let mut bench = Bench::new(None);
    let discover = sent(&bench.step(Event::CarrierUp));
    let request = sent(&bench.hear(Kind::Offer, discover.transaction, SERVER, ADDRESS));
    assert_eq!((request.kind, request.transaction), (Kind::Request, discover.transaction));
    assert_eq!((request.requested, request.server), (Some(ADDRESS.into()), Some(SERVER.into())));
    assert!(request.address.is_unspecified());
    let actions = bench.hear(Kind::Acknowledge, request.transaction, SERVER, ADDRESS);
    assert_eq!(configured(&actions).unwrap().address, Ipv4Addr::from(ADDRESS));
    assert!(actions.iter().any(|action| matches!(action, Action::Save(_))));
}

#[test]
fn a_rapid_commit_saves_a_round_and_an_unasked_acknowledgement_does_not_count() {
    let options: &[(u8, &[u8])] = &[(54, &SERVER), (51, &[0, 0, 14, 16]), (1, &[255, 255, 255, 0])];
    let mut bench = Bench::new(None);
    let number = sent(&bench.step(Event::CarrierUp)).transaction;
    assert_eq!(bench.hear_with(Kind::Acknowledge, number, ADDRESS, options), []);
    let rapid: Vec<_> = options.iter().copied().chain([(80, &[][..])]).collect();
    assert!(configured(&bench.hear_with(Kind::Acknowledge, number, ADDRESS, &rapid)).is_some());
}

#[test]
fn a_silent_network_is_asked_ever_more_rarely_and_for_ever() {
    let mut bench = Bench::new(None);
    bench.step(Event::CarrierUp);
    for expected in [1, 2, 4, 8, 16, 32, 64, 64, 64] {
        let (passed, actions) = bench.wait();
        assert_eq!(sent(&actions).kind, Kind::Discover);
        let expected = Duration::from_secs(expected);
        assert!(passed >= expected - expected / 8 && passed <= expected + expected / 8, "{passed:?} {expected:?}");
    }
}

#[test]
fn two_clients_do_not_ask_in_step() {
    let first: Vec<_> = (0..8).scan(1, |random, _| Some(jittered(random, LONGEST_WAIT))).collect();
    let second: Vec<_> = (0..8).scan(3, |random, _| Some(jittered(random, LONGEST_WAIT))).collect();
    assert_ne!(first, second);
}

#[test]
fn nonsense_and_other_peoples_offers_are_ignored() {
    let mut bench = Bench::new(None);
    let number = sent(&bench.step(Event::CarrierUp)).transaction;
    assert_eq!(bench.hear(Kind::Offer, number.wrapping_add(1), SERVER, ADDRESS), []);
    let options: &[(u8, &[u8])] = &[(54, &SERVER), (51, &[0, 0, 14, 16]), (1, &[255, 255, 255, 0])];
    let others = ServerMessage::decode(&server_bytes(Kind::Offer, number, [2; 6], ADDRESS, options)).unwrap();
    assert_eq!(bench.step(Event::Received(Box::new(others))), []);
    assert!(try_sent(&bench.hear(Kind::Offer, number, SERVER, [0, 0, 0, 0])).is_none());
    assert!(try_sent(&bench.hear_with(Kind::Offer, number, ADDRESS, &[(51, &[0, 0, 14, 16])])).is_none());
    assert!(try_sent(&bench.hear(Kind::Offer, number, SERVER, ADDRESS)).is_some());
}

#[test]
fn a_server_that_does_not_confirm_is_given_up_and_the_search_begins_again() {
    let mut bench = Bench::new(None);
    let number = sent(&bench.step(Event::CarrierUp)).transaction;
    bench.hear(Kind::Offer, number, SERVER, ADDRESS);
    let kinds: Vec<_> = (0..4).map(|_| sent(&bench.wait().1).kind).collect();
    assert_eq!(kinds, [Kind::Request, Kind::Request, Kind::Request, Kind::Discover]);
}

#[test]
fn a_lease_is_renewed_at_half_its_time() {
    let mut bench = Bench::new(None);
    bench.bind();
    let (passed, actions) = bench.wait();
    assert_eq!(passed, Duration::from_secs(1800));
    let Some(Action::Unicast(request)) = actions.first() else { panic!("{actions:?}") };
    assert_eq!((request.kind, request.address), (Kind::Request, Ipv4Addr::from(ADDRESS)));
    assert_eq!((request.requested, request.server), (None, None));
    let actions = bench.hear(Kind::Acknowledge, request.transaction, SERVER, ADDRESS);
    assert!(configured(&actions).is_some() && !unconfigured(&actions));
    assert!(actions.iter().any(|action| matches!(action, Action::Save(_))), "it has another end now");
    assert_eq!(bench.wait().0, Duration::from_secs(1800));
}

#[test]
fn a_short_lease_is_not_written_down_with_each_renewal() {
    let options: &[(u8, &[u8])] = &[(54, &SERVER), (51, &[0, 0, 1, 44]), (1, &[255, 255, 255, 0])];
    let mut bench = Bench::new(None);
    let discover = sent(&bench.step(Event::CarrierUp));
    bench.hear_with(Kind::Offer, discover.transaction, ADDRESS, options);
    bench.hear_with(Kind::Acknowledge, discover.transaction, ADDRESS, options);
    let saved = |_| {
        let request = sent(&bench.wait().1);
        let actions = bench.hear_with(Kind::Acknowledge, request.transaction, ADDRESS, options);
        actions.iter().any(|action| matches!(action, Action::Save(_)))
    };
    assert_eq!((1..=5).map(saved).collect::<Vec<_>>(), [false, false, false, false, true], "150 s apart");
}

#[test]
fn a_lease_that_has_become_shorter_is_written_down() {
    let mut bench = Bench::new(None);
    bench.bind();
    let request = sent(&bench.wait().1);
    // 1700 s from its half on: 100 s less than it had.
    let options: &[(u8, &[u8])] = &[(54, &SERVER), (51, &[0, 0, 6, 164]), (1, &[255, 255, 255, 0])];
    let actions = bench.hear_with(Kind::Acknowledge, request.transaction, ADDRESS, options);
    assert!(actions.iter().any(|action| matches!(action, Action::Save(_))), "after a reboot it would last too long");
}

#[test]
fn a_lost_server_leads_to_rebinding_then_expiry_then_a_new_search() {
    let mut bench = Bench::new(None);
    bench.bind();
    let began = bench.now;
    let mut unicasts = 0;
    let rebinding = loop {
        match bench.wait().1.as_slice() {
            [Action::Unicast(_)] => unicasts += 1,
            [Action::Broadcast(message)] => break message.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert!((2..12).contains(&unicasts), "{unicasts}");
    assert_eq!(bench.now - began, Duration::from_secs(3150));
    assert_eq!((rebinding.kind, rebinding.address), (Kind::Request, Ipv4Addr::from(ADDRESS)));
    let actions = loop {
        let actions = bench.wait().1;
        if unconfigured(&actions) {
            break actions;
        }
    };
    assert_eq!(bench.now - began, Duration::from_secs(3600));
    let discover = sent(&actions);
    assert_eq!((discover.kind, discover.requested), (Kind::Discover, Some(ADDRESS.into())));
}

#[test]
fn any_server_may_prolong_while_rebinding() {
    let mut bench = Bench::new(None);
    bench.bind();
    let request = loop {
        if let [Action::Broadcast(message)] = bench.wait().1.as_slice() {
            break message.clone();
        }
    };
    let actions = bench.hear(Kind::Acknowledge, request.transaction, OTHER_SERVER, ADDRESS);
    assert_eq!(configured(&actions).unwrap().server, Ipv4Addr::from(OTHER_SERVER));
}

#[test]
fn a_server_that_refuses_what_it_offers_is_not_asked_in_a_tight_loop() {
    let mut bench = Bench::new(None);
    let mut number = sent(&bench.step(Event::CarrierUp)).transaction;
    let began = bench.now;
    for _ in 0..6 {
        bench.hear(Kind::Offer, number, SERVER, ADDRESS);
        let actions = bench.hear(Kind::Refuse, number, SERVER, [0; 4]);
        number = try_sent(&actions).unwrap_or_else(|| sent(&bench.wait().1)).transaction;
    }
    assert!(bench.now - began > Duration::from_secs(50), "{:?}", bench.now - began);
}

#[test]
fn a_refusal_of_a_server_that_was_not_asked_does_not_count() {
    let mut bench = Bench::new(None);
    let number = sent(&bench.step(Event::CarrierUp)).transaction;
    bench.hear(Kind::Offer, number, SERVER, ADDRESS);
    let refusal: &[(u8, &[u8])] = &[(54, &OTHER_SERVER)];
    assert_eq!(bench.hear_with(Kind::Refuse, number, [0; 4], refusal), []);
}

#[test]
fn a_pulled_cable_keeps_the_address_and_asks_again_when_it_is_back() {
    let mut bench = Bench::new(None);
    bench.bind();
    assert_eq!(bench.step(Event::CarrierLost), []);
    assert!(bench.client.lease().is_some());
    bench.now += Duration::from_secs(100);
    let request = sent(&bench.step(Event::CarrierUp));
    assert_eq!((request.kind, request.requested), (Kind::Request, Some(ADDRESS.into())));
    let moved = bench.hear(Kind::Refuse, request.transaction, OTHER_SERVER, [0; 4]);
    assert!(unconfigured(&moved));
}

#[test]
fn a_lease_ends_without_carrier_too() {
    let mut bench = Bench::new(None);
    bench.bind();
    bench.step(Event::CarrierLost);
    let (passed, actions) = bench.wait();
    assert_eq!(passed, Duration::from_secs(3600));
    assert!(unconfigured(&actions) && try_sent(&actions).is_none());
    assert_eq!(bench.client.deadline(), None);
}

#[test]
fn another_address_replaces_the_old_one() {
    let mut bench = Bench::new(None);
    bench.bind();
    let (_, actions) = bench.wait();
    let actions = bench.hear(Kind::Acknowledge, sent(&actions).transaction, SERVER, [10, 0, 0, 77]);
    assert!(unconfigured(&actions));
    assert_eq!(configured(&actions).unwrap().address, Ipv4Addr::new(10, 0, 0, 77));
}

#[test]
fn a_lease_for_ever_has_no_deadline() {
    let mut bench = Bench::new(None);
    let number = sent(&bench.step(Event::CarrierUp)).transaction;
    let options: &[(u8, &[u8])] = &[(54, &SERVER), (51, &[255; 4]), (1, &[255, 255, 255, 0])];
    bench.hear_with(Kind::Offer, number, ADDRESS, options);
    bench.hear_with(Kind::Acknowledge, number, ADDRESS, options);
    assert_eq!(bench.client.deadline(), None);
}

#[test]
fn an_address_that_is_anothers_is_declined_and_not_asked_for_again() {
    let mut bench = Bench::new(None);
    assert!(bench.step(Event::Taken).is_empty(), "there is no address yet");
    let lease = bench.bind();
    let actions = bench.step(Event::Taken);
    let decline = sent(&actions);
    assert_eq!(
        (decline.kind, decline.requested, decline.server),
        (Kind::Decline, Some(lease.address), Some(lease.server))
    );
    assert_eq!(decline.address, Ipv4Addr::UNSPECIFIED);
    assert!(unconfigured(&actions) && actions.contains(&Action::Forget));
    assert!(bench.client.trouble().unwrap().contains("another machine has 10.0.0.9"));
    let (passed, actions) = bench.wait();
    assert_eq!(passed, AFTER_DECLINE);
    assert_eq!((sent(&actions).kind, sent(&actions).requested), (Kind::Discover, None));
    bench.hear(Kind::Offer, sent(&actions).transaction, SERVER, [10, 0, 0, 10]);
    assert!(bench.client.trouble().is_some());
}

#[test]
fn a_client_without_a_server_says_so_and_knows_that_it_is_alone() {
    let mut bench = Bench::new(None);
    bench.step(Event::CarrierUp);
    let mut waited = Duration::ZERO;
    while !bench.client.is_alone() {
        waited += bench.wait().0;
    }
    assert!(waited > Duration::from_secs(5) && waited < Duration::from_secs(9), "{waited:?}");
    assert_eq!(bench.client.trouble().as_deref(), Some("no DHCP server offers an address, asked 4 times"));
    let mut bound = Bench::new(None);
    bound.bind();
    assert!(!bound.client.is_alone() && bound.client.trouble().is_none());
}
