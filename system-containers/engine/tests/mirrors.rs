//! Mirrors: who is asked when, and for how long.

mod support;

use std::net::TcpListener;
use std::time::Duration;

use berth_engine::registry::Patience;
use support::client::{Client, PATIENCE, image};
use support::registry::{Act, Registry, json};

#[test]
fn a_mirror_is_asked_first_and_the_registry_if_it_fails() {
    let registry = Registry::good();
    registry.push("demo", "1", &image());
    let mirror = Registry::good();
    mirror.push("hub/demo", "1", &image());
    let name = registry.name();
    let Some(client) = Client::new(&[&mirror]) else { return };
    let client =
        client.configured(&format!("[registries.'{name}']\nplain_http = true\nmirrors = ['{}/hub']\n", mirror.name()));
    let pulled = client.pull(&format!("{name}/demo:1")).unwrap();
    assert_eq!(pulled.from, mirror.name());
    assert!(registry.log().is_empty());

    let broken =
        Registry::start(|asked| if asked.is_blob() { Act::Say(404, String::new(), Vec::new()) } else { Act::Serve });
    broken.push("demo", "1", &image());
    let client = Client::new(&[&broken]).unwrap();
    let client =
        client.configured(&format!("[registries.'{name}']\nplain_http = true\nmirrors = ['{}']\n", broken.name()));
    let pulled = client.pull(&format!("{name}/demo:1")).unwrap();
    assert_eq!(pulled.from, name);
    let error = client.pull(&format!("{name}/none:1")).unwrap_err();
    assert!(error.contains(&broken.name()) && error.contains(&name), "{error}");
}

#[test]
fn a_mirror_that_does_not_answer_is_asked_less_often_than_the_registry() {
    // The last one that can be asked is waited for as usual.
    let often = |mirrored: bool| {
        let registry = Registry::start(move |_| if mirrored { Act::Serve } else { Act::HangUp });
        registry.push("demo", "1", &image());
        let mirror = Registry::start(|_| Act::HangUp);
        let name = registry.name();
        let client = Client::new(&[&mirror])?;
        let configuration = format!("[registries.'{name}']\nplain_http = true\nmirrors = ['{}']\n", mirror.name());
        let pulled = client.configured(&configuration).pull(&format!("{name}/demo:1"));
        assert_eq!(pulled.is_ok(), mirrored, "{pulled:?}");
        Some((mirror.log().len(), registry.log().len()))
    };
    let Some((mirror, _)) = often(true) else { return };
    assert_eq!(mirror, 2);
    assert_eq!(often(false), Some((2, 1 + support::client::PATIENCE.retries as usize)));
}

/// A registry behind these mirrors, which are asked in vain: a pull comes from the registry itself.
fn falls_back(mirrors: &[&Registry], more: &[String]) -> Option<()> {
    let registry = Registry::good();
    registry.push("demo", "1", &image());
    let name = registry.name();
    let list: Vec<String> = mirrors.iter().map(|mirror| mirror.name()).chain(more.iter().cloned()).collect();
    let client = Client::new(mirrors)?;
    let client = client.configured(&format!("[registries.'{name}']\nplain_http = true\nmirrors = {list:?}\n"));
    let client = more
        .iter()
        .fold(client, |client, mirror| client.configured(&format!("[registries.'{mirror}']\nplain_http = true\n")));
    // Longer than an answer of this machine takes, and the registry is asked again.
    let patience = Patience { answer: Duration::from_secs(2), ..PATIENCE };
    let client = Client { patience, ..client };
    let pulled = client.pull(&format!("{name}/demo:1")).unwrap();
    assert_eq!(pulled.from, name);
    client.holds(&format!("{name}/demo:1"), &image());
    assert!(mirrors.iter().all(|mirror| !mirror.log().is_empty()), "each was asked");
    Some(())
}

#[test]
fn the_next_is_asked_if_a_mirror_is_broken_in_any_way() {
    let broken: fn(u16) -> Registry = |status| Registry::start(move |_| json(status, "", ""));
    let (busy, failing) = (broken(503), broken(500));
    let blobless = Registry::start(|asked| if asked.is_blob() { json(502, "", "") } else { Act::Serve });
    blobless.push("demo", "1", &image());
    // Nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    falls_back(&[&busy, &failing, &blobless], &[closed]);
}

#[test]
fn the_next_is_asked_if_a_mirror_takes_the_connection_and_says_nothing() {
    // The kernel takes it, and nobody reads what comes.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let Some(()) = falls_back(&[], &[silent.local_addr().unwrap().to_string()]) else { return };
    silent.set_nonblocking(true).unwrap();
    assert!(silent.accept().is_ok(), "it was asked");
}
