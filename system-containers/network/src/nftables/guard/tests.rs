use std::net::{Ipv4Addr, Ipv6Addr};

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::nftables::ruleset::{self, Table};

const COUNT: u32 = 1000;

/// Of containers that say each of whom they let in and where to they connect.
fn guard(count: u32) -> Guard {
    let mut guard = Guard::default();
    for number in 0..count {
        let link = format!("berth0-{number}");
        let addresses = [
            IpAddr::V4(Ipv4Addr::from_bits(0x0a3d_0000 + number)),
            IpAddr::V6(Ipv6Addr::from_bits(0xfd00_u128 << 112 | u128::from(number))),
        ];
        let all = |peer: Peer| Rule { peer, ports: "5432".parse().ok(), accept: true };
        let peers = addresses.map(|it| Peer::Address(Prefix::new(it, if it.is_ipv4() { 32 } else { 128 }).unwrap()));
        let mut rules: Vec<Rule> = peers.map(all).into();
        rules.extend((0..4).map(|_| all(Peer::Link(link.clone()))));
        rules.push(Rule { peer: Peer::Any, ports: None, accept: false });
        for direction in [Direction::In, Direction::Out] {
            let chain = format!("{direction:?}/front/container-{number}");
            guard.chains.insert(chain.clone(), Chain { direction, rules: rules.clone() });
            guard.addresses.extend(addresses.map(|address| ((direction, address), chain.clone())));
            guard.links.insert((direction, link.clone()), chain);
        }
        guard.own.extend(addresses.map(|address| (link.clone(), address)));
    }
    guard
}

#[test]
fn the_rules_of_a_thousand_containers_change_at_one_moment() {
    let changed = std::thread::spawn(|| -> io::Result<bool> {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            return Ok(false);
        }
        let connection = Connection::open()?;
        let (most, all) = (guard(COUNT - 1), guard(COUNT));
        ruleset::replace(&connection, &Table { guard: most.clone(), ..Table::default() })?;
        change(&connection, &most, &all)?;
        change(&connection, &all, &Guard::default())?;
        change(&connection, &Guard::default(), &all)?;
        Ok(true)
    });
    if !changed.join().unwrap().unwrap() {
        eprintln!("skipped: no network namespace may be made here");
    }
}
