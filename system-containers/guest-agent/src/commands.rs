//! The commands: one table, by which they are found and listed.
//!
//! A command takes its arguments as a type that refuses what it does not know, and returns a JSON value. Each group
//! has its file; the names and members are those of QEMU's qga/qapi-schema.json.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::files::{FileError, Files};
use crate::processes::{ProcessError, Processes};
use crate::protocol::Answer;

mod execute;
mod file;
mod machine;
mod network;

/// What the commands work on.
#[derive(Debug)]
pub struct Host {
    /// The children of `guest-exec`.
    pub processes: Processes,
    /// The files of `guest-file-open`.
    pub files: Files,
    /// The program that takes `poweroff`, `reboot` and `halt`.
    pub power_command: String,
}

impl Host {
    /// With what is where on a Berth machine.
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self { processes: Processes::default(), files: Files::default(), power_command: "/usr/bin/berth".to_owned() }
    }
}

/// Why a command failed; the client reads it.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Not in the table.
    #[error("The command {name} has not been found")]
    NotFound {
        /// As the client named it.
        name: String,
    },
    /// The arguments are not what the command takes.
    #[error("read the arguments of {name}")]
    Arguments {
        /// The command.
        name: &'static str,
        /// What is wrong with them.
        #[source]
        source: serde_json::Error,
    },
    /// A member that must be base64 is not.
    #[error("decode {member} as base64")]
    Base64 {
        /// The member.
        member: &'static str,
        /// What is wrong with it.
        #[source]
        source: base64::DecodeError,
    },
    /// A number is outside what is possible.
    #[error("{member} cannot be {value}")]
    Range {
        /// The member.
        member: &'static str,
        /// As given.
        value: i64,
    },
    /// About an open file.
    #[error(transparent)]
    File(#[from] FileError),
    /// About a child.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The kernel did not do it or did not tell.
    #[error("{operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl CommandError {
    /// QAPI's error class.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "CommandNotFound",
            _ => "GenericError",
        }
    }
}

type Arguments = Map<String, Value>;
type Run = fn(&mut Host, Arguments) -> Result<Answer, CommandError>;

struct Command {
    name: &'static str,
    run: Run,
    /// Whether success is answered.
    answers: bool,
}

const fn command(name: &'static str, run: Run) -> Command {
    Command { name, run, answers: true }
}

const COMMANDS: &[Command] = &[
    command("guest-exec", execute::exec),
    command("guest-exec-status", execute::exec_status),
    command("guest-file-close", file::close),
    command("guest-file-flush", file::flush),
    command("guest-file-open", file::open),
    command("guest-file-read", file::read),
    command("guest-file-seek", file::seek),
    command("guest-file-write", file::write),
    command("guest-get-host-name", machine::host_name),
    command("guest-get-osinfo", machine::os_info),
    command("guest-get-time", machine::time),
    command("guest-get-timezone", machine::time_zone),
    command("guest-info", info),
    command("guest-network-get-interfaces", network::interfaces),
    command("guest-ping", ping),
    command("guest-set-time", machine::set_time),
    Command { name: "guest-shutdown", run: machine::shutdown, answers: false },
    command("guest-sync", sync),
    command("guest-sync-delimited", sync_delimited),
];

/// Runs the command called `name`.
pub fn run(host: &mut Host, name: &str, arguments: Arguments) -> Result<Answer, CommandError> {
    let command = COMMANDS.iter().find(|command| command.name == name);
    let command = command.ok_or_else(|| CommandError::NotFound { name: name.to_owned() })?;
    (command.run)(host, arguments)
}

/// The arguments as the type that the command `name` takes.
fn read<T: DeserializeOwned>(name: &'static str, arguments: Arguments) -> Result<T, CommandError> {
    serde_json::from_value(Value::Object(arguments)).map_err(|source| CommandError::Arguments { name, source })
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Sync {
    id: i64,
}

fn ping(_: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    read::<Nothing>("guest-ping", arguments)?;
    Ok(Answer::empty())
}

fn sync(_: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    Ok(Answer::Return(read::<Sync>("guest-sync", arguments)?.id.into()))
}

fn sync_delimited(_: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    Ok(Answer::Delimited(read::<Sync>("guest-sync-delimited", arguments)?.id.into()))
}

fn info(_: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    read::<Nothing>("guest-info", arguments)?;
    let commands: Vec<Value> = COMMANDS
        .iter()
        .map(|command| json!({ "name": command.name, "enabled": true, "success-response": command.answers }))
        .collect();
    // Clients compare this with QEMU's releases. Capture modes of guest-exec came with 8.1.
    Ok(Answer::Return(json!({ "version": "8.1.0", "supported_commands": commands })))
}

fn decode(member: &'static str, text: &str) -> Result<Vec<u8>, CommandError> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|source| CommandError::Base64 { member, source })
}

fn encode(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
