use super::super::message::Granted;
use super::super::message::tests::{MAC, SERVER, bytes};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Site {
    client: Client,
    now: Duration,
}

impl Site {
    fn new() -> Self {
        Self { client: Client::new(MAC, 7), now: SECOND }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        self.client.step(self.now, event)
    }

    /// Lets time pass up to the next deadline.
    fn wait(&mut self) -> Vec<Action> {
        self.now = self.client.deadline().unwrap();
        self.step(Event::Timer)
    }

    /// The server answers the last question.
    fn answer(&mut self, kind: Kind, question: &ClientMessage, times: &[(u32, u32)]) -> Vec<Action> {
        let addresses: Vec<_> =
            times.iter().zip(1_u16..).map(|((preferred, valid), last)| (address(last), *preferred, *valid)).collect();
        let bytes = bytes(kind, question.transaction, &addresses, &[(14, Vec::new())]);
        self.step(Event::Received(Box::new(ServerMessage::decode(&bytes, MAC).unwrap())))
    }

    fn bound(times: (u32, u32)) -> Self {
        let mut site = Self::new();
        let solicit = sent(&site.step(Event::Want(Wanted::Addresses)));
        site.answer(Kind::Reply, &solicit, &[times]);
        assert!(matches!(site.client.state, State::Bound));
        site
    }
}

fn kept(valid: u32) -> Lease {
    let addresses = vec![Granted { address: address(1), preferred: valid, valid }];
    Lease {
        server: SERVER.into(),
        addresses,
        renewal_time: valid / 2,
        rebinding_time: valid / 5 * 4,
        ..Lease::default()
    }
}

fn saves(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Save(_)))
}

fn address(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
}

fn sent(actions: &[Action]) -> ClientMessage {
    actions
        .iter()
        .find_map(|action| if let Action::Send(message) = action { Some(message.clone()) } else { None })
        .unwrap()
}

fn configured(actions: &[Action]) -> Option<Vec<Ipv6Addr>> {
    actions.iter().find_map(|action| match action {
        Action::Configure(lease) => Some(lease.addresses.iter().map(|granted| granted.address).collect()),
        _ => None,
    })
}

#[test]
fn an_offer_is_asked_for_and_a_grant_renewed_rebound_and_given_up() {
    let mut site = Site::new();
    let solicit = sent(&site.step(Event::Want(Wanted::Addresses)));
    assert_eq!((solicit.kind, solicit.server.clone()), (Kind::Solicit, None));
    let request = sent(&site.answer(Kind::Advertise, &solicit, &[(3600, 7200)]));
    assert_eq!((request.kind, request.server.as_deref()), (Kind::Request, Some(SERVER)));
    assert_eq!(request.addresses, [address(1)]);
    assert_eq!(configured(&site.answer(Kind::Reply, &request, &[(3600, 7200)])), Some(vec![address(1)]));
    let bound = site.now;

    let renew = sent(&site.wait());
    assert_eq!((renew.kind, site.now - bound), (Kind::Renew, 1800 * SECOND));
    assert_eq!(renew.server.as_deref(), Some(SERVER));
    // The server has gone: all are asked, until the address ends.
    let mut kinds = Vec::new();
    let actions = loop {
        let actions = site.wait();
        if configured(&actions).is_some() {
            break actions;
        }
        kinds.push(sent(&actions).kind);
    };
    assert!(kinds.contains(&Kind::Renew) && kinds.contains(&Kind::Rebind), "{kinds:?}");
    assert_eq!(site.now - bound, 7200 * SECOND);
    assert_eq!(configured(&actions), Some(Vec::new()));
    assert_eq!(sent(&actions).kind, Kind::Solicit);
}

#[test]
fn a_renewal_moves_the_end() {
    let mut site = Site::bound((3600, 7200));
    let renew = sent(&site.wait());
    let renewed = site.now;
    assert!(configured(&site.answer(Kind::Reply, &renew, &[(3600, 7200)])).is_some());
    let again = sent(&site.wait());
    assert_eq!((again.kind, site.now - renewed), (Kind::Renew, 1800 * SECOND));
    // One address is taken back, another comes.
    assert_eq!(configured(&site.answer(Kind::Reply, &again, &[(0, 0), (100, 200)])), Some(vec![address(2)]));
}

#[test]
fn an_answer_to_another_question_or_of_another_server_does_not_count() {
    let mut site = Site::new();
    let solicit = sent(&site.step(Event::Want(Wanted::Addresses)));
    let other = ClientMessage { transaction: solicit.transaction ^ 1, ..solicit.clone() };
    assert!(site.answer(Kind::Advertise, &other, &[(3600, 7200)]).is_empty());
    assert!(site.answer(Kind::Advertise, &solicit, &[]).is_empty(), "it offers nothing");
    let request = sent(&site.answer(Kind::Advertise, &solicit, &[(3600, 7200)]));
    let bytes = bytes(Kind::Reply, request.transaction, &[(address(9), 1, 2)], &[(2, vec![1, 2, 3])]);
    let stranger = ServerMessage::decode(&bytes, MAC).unwrap();
    assert!(site.step(Event::Received(Box::new(stranger))).is_empty());
}

#[test]
fn silence_makes_the_client_slower_and_a_refusal_makes_it_wait() {
    let mut site = Site::new();
    let solicit = sent(&site.step(Event::Want(Wanted::Addresses)));
    for _ in 0..20 {
        assert_eq!(sent(&site.wait()).kind, Kind::Solicit);
    }
    assert!(site.client.trouble().unwrap().contains("no DHCPv6 server offers"));
    let before = site.now;
    site.wait();
    assert!(site.now - before > 3000 * SECOND && site.now - before < 4100 * SECOND);
    let refusal = bytes(Kind::Reply, solicit.transaction, &[], &[(14, Vec::new()), (13, vec![0, 2])]);
    let actions = site.step(Event::Received(Box::new(ServerMessage::decode(&refusal, MAC).unwrap())));
    assert!(matches!(actions.as_slice(), [Action::Report(_)]), "{actions:?}");
    let refused = site.now;
    assert_eq!(sent(&site.wait()).kind, Kind::Solicit);
    assert!(site.now > refused);
}

#[test]
fn another_machines_address_is_declined() {
    let mut site = Site::bound((3600, 7200));
    assert!(site.step(Event::Conflict(address(9))).is_empty());
    let actions = site.step(Event::Conflict(address(1)));
    let decline = sent(&actions);
    assert_eq!((decline.kind, decline.addresses.clone()), (Kind::Decline, vec![address(1)]));
    assert_eq!(configured(&actions), Some(Vec::new()));
    assert_eq!(sent(&site.wait()).kind, Kind::Solicit);
}

#[test]
fn information_is_asked_for_again_and_carrier_brings_a_lease_back() {
    let mut site = Site::new();
    let question = sent(&site.step(Event::Want(Wanted::Information)));
    assert_eq!(question.kind, Kind::InformationRequest);
    assert_eq!(configured(&site.answer(Kind::Reply, &question, &[])), Some(Vec::new()));
    let informed = site.now;
    assert_eq!(sent(&site.wait()).kind, Kind::InformationRequest);
    assert_eq!(site.now - informed, DEFAULT_REFRESH);

    let mut site = Site::bound((3600, 7200));
    assert!(site.step(Event::CarrierLost).is_empty());
    let rebind = sent(&site.step(Event::Want(Wanted::Addresses)));
    assert_eq!((rebind.kind, rebind.addresses), (Kind::Rebind, vec![address(1)]));
    assert_eq!(configured(&site.step(Event::Want(Wanted::Nothing))), Some(Vec::new()));
    assert_eq!(site.client.deadline(), None);
}

#[test]
fn times_that_make_no_sense_are_the_clients_own_and_nothing_is_asked_for_without_a_pause() {
    // Preferred and valid, the server's times (0 leaves them to the client), and when it is asked to prolong.
    for ((preferred, valid), (renewal, rebinding), expected) in [
        ((100, 200), (0, 0), 50),
        // It is to be used no more.
        ((0, 1000), (0, 0), 500),
        ((1, 30), (0, 0), 1),
        ((0, 1000), (1, 2), 1),
        // It would have ended before.
        ((100, 200), (1800, 2880), 50),
    ] {
        let mut site = Site::new();
        let solicit = sent(&site.step(Event::Want(Wanted::Addresses)));
        let bytes = bytes(Kind::Reply, solicit.transaction, &[(address(1), preferred, valid)], &[(14, Vec::new())]);
        let message = ServerMessage::decode(&bytes, MAC).unwrap();
        let message = ServerMessage { renewal_time: renewal, rebinding_time: rebinding, ..message };
        site.step(Event::Received(Box::new(message)));
        let bound = site.now;
        let asked = sent(&site.wait()).kind;
        assert!(matches!(asked, Kind::Renew | Kind::Rebind), "{asked:?} {preferred} {valid} {renewal}");
        assert_eq!(site.now - bound, SECOND * expected, "{preferred} {valid} {renewal}");
    }
}

#[test]
fn a_lease_of_the_last_time_is_confirmed_and_goes_on_where_it_was() {
    let mut site = Site::new();
    site.client = Client::new(MAC, 7).with_kept(kept(1000), site.now);
    site.now += 100 * SECOND;
    let confirm = sent(&site.step(Event::Want(Wanted::Addresses)));
    assert_eq!(
        (confirm.kind, confirm.addresses.clone(), confirm.server.clone()),
        (Kind::Confirm, vec![address(1)], None)
    );
    let actions = site.answer(Kind::Reply, &confirm, &[]);
    assert_eq!(configured(&actions), Some(vec![address(1)]));
    let Some(Action::Configure(lease)) = actions.first() else { panic!("{actions:?}") };
    assert_eq!(lease.addresses[0].valid, 900, "it is not prolonged");
    let used = site.now;
    let renew = sent(&site.wait());
    assert_eq!((renew.kind, site.now - used), (Kind::Renew, 400 * SECOND));
}

#[test]
fn a_lease_of_the_last_time_is_used_to_its_end_while_nobody_answers() {
    let mut site = Site::new();
    let begin = site.now;
    site.client = Client::new(MAC, 7).with_kept(kept(1000), begin);
    let mut actions = site.step(Event::Want(Wanted::Addresses));
    while configured(&actions).is_none() {
        assert_eq!(sent(&actions).kind, Kind::Confirm);
        actions = site.wait();
    }
    assert_eq!((configured(&actions), site.now - begin), (Some(vec![address(1)]), CONFIRM_TIME));
    let mut kinds = Vec::new();
    let actions = loop {
        let actions = site.wait();
        if configured(&actions).is_some() {
            break actions;
        }
        kinds.push(sent(&actions).kind);
    };
    assert!(kinds.contains(&Kind::Renew) && kinds.contains(&Kind::Rebind), "{kinds:?}");
    assert_eq!((configured(&actions), site.now - begin), (Some(Vec::new()), 1000 * SECOND));
    // One that has ended is only a wish.
    let solicit = sent(&actions);
    assert_eq!((solicit.kind, solicit.addresses), (Kind::Solicit, vec![address(1)]));
}

/// A kept lease was to be confirmed, and the answer had this status: the question, and what followed.
fn confirmed_with(status: u8) -> (Site, ClientMessage, Vec<Action>) {
    let mut site = Site::new();
    site.client = Client::new(MAC, 7).with_kept(kept(1000), site.now);
    let confirm = sent(&site.step(Event::Want(Wanted::Addresses)));
    let answer = bytes(Kind::Reply, confirm.transaction, &[], &[(13, vec![0, status])]);
    let actions = site.step(Event::Received(Box::new(ServerMessage::decode(&answer, MAC).unwrap())));
    (site, confirm, actions)
}

#[test]
fn a_lease_of_another_link_is_forgotten() {
    let (_, _, actions) = confirmed_with(4);
    assert!(actions.contains(&Action::Forget), "{actions:?}");
    assert_eq!((sent(&actions).kind, sent(&actions).addresses), (Kind::Solicit, Vec::new()));
}

#[test]
fn a_lease_of_the_last_time_is_confirmed_after_information_too() {
    let mut site = Site::new();
    site.client = Client::new(MAC, 7).with_kept(kept(1000), site.now);
    let question = sent(&site.step(Event::Want(Wanted::Information)));
    site.answer(Kind::Reply, &question, &[]);
    let confirm = sent(&site.step(Event::Want(Wanted::Addresses)));
    assert_eq!((confirm.kind, confirm.addresses), (Kind::Confirm, vec![address(1)]));
}

#[test]
fn a_server_that_cannot_say_whose_link_it_is_takes_no_lease_away() {
    let (mut site, confirm, actions) = confirmed_with(1);
    assert_eq!(actions, []);
    assert_eq!(configured(&site.answer(Kind::Reply, &confirm, &[])), Some(vec![address(1)]));
}

#[test]
fn a_lease_is_kept_but_not_with_each_renewal_of_a_short_one() {
    let mut site = Site::new();
    let solicit = sent(&site.step(Event::Want(Wanted::Addresses)));
    assert!(saves(&site.answer(Kind::Reply, &solicit, &[(300, 300)])));
    let saved: Vec<bool> = (1..=5)
        .map(|_| {
            let renew = sent(&site.wait());
            saves(&site.answer(Kind::Reply, &renew, &[(300, 300)]))
        })
        .collect();
    assert_eq!(saved, [false, false, false, false, true], "150 s apart");
    let actions = site.step(Event::Conflict(address(1)));
    assert!(actions.contains(&Action::Forget), "{actions:?}");
}
