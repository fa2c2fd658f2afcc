//! A further program in a running container: what `berth exec` asks for.

use berth_config::User;
use serde::{Deserialize, Serialize};

/// The program and how it runs; what is left out is as in the container's own process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// The container.
    pub container: String,
    /// The program and its arguments; not empty.
    pub arguments: Vec<String>,
    /// `KEY=value`, beside the container's own; the later of two with one key counts.
    pub environment: Vec<String>,
    /// Where it starts; absolute.
    pub working_directory: Option<String>,
    /// Who it runs as: looked up in the container's /etc/passwd and /etc/group.
    pub user: Option<User>,
    /// A terminal of this size for it.
    pub terminal: Option<TerminalSize>,
    /// Its end is told to nobody: the pipe says that it has begun, by exit code 0, or why it could not.
    #[serde(default)]
    pub detached: bool,
}

/// Of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// How a program ended: one line of JSON in the result pipe of an execution, and the end of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionEnd {
    /// As a shell counts it: the program's own, 128 + signal, 127 if there is no such program, 126 if it could not
    /// be run, and for a session 125 if the container could not be set up.
    pub exit_code: u8,
    /// Why it could not be run; empty if it has run.
    pub reason: String,
}
