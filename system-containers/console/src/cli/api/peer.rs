//! The other end of an [`Api`] for tests: a control API that says what a test wants.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use berth_control::dbus::{self, OBJECT_PATH};
use berth_control::images::End;
use berth_control::message::{Container, ContainerState, Health, Kind};
use futures_util::StreamExt;
use zbus::{Connection, Message, MessageStream};

use super::Api;

const NAME: &str = ":1.0";

/// Hears the calls of an [`Api`] one after the other.
pub struct Peer {
    connection: Connection,
    calls: MessageStream,
}

/// Both ends.
pub async fn pair() -> (Api, Peer) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let guid = zbus::Guid::generate();
    let server = zbus::connection::Builder::unix_stream(theirs).server(guid).p2p().build();
    let (api, connection) = tokio::join!(Api::over(ours), server);
    let connection = connection.unwrap();
    // The sender of signals, as the control API has it.
    connection.set_unique_name(NAME).unwrap();
    (api.unwrap(), Peer { calls: MessageStream::from(&connection), connection })
}

impl Peer {
    /// The next call, which is one of this method.
    pub async fn call(&mut self, method: &str) -> Message {
        loop {
            let message = self.calls.next().await.unwrap().unwrap();
            if message.message_type() != zbus::message::Type::MethodCall {
                continue;
            }
            // What zbus asks of a bus before it listens.
            if message.header().member().unwrap().as_str() == "GetNameOwner" {
                self.reply(&message, &NAME).await;
                continue;
            }
            assert_eq!(message.header().member().unwrap().as_str(), method);
            return message;
        }
    }

    /// Answers it.
    pub async fn answer<B: serde::Serialize + zbus::Type>(&mut self, method: &str, body: &B) {
        let call = self.call(method).await;
        self.reply(&call, body).await;
    }

    /// Answers a call that was taken before.
    pub async fn reply<B: serde::Serialize + zbus::Type>(&self, call: &Message, body: &B) {
        self.connection.reply(&call.header(), body).await.unwrap();
    }

    /// Says no.
    pub async fn refuse(&self, call: &Message, reason: &str) {
        self.connection.reply_error(&call.header(), "org.berth.Error.Refused", &reason).await.unwrap();
    }

    /// Tells that a container is like this.
    pub async fn tell(&self, container: &Container) {
        let body = dbus::Container::from(container.clone());
        self.signal("org.berth.Containers1", "ContainerChanged", &body).await;
    }

    /// Tells that a container, last like this, is gone.
    pub async fn tell_removed(&self, container: &Container) {
        let body = dbus::Container::from(container.clone());
        self.signal("org.berth.Containers1", "ContainerRemoved", &body).await;
    }

    /// Tells that so many signals were left out.
    pub async fn tell_missed(&self, count: u64) {
        self.signal("org.berth.Machine1", "Missed", &count).await;
    }

    async fn signal<B: serde::Serialize + zbus::Type>(&self, interface: &str, member: &str, body: &B) {
        self.connection.emit_signal(None::<&str>, OBJECT_PATH, interface, member, body).await.unwrap();
    }
}

/// A pipe from the engine with how something ended.
pub fn of_engine(end: &End) -> zbus::wire::OwnedFd {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(serde_json::to_string(end).unwrap().as_bytes()).unwrap();
    OwnedFd::from(reader).into()
}

/// A container in this state.
pub fn container(name: &str, state: ContainerState) -> Container {
    Container {
        name: name.into(),
        kind: Kind::User,
        state,
        health: Health::None,
        image: String::new(),
        reason: String::new(),
        pid: 0,
        restarts: 0,
        started_us: 5,
        exit_code: 3,
        addresses: Vec::new(),
        ports: Vec::new(),
    }
}
