//! The structures of the control API: the messages' own, written as `a{sv}`.
//!
//! They exist beside [`crate::message`] because the same value cannot be both JSON with plain fields and a D-Bus
//! dictionary of variants. Conversions lose nothing.

use berth_config::User;
use zbus::{DeserializeDict, SerializeDict, Type};

use super::ApiError;
use crate::message::{self, ContainerState, Health, Kind, MachineState};

/// The machine as a whole; see [`message::Machine`] for the fields.
#[derive(Clone, Debug, PartialEq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "dict", rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Machine {
    pub hostname: String,
    pub version: String,
    pub kernel: String,
    pub slot: String,
    pub state: MachineState,
    pub uptime_ms: u64,
    pub problems: Vec<String>,
    pub links: Vec<Link>,
    pub networks: Vec<Network>,
    pub watchdog: String,
    pub state_storage: String,
    pub configuration_sources: Vec<String>,
}

/// A link of the host; see [`message::Link`].
#[derive(Clone, Debug, PartialEq, Eq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "dict", rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Link {
    pub name: String,
    pub mac: String,
    pub carrier: bool,
    pub addresses: Vec<String>,
    pub missing: Vec<String>,
}

/// A network of containers; see [`message::Network`].
#[derive(Clone, Debug, PartialEq, Eq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "dict", rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Network {
    pub name: String,
    pub driver: String,
    pub link: String,
    pub subnets: Vec<String>,
    pub gateways: Vec<String>,
    pub internal: bool,
    pub isolated: bool,
}

/// A step of the boot; see [`message::Step`].
#[derive(Clone, Debug, PartialEq, Eq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "dict", rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Step {
    pub name: String,
    pub start_us: u64,
    pub duration_us: u64,
    pub outcome: String,
    pub failed: bool,
}

/// A boot; see [`message::Boot`].
#[derive(Clone, Debug, PartialEq, Eq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "dict", rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Boot {
    pub id: String,
    pub version: String,
    pub kernel: String,
    pub slot: String,
    pub began: u64,
    pub ended: Option<u64>,
    pub reason: String,
}

/// A container; see [`message::Container`].
#[derive(Clone, Debug, PartialEq, Eq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "dict", rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Container {
    pub name: String,
    pub kind: Kind,
    pub state: ContainerState,
    pub health: Health,
    pub image: String,
    pub reason: String,
    pub pid: u32,
    pub restarts: u32,
    pub started_us: u64,
    pub exit_code: i32,
    pub addresses: Vec<String>,
    pub ports: Vec<Port>,
}

/// A change of a container's state, or its removal.
#[derive(Clone, Debug, PartialEq, Eq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "dict", rename_all = "PascalCase")]
pub struct Change {
    /// When, in microseconds since 1970 (UTC).
    pub at_us: u64,
    /// As it was from then on, or, removed, as it was last.
    pub container: Container,
    /// Whether there was no container of this name from then on; absent: no.
    pub removed: Option<bool>,
}

/// A published port; see [`message::Port`].
#[derive(Clone, Debug, PartialEq, Eq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "dict", rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Port {
    pub host_address: String,
    pub host_port: u16,
    pub container_port: u16,
    pub further_ports: u16,
    pub protocol: String,
}

/// A link of the chain that leads to a container's state; see [`message::Cause`].
#[derive(Clone, Debug, PartialEq, Eq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "dict", rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Cause {
    pub depth: u32,
    pub subject: String,
    pub text: String,
    pub at_us: u64,
}

/// What a container uses; see [`message::Statistics`].
#[derive(Clone, Debug, PartialEq, Eq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "dict", rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Statistics {
    pub name: String,
    pub cpu_us: u64,
    pub memory_bytes: u64,
    pub memory_reclaimable_bytes: u64,
    pub memory_limit_bytes: Option<u64>,
    pub tasks: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

/// Which lines of a log are wanted. Keys that are left out do not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "dict", rename_all = "PascalCase")]
pub struct LogQuery {
    /// Only the last so many lines.
    pub tail: Option<u64>,
    /// Only lines not older than this, in microseconds since 1970 (UTC).
    pub since_us: Option<u64>,
    /// Only lines that began until then, in microseconds since 1970 (UTC).
    pub until_us: Option<u64>,
    /// Only what went to `stdout` or to `stderr`.
    pub stream: Option<String>,
    /// Go on with new lines until the reader closes the pipe. Not with `UntilUs`.
    pub follow: Option<bool>,
}

/// How a container is made that no configuration declares. Keys that are left out are `false` and unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "dict", rename_all = "PascalCase")]
pub struct Creation {
    /// Whether it is forgotten when it has ended.
    pub remove: Option<bool>,
    /// Lines of its terminal, if its definition says that it has one.
    pub rows: Option<u16>,
    /// Characters in a line of its terminal.
    pub columns: Option<u16>,
}

impl Creation {
    /// As PID 1 takes it.
    #[must_use]
    pub fn of(self, name: String, container: berth_config::Container, start: bool) -> message::Creation {
        let size = terminal_size(self.rows, self.columns);
        message::Creation { name, container, remove: self.remove.unwrap_or_default(), start, size }
    }
}

/// There is a terminal if there is one of the two.
fn terminal_size(rows: Option<u16>, columns: Option<u16>) -> Option<message::TerminalSize> {
    (rows.is_some() || columns.is_some())
        .then(|| message::TerminalSize { rows: rows.unwrap_or_default(), columns: columns.unwrap_or_default() })
}

/// How a container is asked to end; see [`message::Ending`]. Keys that are left out are as it is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "dict", rename_all = "PascalCase")]
pub struct Ending {
    /// What asks it to end, by number.
    pub signal: Option<i32>,
    /// How long it may take before it is killed, in milliseconds.
    pub grace_ms: Option<u64>,
}

/// A further program in a container; see [`message::Execution`]. Keys that are left out are as in the container's own
/// process; `Arguments` must be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, SerializeDict, DeserializeDict, Type)]
#[zbus(signature = "dict", rename_all = "PascalCase")]
pub struct Execution {
    /// The program and its arguments.
    pub arguments: Option<Vec<String>>,
    /// `KEY=value`, beside the container's own.
    pub environment: Option<Vec<String>>,
    /// Where it starts; absolute.
    pub working_directory: Option<String>,
    /// `user[:group]`, each a name of the container's /etc/passwd and /etc/group or a number.
    pub user: Option<String>,
    /// Lines of the terminal; one is made if this or `columns` is there.
    pub rows: Option<u16>,
    /// Characters in a line of the terminal.
    pub columns: Option<u16>,
    /// Whether the pipe's line comes when the program has begun, with exit code 0, instead of when it has ended.
    pub detached: Option<bool>,
}

impl Execution {
    /// As PID 1 takes it.
    ///
    /// # Errors
    /// If the user cannot be one.
    pub fn in_container(self, container: String) -> Result<message::Execution, ApiError> {
        let user = self.user.map(|user| user.parse::<User>()).transpose();
        Ok(message::Execution {
            container,
            arguments: self.arguments.unwrap_or_default(),
            environment: self.environment.unwrap_or_default(),
            working_directory: self.working_directory,
            user: user.map_err(|error| ApiError::Refused(error.to_string()))?,
            terminal: terminal_size(self.rows, self.columns),
            detached: self.detached.unwrap_or_default(),
        })
    }
}

/// Implements `From` both ways between a structure of the messages and its dictionary, field by field.
macro_rules! same_fields {
    ($ours:ident { $($field:ident),* ; $($list:ident),* }) => {
        impl From<message::$ours> for $ours {
            fn from(value: message::$ours) -> Self {
                let message::$ours { $($field,)* $($list),* } = value;
                Self { $($field,)* $($list: $list.into_iter().map(Into::into).collect()),* }
            }
        }
        impl From<$ours> for message::$ours {
            fn from(value: $ours) -> Self {
                let $ours { $($field,)* $($list),* } = value;
                Self { $($field,)* $($list: $list.into_iter().map(Into::into).collect()),* }
            }
        }
    };
}

same_fields!(Machine {
    hostname, version, kernel, slot, state, uptime_ms, problems, watchdog, state_storage, configuration_sources;
    links, networks
});
same_fields!(Network { name, driver, link, subnets, gateways, internal, isolated; });
same_fields!(Link { name, mac, carrier, addresses, missing; });
same_fields!(Boot { id, version, kernel, slot, began, ended, reason; });
same_fields!(Step { name, start_us, duration_us, outcome, failed; });
same_fields!(Container {
    name, kind, state, health, image, reason, pid, restarts, started_us, exit_code, addresses; ports
});
same_fields!(Statistics {
    name, cpu_us, memory_bytes, memory_reclaimable_bytes, memory_limit_bytes, tasks, read_bytes, written_bytes,
    received_bytes, sent_bytes;
});
same_fields!(Ending { signal, grace_ms; });
same_fields!(Cause { depth, subject, text, at_us; });
same_fields!(Port { host_address, host_port, container_port, further_ports, protocol; });

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::wire::{LE, serialized::Context, to_bytes};

    #[test]
    fn a_container_survives_the_way_through_a_dictionary() {
        let sent = message::Container {
            name: "web".into(),
            kind: Kind::User,
            state: ContainerState::Backoff,
            health: Health::Unhealthy,
            image: "nginx:1.27".into(),
            reason: "exited with 1".into(),
            pid: 0,
            restarts: 3,
            started_us: 17,
            exit_code: 1,
            addresses: vec!["172.20.0.2".into()],
            ports: vec![message::Port {
                host_address: String::new(),
                host_port: 8080,
                container_port: 80,
                further_ports: 5,
                protocol: "tcp".into(),
            }],
        };
        assert_eq!(Container::SIGNATURE, "a{sv}");
        let bytes = to_bytes(Context::new(LE, 0), &Container::from(sent.clone())).unwrap();
        let received: Container = bytes.deserialize().unwrap().0;
        assert_eq!(message::Container::from(received), sent);
    }

    #[test]
    fn a_query_without_keys_is_the_default() {
        let empty: std::collections::HashMap<String, zbus::Variant<'_>> = Default::default();
        let bytes = to_bytes(Context::new(LE, 0), &empty).unwrap();
        let query: LogQuery = bytes.deserialize().unwrap().0;
        assert_eq!(query, LogQuery::default());
    }
}
