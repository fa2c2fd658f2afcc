use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use super::*;
use crate::dhcp::client::next_random;
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

#[test]
fn one_container_more_is_told_of_in_as_many_messages_whoever_is_there() {
    let messages = |count: u32| difference(&guard(count), &guard(count + 1)).count();
    assert_eq!(messages(10), messages(500));
    assert_eq!(difference(&guard(10), &guard(10)).count(), 1, "the beginning of a transaction");
}

/// Of some of ten containers, each with rules of its own or those of all.
fn any(random: &mut u64) -> Guard {
    let mut number = |below: u64| u32::try_from(next_random(random) >> 33).map_or(0, |it| it % below as u32);
    let (all, mut some) = (guard(10), Guard::default());
    for container in 0..10 {
        let (kind, rules) = (number(4), number(6) as usize);
        let is_its = |name: &str| name.ends_with(&format!("-{container}"));
        for direction in [Direction::In, Direction::Out].into_iter().filter(|_| kind > 0) {
            let (name, chain) =
                all.chains.iter().find(|(name, chain)| is_its(name) && chain.direction == direction).unwrap();
            let common = format!("{direction:?}/front");
            let name = if kind == 1 { common } else { name.clone() };
            let rules = chain.rules[rules..].to_vec();
            some.chains.entry(name.clone()).or_insert(Chain { direction, rules });
            let addresses = all.addresses.iter().filter(|((of, _), name)| *of == direction && is_its(name));
            some.addresses.extend(addresses.map(|(key, _)| (*key, name.clone())));
            some.links.insert((direction, format!("berth0-{container}")), name);
        }
        if kind > 0 {
            some.own.extend(all.own.iter().filter(|(link, _)| is_its(link)).cloned());
        }
    }
    some
}

/// All that `nft` shows, without numbers that are given anew.
fn shown() -> Vec<String> {
    let output = Command::new("nft").args(["-j", "list", "ruleset"]).output().unwrap();
    let mut all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut lines: Vec<String> = Vec::new();
    for each in all["nftables"].as_array_mut().unwrap() {
        for (kind, object) in each.as_object_mut().unwrap() {
            object.as_object_mut().unwrap().remove("handle");
            if let Some(elements) = object.get_mut("elem").and_then(Value::as_array_mut) {
                elements.sort_by_key(Value::to_string);
            }
            // Rules have their order.
            let place = places.entry(format!("{}{}", object["family"], object["chain"])).or_default();
            *place += usize::from(kind == "rule");
            lines.push(format!("{place} {kind} {object}"));
        }
    }
    lines.sort();
    lines
}

#[test]
fn what_changes_bit_by_bit_is_what_is_made_at_once() {
    if Command::new("nft").arg("--version").output().is_err() {
        return eprintln!("skipped: nft is not installed");
    }
    let changed = std::thread::spawn(|| -> io::Result<bool> {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            return Ok(false);
        }
        let connection = Connection::open()?;
        let table = |guard: &Guard| Table { guard: guard.clone(), ..Table::default() };
        let (mut random, mut present) = (7, Guard::default());
        ruleset::replace(&connection, &table(&present))?;
        for round in 0..40 {
            let wanted = if round % 9 == 8 { Guard::default() } else { any(&mut random) };
            change(&connection, &present, &wanted)?;
            let bit_by_bit = shown();
            ruleset::replace(&connection, &table(&wanted))?;
            assert_eq!(bit_by_bit, shown(), "{present:#?} to {wanted:#?}");
            present = wanted;
        }
        Ok(true)
    });
    if !changed.join().unwrap().unwrap() {
        eprintln!("skipped: no network namespace may be made here");
    }
}
