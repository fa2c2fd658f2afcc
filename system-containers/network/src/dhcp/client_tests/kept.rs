//! Leases of before the last start.

use super::*;

/// A client after a reboot, nobody answers, and what it does when it gives up asking for its last address.
fn rebooted(left: Duration) -> (Bench, Vec<Action>) {
    let kept = Bench::new(None).bind();
    let mut bench = Bench::new(None);
    bench.client = Client::new(MAC, Some(kept), 99).trust_kept(bench.now + left);
    assert_eq!(sent(&bench.step(Event::CarrierUp)).kind, Kind::Request);
    assert_eq!(sent(&bench.wait().1).kind, Kind::Request);
    let actions = bench.wait().1;
    assert_eq!(sent(&actions).kind, Kind::Discover);
    (bench, actions)
}

#[test]
fn a_kept_lease_that_has_not_ended_is_used_although_nobody_answers() {
    let (mut bench, actions) = rebooted(Duration::from_secs(1000));
    let lease = configured(&actions).unwrap();
    assert_eq!(lease.address, Ipv4Addr::from(ADDRESS));
    assert!((990..1000).contains(&lease.lease_time), "{}", lease.lease_time);
    assert!(bench.client.trouble().unwrap().contains("no DHCP server prolongs the lease"));
    let end = loop {
        assert!(!bench.client.is_alone());
        let actions = bench.wait().1;
        if unconfigured(&actions) {
            break bench.now;
        }
    };
    assert_eq!(end, Duration::from_secs(2000));
    assert!(bench.client.lease().is_none());
}

#[test]
fn a_server_that_comes_later_has_the_last_word_about_a_kept_lease() {
    let (mut bench, actions) = rebooted(Duration::from_secs(1000));
    let number = sent(&actions).transaction;
    let other = [10, 0, 0, 77];
    assert_eq!(sent(&bench.hear(Kind::Offer, number, OTHER_SERVER, other)).kind, Kind::Request);
    let actions = bench.hear(Kind::Acknowledge, number, OTHER_SERVER, other);
    assert!(unconfigured(&actions));
    assert_eq!(configured(&actions).unwrap().address, Ipv4Addr::from(other));
}

#[test]
fn a_kept_lease_that_has_ended_is_not_used() {
    let (bench, actions) = rebooted(Duration::ZERO);
    assert_eq!((configured(&actions), bench.client.lease()), (None, None));
}

#[test]
fn a_kept_lease_is_asked_for_at_once_and_its_refusal_leads_to_a_search() {
    let lease = Bench::new(None).bind();
    let mut bench = Bench::new(Some(lease));
    let request = sent(&bench.step(Event::CarrierUp));
    assert_eq!((request.kind, request.requested, request.server), (Kind::Request, Some(ADDRESS.into()), None));
    let actions = bench.hear(Kind::Refuse, request.transaction, SERVER, [0; 4]);
    assert!(actions.contains(&Action::Forget));
    assert!(unconfigured(&actions), "an earlier run of the program may have left it");
    let discover = sent(&actions);
    assert_eq!((discover.kind, discover.requested), (Kind::Discover, None));
}

#[test]
fn a_kept_lease_that_nobody_knows_is_given_up_soon() {
    let lease = Bench::new(None).bind();
    let mut bench = Bench::new(Some(lease));
    bench.step(Event::CarrierUp);
    let began = bench.now;
    while sent(&bench.wait().1).kind != Kind::Discover {}
    assert!(bench.now - began < Duration::from_secs(5));
    let discover = sent(&bench.wait().1);
    let request = sent(&bench.hear(Kind::Offer, discover.transaction, SERVER, [10, 0, 0, 77]));
    let actions = bench.hear(Kind::Acknowledge, request.transaction, SERVER, [10, 0, 0, 77]);
    assert!(unconfigured(&actions), "an earlier run of the program may have left it");
}
