//! What `berth run`, `create` and `attach` ask for, and how PID 1 and a client talk about one container.
//!
//! A session is a [`crate::channel::Channel`] of its own: its descriptor goes through `control` once, and from then on PID 1
//! and the client talk without anybody between them. PID 1 sends [`ToClient`], the client sends [`FromClient`]; who closes
//! it goes, and the container runs on.

use serde::{Deserialize, Serialize};

use super::{ExecutionEnd, TerminalSize};

/// A container that no configuration declares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Creation {
    /// Its name.
    pub name: String,
    /// With the keys of `[containers.<name>]`, but without replicas.
    pub container: berth_config::Container,
    /// Whether it is forgotten when it has ended.
    pub remove: bool,
    /// Whether it starts; else it waits for its first [`super::Request::Start`].
    pub start: bool,
    /// Of its terminal, if it has one.
    pub size: Option<TerminalSize>,
}

impl Creation {
    /// One that waits for its start and stays until it is removed.
    #[must_use]
    pub fn plain(name: String, container: berth_config::Container) -> Self {
        Self { name, container, remove: false, start: false, size: None }
    }
}

/// What a client wants of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interest {
    /// What becomes of the container.
    State,
    /// Also its standard streams.
    Streams,
}

/// From PID 1 to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToClient {
    /// The client's end of this stream comes with the message; it takes the place of one that came before. For an output
    /// that is to be kept there is a second descriptor: the client writes there what it reads, for `logs`, and best so that
    /// nothing is only with the client in between (splice(2)).
    Stream(SessionStream),
    /// The program runs. Comes again every 5 s while output waits for the client: one that has not read it by the next time
    /// is cut off if an output has as much unread as before, so that it does not hold the container up.
    Running,
    /// The container has ended and is not started again by itself. The last message.
    Ended(ExecutionEnd),
    /// Another client has attached to the container, or this one did not read. The last message.
    Replaced,
}

/// A stream of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStream {
    /// The write end of the container's standard input; does not block.
    Input,
    /// The read end of its standard output; does not block.
    Output,
    /// The read end of its standard error; does not block.
    Error,
    /// The master of its terminal.
    Terminal,
}

/// From a client to PID 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromClient {
    /// Nothing more comes on standard input: the container sees its end when the client has closed it too.
    CloseInput,
    /// Send this signal, by number, to the first process.
    Signal(i32),
}
