//! TLS on the way to a registry: through a proxy, and never back to plain HTTP.

mod support;

use std::sync::Arc;

use rustls::ServerConfig;
use support::client::{Client, image};
use support::compress;
use support::peer::folder;
use support::registry::{Act, Asked, Registry};
use support::tls::{Proxy, certificates, server};

/// A client that takes the authority of every registry for good, and what such a registry speaks.
fn trusting(names: &str, plain: &[&Registry]) -> Option<(Client, Arc<ServerConfig>)> {
    let folder = folder(&["openssl"])?;
    let client = Client::new(plain)?;
    certificates(folder.path(), names);
    let authorities = client.machine.path("user-data/certs");
    std::fs::create_dir_all(&authorities).unwrap();
    // What is no certificate there is passed over.
    for name in ["authority.pem", "authority.key"] {
        std::fs::copy(folder.path().join(name), authorities.join(name)).unwrap();
    }
    std::fs::copy(folder.path().join("client.key"), authorities.join("client.pem")).unwrap();
    Some((client, server(folder.path())))
}

fn say(status: u16, headers: &str) -> Act {
    Act::Say(status, headers.to_owned(), Vec::new())
}

#[test]
fn a_proxy_is_gone_through_by_a_tunnel() {
    // The certificate does not have the proxy's name.
    let Some((client, tls)) = trusting("DNS:registry.invalid", &[]) else { return };
    let registry = Registry::secure(&tls, |asked| {
        assert_eq!(asked.header("host"), "registry.invalid");
        assert!(asked.path.starts_with("/v2/demo/") && asked.header("proxy-authorization").is_empty(), "{asked:?}");
        Act::Serve
    });
    registry.push("demo", "1", &image());
    let proxy = Proxy::start("registry.invalid:443", registry.address());
    let client = client.configured(&format!("[proxy]\nhttps = 'http://me:secret@{}'\n", proxy.name()));
    client.pull("registry.invalid/demo:1").unwrap();
    client.holds("registry.invalid/demo:1", &image());

    let tunnels = proxy.tunnels();
    assert!(!tunnels.is_empty());
    for tunnel in &tunnels {
        assert_eq!(tunnel.target, "registry.invalid:443");
        assert_eq!(tunnel.authorization, "Basic bWU6c2VjcmV0", "{tunnel:?}");
        // A record of TLS with a handshake; and the proxy sees nothing of what is asked.
        assert_eq!(tunnel.sent[0], 22);
        assert!(!tunnel.sent.windows(8).any(|part| part == b"/v2/demo"));
    }
    let blobs: usize = image().layers.iter().map(|(method, tar)| compress(*method, tar).len()).sum();
    assert!(tunnels.iter().map(|tunnel| tunnel.received).sum::<usize>() > blobs, "all of it came this way");
    let error = client.pull("other.invalid/demo:1").unwrap_err();
    assert!(error.contains("does not connect to other.invalid:443: it says \"HTTP/1.1 502 Unknown\""), "{error}");
}

#[test]
fn a_certificate_of_another_name_is_refused_also_in_a_tunnel() {
    let Some((client, tls)) = trusting("DNS:other.invalid,IP:127.0.0.1", &[]) else { return };
    let registry = Registry::secure(&tls, |_| Act::Serve);
    registry.push("demo", "1", &image());
    let proxy = Proxy::start("registry.invalid:443", registry.address());
    let client = client.configured(&format!("[proxy]\nhttps = 'http://{}'\n", proxy.name()));
    let error = client.pull("registry.invalid/demo:1").unwrap_err();
    assert!(error.contains("speak TLS with registry.invalid"), "{error}");
    assert!(proxy.tunnels().iter().all(|tunnel| tunnel.authorization.is_empty()));
    assert!(registry.log().is_empty());
}

#[test]
fn a_proxy_that_does_not_come_to_the_end_of_its_answer_is_given_up() {
    let Some(client) = Client::new(&[]) else { return };
    let proxy = Registry::start(|_| {
        let endless = format!("X: {}\r\n", "x".repeat(100)).repeat(200);
        Act::Say(200, endless, Vec::new())
    });
    let client = client.configured(&format!("[proxy]\nhttps = 'http://{}'\n", proxy.name()));
    let error = client.pull("registry.invalid/demo:1").unwrap_err();
    assert!(error.contains(&format!("{} answers with nonsense: an answer without an end", proxy.name())), "{error}");
    assert_eq!(proxy.log().len(), 1, "once is enough");
}

/// A registry of which `leading` answers a part by leading to another server, which it is given as scheme and name, and
/// what is done with it. Over HTTPS it must succeed, over HTTP it must fail before anything is asked there.
fn leads(
    leading: fn(&Asked, &str) -> Option<Act>,
    serving: fn(&Asked) -> Act,
    act: fn(&Client, &str) -> Result<(), String>,
) {
    let plain = Registry::start(serving);
    let Some((client, tls)) = trusting("IP:127.0.0.1", &[&plain]) else { return };
    let secure = Registry::secure(&tls, serving);
    secure.push("demo", "1", &image());
    client.import(&[image()]);
    let mut client = client;
    for (other, base) in [(&secure, format!("https://{}", secure.name())), (&plain, format!("http://{}", plain.name()))]
    {
        let place = base.clone();
        let registry = Registry::secure(&tls, move |asked| leading(asked, &place).unwrap_or_else(|| serving(asked)));
        registry.push("demo", "1", &image());
        let name = registry.name();
        client = client.configured(&format!("[registries.'{name}']\nusername = 'me'\npassword = 'secret'\n"));
        let end = act(&client, &format!("{name}/demo:1"));
        if base.starts_with("https") {
            end.unwrap();
            assert!(!other.log().is_empty());
        } else {
            let error = end.unwrap_err();
            assert!(error.contains(&format!("{name} leads away from HTTPS, to {base}/")), "{error}");
            assert!(other.log().is_empty(), "{:?}", other.log());
        }
    }
}

fn pull(client: &Client, name: &str) -> Result<(), String> {
    // Each time from nothing.
    let fresh = Client::new(&[]).unwrap().configured(&client.configuration);
    let from = client.machine.path("user-data/certs");
    let to = fresh.machine.path("user-data/certs");
    std::fs::create_dir_all(&to).unwrap();
    std::fs::copy(from.join("authority.pem"), to.join("authority.crt")).unwrap();
    match fresh.pull(name) {
        Ok(_) => fresh.holds(name, &image()),
        Err(error) => {
            fresh.has_no_image(name);
            return Err(error);
        }
    }
    Ok(())
}

fn push(client: &Client, name: &str) -> Result<(), String> {
    client.tag("demo", name);
    client.push(name, None).map(drop)
}

#[test]
fn blobs_are_not_fetched_where_https_leads_to_http() {
    let location =
        |asked: &Asked, place: &str| asked.is_blob().then(|| say(307, &format!("Location: {place}{}\r\n", asked.path)));
    leads(location, |_| Act::Serve, pull);
}

#[test]
fn passwords_are_not_sent_where_https_leads_to_http() {
    let realm = |asked: &Asked, place: &str| {
        let challenge = || say(401, &format!("WWW-Authenticate: Bearer realm=\"{place}/token\"\r\n"));
        asked.header("authorization").is_empty().then(challenge)
    };
    let serving = |asked: &Asked| match asked.path.starts_with("/token") {
        true => Act::Say(200, String::new(), br#"{"token":"good"}"#.to_vec()),
        false => Act::Serve,
    };
    leads(realm, serving, pull);
}

#[test]
fn blobs_are_not_sent_where_https_leads_to_http() {
    let location = |asked: &Asked, place: &str| {
        (asked.method == "POST").then(|| say(202, &format!("Location: {place}/upload\r\n")))
    };
    let serving = |asked: &Asked| match asked.method.as_str() {
        "HEAD" => say(404, ""),
        _ => say(201, ""),
    };
    leads(location, serving, push);
}
