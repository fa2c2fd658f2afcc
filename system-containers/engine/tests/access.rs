//! Who is asked, and as whom: tokens and passwords, redirections, proxies, plain HTTP.

mod support;

use std::collections::HashMap;
use std::sync::Arc;

use berth_engine::registry::{self, endpoint};
use support::client::{Client, block, image, refused, shared};
use support::registry::{Act, Asked, Registry, json};

#[test]
fn redirections_are_followed_within_reason_and_without_credentials() {
    let storage = Registry::good();
    let target = storage.name();
    let registry = Registry::start(move |asked| match asked.is_blob() {
        // With a word for people.
        true => json(307, &format!("Location: http://{target}{}\r\n", asked.path), "<a>Temporary Redirect</a>"),
        false if asked.header("authorization").is_empty() => json(401, "WWW-Authenticate: Basic realm=x\r\n", ""),
        false => Act::Serve,
    });
    registry.push("demo", "1", &image());
    storage.push("demo", "1", &image());
    let Some(client) = Client::new(&[&registry]) else { return };
    let name = registry.name();
    let client = client.configured("username = 'me'\npassword = 'secret'\n");
    client.pull(&format!("{name}/demo:1")).unwrap();
    client.holds(&format!("{name}/demo:1"), &image());
    assert!(storage.log().iter().all(|asked| asked.header("authorization").is_empty()));
    // Three blobs come at once.
    let connections = [registry.connections(), storage.connections()];
    assert!(connections.iter().all(|count| *count <= 3), "{connections:?} for five blobs that another server has");
    refused(|asked| json(307, &format!("Location: {}\r\n", asked.path), ""), "redirects more than 5 times");
    refused(|_| json(302, "Location: ftp://x/\r\n", ""), "leads astray");
}

#[test]
fn tokens_are_fetched_and_fetched_again_when_they_expire() {
    // Every token is good for three requests.
    let mut uses = HashMap::new();
    let mut given = 0;
    let registry = Registry::start(move |asked| {
        if asked.path.starts_with("/token") {
            assert!(asked.path.contains("service=reg") && asked.path.contains("scope=repository:demo:pull"));
            given += 1;
            let right = asked.header("authorization") == "Basic bWU6c2VjcmV0";
            return json(if right { 200 } else { 401 }, "", &format!(r#"{{"token":"t{given}","expires_in":300}}"#));
        }
        let left = uses.entry(asked.header("authorization").to_owned()).or_insert(3);
        if *left == 0 || !asked.header("authorization").starts_with("Bearer t") {
            let challenge = r#"Bearer realm="/token",service="reg",scope="repository:demo:pull""#;
            return json(401, &format!("WWW-Authenticate: {challenge}\r\n"), "");
        }
        *left -= 1;
        Act::Serve
    });
    registry.push("demo", "1", &image());
    let Some(client) = Client::new(&[&registry]) else { return };
    let client = client.configured("username = 'me'\npassword = 'secret'\n");
    let name = format!("{}/demo:1", registry.name());
    client.pull(&name).unwrap();
    client.holds(&name, &image());
    assert!(registry.log().iter().filter(|asked| asked.path.starts_with("/token")).count() >= 2);
}

#[test]
fn a_refresh_token_is_sent_in_a_form() {
    let registry = Registry::start(|asked| match asked.path.as_str() {
        "/token" => {
            assert!(asked.method == "POST" && asked.body.contains("grant_type=refresh_token"), "{asked:?}");
            assert!(asked.body.contains("refresh_token=a%2Bb"), "{asked:?}");
            json(200, "", r#"{"access_token":"good"}"#)
        }
        _ if asked.header("authorization") == "Bearer good" => Act::Serve,
        _ => json(401, "WWW-Authenticate: Bearer realm=\"/token\"\r\n", ""),
    });
    registry.push("demo", "1", &image());
    let Some(client) = Client::new(&[&registry]) else { return };
    client.configured("identity_token = 'a+b'\n").pull(&format!("{}/demo:1", registry.name())).unwrap();
}

#[test]
fn a_token_may_come_from_another_server_and_the_blobs_from_a_third() {
    // As with Docker Hub.
    let tokens = Registry::start(|asked| {
        assert_eq!(asked.path, "/token?account=x&service=hub.example&scope=repository:demo:pull");
        assert_eq!(asked.header("authorization"), "Basic bWU6c2VjcmV0");
        json(200, "", r#"{"token":"good","expires_in":300}"#)
    });
    let storage = Registry::good();
    storage.push("demo", "1", &image());
    let realm = format!("http://{}/token?account=x", tokens.name());
    let target = storage.name();
    let registry = Registry::start(move |asked| match asked.header("authorization") {
        "Bearer good" if asked.is_blob() => json(307, &format!("Location: http://{target}{}\r\n", asked.path), ""),
        "Bearer good" => Act::Serve,
        "" => {
            // That it names no scope is no reason to ask for none.
            let challenge = format!(r#"Bearer realm="{realm}",service="hub.example",scope="""#);
            json(401, &format!("WWW-Authenticate: {challenge}\r\n"), "")
        }
        other => panic!("{other} is for another server"),
    });
    registry.push("demo", "1", &image());
    let Some(client) = Client::new(&[&registry]) else { return };
    let client = client.configured("username = 'me'\npassword = 'secret'\n");
    let name = format!("{}/demo:1", registry.name());
    client.pull(&name).unwrap();
    client.holds(&name, &image());
    assert_eq!(tokens.log().len(), 1, "one for all of it");
    assert!(storage.log().iter().all(|asked| asked.header("authorization").is_empty()));
    let refused = registry.log().iter().filter(|asked| asked.header("authorization").is_empty()).count();
    assert_eq!(refused, 1);
}

#[test]
fn a_registry_that_never_accepts_is_given_up_after_one_try() {
    let challenge = "WWW-Authenticate: Bearer realm=\"/token\"\r\n";
    let script = move |asked: &Asked| match asked.path.starts_with("/token") {
        true => json(200, "", r#"{"token":"t"}"#),
        false => json(401, challenge, r#"{"errors":[{"message":"not for you"}]}"#),
    };
    refused(script, "refuses anonymous requests: not for you");
    refused(|_| json(401, "WWW-Authenticate: Basic\r\n", ""), "it wants a user name and a password");
    let script = move |asked: &Asked| match asked.path.starts_with("/token") {
        true => json(401, "", r#"{"details":"incorrect username or password"}"#),
        false => json(401, challenge, ""),
    };
    refused(script, "incorrect username or password");
}

#[test]
fn a_name_that_nobody_has_is_told_from_nothing_by_a_refusal() {
    // Docker Hub's own answer for a repository that does not exist.
    let hub = |asked: &Asked| match asked.path.starts_with("/token") {
        true => json(200, "", r#"{"token":"t"}"#),
        false => {
            let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
            json(401, "WWW-Authenticate: Bearer realm=\"/token\"\r\n", body)
        }
    };
    refused(hub, "there is no repository demo, or it wants a login: `berth login -u NAME 127.0.0.1:");
    // GitHub's.
    let github = |asked: &Asked| match asked.path.starts_with("/token") {
        true => json(403, "", r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#),
        false => json(401, "WWW-Authenticate: Bearer realm=\"/token\"\r\n", ""),
    };
    refused(github, "requested access is denied; there is no repository demo, or it wants a login: `berth login");
    refused(|_| json(401, "WWW-Authenticate: Basic\r\n", ""), "a password: `berth login -u NAME 127.0.0.1:");

    let registry = Registry::start(hub);
    let Some(client) = Client::new(&[&registry]) else { return };
    let client = client.configured("username = 'me'\npassword = 'secret'\n");
    let error = client.pull(&format!("{}/demo:1", registry.name())).unwrap_err();
    assert!(error.contains("refuses user \"me\": authentication required; there is no repository demo"), "{error}");
}

#[test]
fn who_logs_in_asks_for_no_repository() {
    let registry = Registry::start(|asked| match asked.path.as_str() {
        "/token?service=ghcr.example" => json(200, "", r#"{"token":"good"}"#),
        path if path.starts_with("/token") => json(403, "", r#"{"errors":[{"message":"no such image"}]}"#),
        _ if asked.header("authorization") == "Bearer good" => json(200, "", "{}"),
        // As GitHub's.
        _ => {
            let challenge = r#"Bearer realm="/token",service="ghcr.example",scope="repository:user/image:pull""#;
            json(401, &format!("WWW-Authenticate: {challenge}\r\n"), "")
        }
    });
    let Some(client) = Client::new(&[&registry]) else { return };
    let settings = client.configured("username = 'me'\npassword = 'secret'\n").settings();
    let endpoint = endpoint::endpoint(&registry.name(), String::new(), &settings).unwrap();
    let client = registry::Client::new(&shared(), Arc::new(settings), endpoint);
    block(client.log_in()).unwrap();
    assert_eq!(registry.log()[1].header("authorization"), "Basic bWU6c2VjcmV0");
}

#[test]
fn plain_http_is_spoken_only_where_the_configuration_says_so() {
    let registry = Registry::good();
    registry.push("demo", "1", &image());
    let Some(client) = Client::new(&[]) else { return };
    let error = client.pull(&format!("{}/demo:1", registry.name())).unwrap_err();
    assert!(error.contains("speak TLS"), "{error}");
    assert!(registry.log().iter().all(|asked| !asked.path.starts_with("/v2")));
}

#[test]
fn a_proxy_is_gone_through() {
    let proxy = Registry::start(|asked| {
        assert!(asked.path.starts_with("http://registry.invalid/v2/demo/"), "{asked:?}");
        assert_eq!(asked.header("proxy-authorization"), "Basic bWU6c2VjcmV0");
        Act::Serve
    });
    let inner = image();
    proxy.push("demo", "1", &inner);
    // A proxy is asked by the whole URL.
    proxy.serve_also_as("http://registry.invalid");
    let Some(client) = Client::new(&[]) else { return };
    let client = client.configured(&format!(
        "[registries.'registry.invalid']\nplain_http = true\n[proxy]\nhttp = 'http://me:secret@{}'\n",
        proxy.name()
    ));
    client.pull("registry.invalid/demo:1").unwrap();
    client.holds("registry.invalid/demo:1", &inner);

    let client = Client::new(&[]).unwrap().configured(&format!("[proxy]\nhttps = 'http://{}'\n", proxy.name()));
    let refusing = Registry::start(|asked| {
        assert_eq!((asked.method.as_str(), asked.path.as_str()), ("CONNECT", "registry.invalid:443"));
        json(403, "", "")
    });
    let configuration = client.configuration.replace(&proxy.name(), &refusing.name());
    let client = Client { configuration, ..client };
    let error = client.pull("registry.invalid/demo:1").unwrap_err();
    assert!(error.contains("does not connect to registry.invalid:443: it says \"HTTP/1.1 403 Because\""), "{error}");
}
