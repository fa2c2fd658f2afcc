//! How long a registry is waited for that is busy, slow or broken.

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use berth_engine::digest::Digest;
use support::Image;
use support::client::{Client, image, layer, refused};
use support::registry::{Act, Asked, Registry, json};

#[test]
fn a_busy_registry_is_left_alone_as_long_as_it_asks() {
    let now = "Date: Fri, 31 Dec 1999 23:59:59 GMT\r\n";
    let then = format!("{now}Retry-After: Sat, 01 Jan 2000 00:00:00 GMT\r\n");
    for headers in ["Retry-After: 1\r\n".to_owned(), then] {
        for part in ["/manifests/", "/blobs/"] {
            let (answer, mut busy_since) = (headers.clone(), None);
            let waited = Arc::new(Mutex::new(None));
            let seen = Arc::clone(&waited);
            let registry = Registry::start(move |asked| match busy_since {
                None if asked.path.contains(part) => {
                    busy_since = Some((Instant::now(), asked.path.clone()));
                    json(429, &answer, "")
                }
                Some((since, ref path)) if asked.path == *path => {
                    seen.lock().unwrap().get_or_insert(since.elapsed());
                    Act::Serve
                }
                _ => Act::Serve,
            });
            registry.push("demo", "1", &image());
            let Some(mut client) = Client::new(&[&registry]) else { return };
            client.patience.longest_delay = Duration::from_secs(1);
            client.pull(&format!("{}/demo:1", registry.name())).unwrap();
            let waited = waited.lock().unwrap().unwrap();
            assert!(waited >= Duration::from_secs(1), "{part}: {headers:?} {waited:?}");
        }
    }
    // That is longer than a pull waits.
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let busy = move |_: &Asked| {
        *count.lock().unwrap() += 1;
        json(429, "Retry-After: 100\r\n", r#"{"errors":[{"message":"pull rate limit"}]}"#)
    };
    refused(busy, "pull rate limit (it wants to be asked again in 100 s)");
    assert!(*asked.lock().unwrap() <= 1, "it is not asked again before");
}

#[test]
fn a_registry_that_stays_broken_is_given_up() {
    refused(|_| json(500, "", ""), "says 500");
    refused(|_| json(429, "", r#"{"errors":[{"message":"pull rate limit"}]}"#), "pull rate limit");
    refused(|asked| if asked.is_blob() { Act::CutAfter(0) } else { Act::Serve }, "broke");
    refused(|asked| if asked.is_blob() { Act::StallAfter(10) } else { Act::Serve }, "sends nothing within");
}

/// A server that answers everything with one byte now and then.
fn trickling() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let mut sent = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n");
                while sent.is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                    sent = stream.write_all(b"x");
                }
            });
        }
    });
    address
}

#[test]
fn a_trickle_is_given_up() {
    let location = format!("Location: http://{}/x\r\n", trickling());
    let first = Digest::of(&layer("a")).to_string();
    for trickled in [first.as_str(), "/manifests/1"] {
        let (end, location) = (trickled.to_owned(), location.clone());
        let redirecting = Registry::start(move |asked| match asked.path.ends_with(&end) {
            true => json(307, &location, ""),
            false => Act::Serve,
        });
        redirecting.push("demo", "1", &Image::new("demo", vec![layer("a")]));
        let Some(client) = Client::new(&[&redirecting]) else { return };
        let name = format!("{}/demo:1", redirecting.name());
        let error = client.pull(&name).unwrap_err();
        assert!(error.contains("sends next to nothing within"), "{trickled}: {error}");
        client.has_no_image(&name);
    }
}
