//! The one thing here that the compiler cannot check: putting a channel on tokio's event loop.

#![allow(unsafe_code)]

use std::io;

use berth_control::channel::Channel;
use tokio::io::unix::AsyncFd;

/// Watches a channel with the current tokio runtime. The channel must not block (epoll(7)).
pub fn watch(channel: Channel) -> io::Result<AsyncFd<Channel>> {
    // SAFETY: `AsyncFd::register` wants the descriptor to be open, and to stay the same one for as long as the
    // `AsyncFd` lives. A `Channel` owns its descriptor from construction to drop and has no method that replaces it,
    // and it is moved into the `AsyncFd` here, so nobody else can drop it.
    Ok(unsafe { AsyncFd::register(channel) }?)
}
