//! Against Debian's docker-registry: plain, with TLS and users, and as a mirror that pulls through.

mod support;

use std::io::Write as _;
use std::sync::Arc;

use berth_engine::digest::Digest;
use berth_engine::document::{self, Kind};
use berth_engine::registry::{self, endpoint};
use support::client::{Client, block, image, shared};
use support::peer::{Peer, folder, plain, run};
use support::registry::{DOCKER_LAYER, DOCKER_LIST, DOCKER_MANIFEST, docker_list};
use support::signing::{Signer, tag};
use support::tls::certificates;
use support::{Tar, blob_name, descriptor};

#[test]
fn an_image_of_skopeo_is_pulled_by_tag_and_by_digest() {
    let Some(folder) = folder(&["docker-registry", "skopeo"]) else { return };
    let Some(client) = Client::new(&[]) else { return };
    let peer = Peer::start(folder.path(), "", "");
    peer.fill(folder.path());
    let client = client.configured(&plain(&peer.name));
    let pulled = client.pull(&format!("{}/demo/web:1", peer.name)).unwrap();
    client.holds(&pulled.image, &image());
    let pinned = format!("{}/demo/web@{}", peer.name, pulled.digest);
    assert_eq!(client.pull(&pinned).unwrap().layers, 0, "everything is there already");
    let error = client.pull(&format!("{}/demo/web:2", peer.name)).unwrap_err();
    assert!(error.contains("manifest unknown"), "{error}");
}

#[test]
fn an_image_and_a_list_in_dockers_form_are_pulled() {
    let Some(folder) = folder(&["docker-registry", "skopeo"]) else { return };
    let Some(client) = Client::new(&[]) else { return };
    let peer = Peer::start(folder.path(), "", "");
    peer.fill_with(folder.path(), &["--format", "v2s2", "--dest-compress-format", "gzip"]);
    let client = client.configured(&plain(&peer.name));
    let name = format!("{}/demo/web:1", peer.name);
    let pulled = client.pull(&name).unwrap();
    client.holds(&name, &image());
    let digest: Digest = pulled.digest.parse().unwrap();
    let manifest = client.store.manifest(digest).unwrap().unwrap();
    let text = String::from_utf8(manifest.clone()).unwrap();
    assert!(text.contains(DOCKER_MANIFEST) && text.contains(DOCKER_LAYER), "{text}");

    let settings = client.settings();
    let endpoint = endpoint::endpoint(&peer.name, "demo/web".to_owned(), &settings).unwrap();
    let registry = registry::Client::new(&shared(), Arc::new(settings), endpoint);
    let list = docker_list(digest, &manifest);
    block(registry.put_manifest("list", DOCKER_LIST, list.as_bytes())).unwrap();
    let second = Client::new(&[]).unwrap().configured(&plain(&peer.name));
    // By its digest: under a tag, who takes no lists gets the image itself.
    let name = format!("{}/demo/web@{}", peer.name, Digest::of(list.as_bytes()));
    second.pull(&name).unwrap();
    second.holds(&name, &image());
}

#[test]
fn a_chunked_layer_of_skopeo_is_pulled() {
    let Some(folder) = folder(&["docker-registry", "skopeo"]) else { return };
    let Some(client) = Client::new(&[]) else { return };
    let peer = Peer::start(folder.path(), "", "");
    peer.fill_with(folder.path(), &["--format", "oci", "--dest-compress-format", "zstd:chunked"]);
    let client = client.configured(&plain(&peer.name));
    let name = format!("{}/demo/web:1", peer.name);
    client.pull(&name).unwrap();
    client.holds(&name, &image());
    let (digest, _) = client.store.resolve(&name.parse().unwrap()).unwrap();
    let manifest = client.store.manifest(digest).unwrap().unwrap();
    let Ok(Kind::Image { layers, .. }) = document::manifest("m", &manifest) else { panic!("it is an image") };
    // The mark at the end is the format's.
    let chunked = layers.iter().filter(|layer| {
        let hex = layer.digest.hex();
        let blob = format!("content/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        std::fs::read(folder.path().join(blob)).unwrap().ends_with(b"GnUlInUx")
    });
    assert_eq!(chunked.count(), 4);
}

#[test]
fn a_mirror_that_pulls_through_serves_what_another_registry_has() {
    let Some(folder) = folder(&["docker-registry", "skopeo"]) else { return };
    let Some(client) = Client::new(&[]) else { return };
    let origin = Peer::start(folder.path(), "", "");
    origin.fill(folder.path());
    let own = folder.path().join("mirror");
    std::fs::create_dir(&own).unwrap();
    let mirror = Peer::start(&own, "", &format!("proxy:\n  remoteurl: http://{}\n", origin.name));
    let more = format!("[registries.'registry.invalid']\nmirrors = ['{}']\n{}", mirror.name, plain(&mirror.name));
    let client = client.configured(&more);
    let pulled = client.pull("registry.invalid/demo/web:1").unwrap();
    assert_eq!(pulled.from, mirror.name);
    client.holds("registry.invalid/demo/web:1", &image());
}

#[test]
fn a_signature_that_was_copied_there_is_found() {
    let Some(folder) = folder(&["docker-registry", "skopeo", "openssl"]) else { return };
    let (Some(client), Some(signer)) = (Client::new(&[]), Signer::new(false)) else { return };
    let peer = Peer::start(folder.path(), "", "");
    peer.fill(folder.path());
    let policy = format!("[trust.'{}']\nrequire = 'signature'\nkeys = ['key.pub']\n", peer.name);
    std::fs::create_dir_all(client.machine.path("user-data")).unwrap();
    std::fs::write(client.machine.path("user-data/key.pub"), signer.public_key()).unwrap();
    let client = client.configured(&(plain(&peer.name) + &policy));
    let name = format!("{}/demo/web:1", peer.name);
    let error = client.pull(&name).unwrap_err();
    assert!(error.contains("wants a signature"), "{error}");

    let target = format!("docker://{name}");
    let digest = run("skopeo", &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &target], folder.path());
    let digest: Digest = String::from_utf8(digest).unwrap().trim().parse().unwrap();
    let signature = signer.sign(digest);
    let manifest = descriptor("manifest.v1+json", &signature.manifest, "");
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{manifest}]}}"#);
    let mut layout = Tar::default().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    for blob in [&signature.config, &signature.payload, &signature.manifest] {
        layout = layout.file(&blob_name(blob), blob);
    }
    std::fs::write(folder.path().join("signature.tar"), layout.file("index.json", index.as_bytes()).finish()).unwrap();
    let target = format!("docker://{}/demo/web:{}", peer.name, tag(digest));
    let options = ["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"];
    run("skopeo", &[&options[..], &["oci-archive:signature.tar", &target]].concat(), folder.path());
    client.pull(&name).unwrap();
    client.holds(&name, &image());
}

#[test]
fn a_private_authority_a_client_certificate_and_a_user_are_needed_and_suffice() {
    let Some(folder) = folder(&["docker-registry", "skopeo", "openssl", "htpasswd"]) else { return };
    let folder = folder.path();
    let Some(client) = Client::new(&[]) else { return };
    Peer::start(folder, "", "").fill(folder);
    certificates(folder, "IP:127.0.0.1");
    std::fs::write(folder.join("users"), run("htpasswd", &["-nbB", "me", "secret"], folder)).unwrap();
    let file = |name: &str| folder.join(name).display().to_string();
    let (server, key, authority) = (file("server.pem"), file("server.key"), file("authority.pem"));
    let tls = format!("  tls:\n    certificate: {server}\n    key: {key}\n    clientcas: ['{authority}']\n");
    let users = format!("auth:\n  htpasswd:\n    realm: here\n    path: {}\n", file("users"));
    let peer = Peer::start(folder, &tls, &users);
    let user_data = client.machine.path("user-data");
    std::fs::create_dir_all(user_data.join("certs")).unwrap();
    let copy = |name: &str, to: &str| std::fs::copy(folder.join(name), user_data.join(to)).unwrap();
    let name = format!("{}/demo/web:1", peer.name);

    let error = client.pull(&name).unwrap_err();
    assert!(error.contains("speak TLS") && error.contains("UnknownIssuer"), "{error}");
    copy("authority.pem", "ca.pem");
    let client = client.configured(&format!("[registries.'{}']\nca = 'ca.pem'\n", peer.name));
    let error = client.pull(&name).unwrap_err();
    assert!(error.contains("received fatal alert") && error.contains("Certificate"), "{error}");
    copy("client.pem", "client.pem");
    let mut both = std::fs::OpenOptions::new().append(true).open(user_data.join("client.pem")).unwrap();
    both.write_all(&std::fs::read(folder.join("client.key")).unwrap()).unwrap();
    let client = client.configured("client_certificate = 'client.pem'\n");
    let error = client.pull(&name).unwrap_err();
    assert!(error.contains("it wants a user name and a password"), "{error}");
    let wrong = client.configured("username = 'me'\npassword = 'wrong'\n");
    let error = wrong.pull(&name).unwrap_err();
    assert!(error.contains("refuses user \"me\""), "{error}");
    let configuration = wrong.configuration.replace("wrong", "secret");
    let client = Client { configuration, ..wrong };
    client.pull(&name).unwrap();
    client.holds(&name, &image());
}
