//! The resolver of containers: [`server`] listens on every bridge and answers names from the [`directory`]; other
//! questions go by [`forward`] to the host's servers. [`message`] is the encoding.

pub mod directory;
mod forward;
mod message;
pub mod server;
