//! Mirrors: who is asked when, and for how long.

mod support;

use support::client::{Client, image};
use support::registry::{Act, Registry};

#[test]
fn a_mirror_is_asked_first_and_the_registry_if_it_fails() {
    let registry = Registry::good();
    registry.push("demo", "1", &image());
    let mirror = Registry::good();
    mirror.push("hub/demo", "1", &image());
    let name = registry.name();
    let Some(client) = Client::new(&[&mirror]) else { return };
    let client = client.configured(&format!(
        "[registries.'{name}']\nplain_http = true\nmirrors = ['{}/hub', '127.0.0.1:1']\n",
        mirror.name()
    ));
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
