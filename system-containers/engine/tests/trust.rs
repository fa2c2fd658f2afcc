//! The policy for images: what is not pinned or not signed as it asks is refused with the reason, and nothing of it is here
//! afterwards.

mod support;

use std::sync::{Arc, Mutex};

use berth_engine::digest::Digest;
use berth_engine::trust;
use support::Image;
use support::client::{Client, image, layer};
use support::registry::{Act, Registry, json};
use support::signing::{BUNDLE, Signature, Signer, tag};

/// A registry with an image, and the image's digest.
fn registry() -> (Registry, Digest) {
    let registry = Registry::good();
    let (digest, _) = registry.push("demo", "1", &image());
    (registry, digest)
}

/// Puts what a signature consists of there; its manifest under this tag.
fn put(registry: &Registry, tag: &str, signature: &Signature) -> Digest {
    for blob in [&signature.payload, &signature.config] {
        registry.put(&format!("/v2/demo/blobs/{}", Digest::of(blob)), "application/octet-stream", blob);
    }
    registry.put_manifest("demo", tag, &signature.manifest)
}

/// A client that asks for a signature by this key.
fn client(registry: &Registry, signer: &Signer) -> Option<Client> {
    let policy =
        format!("[trust.'{}/demo']\nrequire = 'signature'\nkeys = ['''{}''']\n", registry.name(), signer.public_key());
    Some(Client::new(&[registry])?.configured(&policy))
}

fn refusal(client: &Client, name: &str, reason: &str) {
    let error = client.pull(name).unwrap_err();
    assert!(error.contains(reason), "{error}");
    client.has_no_image(name);
}

#[test]
fn an_image_that_is_signed_by_a_key_of_the_policy_is_taken() {
    for ed25519 in [false, true] {
        let Some(signer) = Signer::new(ed25519) else { return };
        let (registry, digest) = registry();
        put(&registry, &tag(digest), &signer.sign(digest));
        let Some(client) = client(&registry, &signer) else { return };
        let name = format!("{}/demo:1", registry.name());
        client.pull(&name).unwrap();
        client.holds(&name, &image());

        // What was taken by one policy was not by another.
        let trusted = |client: &Client| {
            let entries = toml::from_str::<berth_config::Configuration>(&client.configuration).unwrap().trust;
            let reference = name.parse().unwrap();
            client.store.is_taken_by(&reference, digest, trust::digest(&entries, &reference).unwrap())
        };
        assert!(trusted(&client));
        let configuration = client.configuration.replace("keys = [", "keys = ['other.pub', ");
        assert!(!trusted(&Client { configuration, ..client }));
    }
}

#[test]
fn an_image_without_a_good_signature_is_refused() {
    let (Some(signer), Some(other)) = (Signer::new(false), Signer::new(false)) else { return };
    let (registry, digest) = registry();
    let Some(client) = client(&registry, &signer) else { return };
    let name = format!("{}/demo:1", registry.name());
    refusal(&client, &name, "wants a signature, and sha256:");
    let blobs = registry.log().iter().filter(|asked| asked.is_blob()).count();
    assert_eq!(blobs, 1, "its configuration, and no layer");

    put(&registry, &tag(digest), &other.sign(digest));
    refusal(&client, &name, "it is not by a key of the policy");
    // A good signature of something else.
    let another = Digest::of(b"another");
    put(&registry, &tag(digest), &signer.sign(another));
    refusal(&client, &name, &format!("it is a signature of {another}"));
    // What was signed was exchanged afterwards.
    let signature = signer.sign(digest);
    put(&registry, &tag(digest), &signature);
    let path = format!("/v2/demo/blobs/{}", Digest::of(&signature.payload));
    registry.put(&path, "application/octet-stream", &other.sign(another).payload);
    refusal(&client, &name, "is damaged");
    registry.put_manifest("demo", &tag(digest), b"no manifest");
    refusal(&client, &name, "has none");
}

#[test]
fn an_index_may_be_signed_and_so_may_its_image() {
    let Some(signer) = Signer::new(false) else { return };
    let (registry, digest) = registry();
    let length = registry.push("demo", "x", &image()).1.len();
    let platform = format!(r#""platform":{{"os":"linux","architecture":"{}"}}"#, berth_engine::oci::ARCHITECTURE);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}","size":{length},{platform}}}]}}"#);
    let index = registry.put_manifest("demo", "many", index.as_bytes());
    let Some(client) = client(&registry, &signer) else { return };
    let name = format!("{}/demo:many", registry.name());
    refusal(&client, &name, &format!("and {index} has none"));
    put(&registry, &tag(index), &signer.sign(index));
    client.pull(&name).unwrap();
    registry.put_manifest("demo", &tag(index), b"{}");
    put(&registry, &tag(digest), &signer.sign(digest));
    client.pull(&name).unwrap();
}

#[test]
fn a_signature_that_refers_to_its_image_is_found() {
    let Some(signer) = Signer::new(false) else { return };
    let (registry, digest) = registry();
    let signature = put(&registry, "unrelated", &signer.sign(digest));
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{signature}","size":1}}]}}"#);
    let kind = "application/vnd.dev.cosign.artifact.sig.v1%2Bjson";
    let path = format!("/v2/demo/referrers/{digest}?artifactType={kind}");
    registry.put(&path, "application/vnd.oci.image.index.v1+json", index.as_bytes());
    let Some(client) = client(&registry, &signer) else { return };
    client.pull(&format!("{}/demo:1", registry.name())).unwrap();
    // A registry that cannot be asked has a list under a tag.
    registry.put(&path, "x", b"{}");
    let pinned = format!("{}/demo@{digest}", registry.name());
    assert!(client.pull(&pinned).unwrap_err().contains("has none"));
    registry.remove(&path);
    registry.put_manifest("demo", &format!("sha256-{}", digest.hex()), index.as_bytes());
    client.pull(&pinned).unwrap();
}

#[test]
fn the_last_signatures_of_many_are_looked_at() {
    let (Some(signer), Some(other)) = (Signer::new(false), Signer::new(false)) else { return };
    let (registry, digest) = registry();
    let Some(client) = client(&registry, &signer) else { return };
    let name = format!("{}/demo:1", registry.name());
    let [bad, good] = [other.sign(digest), signer.sign(digest)];
    let layers = |signature: &Signature| {
        let mut manifest: serde_json::Value = serde_json::from_slice(&signature.manifest).unwrap();
        manifest["layers"].as_array_mut().unwrap().remove(0)
    };
    let put_all = |layers: Vec<serde_json::Value>| {
        put(&registry, "unrelated", &good);
        let mut manifest: serde_json::Value = serde_json::from_slice(&good.manifest).unwrap();
        manifest["layers"] = layers.into();
        registry.put_manifest("demo", &tag(digest), manifest.to_string().as_bytes());
    };
    // Whoever may push can add as many as they like.
    let mut all = vec![layers(&good)];
    all.extend((0..40).map(|_| layers(&bad)));
    put_all(all.clone());
    refusal(&client, &name, "it is not by a key of the policy");
    let looked = registry.log().iter().filter(|asked| asked.path.contains(&Digest::of(&bad.payload).hex())).count();
    assert_eq!(looked, 32);
    all.reverse();
    put_all(all);
    client.pull(&name).unwrap();
}

#[test]
fn referrers_on_later_pages_are_found_within_reason() {
    let Some(signer) = Signer::new(false) else { return };
    for (pages, is_found) in [(3, true), (30, false)] {
        let last = Arc::new(Mutex::new(String::new()));
        let listed = Arc::clone(&last);
        let registry = Registry::start(move |asked| {
            if !asked.path.contains("/referrers/") {
                return Act::Serve;
            }
            let (path, page) = asked.path.split_once("&page=").unwrap_or((&asked.path, "1"));
            let page: usize = page.parse().unwrap();
            let link = format!("Link: <{path}&page={}>; rel=\"next\"\r\n", page + 1);
            let index = |entries: &str| format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#);
            match page < pages {
                true => json(200, &link, &index("")),
                false => json(200, "", &index(&listed.lock().unwrap())),
            }
        });
        let (digest, _) = registry.push("demo", "1", &image());
        let signature = put(&registry, "unrelated", &signer.sign(digest));
        *last.lock().unwrap() = format!(r#"{{"digest":"{signature}","size":1}}"#);
        let Some(client) = client(&registry, &signer) else { return };
        let name = format!("{}/demo:1", registry.name());
        match is_found {
            true => drop(client.pull(&name).unwrap()),
            false => refusal(&client, &name, "has none"),
        }
        let asked = registry.log().iter().filter(|asked| asked.path.contains("/referrers/")).count();
        assert!(asked <= 20, "{asked}: ten pages of each of two kinds");
    }
}

#[test]
fn a_good_signature_is_enough_where_nobody_can_tell_who_refers_to_the_image() {
    let Some(signer) = Signer::new(false) else { return };
    let registry = Registry::start(|asked| match asked.path.contains("/referrers/") {
        true => json(500, "", ""),
        false => Act::Serve,
    });
    let (digest, _) = registry.push("demo", "1", &image());
    let Some(client) = client(&registry, &signer) else { return };
    let name = format!("{}/demo:1", registry.name());
    refusal(&client, &name, "says 500");
    put(&registry, &tag(digest), &signer.sign(digest));
    let before = registry.log().len();
    client.pull(&name).unwrap();
    assert!(!registry.log()[before..].iter().any(|asked| asked.path.contains("/referrers/")), "nobody needs to tell");
}

#[test]
fn a_registry_that_does_not_know_the_question_may_have_a_list_under_a_tag() {
    let Some(signer) = Signer::new(false) else { return };
    let page: fn() -> Act = || json(200, "", "<html>Welcome</html>");
    let unknown: fn() -> Act = || json(501, "", "");
    let away: fn() -> Act = || json(302, "Location: ftp://elsewhere/\r\n", "");
    for act in [page, unknown, away] {
        let registry = Registry::start(move |asked| match asked.path.contains("/referrers/") {
            true => act(),
            false => Act::Serve,
        });
        let (digest, _) = registry.push("demo", "1", &image());
        let Some(client) = client(&registry, &signer) else { return };
        let name = format!("{}/demo:1", registry.name());
        refusal(&client, &name, "has none");
        let signature = put(&registry, "unrelated", &signer.sign(digest));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{signature}","size":1}}]}}"#);
        registry.put_manifest("demo", &format!("sha256-{}", digest.hex()), index.as_bytes());
        client.pull(&name).unwrap();
    }
}

#[test]
fn a_bundle_that_refers_to_its_image_is_a_signature() {
    for ed25519 in [false, true] {
        let (Some(signer), Some(other)) = (Signer::new(ed25519), Signer::new(ed25519)) else { return };
        let (registry, digest) = registry();
        let Some(client) = client(&registry, &signer) else { return };
        let name = format!("{}/demo:1", registry.name());
        let path = format!("/v2/demo/referrers/{digest}?artifactType={}", BUNDLE.replace('+', "%2B"));
        let refer = |signature: &Signature, kind: &str| {
            let bundle = put(&registry, "unrelated", signature);
            let annotations = format!(r#"{{"dev.sigstore.bundle.predicateType":"{kind}"}}"#);
            let listed = format!(r#"{{"digest":"{bundle}","size":1,"annotations":{annotations}}}"#);
            let index = format!(r#"{{"schemaVersion":2,"manifests":[{listed}]}}"#);
            registry.put(&path, "application/vnd.oci.image.index.v1+json", index.as_bytes());
        };
        refer(&other.bundle(digest), "https://sigstore.dev/cosign/sign/v1");
        refusal(&client, &name, "it is not by a key of the policy");
        refer(&signer.bundle(Digest::of(b"another")), "https://sigstore.dev/cosign/sign/v1");
        refusal(&client, &name, "it is a signature of");
        refer(&signer.bundle(digest), "https://slsa.dev/provenance/v1");
        refusal(&client, &name, "has none");
        refer(&signer.bundle(digest), "https://sigstore.dev/cosign/sign/v1");
        client.pull(&name).unwrap();
    }
}

#[test]
fn an_image_that_must_be_pinned_is() {
    let (registry, digest) = registry();
    registry.push("other", "1", &Image::new("other", vec![layer("a")]));
    let name = registry.name();
    let Some(client) = Client::new(&[&registry]) else { return };
    let client =
        client.configured(&format!("[trust.'*']\nrequire = 'digest'\n[trust.'{name}/other']\nrequire = 'nothing'\n"));
    refusal(&client, &format!("{name}/demo:1"), "only takes images with a digest");
    assert_eq!(registry.log().len(), 0, "nobody is asked");
    client.pull(&format!("{name}/demo:1@{digest}")).unwrap();
    client.pull(&format!("{name}/other:1")).unwrap();
}
