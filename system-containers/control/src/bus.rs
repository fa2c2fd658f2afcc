//! org.freedesktop.DBus on a connection without a bus.
//!
//! busctl and gdbus take every address for a bus: they say Hello, ask for name owners and add match rules before they
//! do what they were told. This answers as a bus with one service on it would (D-Bus specification, "Message Bus
//! Messages"). It must not become a broker: names are not handed out and messages are not passed on.

use std::sync::Arc;

use berth_control::dbus::SERVICE_NAME;
use zbus::fdo;

use crate::server::Subscription;

/// The client's unique name; everyone is alone on their connection, so all have the same.
pub const CLIENT_NAME: &str = ":1.1";

/// Our unique name.
pub const SERVER_NAME: &str = ":1.0";

/// Where the interface is served.
pub const PATH: &str = "/org/freedesktop/DBus";

const BUS_NAME: &str = "org.freedesktop.DBus";

/// Serves the interface to one client.
pub struct Bus {
    /// Whether the client wants signals.
    pub subscription: Arc<Subscription>,
    /// The server's, in hexadecimal.
    pub id: String,
    /// The client's, as the kernel says.
    pub uid: u32,
}

impl Bus {
    fn owner(name: &str) -> fdo::Result<&'static str> {
        match name {
            BUS_NAME => Ok(BUS_NAME),
            SERVICE_NAME | SERVER_NAME => Ok(SERVER_NAME),
            CLIENT_NAME => Ok(CLIENT_NAME),
            _ => Err(fdo::Error::NameHasNoOwner(format!("there is no '{name}' here, only {SERVICE_NAME}"))),
        }
    }

    /// The user id behind a name.
    fn user(&self, name: &str) -> fdo::Result<u32> {
        Ok(if Self::owner(name)? == CLIENT_NAME { self.uid } else { nix::unistd::geteuid().as_raw() })
    }
}

#[zbus::interface(name = "org.freedesktop.DBus", spawn = false, introspection_docs = false)]
impl Bus {
    async fn hello(&self) -> &str {
        CLIENT_NAME
    }

    async fn get_id(&self) -> &str {
        &self.id
    }

    async fn list_names(&self) -> Vec<&str> {
        vec![BUS_NAME, SERVICE_NAME, SERVER_NAME, CLIENT_NAME]
    }

    async fn list_activatable_names(&self) -> Vec<&str> {
        Vec::new()
    }

    async fn name_has_owner(&self, name: &str) -> bool {
        Self::owner(name).is_ok()
    }

    async fn get_name_owner(&self, name: &str) -> fdo::Result<&str> {
        Self::owner(name)
    }

    async fn start_service_by_name(&self, name: &str, _flags: u32) -> fdo::Result<u32> {
        // DBUS_START_REPLY_ALREADY_RUNNING
        Self::owner(name).map(|_| 2)
    }

    async fn get_connection_unix_user(&self, name: &str) -> fdo::Result<u32> {
        self.user(name)
    }

    /// Any rule turns all signals on: the client sorts out what it did not ask for, as libdbus does.
    async fn add_match(&self, _rule: &str) {
        // A client that gets no signals learns why when it subscribes to them.
        let _ = self.subscription.begin();
    }

    async fn remove_match(&self, _rule: &str) {}

    async fn request_name(&self, _name: &str, _flags: u32) -> fdo::Result<u32> {
        Err(fdo::Error::AccessDenied("this is no message bus: names are not handed out".into()))
    }
}
