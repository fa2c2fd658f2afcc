//! What the commands make of what happens to a container.

use super::super::api::peer;
use super::*;

fn container(state: ContainerState, started_us: u64) -> Container {
    Container { started_us, exit_code: 1, ..peer::container("web", state) }
}

#[test]
fn a_signal_has_names_and_a_number() {
    for text in ["TERM", "sigterm", "15"] {
        assert_eq!(signal(text), Ok(15), "{text}");
    }
    for text in ["", "NOPE", "0", "65", "-1"] {
        assert!(signal(text).is_err(), "{text}");
    }
}

#[test]
fn a_time_out_is_in_seconds_and_a_negative_one_is_for_ever() {
    let grace = |time| End { time, signal: None, names: Names { names: Vec::new() } }.ending().grace_ms;
    assert_eq!((grace(None), grace(Some(0)), grace(Some(3))), (None, Some(0), Some(3000)));
    assert_eq!(grace(Some(-1)), Some(u64::MAX));
}

#[test]
fn a_restart_has_ended_when_the_container_runs_anew() {
    let before = container(ContainerState::Running, 5);
    let ends = |now| end(&Action::Restart(Ending::default()), &before, &now);
    assert!(ends(container(ContainerState::Running, 5)).is_none());
    assert!(ends(container(ContainerState::Stopping, 5)).is_none());
    assert!(ends(container(ContainerState::Stopped, 5)).is_none());
    assert!(matches!(ends(container(ContainerState::Running, 6)), Some(Ok(()))));
}

#[test]
fn a_start_that_fails_says_where_to_look() {
    let before = container(ContainerState::Stopped, 5);
    let Some(Err(error)) = end(&Action::Start, &before, &container(ContainerState::Backoff, 6)) else {
        panic!("not an error");
    };
    let text = error.to_string();
    assert!(text.contains("exit code 1") && text.contains("berth logs web"), "{text}");
}

#[test]
fn a_start_of_what_has_a_timer_waits_for_no_later_time() {
    let before = container(ContainerState::Waiting, 5);
    let ends = |now: Container| end(&Action::Start, &before, &now);
    assert!(ends(before.clone()).is_none(), "it waits for its dependencies");
    let reason = "no such program; next at 2026-11-22 00:00:00 UTC".to_owned();
    let failed = Container { reason, ..container(ContainerState::Waiting, 6) };
    let Some(Err(error)) = ends(failed) else { panic!("not an error") };
    assert!(error.to_string().starts_with("web: waiting: no such program; next at"), "{error}");
    let done = Container { exit_code: 0, ..container(ContainerState::Waiting, 6) };
    assert!(matches!(ends(done), Some(Ok(()))), "it was faster than this command");
}

#[test]
fn a_start_of_what_stands_still_meanwhile_has_ended() {
    let before = container(ContainerState::Stopped, 5);
    assert!(matches!(end(&Action::Start, &before, &container(ContainerState::Paused, 6)), Some(Ok(()))));
}

#[test]
fn a_stop_waits_for_the_end_and_takes_a_failed_container_for_one() {
    let before = container(ContainerState::Running, 5);
    let ends = |state| end(&Action::Stop(Ending::default()), &before, &container(state, 5));
    assert!(ends(ContainerState::Stopping).is_none() && ends(ContainerState::Running).is_none());
    assert!(ends(ContainerState::Failed).is_some() && ends(ContainerState::Stopped).is_some());
}

#[test]
fn a_start_says_what_it_waits_for() {
    let waiting = Container { reason: "waits for db, which failed".into(), ..container(ContainerState::Waiting, 0) };
    let text = obstacle(&Action::Start, &waiting).unwrap();
    assert!(text.starts_with("web is waiting: waits for db, which failed ("), "{text}");
    assert_eq!(obstacle(&Action::Stop(Ending::default()), &waiting), None);
    let reason = "has not said READY=1 on its NOTIFY_SOCKET yet".to_owned();
    let starting = Container { reason, ..container(ContainerState::Starting, 6) };
    let text = obstacle(&Action::Start, &starting).unwrap();
    assert!(text.starts_with("web is starting: has not said READY=1"), "{text}");
    let running = Container { state: ContainerState::Running, ..waiting };
    assert_eq!(obstacle(&Action::Start, &running), None);
}

#[tokio::test]
async fn a_stop_ends_also_if_its_change_was_left_out() {
    let (api, mut peer) = peer::pair().await;
    let names = Names { names: vec!["web".into()] };
    let stopped = tokio::spawn(async move { each(&api, Action::Stop(Ending::default()), &names, false).await });
    peer.answer("Subscribe", &()).await;
    peer.answer("Instances", &vec!["web"]).await;
    let running = berth_control::dbus::Container::from(container(ContainerState::Running, 5));
    peer.answer("Inspect", &running).await;
    peer.answer("StopWith", &()).await;
    peer.answer("Inspect", &running).await;
    peer.tell_missed(3).await;
    let asked = tokio::time::timeout(std::time::Duration::from_secs(10), peer.call("Inspect")).await;
    peer.refuse(&asked.expect("nobody asks anew"), "there is no such container").await;
    assert_eq!(stopped.await.unwrap().unwrap(), "web\n");
}

#[tokio::test]
async fn a_container_that_is_gone_with_its_end_was_stopped() {
    let (api, mut peer) = peer::pair().await;
    let names = Names { names: vec!["job".into()] };
    let stopped = tokio::spawn(async move { each(&api, Action::Stop(Ending::default()), &names, false).await });
    peer.answer("Subscribe", &()).await;
    peer.answer("Instances", &vec!["job"]).await;
    let running = peer::container("job", ContainerState::Running);
    peer.answer("Inspect", &berth_control::dbus::Container::from(running)).await;
    peer.answer("StopWith", &()).await;
    let asked = peer.call("Inspect").await;
    peer.refuse(&asked, "there is no such container").await;
    assert_eq!(stopped.await.unwrap().unwrap(), "job\n");
}

async fn is_asked(peer: &mut peer::Peer, method: &str, name: &str, state: ContainerState) {
    let container = berth_control::dbus::Container::from(peer::container(name, state));
    let asked = async {
        peer.answer("Instances", &vec![name]).await;
        peer.answer("Inspect", &container).await;
        peer.answer(method, &()).await;
        peer.answer("Inspect", &container).await;
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), asked)
        .await
        .expect("it is not asked before another's end");
}

async fn comes_to(peer: &mut peer::Peer, name: &str, state: ContainerState) {
    let container = peer::container(name, state);
    peer.tell(&container).await;
    peer.answer("Inspect", &berth_control::dbus::Container::from(container)).await;
}

#[tokio::test]
async fn all_are_asked_before_one_is_waited_for_that_may_wait_for_another() {
    use ContainerState::{Running, Stopped, Waiting};
    let (api, mut peer) = peer::pair().await;
    let names = Names { names: vec!["web".into(), "db".into(), "no".into()] };
    let started = tokio::spawn(async move { each(&api, Action::Start, &names, false).await });
    peer.answer("Subscribe", &()).await;
    is_asked(&mut peer, "Start", "web", Waiting).await;
    is_asked(&mut peer, "Start", "db", Waiting).await;
    let call = peer.call("Instances").await;
    peer.refuse(&call, "there is no such container").await;
    comes_to(&mut peer, "db", Running).await;
    comes_to(&mut peer, "web", Running).await;
    assert!(matches!(started.await.unwrap(), Err(Error::Told)));
    let (api, mut peer) = peer::pair().await;
    let names = Names { names: vec!["web".into(), "db".into()] };
    let ending = Ending::default();
    let stopped = tokio::spawn(async move { each(&api, Action::Stop(ending), &names, false).await });
    peer.answer("Subscribe", &()).await;
    is_asked(&mut peer, "StopWith", "web", Running).await;
    is_asked(&mut peer, "StopWith", "db", Running).await;
    comes_to(&mut peer, "db", Stopped).await;
    comes_to(&mut peer, "web", Stopped).await;
    assert_eq!(stopped.await.unwrap().unwrap(), "web\ndb\n");
}

fn kill_each(api: Api, names: [&str; 2]) -> tokio::task::JoinHandle<Result<String, Error>> {
    let names = Names { names: names.map(str::to_owned).to_vec() };
    tokio::spawn(async move { kill(&api, &Kill { signal: 9, names }, false).await })
}

async fn kills(peer: &mut peer::Peer, name: &str, is_gone: bool) {
    let running = berth_control::dbus::Container::from(peer::container(name, ContainerState::Running));
    peer.answer("Instances", &vec![name]).await;
    peer.answer("Inspect", &running).await;
    peer.answer("Kill", &()).await;
    let asked = peer.call("Inspect").await;
    match is_gone {
        true => peer.refuse(&asked, "there is no such container").await,
        false => peer.reply(&asked, &running).await,
    }
}

#[tokio::test]
async fn a_container_that_is_gone_with_a_signal_has_got_it() {
    let (api, mut peer) = peer::pair().await;
    let sent = kill_each(api, ["job", "web"]);
    kills(&mut peer, "job", true).await;
    kills(&mut peer, "web", false).await;
    assert_eq!(sent.await.unwrap().unwrap(), "job\nweb\n");
}

#[tokio::test]
async fn a_signal_comes_to_the_others_though_one_does_not_exist() {
    let (api, mut peer) = peer::pair().await;
    let sent = kill_each(api, ["no", "web"]);
    let call = peer.call("Instances").await;
    peer.refuse(&call, "there is no such container").await;
    kills(&mut peer, "web", false).await;
    assert!(matches!(sent.await.unwrap(), Err(Error::Told)));
}
