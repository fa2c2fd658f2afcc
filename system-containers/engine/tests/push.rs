//! Pushing: to Debian's docker-registry, and to a registry of our own that is busy, or wants to see tokens.

mod support;

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use berth_engine::digest::Digest;
use berth_engine::import::describe;
use berth_engine::registry::credentials::Credentials;
use berth_engine::registry::{self, endpoint};
use support::client::{Client, block, image, large, layer, shared};
use support::peer::{Peer, folder, plain, run};
use support::registry::{Act, DOCKER_LAYER, DOCKER_MANIFEST, Registry};
use support::{Image, Tar};

#[test]
fn an_image_is_pushed_and_pulled_again_and_pushed_only_once() {
    let Some(folder) = folder(&["docker-registry", "skopeo"]) else { return };
    let Some(client) = Client::new(&[]) else { return };
    let peer = Peer::start(folder.path(), "", "");
    let client = client.configured(&plain(&peer.name));
    client.import(&[image(), large()]);
    for (source, layers) in [("demo", 4), ("large:1", 2)] {
        let name = format!("{}/some/where:{}", peer.name, source.replace(':', "-"));
        client.tag(source, &name);
        let pushed = client.push(&name, None).unwrap();
        assert_eq!(pushed.uploaded, layers + 1, "{source}: its layers and its configuration");
        let again = client.push(&name, None).unwrap();
        assert_eq!((again.uploaded, again.digest), (0, pushed.digest));

        let second = Client::new(&[]).unwrap().configured(&plain(&peer.name));
        let pulled = second.pull(&name).unwrap();
        assert_eq!(pulled.digest, pushed.digest.to_string());
        let of = |client: &Client, name: &str| client.store.resolve(&name.parse().unwrap()).unwrap().1;
        assert_eq!(of(&second, &name).config_digest, of(&client, source).config_digest, "it is the same image");
        let options = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}"];
        let seen = run("skopeo", &[&options[..], &[&format!("docker://{name}")]].concat(), folder.path());
        assert_eq!(String::from_utf8(seen).unwrap().trim(), pushed.digest.to_string());
    }
    let error = client.push(&format!("{}/some/none:1", peer.name), None).unwrap_err();
    assert!(error.contains("there is no image"), "{error}");
}

#[test]
fn what_a_registry_has_already_keeps_its_digest() {
    let Some(folder) = folder(&["docker-registry", "skopeo"]) else { return };
    let Some(client) = Client::new(&[]) else { return };
    let peer = Peer::start(folder.path(), "", "");
    peer.fill(folder.path());
    let client = client.configured(&plain(&peer.name));
    let source = format!("{}/demo/web:1", peer.name);
    let pulled = client.pull(&source).unwrap();
    // Blobs of another repository are taken over, not uploaded.
    let target = format!("{}/other/place:2", peer.name);
    client.tag(&source, &target);
    let pushed = client.push(&target, None).unwrap();
    assert_eq!((pushed.uploaded, pushed.digest.to_string()), (0, pulled.digest.clone()));
    let second = Client::new(&[]).unwrap().configured(&plain(&peer.name));
    assert_eq!(second.pull(&target).unwrap().digest, pulled.digest);
    second.holds(&target, &image());
}

#[test]
fn layers_that_a_registry_has_stay_as_they_came() {
    let Some(folder) = folder(&["docker-registry", "skopeo"]) else { return };
    let Some(client) = Client::new(&[]) else { return };
    let peer = Peer::start(folder.path(), "", "");
    let client = client.configured(&plain(&peer.name));
    let image = Image::new("demo", vec![layer("a"), layer("b"), layer("c")]);
    client.import(std::slice::from_ref(&image));
    let name = format!("{}/some/where:1", peer.name);
    client.tag("demo", &name);
    let settings = client.settings();
    let endpoint = endpoint::endpoint(&peer.name, "some/where".to_owned(), &settings).unwrap();
    let registry = registry::Client::new(&shared(), Arc::new(settings), endpoint);
    let upload = |blob: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(blob).unwrap();
        block(registry.upload(&Arc::new(file), Digest::of(blob), blob.len() as u64, |_| {})).unwrap();
    };
    upload(&image.layers[0].1);
    upload(&image.layers[2].1);
    let pushed = client.push(&name, None).unwrap();
    assert_eq!(pushed.uploaded, 2, "a layer and the configuration");

    let second = Client::new(&[]).unwrap().configured(&plain(&peer.name));
    assert_eq!(second.pull(&name).unwrap().digest, pushed.digest.to_string());
    second.holds(&name, &image);
    let manifest = second.store.manifest(pushed.digest).unwrap().unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let kinds = layers.iter().map(|layer| layer["mediaType"].as_str().unwrap().rsplit('.').next().unwrap());
    assert_eq!(kinds.collect::<Vec<_>>(), ["tar", "tar+gzip", "tar"]);
    assert_eq!(layers[2]["digest"], Digest::of(&image.layers[2].1).to_string());
    // Somebody else takes it too.
    let options = ["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"];
    let target = format!("oci:{}", folder.path().join("copied").display());
    run("skopeo", &[&options[..], &[&format!("docker://{name}"), &target]].concat(), folder.path());

    // With the last layer there too the manifest stays as it came.
    upload(&image.layers[1].1);
    let other = format!("{}/some/where:2", peer.name);
    client.tag("demo", &other);
    let again = client.push(&other, None).unwrap();
    assert_eq!((again.uploaded, again.digest), (0, client.store.resolve(&other.parse().unwrap()).unwrap().0));
}

#[test]
fn a_push_needs_the_user_that_the_registry_knows() {
    let Some(folder) = folder(&["docker-registry", "htpasswd"]) else { return };
    let folder = folder.path();
    let Some(client) = Client::new(&[]) else { return };
    std::fs::write(folder.join("users"), run("htpasswd", &["-nbB", "me", "secret"], folder)).unwrap();
    let users = format!("auth:\n  htpasswd:\n    realm: here\n    path: {}\n", folder.join("users").display());
    let peer = Peer::start(folder, "", &users);
    let client = client.configured(&plain(&peer.name));
    client.import(&[image()]);
    let name = format!("{}/a/b:1", peer.name);
    client.tag("demo", &name);
    let login =
        |password: &str| Credentials { username: "me".to_owned(), password: password.to_owned(), identity_token: None };
    let try_login = |password: &str| {
        let settings = client.settings().with_login(&peer.name, login(password));
        let endpoint = endpoint::endpoint(&peer.name, String::new(), &settings).unwrap();
        let client = registry::Client::new(&shared(), Arc::new(settings), endpoint);
        block(client.log_in()).map_err(|error| describe(&error))
    };
    assert!(try_login("wrong").unwrap_err().contains("refuses user \"me\""));
    try_login("secret").unwrap();
    assert!(client.push(&name, None).unwrap_err().contains("it wants a user name"));
    client.push(&name, Some(login("secret"))).unwrap();
}

#[test]
fn what_a_registry_is_too_busy_for_is_sent_again() {
    let say = |status, headers: &str| Act::Say(status, headers.to_owned(), Vec::new());
    let place = "Location: /v2/b/blobs/uploads/x\r\n";
    let (mut gets, mut puts, mut there) = (0, 0, Vec::new());
    let registry = Registry::start(move |asked| match asked.method.as_str() {
        "POST" if asked.path.contains("mount=") && asked.before == 0 => say(429, ""),
        "POST" if asked.path.contains("mount=") => say(201, ""),
        "POST" => say(202, place),
        "GET" => {
            gets += 1;
            match gets {
                1 => say(503, ""),
                2 => say(204, &format!("{place}Range: 0-0\r\n")),
                _ => say(404, ""),
            }
        }
        "PUT" if asked.path.contains("/manifests/") => say(201, ""),
        "PUT" => {
            puts += 1;
            // The second arrives, and it is the answer that is lost.
            if matches!(puts, 2 | 4) {
                there.extend(asked.path.split("digest=").nth(1).map(str::to_owned));
            }
            say(if puts < 4 { 503 } else { 201 }, "")
        }
        _ => say(if there.iter().any(|blob| asked.path.ends_with(blob)) { 200 } else { 404 }, ""),
    });
    let Some(client) = Client::new(&[&registry]) else { return };
    client.import(&[Image::new("demo", vec![Tar::default().file("s", b"small").finish()])]);
    let name = format!("{}/b:1", registry.name());
    client.tag("demo", &name);
    client.push(&name, None).unwrap();
    let methods: Vec<String> = registry.log().into_iter().map(|asked| asked.method).collect();
    let expected = [
        // The layer as it came, and as it goes: sent, asked for twice, sent again, gone, but there.
        "HEAD HEAD POST PUT GET GET PUT GET HEAD",
        // The configuration: sent, gone, not there, sent anew. Then the manifest.
        "HEAD POST PUT GET HEAD POST PUT PUT",
    ];
    assert_eq!(methods.join(" "), expected.join(" "));
    let mounted = block(async {
        let settings = client.settings();
        let endpoint = endpoint::endpoint(&registry.name(), "b".to_owned(), &settings).unwrap();
        registry::Client::new(&shared(), Arc::new(settings), endpoint).mount(Digest::of(b"x"), "a").await
    });
    assert!(mounted.unwrap(), "it is asked again");
}

/// A registry that takes blobs over for who has a token for both repositories; what its token server says, and what it says
/// itself to such a token.
fn mounting(token: u16, mount: u16) -> Registry {
    let say = |status, headers: &str, body: &str| Act::Say(status, headers.to_owned(), body.as_bytes().to_vec());
    let scope = "repository:c/d:pull,push repository:demo:pull";
    let challenge = format!("WWW-Authenticate: Bearer realm=\"/token\",service=\"reg\",scope=\"{scope}\"\r\n");
    let registry = Registry::start(move |asked| match asked.method.as_str() {
        _ if asked.path.starts_with("/token") => say(token, "", r#"{"token":"both"}"#),
        _ if asked.path.starts_with("/v2/demo/") => Act::Serve,
        "HEAD" => say(404, "", ""),
        "POST" if asked.path.contains("mount=") => match asked.header("authorization") {
            "Bearer both" => say(mount, &challenge, ""),
            _ => say(401, &challenge, ""),
        },
        "POST" => say(202, "Location: /v2/c/d/blobs/uploads/x\r\n", ""),
        _ => say(201, "", ""),
    });
    registry.push("demo", "1", &image());
    registry
}

#[test]
fn blobs_are_taken_over_with_a_token_for_both_repositories_or_uploaded() {
    let refusals = [(401, 0), (403, 0), (404, 0), (200, 401), (200, 403), (200, 405), (200, 501)];
    for ((token, mount), uploaded) in refusals.map(|refusal| (refusal, 5)).into_iter().chain([((200, 201), 0)]) {
        let registry = mounting(token, mount);
        let Some(client) = Client::new(&[&registry]) else { return };
        let [source, target] = ["demo:1", "c/d:1"].map(|name| format!("{}/{name}", registry.name()));
        client.pull(&source).unwrap();
        client.tag(&source, &target);
        let pushed = client.push(&target, None).unwrap_or_else(|error| panic!("{token} {mount}: {error}"));
        assert_eq!(pushed.uploaded, uploaded, "{token} {mount}");
        let log = registry.log();
        let asked = log.iter().find(|asked| asked.path.starts_with("/token")).expect("a token was asked for");
        let scopes = "scope=repository:c/d:pull%2Cpush&scope=repository:demo:pull";
        assert_eq!(asked.path, format!("/token?service=reg&{scopes}"));
    }
    let registry = mounting(200, 201);
    let client = Client::new(&[&registry]).unwrap().configured("identity_token = 'r'\n");
    let [source, target] = ["demo:1", "c/d:1"].map(|name| format!("{}/{name}", registry.name()));
    client.pull(&source).unwrap();
    client.tag(&source, &target);
    assert_eq!(client.push(&target, None).unwrap().uploaded, 0);
    // A form has one field for all of them.
    let log = registry.log();
    let form = log.iter().find(|asked| asked.path == "/token").map(|asked| asked.body.as_str());
    let scope = "scope=repository:c/d:pull%2Cpush%20repository:demo:pull";
    let expected = format!("grant_type=refresh_token&client_id=berth&service=reg&{scope}&refresh_token=r");
    assert_eq!(form, Some(expected.as_str()));
}

#[test]
fn an_image_in_dockers_form_keeps_it() {
    let source = Registry::good();
    let (digest, manifest) = source.push_as_docker("demo", "1", &image(), DOCKER_LAYER);
    let target = Registry::start(|asked| match asked.method.as_str() {
        "HEAD" => Act::Say(200, String::new(), Vec::new()),
        _ => Act::Say(201, String::new(), Vec::new()),
    });
    let Some(client) = Client::new(&[&source, &target]) else { return };
    let name = format!("{}/demo:1", target.name());
    client.pull(&format!("{}/demo:1", source.name())).unwrap();
    client.tag(&format!("{}/demo:1", source.name()), &name);
    let pushed = client.push(&name, None).unwrap();
    assert_eq!((pushed.uploaded, pushed.digest), (0, digest));
    let log = target.log();
    let put = log.last().unwrap();
    assert_eq!((put.method.as_str(), put.header("content-type")), ("PUT", DOCKER_MANIFEST));
    assert_eq!(put.body.as_bytes(), manifest);
}

#[test]
fn a_push_asks_another_server_for_a_token_to_write() {
    // A token says what it is for, and is good for three requests.
    let mut given = 0;
    let tokens = Registry::start(move |asked| {
        assert_eq!((asked.method.as_str(), asked.header("authorization")), ("GET", "Basic bWU6c2VjcmV0"));
        let scope = asked.path.strip_prefix("/token?service=reg&scope=repository:c/d:").unwrap();
        given += 1;
        Act::Say(200, String::new(), format!(r#"{{"token":"{given}-{}"}}"#, scope.replace("%2C", "-")).into_bytes())
    });
    let realm = format!("http://{}/token", tokens.name());
    let mut uses = std::collections::HashMap::new();
    let there = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&there);
    let registry = Registry::start(move |asked| {
        let actions = if matches!(asked.method.as_str(), "GET" | "HEAD") { "pull" } else { "pull,push" };
        let token = asked.header("authorization").to_owned();
        assert!(!token.starts_with("Basic"), "the password is for the other server");
        let suits = token.starts_with("Bearer ") && token.contains(&actions.replace(',', "-"));
        let left = uses.entry(token).or_insert(3);
        if !suits || *left == 0 {
            let challenge = format!(r#"Bearer realm="{realm}",service="reg",scope="repository:c/d:{actions}""#);
            return Act::Say(401, format!("WWW-Authenticate: {challenge}\r\n"), Vec::new());
        }
        *left -= 1;
        match asked.method.as_str() {
            "HEAD" => Act::Say(404, String::new(), Vec::new()),
            "POST" => Act::Say(202, "Location: /v2/c/d/blobs/uploads/x\r\n".to_owned(), Vec::new()),
            _ => {
                written.lock().unwrap().push(asked.clone());
                Act::Say(201, String::new(), Vec::new())
            }
        }
    });
    let Some(client) = Client::new(&[&registry]) else { return };
    let client = client.configured("username = 'me'\npassword = 'secret'\n");
    let inner = image();
    client.import(std::slice::from_ref(&inner));
    let name = format!("{}/c/d:1", registry.name());
    client.tag("demo", &name);
    let pushed = client.push(&name, None).unwrap();
    assert_eq!(pushed.uploaded, 5, "four layers and the configuration");
    let there = there.lock().unwrap();
    // What was refused with an old token is sent again, and whole.
    assert_eq!(there.len(), 6);
    assert!(there.iter().all(|asked| asked.header("content-length").parse::<u64>().unwrap() > 0));
    assert_eq!(there[4].body.as_bytes(), inner.config());
    assert_eq!(Digest::of(there[5].body.as_bytes()), pushed.digest);
    let asked: Vec<String> = tokens.log().into_iter().map(|asked| asked.path).collect();
    assert!(asked.len() >= 2 && asked.iter().all(|path| path.ends_with("pull%2Cpush")), "{asked:?}");
}
