//! The sign of life that PID 1 asks for: it means that clients get in.

use std::time::Duration;

use berth_control::message::{Notice, Request};
use tokio::net::UnixStream;

use crate::machine::Api;

/// More than enough for an answer …
const LONG: Duration = Duration::from_secs(20);

/// … and for one that must not come.
const SHORT: Duration = Duration::from_millis(500);

/// Waits for the sign, and forgets that it came.
async fn has_come(api: &Api, within: Duration) -> bool {
    let coming = async {
        loop {
            if api.asked.lock().unwrap().drain(..).any(|request| request == Request::Alive) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(within, coming).await.is_ok()
}

#[tokio::test]
async fn a_sign_of_life_comes_as_often_as_it_is_asked_for() {
    let api = Api::start().await;
    for _ in 0..40 {
        api.notify(Notice::AreYouAlive);
        assert!(has_come(&api, LONG).await);
    }
}

#[tokio::test]
async fn no_sign_of_life_comes_while_clients_do_not_get_in() {
    let api = Api::start().await;
    let aside = api.directory.path().join("aside.sock");
    std::fs::rename(api.socket(), &aside).unwrap();
    api.notify(Notice::AreYouAlive);
    assert!(!has_come(&api, SHORT).await, "there is no socket");
    std::fs::rename(&aside, api.socket()).unwrap();
    assert!(has_come(&api, LONG).await, "clients get in again");
    // Another's, at which nobody is let in.
    std::fs::remove_file(api.socket()).unwrap();
    let _deaf = std::os::unix::net::UnixListener::bind(api.socket()).unwrap();
    api.notify(Notice::AreYouAlive);
    assert!(!has_come(&api, SHORT).await, "nobody is let in");
}

#[tokio::test]
async fn a_sign_of_life_comes_while_every_place_is_taken() {
    let api = Api::start().await;
    let mut subscribers = Vec::new();
    for _ in 0..32 {
        let (machine, _) = api.proxies().await;
        machine.subscribe().await.unwrap();
        subscribers.push(machine);
    }
    // This one waits for a place, and whoever comes now for it.
    let _waiting = UnixStream::connect(api.socket()).await.unwrap();
    api.notify(Notice::AreYouAlive);
    assert!(has_come(&api, Duration::from_secs(4)).await, "before one of them has to go");
    // To look whether clients get in costs none of them its place.
    for machine in subscribers {
        machine.describe().await.unwrap();
    }
}
