//! Pulling from a registry that misbehaves: what is verified arrives, everything else is refused with its reason, and
//! nothing unverified is ever visible.

mod support;

use std::sync::Arc;
use std::time::Duration;

use berth_engine::digest::Digest;
use berth_engine::pull::Pulling;
use berth_engine::pull::progress::Progress;
use berth_engine::registry::Shared;
use support::client::{Client, PATIENCE, image, layer, refused};
use support::registry::{
    Act, Asked, DOCKER_FOREIGN_LAYER, DOCKER_LAYER, DOCKER_LIST, Registry, content_digest, docker_list, json,
};
use support::{Image, Method, Tar, compress, descriptor};

/// Pulls an image from a registry with this script; it must arrive.
fn arrives(script: impl FnMut(&Asked) -> Act + Send + 'static) -> Option<Vec<Asked>> {
    let registry = Registry::start(script);
    registry.push("demo", "1", &image());
    let client = Client::new(&[&registry])?;
    let name = format!("{}/demo:1", registry.name());
    let pulled = client.pull(&name).unwrap();
    assert_eq!((pulled.layers, pulled.from.as_str()), (4, registry.name().as_str()));
    client.holds(&name, &image());
    Some(registry.log())
}

#[test]
fn every_compression_arrives() {
    arrives(|_| Act::Serve);
}

#[test]
fn a_layer_of_several_frames_arrives_whole() {
    let mut inner = image();
    inner.layers.iter_mut().for_each(|(method, _)| *method = Method::Chunked);
    // Once more broken off in the list behind the layer.
    let length = compress(Method::Chunked, &inner.layers[0].1).len();
    for cut in [usize::MAX, length - 100_000] {
        let registry = Registry::start(move |asked| match asked.is_blob() && asked.before == 0 {
            true => Act::CutAfter(cut),
            false => Act::Serve,
        });
        registry.push("demo", "1", &inner);
        let Some(client) = Client::new(&[&registry]) else { return };
        let name = format!("{}/demo:1", registry.name());
        client.pull(&name).unwrap();
        client.holds(&name, &inner);
    }
    // What is behind the layer counts for its digest.
    let blob = compress(Method::Chunked, &inner.layers[3].1);
    let (path, mut forged) = (Digest::of(&blob).to_string(), blob);
    *forged.last_mut().unwrap() ^= 1;
    let registry = Registry::start(move |asked| match asked.path.ends_with(&path) {
        true => Act::Say(200, String::new(), forged.clone()),
        false => Act::Serve,
    });
    registry.push("demo", "1", &inner);
    let client = Client::new(&[&registry]).unwrap();
    let name = format!("{}/demo:1", registry.name());
    assert!(client.pull(&name).unwrap_err().contains("its digest is"));
    client.has_no_image(&name);
}

#[test]
fn a_blob_that_breaks_off_is_resumed_where_it_did() {
    let cut = |asked: &Asked| if asked.is_blob() && asked.before < 2 { Act::CutAfter(40_000) } else { Act::Serve };
    let Some(log) = arrives(cut) else { return };
    assert!(log.iter().any(|asked| asked.header("range") == "bytes=80000-"), "{log:?}");
}

#[test]
fn a_registry_without_ranges_is_resumed_from_the_beginning() {
    let act = |asked: &Asked| if asked.is_blob() && asked.before == 0 { Act::CutAfter(40_000) } else { Act::Whole };
    arrives(act);
}

#[test]
fn what_is_skipped_of_a_blob_comes_too() {
    // Longer than the time in which some of it must come.
    let act = |asked: &Asked| match asked.is_blob() && asked.before == 1 {
        true => Act::Trickle(12, Duration::from_millis(250)),
        false if asked.is_blob() && asked.before == 0 => Act::CutAfter(110_000),
        false => Act::Serve,
    };
    let registry = Registry::start(act);
    registry.push("demo", "1", &image());
    let Some(mut client) = Client::new(&[&registry]) else { return };
    client.patience.idle = Duration::from_secs(2);
    client.pull(&format!("{}/demo:1", registry.name())).unwrap();
    assert!(registry.log().iter().all(|asked| asked.before < 2), "{:?}", registry.log());
}

#[test]
fn layers_come_side_by_side() {
    let blobs: Vec<String> =
        image().layers.iter().map(|(method, tar)| Digest::of(&compress(*method, tar)).to_string()).collect();
    let first = blobs[0].clone();
    // The client gives the first up after a while, and asks for it again.
    let stall = move |asked: &Asked| match asked.path.ends_with(&first) && asked.before == 0 {
        true => Act::StallAfter(1000),
        false => Act::Serve,
    };
    let Some(log) = arrives(stall) else { return };
    let again = log.iter().position(|asked| asked.path.ends_with(&blobs[0]) && asked.before == 1).unwrap();
    let is_asked_meanwhile = |blob: &&String| log[..again].iter().any(|asked| asked.path.ends_with(blob.as_str()));
    let meanwhile: Vec<&String> = blobs[1..].iter().filter(is_asked_meanwhile).collect();
    assert!(meanwhile.len() >= 2, "{meanwhile:?} of {blobs:?}");
}

#[test]
fn a_layer_is_unpacked_while_it_comes() {
    // More than is held back before it is written.
    let noise = |name: &str| layer(name)[512..100_000].to_vec();
    let large =
        (0..40_u32).fold(Tar::default(), |tar, number| tar.file(&number.to_string(), &noise(&number.to_string())));
    let image = Image::new("demo", vec![large.finish()]);
    let length = image.layers[0].1.len();
    let (go_on, until) = std::sync::mpsc::channel();
    let mut until = Some(until);
    let blob = Digest::of(&image.layers[0].1).to_string();
    let path = blob.clone();
    let registry = Registry::start(move |asked| match asked.path.ends_with(&path).then(|| until.take()).flatten() {
        Some(until) => Act::PauseAfter(length - 1000, until),
        None => Act::Serve,
    });
    registry.push("demo", "1", &image);
    let Some(mut client) = Client::new(&[&registry]) else { return };
    client.patience.idle = Duration::from_secs(20);
    let drafts = client.machine.path("images/tmp");
    let name = format!("{}/demo:1", registry.name());
    std::thread::scope(|scope| {
        let pull = scope.spawn(|| client.pull(&name));
        let largest = || {
            let files = std::fs::read_dir(&drafts).unwrap().flatten();
            files.filter_map(|file| file.metadata().ok()).map(|data| data.len()).max().unwrap_or_default()
        };
        while largest() < length as u64 / 2 {
            assert!(!pull.is_finished(), "it did not wait for the end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let times = registry.log().iter().filter(|asked| asked.path.ends_with(&blob)).count();
        assert_eq!(times, 1, "it is the part that came first");
        go_on.send(()).unwrap();
        pull.join().unwrap().unwrap();
    });
}

#[test]
fn a_layer_of_nothing_is_an_empty_one() {
    let registry = Registry::good();
    let mut image = Image::new("demo", vec![layer("a"), Vec::new(), Vec::new()]);
    image.layers[2].0 = Method::Gzip;
    registry.push("demo", "1", &image);
    let Some(client) = Client::new(&[&registry]) else { return };
    let name = format!("{}/demo:1", registry.name());
    assert_eq!(client.pull(&name).unwrap().layers, 3);
    let (_, record) = client.store.resolve(&name.parse().unwrap()).unwrap();
    assert!(client.store.merged(&record.chain).unwrap().read("a", u64::MAX).unwrap().is_some());
}

#[test]
fn a_blob_that_stalls_is_resumed() {
    arrives(|asked| if asked.is_blob() && asked.before == 0 { Act::StallAfter(1000) } else { Act::Serve });
}

#[test]
fn a_registry_that_is_busy_or_broken_for_a_moment_is_asked_again() {
    let date = "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n";
    for (status, headers) in [(429, "Retry-After: 0\r\n"), (429, date), (503, ""), (500, "")] {
        arrives(move |asked| if asked.before == 0 { json(status, headers, "") } else { Act::Serve });
    }
    arrives(|asked| if asked.before == 0 { Act::HangUp } else { Act::Serve });
}

#[test]
fn content_that_is_not_what_its_digest_says_is_refused() {
    let forged = compress(Method::Plain, &layer("x"));
    let act = move |asked: &Asked| match asked.is_blob() && asked.before == 0 {
        // Everything but the configuration, which is small.
        true => Act::Say(200, String::new(), forged.clone()),
        false => Act::Serve,
    };
    refused(act, "has");
    let first = Digest::of(&layer("a")).to_string();
    let forged = layer("x");
    let act = move |asked: &Asked| match asked.path.ends_with(&first) {
        true => Act::Say(200, String::new(), forged.clone()),
        false => Act::Serve,
    };
    refused(act, "its digest is");
}

#[test]
fn a_layer_that_fails_ends_those_above_it_and_no_others() {
    let blobs: Vec<Vec<u8>> = image().layers.iter().map(|(method, tar)| compress(*method, tar)).collect();
    let diff_ids: Vec<Digest> = image().layers.iter().map(|(_, tar)| Digest::of(tar)).collect();
    for (failing, blob) in blobs.iter().enumerate() {
        let name = Digest::of(blob).to_string();
        let mut forged = blob.clone();
        *forged.last_mut().unwrap() ^= 1;
        let path = name.clone();
        let registry = Registry::start(move |asked| match asked.path.ends_with(&path) {
            true => Act::Say(200, String::new(), forged.clone()),
            false => Act::Serve,
        });
        registry.push("demo", "1", &image());
        let Some(client) = Client::new(&[&registry]) else { return };
        let image = format!("{}/demo:1", registry.name());
        let error = client.pull(&image).unwrap_err();
        assert!(error.contains(&name), "{error}");
        client.has_no_image(&image);
        let there = berth_engine::store::chain_ids(&diff_ids).into_iter().map(|id| client.store.has_layer(id));
        assert_eq!(there.collect::<Vec<_>>(), [0, 1, 2, 3].map(|position| position < failing));
    }
}

#[test]
fn content_of_another_length_is_refused() {
    let blob = layer("a");
    let path = Digest::of(&blob).to_string();
    let longer = [blob.clone(), vec![0; 512]].concat();
    let (end, act_blob) = (path.clone(), longer);
    refused(
        move |asked| match asked.path.ends_with(&end) {
            true => Act::Say(200, String::new(), act_blob.clone()),
            false => Act::Serve,
        },
        "bytes, not",
    );
    let shorter = blob[..blob.len() - 512].to_vec();
    refused(
        move |asked| match asked.path.ends_with(&path) {
            true => Act::Say(200, String::new(), shorter.clone()),
            false => Act::Serve,
        },
        "bytes, not",
    );
}

#[test]
fn a_layer_that_is_not_the_configurations_is_refused() {
    let registry = Registry::good();
    let good = image();
    let mut bad = image();
    bad.layers[3].1 = layer("z");
    let (_, manifest) = registry.push("demo", "good", &good);
    registry.push("demo", "bad", &bad);
    // The manifest's last layer is another one than the configuration's.
    let text = String::from_utf8(manifest).unwrap();
    let (from, to) =
        (descriptor("layer.v1.tar", &good.layers[3].1, ""), descriptor("layer.v1.tar", &bad.layers[3].1, ""));
    assert!(text.contains(&from));
    registry.put_manifest("demo", "mixed", text.replace(&from, &to).as_bytes());
    let Some(client) = Client::new(&[&registry]) else { return };
    let name = format!("{}/demo:mixed", registry.name());
    let error = client.pull(&name).unwrap_err();
    assert!(error.contains("its diff ID is"), "{error}");
    client.has_no_image(&name);
}

#[test]
fn a_manifest_is_verified_and_bounded() {
    let registry = Registry::good();
    let (digest, manifest) = registry.push("demo", "1", &image());
    let Some(client) = Client::new(&[&registry]) else { return };
    let at = |reference: &str| format!("{}/demo{reference}", registry.name());
    client.pull(&at(&format!("@{digest}"))).unwrap();
    client.holds(&at(&format!("@{digest}")), &image());

    registry.put(&format!("/v2/demo/manifests/{}", Digest::of(b"x")), "x", &manifest);
    let error = client.pull(&at(&format!("@{}", Digest::of(b"x")))).unwrap_err();
    assert!(error.contains("its digest is"), "{error}");
    registry.put("/v2/demo/manifests/huge", "x", &vec![b' '; 5 << 20]);
    assert!(client.pull(&at(":huge")).unwrap_err().contains("more than 4194304 bytes"));
    registry.put("/v2/demo/manifests/old", "x", br#"{"schemaVersion":1,"fsLayers":[]}"#);
    assert!(client.pull(&at(":old")).unwrap_err().contains("schema 1"));
    registry.put("/v2/demo/manifests/web", "x", b"<html>log in</html>");
    assert!(client.pull(&at(":web")).unwrap_err().contains("is malformed"));
    assert!(client.pull(&at(":none")).unwrap_err().contains("404 Not Found: manifest unknown"));
}

#[test]
fn the_digest_that_comes_with_a_manifest_counts_though_nobody_asked_for_one() {
    let manifest = Registry::good().push("demo", "1", &image()).1;
    let body = manifest.clone();
    let wrong = move |asked: &Asked| match asked.path.ends_with("/manifests/1") {
        true => Act::Say(200, content_digest(Digest::of(b"x")), body.clone()),
        false => Act::Serve,
    };
    refused(wrong, &format!("its digest is {}, not {}", Digest::of(&manifest), Digest::of(b"x")));
    // That of schema 1 is of the manifest without its signatures.
    let signed = br#"{"schemaVersion":1,"fsLayers":[],"signatures":[{"signature":"x"}]}"#;
    let old = |_: &Asked| Act::Say(200, content_digest(Digest::of(b"unsigned")), signed.to_vec());
    refused(old, "schema 1, which is obsolete");
}

#[test]
fn an_index_leads_to_the_image_for_this_machine() {
    let registry = Registry::good();
    let (digest, manifest) = registry.push("demo", "x", &image());
    let platform = |architecture: &str, digest: Digest, size: usize| {
        format!(r#"{{"digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#)
    };
    let ours = platform(berth_engine::oci::ARCHITECTURE, digest, manifest.len());
    let other = platform("s390x", Digest::of(b"none"), 4);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{other},{ours}]}}"#);
    let index = registry.put_manifest("demo", "1", index.as_bytes());
    registry.put_manifest("demo", "other", format!(r#"{{"schemaVersion":2,"manifests":[{other}]}}"#).as_bytes());
    let Some(client) = Client::new(&[&registry]) else { return };
    let at = |reference: &str| format!("{}/demo{reference}", registry.name());
    client.pull(&at(":1")).unwrap();
    client.pull(&at(&format!("@{index}"))).unwrap();
    client.holds(&at(&format!("@{index}")), &image());
    assert!(client.pull(&at(":other")).unwrap_err().contains("it is for linux/s390x"));
}

#[test]
fn an_image_in_dockers_form_arrives() {
    let registry = Registry::good();
    let (digest, manifest) = registry.push_as_docker("demo", "one", &image(), DOCKER_LAYER);
    let list = docker_list(digest, &manifest);
    let list = registry.put_manifest_as("demo", "1", DOCKER_LIST, list.as_bytes());
    for reference in [":one".to_owned(), ":1".to_owned(), format!("@{digest}"), format!("@{list}")] {
        let Some(client) = Client::new(&[&registry]) else { return };
        let name = format!("{}/demo{reference}", registry.name());
        client.pull(&name).unwrap();
        client.holds(&name, &image());
    }
}

#[test]
fn an_image_with_a_foreign_layer_is_refused_before_anything_of_it_comes() {
    let registry = Registry::good();
    registry.push_as_docker("demo", "1", &image(), DOCKER_FOREIGN_LAYER);
    let Some(client) = Client::new(&[&registry]) else { return };
    let name = format!("{}/demo:1", registry.name());
    let error = client.pull(&name).unwrap_err();
    assert!(error.contains("is a foreign one"), "{error}");
    client.has_no_image(&name);
    assert!(registry.log().iter().all(|asked| !asked.is_blob()));
}

#[test]
fn images_that_share_layers_share_the_work() {
    let registry = Registry::good();
    let mut images = Vec::new();
    for tag in ["1", "2", "3"] {
        let mut image = image();
        image.layers.push((Method::Plain, layer(tag)));
        registry.push("demo", tag, &image);
        images.push(format!("{}/demo:{tag}", registry.name()));
    }
    // The same one twice.
    images.push(images[0].clone());
    let Some(client) = Client::new(&[&registry]) else { return };
    let pulled = client.pull_all(&images);
    assert!(pulled.iter().all(Result::is_ok), "{pulled:?}");
    for (method, layer) in &image().layers {
        let path = format!("/v2/demo/blobs/{}", Digest::of(&compress(*method, layer)));
        assert_eq!(registry.log().iter().filter(|asked| asked.path == path).count(), 1, "{path}");
    }
}

#[test]
fn progress_tells_every_layer() {
    let registry = Registry::good();
    registry.push("demo", "1", &image());
    let Some(client) = Client::new(&[&registry]) else { return };
    let progress = Arc::new(Progress::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime
        .block_on(async {
            let shared = Shared { pool: Arc::default(), tokens: Arc::default(), patience: PATIENCE };
            let pulling = Pulling::new(Arc::clone(&client.store), shared);
            let reference = format!("{}/demo:1", registry.name()).parse().unwrap();
            pulling.pull(&reference, client.settings(), &progress).await
        })
        .unwrap();
    let seen = progress.look();
    assert_eq!((seen.from, seen.layers.len()), (registry.name(), 4));
    assert!(seen.layers.iter().all(|layer| layer.done && layer.received == layer.bytes));
}
