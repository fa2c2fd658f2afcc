//! What a client can do to the others: nothing.

use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use berth_control::message::Notice;
use berth_control::message::{Kind, Request};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::machine::{Api, container};

/// More than the 32 that are served at once.
const MANY: usize = 40;

/// Connects, authenticates and leaves the rest to the caller.
async fn raw(api: &Api) -> UnixStream {
    let mut stream = UnixStream::connect(api.socket()).await.unwrap();
    let uid: String = nix::unistd::geteuid().to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
    stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n").as_bytes()).await.unwrap();
    let mut answer = vec![0; 512];
    let mut text = String::new();
    while !text.contains("AGREE_UNIX_FD") {
        let length = stream.read(&mut answer).await.unwrap();
        assert_ne!(length, 0, "closed after {text}");
        text.push_str(std::str::from_utf8(&answer[..length]).unwrap());
    }
    stream
}

fn call(member: &str, serial: u32) -> Vec<u8> {
    let message = zbus::Message::method_call("/org/berth", member);
    let message = message.interface("org.berth.Containers1").build(&()).unwrap();
    let mut bytes = message.data().to_vec();
    bytes[8..12].copy_from_slice(&serial.to_le_bytes());
    bytes
}

#[tokio::test]
async fn the_socket_is_for_root_alone() {
    let api = Api::start().await;
    let mode = std::fs::metadata(api.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_client_that_never_reads_holds_up_no_other() {
    let api = Api::start().await;
    let mut flood = raw(&api).await;
    // Until the socket is full and stays full: the server has stopped reading from it.
    let mut serial = 1;
    while tokio::time::timeout(Duration::from_millis(500), flood.write_all(&call("List", serial))).await.is_ok() {
        serial += 1;
        assert!(serial < 100_000, "the server takes any number of calls");
    }
    let (machine, _) = api.proxies().await;
    assert_eq!(machine.describe().await.unwrap().hostname, "dock1");
}

#[tokio::test]
async fn a_subscriber_that_reads_late_learns_that_it_missed_something() {
    let api = Api::start().await;
    let (machine, _) = api.proxies().await;
    machine.subscribe().await.unwrap();
    let mut slow = raw(&api).await;
    let subscribe = zbus::Message::method_call("/org/berth", "Subscribe");
    let subscribe = subscribe.interface("org.berth.Machine1").build(&()).unwrap();
    slow.write_all(subscribe.data()).await.unwrap();
    slow.readable().await.unwrap();
    for _ in 0..3_000 {
        while api.try_notify(Notice::ContainerChanged(Box::new(container("web", Kind::User)))).is_err() {
            tokio::task::yield_now().await;
        }
    }
    let mut seen = Vec::new();
    let mut buffer = vec![0; 65_536];
    while !seen.windows(6).any(|window| window == b"Missed") {
        let length = slow.read(&mut buffer).await.unwrap();
        assert_ne!(length, 0, "disconnected");
        seen.extend_from_slice(&buffer[..length]);
    }
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_its_connection_only() {
    let api = Api::start().await;
    let (machine, _) = api.proxies().await;
    let mut hostile = raw(&api).await;
    // The header of a message with a body of 127 MiB, which D-Bus allows.
    let mut header = call("List", 1);
    header[4..8].copy_from_slice(&(127_u32 << 20).to_le_bytes());
    hostile.write_all(&header).await.unwrap();
    assert_eq!(hostile.read(&mut [0; 64]).await.unwrap_or(0), 0);
    assert_eq!(machine.describe().await.unwrap().hostname, "dock1");
}

#[tokio::test]
async fn a_message_that_brings_descriptors_with_each_part_ends_its_connection_only() {
    let api = Api::start().await;
    let (machine, _) = api.proxies().await;
    let mut hostile = raw(&api).await;
    let null = std::fs::File::open("/dev/null").unwrap();
    let numbers = [null.as_raw_fd(); 3];
    let flags = MsgFlags::MSG_NOSIGNAL;
    // Without its last byte, so that it is never a message.
    let message = call("List", 1);
    for part in message[..message.len() - 1].chunks(8) {
        let rights = [ControlMessage::ScmRights(&numbers)];
        let sent = hostile.async_io(tokio::io::Interest::WRITABLE, || {
            Ok(sendmsg::<()>(hostile.as_raw_fd(), &[IoSlice::new(part)], &rights, flags, None)?)
        });
        if sent.await.is_err() {
            break;
        }
    }
    assert_eq!(hostile.read(&mut [0; 64]).await.unwrap_or(0), 0);
    assert_eq!(machine.describe().await.unwrap().hostname, "dock1");
}

#[tokio::test]
async fn who_goes_waits_for_nothing() {
    let api = Api::start().await;
    let (_, containers) = api.proxies().await;
    let end = OwnedFd::from(containers.wait("web").await.unwrap());
    containers.inner().connection().clone().close().await.unwrap();
    drop(containers);
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        std::fs::File::from(end).read_to_string(&mut text).map(|_| text)
    });
    assert_eq!(read.await.unwrap().unwrap(), "");
}

#[tokio::test]
async fn an_array_that_claims_more_than_there_is_hurts_nobody_else() {
    let api = Api::start().await;
    let (machine, _) = api.proxies().await;
    let message = zbus::Message::method_call("/org/berth", "Plan").interface("org.berth.Machine1");
    let message = message.build(&(vec![("berth.toml", "")],)).unwrap();
    let length = message.body().len();
    // The array's length is the first of the body; D-Bus allows arrays of 64 MiB.
    for claimed in [1_u32 << 16, 1 << 26, (1 << 26) + 1, u32::MAX] {
        let mut hostile = raw(&api).await;
        let mut bytes = message.data().to_vec();
        let body = bytes.len() - length;
        bytes[body..body + 4].copy_from_slice(&claimed.to_le_bytes());
        hostile.write_all(&bytes).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = hostile.read(&mut answer).await.unwrap_or(0);
        // The type of a message is its second byte: an error, if the connection does not end.
        assert!(length == 0 || answer[1] == 3, "{:?}", &answer[..length]);
        assert_eq!(machine.describe().await.unwrap().hostname, "dock1");
    }
    assert!(!api.asked.lock().unwrap().contains(&Request::Plan));
}

#[tokio::test]
async fn garbage_ends_its_connection_only() {
    let api = Api::start().await;
    let (machine, _) = api.proxies().await;
    let mut early = UnixStream::connect(api.socket()).await.unwrap();
    early.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut late = raw(&api).await;
    late.write_all(&[0xff; 4096]).await.unwrap();
    assert_eq!(late.read(&mut [0; 64]).await.unwrap_or(0), 0);
    let mut half = raw(&api).await;
    half.write_all(&call("List", 1)[..20]).await.unwrap();
    assert_eq!(machine.describe().await.unwrap().hostname, "dock1");
}

#[tokio::test]
async fn clients_beyond_the_limit_are_served_when_others_go() {
    let api = Api::start().await;
    let mut connected = Vec::new();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..MANY {
        let address = api.address();
        waiting.spawn(async move { zbus::connection::Builder::address(address.as_str()).p2p().build().await.unwrap() });
    }
    // As each gets in, one is let go; nobody may be left outside.
    while let Some(connection) = waiting.join_next().await {
        connected.push(connection.unwrap());
        if connected.len() > 8 {
            connected.remove(0).close().await.unwrap();
        }
    }
    let (machine, _) = {
        connected.clear();
        api.proxies().await
    };
    machine.describe().await.unwrap();
}

#[tokio::test]
async fn clients_that_only_stay_lock_nobody_out() {
    let api = Api::start().await;
    let (subscriber, _) = api.proxies().await;
    subscriber.subscribe().await.unwrap();
    let mut idle = Vec::new();
    for _ in 1..32 {
        idle.push(raw(&api).await);
    }
    let (machine, _) = tokio::time::timeout(Duration::from_secs(20), api.proxies()).await.expect("locked out");
    machine.describe().await.unwrap();
    assert_eq!(idle.remove(0).read(&mut [0; 8]).await.unwrap_or(0), 0, "the longest idle one gives way");
    subscriber.describe().await.unwrap();
}

#[tokio::test]
async fn a_request_that_pid_1_never_answers_holds_up_no_other_client() {
    let api = Api::start().await;
    let (_, containers) = api.proxies().await;
    let stuck = tokio::spawn(async move { containers.start("stuck").await });
    while !api.asked.lock().unwrap().contains(&Request::Start { name: "stuck".into() }) {
        tokio::task::yield_now().await;
    }
    let (machine, _) = api.proxies().await;
    machine.describe().await.unwrap();
    assert!(!stuck.is_finished());
    stuck.abort();
}
