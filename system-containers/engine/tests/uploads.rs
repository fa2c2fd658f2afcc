//! Uploads to registries that differ from the specification, lose answers, or take their time.

mod support;

use std::time::Duration;

use berth_engine::digest::Digest;
use berth_engine::export::push;
use berth_engine::pull::progress::Progress;
use support::client::{Client, block, image, large};
use support::registry::{Asked, Look, Registry, json};
use support::uploads::{Loss, Uploads};
use support::{Image, Tar};

/// What GHCR takes at once.
const CHUNK: usize = 4 << 20;

/// Pushes the large image, with other patience.
fn push_large(registry: &Registry, patience: impl FnOnce(&mut Client)) -> Option<Result<(), String>> {
    let mut client = Client::new(&[registry])?;
    patience(&mut client);
    client.import(&[large()]);
    let name = format!("{}/a:1", registry.name());
    client.tag("large:1", &name);
    Some(client.push(&name, None).map(drop))
}

/// What came of the blobs, in order.
fn parts(registry: &Registry, method: &str) -> Vec<Asked> {
    registry.log().into_iter().filter(|asked| asked.method == method && asked.path.contains("/uploads/")).collect()
}

fn is_large(asked: &Asked) -> bool {
    asked.bytes.len() > CHUNK
}

#[test]
fn a_blob_goes_whole_to_registries_that_take_small_chunks_or_none() {
    for patch in [None, Some(404), Some(405)] {
        let registry = Uploads { chunk: CHUNK, patch, ..Uploads::default() }.start();
        let Some(pushed) = push_large(&registry, |_| {}) else { return };
        pushed.unwrap();
        assert_eq!(parts(&registry, "PATCH").len(), 0);
        let whole: Vec<Asked> = parts(&registry, "PUT").into_iter().filter(is_large).collect();
        assert!(whole.len() == 1 && whole[0].header("content-range").is_empty(), "{patch:?}: {}", whole.len());
    }
}

#[test]
fn what_is_too_large_at_once_goes_in_chunks_with_the_last_in_the_put() {
    // It says so after the body, or before.
    for early in [false, true] {
        let whole = if early { usize::MAX } else { 10 << 20 };
        let registry = Uploads { chunk: CHUNK, whole, ..Uploads::default() }.start();
        if early {
            registry.look(|asked| {
                let length = asked.header("content-length").parse().unwrap_or(0);
                if length > 10 << 20 { Look::Say(413) } else { Look::Read }
            });
        }
        // Nothing fails on the way: a connection that was left in the middle of a body is not used again.
        let Some(pushed) = push_large(&registry, |client| client.pushing.retries = 0) else { return };
        pushed.unwrap();
        let chunks = parts(&registry, "PATCH");
        assert!(chunks.len() >= 4 && chunks.iter().all(|asked| asked.bytes.len() == CHUNK), "{early}");
        assert!(parts(&registry, "PUT").iter().all(|asked| !is_large(asked) || asked.bytes.len() > 10 << 20));
        let last = parts(&registry, "PUT").into_iter().find(|asked| !asked.header("content-range").is_empty()).unwrap();
        assert!(last.header("content-range").starts_with(&format!("{}-", chunks.len() * CHUNK)));
    }
    let registry = Uploads { chunk: CHUNK, whole: 10 << 20, patch: Some(405), ..Uploads::default() }.start();
    assert!(push_large(&registry, |_| {}).unwrap().unwrap_err().contains("says 405"), "it takes it in no way");
}

#[test]
fn an_upload_that_breaks_off_goes_on_in_chunks_or_anew() {
    for patch in [None, Some(404), Some(405)] {
        let mut broken = false;
        let loss = move |asked: &Asked| {
            let breaks = asked.method == "PUT" && is_large(asked) && !std::mem::replace(&mut broken, true);
            breaks.then_some(Loss::Breaks(5 << 20))
        };
        let registry = Uploads { chunk: CHUNK, patch, loss: Box::new(loss), ..Uploads::default() }.start();
        let Some(pushed) = push_large(&registry, |_| {}) else { return };
        pushed.unwrap();
        let (chunks, puts) = (parts(&registry, "PATCH"), parts(&registry, "PUT"));
        let first = format!("{}-{}", 5 << 20, (9 << 20) - 1);
        assert_eq!(chunks[0].header("content-range"), first, "{patch:?}");
        let whole = puts.iter().filter(|asked| is_large(asked)).count();
        match patch {
            None => assert!(chunks.len() >= 3 && whole == 1, "{} {whole}", chunks.len()),
            Some(_) => assert_eq!((chunks.len(), whole), (1, 2)),
        }
        assert_eq!(parts(&registry, "GET").len(), 1);
    }
}

#[test]
fn what_was_taken_is_not_sent_again_if_only_the_answer_is_lost() {
    for (method, status, whole) in
        [("PUT", None, usize::MAX), ("PUT", None, 10 << 20), ("PATCH", None, 10 << 20), ("PATCH", Some(416), 10 << 20)]
    {
        let mut lost = false;
        let loss = move |asked: &Asked| {
            let is_part = asked.method == method && asked.path.contains("/uploads/") && asked.bytes.len() <= whole;
            let is_lost = is_part && !std::mem::replace(&mut lost, true);
            is_lost.then(|| status.map_or(Loss::HangUp, Loss::Says))
        };
        let registry = Uploads { chunk: CHUNK, whole, loss: Box::new(loss), ..Uploads::default() }.start();
        let Some(pushed) = push_large(&registry, |_| {}) else { return };
        pushed.unwrap_or_else(|error| panic!("{method} {status:?}: {error}"));
        let asked = parts(&registry, method);
        let mut seen = std::collections::HashSet::new();
        let once =
            asked.iter().all(|asked| seen.insert((asked.path.clone(), asked.header("content-range").to_owned())));
        assert!(once, "{method} {status:?}: nothing comes twice");
        assert_eq!(parts(&registry, "GET").len(), 1, "{method} {status:?}: it is asked how far it is");
    }
}

#[test]
fn who_takes_a_body_slowly_has_time_for_it_and_who_takes_nothing_is_given_up() {
    let is_blob = |asked: &Asked| asked.header("content-length").parse().unwrap_or(0) > CHUNK;
    let registry = Uploads::default().start();
    let answer = Duration::from_secs(2);
    registry.look(move |asked| if is_blob(asked) { Look::Pause(answer * 3 / 2) } else { Look::Read });
    let Some(pushed) = push_large(&registry, |client| client.pushing.answer = answer) else { return };
    pushed.unwrap();
    assert_eq!(parts(&registry, "PUT").iter().filter(|asked| is_large(asked)).count(), 1);

    let registry = Uploads::default().start();
    registry.look(move |asked| if is_blob(asked) { Look::Stall } else { Look::Read });
    let hasty = |client: &mut Client| (client.pushing.idle, client.pushing.retries) = (Duration::from_millis(300), 1);
    let error = push_large(&registry, hasty).unwrap().unwrap_err();
    assert!(error.contains("takes next to nothing within"), "{error}");
}

/// A registry that tells who may only read that there is no such repository, in this way, until something is pushed to it.
fn hiding(status: u16) -> Registry {
    let (mut uploads, mut is_there) = (Uploads::default(), false);
    Registry::start(move |asked| {
        if let Some((_, scope)) = asked.path.split_once("scope=repository:c/d:") {
            return json(200, "", &format!(r#"{{"token":"{}"}}"#, scope.replace("%2C", "-")));
        }
        let is_read = matches!(asked.method.as_str(), "GET" | "HEAD");
        let actions = if is_read { "pull" } else { "pull,push" };
        let challenge =
            format!("WWW-Authenticate: Bearer realm=\"/token\",service=\"reg\",scope=\"repository:c/d:{actions}\"\r\n");
        match asked.header("authorization") {
            "Bearer pull-push" => {
                is_there |= asked.path.contains("/manifests/");
                uploads.act(asked)
            }
            "Bearer pull" if is_read && is_there => uploads.act(asked),
            "Bearer pull" if is_read => json(status, if status == 401 { &challenge } else { "" }, ""),
            _ => json(401, &challenge, ""),
        }
    })
}

#[test]
fn a_repository_that_is_not_there_yet_is_made() {
    for status in [401, 403] {
        let registry = hiding(status);
        let Some(client) = Client::new(&[&registry]) else { return };
        client.import(&[image()]);
        let name = format!("{}/c/d:1", registry.name());
        client.tag("demo", &name);
        let asking = client.registry(&name, None);
        // A token that was got for reading is of no use for it.
        block(asking.has_blob(Digest::of(b"x"))).unwrap_err();
        let (reference, progress) = (name.parse().unwrap(), Progress::default());
        let pushed = block(push::push(&client.store, &asking, &reference, &progress));
        assert_eq!(pushed.unwrap().uploaded, 5, "{status}");
        let tokens = registry.log().into_iter().filter(|asked| asked.path.starts_with("/token")).count();
        assert_eq!(tokens, 2, "one to read, one to write");
    }
}

#[test]
fn a_registry_that_cannot_be_asked_for_blobs_gets_all_of_them() {
    for status in [405, 501] {
        let mut uploads = Uploads::default();
        let registry = Registry::start(move |asked| match asked.method.as_str() {
            "HEAD" => json(status, "", ""),
            _ => uploads.act(asked),
        });
        let Some(client) = Client::new(&[&registry]) else { return };
        client.import(&[image()]);
        let name = format!("{}/a:1", registry.name());
        client.tag("demo", &name);
        assert_eq!(client.push(&name, None).unwrap().uploaded, 5, "{status}");
    }
}

#[test]
fn what_is_told_of_a_push_is_what_goes_out() {
    let registry = Uploads::default().start();
    let Some(client) = Client::new(&[&registry]) else { return };
    let layer = Tar::default().file("zeros", &vec![0; 1 << 20]).finish();
    client.import(&[Image::new("demo", vec![layer])]);
    let name = format!("{}/a:1", registry.name());
    client.tag("demo", &name);
    let (asking, progress) = (client.registry(&name, None), Progress::default());
    block(push::push(&client.store, &asking, &name.parse().unwrap(), &progress)).unwrap();
    let [layer] = &progress.look().layers[..] else { panic!("one layer") };
    let sent = parts(&registry, "PUT").iter().map(|asked| asked.bytes.len()).max().unwrap() as u64;
    assert!(layer.done && sent < 1 << 19);
    assert_eq!((layer.bytes, layer.received), (sent, sent));
}

#[test]
fn a_blob_that_cannot_be_read_is_no_fault_of_the_line() {
    let registry = Uploads::default().start();
    let Some(client) = Client::new(&[&registry]) else { return };
    let file = std::sync::Arc::new(tempfile::tempfile().unwrap());
    let uploaded =
        block(client.registry(&format!("{}/a:1", registry.name()), None).upload(&file, Digest::of(b""), 9, |_| {}));
    assert!(uploaded.unwrap_err().to_string().contains("read from the state partition"));
    assert_eq!(parts(&registry, "POST").len(), 1, "it is not tried again");
}
