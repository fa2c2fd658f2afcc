//! What a well-behaved client gets.

use berth_control::dbus::{ApiError, Container, Creation, LogQuery, Machine1Proxy, OBJECT_PATH};
use berth_control::logs::{Answer, Query};
use berth_control::message::{
    self, ContainerState, Interest, Kind, MachineState, Notice, PowerAction, Request, Stream, TerminalSize,
};
use futures_util::StreamExt;
use std::io::{Read, Write};
use zbus::wire::{Endian, NATIVE_ENDIAN};

use crate::machine::{Api, container, machine, timeline};

#[tokio::test]
async fn a_client_sees_what_pid_1_says() {
    let api = Api::start().await;
    let (machine_proxy, containers) = api.proxies().await;
    assert_eq!(message::Machine::from(machine_proxy.describe().await.unwrap()), machine());
    let steps: Vec<message::Step> = machine_proxy.timeline().await.unwrap().into_iter().map(Into::into).collect();
    assert_eq!(steps, timeline());
    let configuration = machine_proxy.configuration().await.unwrap();
    assert!(configuration == crate::machine::configuration(), "{} bytes of it", configuration.len());
    assert_eq!(containers.definition("web").await.unwrap(), "{\"definition\":{\"image\":\"web\"}}");
    assert_eq!(machine_proxy.audit().await.unwrap(), "{}");
    let listed: Vec<message::Container> = containers.list().await.unwrap().into_iter().map(Into::into).collect();
    assert_eq!(listed, [container("control", Kind::System), container("web", Kind::User)]);
    assert_eq!(containers.inspect("web").await.unwrap().name, "web");
}

#[tokio::test]
async fn a_client_of_the_other_byte_order_is_answered_in_it() {
    let api = Api::start().await;
    let connection = api.connect().await;
    let mut messages = zbus::MessageStream::from(&connection);
    let order = match NATIVE_ENDIAN {
        Endian::Little => Endian::Big,
        Endian::Big => Endian::Little,
    };
    let call = zbus::Message::method_call(OBJECT_PATH, "List").endian(order);
    let call = call.interface("org.berth.Containers1").build(&()).unwrap();
    connection.send(&call).await.unwrap();
    let answer = loop {
        let message = messages.next().await.unwrap().unwrap();
        if message.header().reply_serial() == Some(call.primary_header().serial_num()) {
            break message;
        }
    };
    assert_eq!(Endian::from(answer.primary_header().endian_sig()), order);
    let listed: Vec<Container> = answer.body().deserialize().unwrap();
    let listed: Vec<message::Container> = listed.into_iter().map(Into::into).collect();
    assert_eq!(listed, [container("control", Kind::System), container("web", Kind::User)]);
}

#[tokio::test]
async fn a_request_reaches_pid_1_as_it_was_made() {
    let api = Api::start().await;
    let (machine_proxy, containers) = api.proxies().await;
    containers.start("web").await.unwrap();
    containers.kill("web", 9).await.unwrap();
    machine_proxy.reboot().await.unwrap();
    let name = || "web".to_owned();
    assert_eq!(
        *api.asked.lock().unwrap(),
        [
            Request::Start { name: name() },
            Request::Kill { name: name(), signal: 9 },
            Request::Power(PowerAction::Reboot)
        ]
    );
}

#[tokio::test]
async fn a_container_is_made_as_it_is_defined_and_its_session_comes_as_a_descriptor() {
    let api = Api::start().await;
    let (_, containers) = api.proxies().await;
    let definition = |name: &str| format!("[containers.{name}]\nimage = \"a:1\"\nrestart = \"no\"\ntty = true\n");
    let options = Creation { remove: Some(true), rows: Some(24), columns: Some(80) };
    let session = containers.run(&definition("job"), options, true).await.unwrap();
    let metadata = std::fs::File::from(std::os::fd::OwnedFd::from(session)).metadata().unwrap();
    assert!(std::os::unix::fs::FileTypeExt::is_char_device(&metadata.file_type()));
    {
        let asked = api.asked.lock().unwrap();
        let Some(Request::Create { creation, session }) = asked.last() else { panic!("{asked:?}") };
        assert_eq!((creation.name.as_str(), creation.remove, creation.start), ("job", true, true));
        assert_eq!((creation.size, *session), (Some(TerminalSize { rows: 24, columns: 80 }), Some(Interest::Streams)));
        assert!(creation.container.tty);
    }
    containers.create(&definition("later"), Creation::default()).await.unwrap();
    {
        let asked = api.asked.lock().unwrap();
        let Some(Request::Create { creation, session: None }) = asked.last() else { panic!("{asked:?}") };
        assert!(!creation.start && !creation.remove && creation.size.is_none());
    }
    let Err(ApiError::Unavailable(reason)) = containers.run(&definition("half"), Creation::default(), true).await
    else {
        panic!("there was no descriptor")
    };
    assert!(reason.contains("descriptor"), "{reason}");
    let Err(ApiError::Refused(reason)) = containers.create("[containers.web]\n", Creation::default()).await else {
        panic!("not refused")
    };
    assert!(reason.contains("image"), "{reason}");
    assert_eq!(containers.instances("web").await.unwrap(), ["web-1", "web-2"]);
}

#[tokio::test]
async fn a_refusal_comes_with_its_reason() {
    let api = Api::start().await;
    let (_, containers) = api.proxies().await;
    let Err(ApiError::Refused(reason)) = containers.start("wbe").await else { panic!("not refused") };
    assert_eq!(reason, "there is no container named 'wbe'");
    let Err(ApiError::Refused(reason)) = containers.inspect("wbe").await else { panic!("not refused") };
    assert!(reason.contains("'wbe'") && reason.contains("berth ps"), "{reason}");
}

#[tokio::test]
async fn signals_come_after_subscribing_and_not_before() {
    let api = Api::start().await;
    let (quiet, _) = api.proxies().await;
    let (machine_proxy, containers) = api.proxies().await;
    let mut none = quiet.receive_machine_changed().await.unwrap();
    let mut states = machine_proxy.receive_machine_changed().await.unwrap();
    let mut changes = containers.receive_container_changed().await.unwrap();
    let mut removals = containers.receive_container_removed().await.unwrap();
    machine_proxy.subscribe().await.unwrap();
    let mut backoff = container("web", Kind::User);
    backoff.state = ContainerState::Backoff;
    api.notify(Notice::ContainerChanged(Box::new(backoff.clone())));
    api.notify(Notice::ContainerRemoved(Box::new(backoff.clone())));
    api.notify(Notice::MachineChanged(MachineState::Degraded));
    let changed = changes.next().await.unwrap();
    assert_eq!(message::Container::from(changed.args().unwrap().container), backoff);
    let removed = removals.next().await.unwrap();
    assert_eq!(message::Container::from(removed.args().unwrap().container), backoff);
    assert_eq!(states.next().await.unwrap().args().unwrap().state, MachineState::Degraded);
    // A round trip: had a signal been sent to this client, it would be there before the answer.
    quiet.describe().await.unwrap();
    assert!(futures_util::poll!(none.next()).is_pending());
}

#[tokio::test]
async fn another_name_of_the_machine_is_a_changed_property() {
    let api = Api::start().await;
    let connection = api.connect().await;
    let mut messages = zbus::MessageStream::from(&connection);
    Machine1Proxy::new(&connection).await.unwrap().subscribe().await.unwrap();
    "dock2".clone_into(&mut api.hostname.lock().unwrap());
    api.notify(Notice::MachineChanged(MachineState::Ready));
    let has =
        |message: &zbus::Message, text: &str| message.data().windows(text.len()).any(|bytes| bytes == text.as_bytes());
    loop {
        let message = tokio::time::timeout(std::time::Duration::from_secs(20), messages.next()).await;
        let message = message.expect("no signal for the name").unwrap().unwrap();
        if has(&message, "PropertiesChanged") && has(&message, "Hostname") && has(&message, "dock2") {
            break;
        }
    }
}

#[tokio::test]
async fn what_has_happened_can_be_asked_for() {
    let api = Api::start().await;
    let (_, containers) = api.proxies().await;
    api.notify(Notice::ContainerChanged(Box::new(container("web", Kind::User))));
    let past = loop {
        let past = containers.changes_since(0).await.unwrap();
        if !past.is_empty() {
            break past;
        }
    };
    assert_eq!(message::Container::from(past[0].container.clone()), container("web", Kind::User));
    assert_eq!(past[0].removed, None);
    api.notify(Notice::ContainerRemoved(Box::new(container("web", Kind::User))));
    while containers.changes_since(0).await.unwrap().len() < 2 {}
    let past = &containers.changes_since(0).await.unwrap()[1..];
    assert_eq!(past[0].removed, Some(true));
    assert!(containers.changes_since(past[0].at_us + 1).await.unwrap().is_empty());
}

/// What comes through a pipe until its end.
async fn read(pipe: zbus::wire::OwnedFd) -> String {
    let mut pipe = std::fs::File::from(std::os::fd::OwnedFd::from(pipe));
    let reading = tokio::task::spawn_blocking(move || std::io::read_to_string(&mut pipe));
    reading.await.unwrap().unwrap()
}

#[tokio::test]
async fn the_end_of_a_container_comes_through_a_pipe() {
    let api = Api::start().await;
    let (_, containers) = api.proxies().await;
    let mut waiting = Vec::new();
    for _ in 0..16 {
        waiting.push(containers.wait("web").await.unwrap());
    }
    let Err(ApiError::Refused(reason)) = containers.wait("web").await else { panic!("any number") };
    assert!(reason.contains("16"), "{reason}");
    // Meanwhile the client is served.
    containers.stop("web").await.unwrap();
    let mut stopped = container("web", Kind::User);
    (stopped.state, stopped.pid, stopped.exit_code) = (ContainerState::Stopped, 0, 3);
    api.notify(Notice::ContainerChanged(Box::new(stopped)));
    for pipe in waiting {
        assert_eq!(read(pipe).await, "{\"exit_code\":3,\"reason\":\"\"}\n");
    }
    // One that is past is told at once.
    assert!(read(containers.wait("web").await.unwrap()).await.contains("3"));
    // Whoever closes the pipe waits no more.
    for _ in 0..64 {
        while containers.wait("control").await.is_err() {
            tokio::task::yield_now().await;
        }
    }
    assert!(containers.wait("nobody").await.is_err());
}

#[tokio::test]
async fn who_waits_for_the_end_of_a_container_that_is_removed_waits_no_more() {
    let api = Api::start().await;
    let (_, containers) = api.proxies().await;
    let waiting = containers.wait("web").await.unwrap();
    // Another one of the name was meant.
    api.notify(Notice::ContainerRemoved(Box::new(container("web", Kind::User))));
    containers.list().await.unwrap();
    containers.remove("web", true, false).await.unwrap();
    api.notify(Notice::ContainerRemoved(Box::new(container("web", Kind::User))));
    assert_eq!(read(waiting).await, "");
}

#[tokio::test]
async fn the_log_of_a_container_comes_through_a_pipe() {
    let api = Api::start().await;
    let (_, containers) = api.proxies().await;
    let query = LogQuery { tail: Some(3), stream: Some("stderr".into()), follow: Some(true), ..LogQuery::default() };
    let Err(ApiError::Unavailable(reason)) = containers.logs("web", query.clone()).await else {
        panic!("nobody listens yet")
    };
    assert!(reason.contains("`logs`"), "{reason}");

    let path = api.directory.path().join("logs.sock");
    let logs = std::thread::spawn({
        let listener = seqpacket_listener(&path);
        move || {
            let channel = accept(&listener);
            let (query, pipes): (Query, _) = channel.receive().unwrap();
            channel.send(&Answer::Coming, &[]).unwrap();
            let mut pipe = std::fs::File::from(pipes.into_iter().next().unwrap());
            pipe.write_all(b"17 o hello\n").unwrap();
            query
        }
    });
    let pipe = containers.logs("web", query).await.unwrap();
    let mut text = String::new();
    std::fs::File::from(std::os::fd::OwnedFd::from(pipe)).read_to_string(&mut text).unwrap();
    assert_eq!(text, "17 o hello\n");
    let asked = logs.join().unwrap();
    let expected = Query {
        container: "web".into(),
        tail: Some(3),
        since_us: None,
        until_us: None,
        stream: Some(Stream::Stderr),
        follow: true,
        asked_by: None,
    };
    assert_eq!(asked, expected);
}

fn seqpacket_listener(path: &std::path::Path) -> std::os::fd::OwnedFd {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(std::os::fd::AsRawFd::as_raw_fd(&listener), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&listener, Backlog::new(4).unwrap()).unwrap();
    listener
}

#[allow(unsafe_code)]
fn accept(listener: &std::os::fd::OwnedFd) -> berth_control::channel::Channel {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    let socket = nix::sys::socket::accept(listener.as_raw_fd()).unwrap();
    // SAFETY: accept(2) has just made this descriptor and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    berth_control::channel::Channel::from(socket)
}
