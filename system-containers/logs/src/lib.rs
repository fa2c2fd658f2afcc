//! Keeps what every container prints.
//!
//! PID 1 holds the pipes and hands their read ends over; this program moves what they have into files, which are
//! compressed when they are full and bounded per container and in all. Its death at any moment loses nothing and
//! doubles nothing: the pipes stay open in PID 1 and come again, and bytes leave a pipe in the same system call in
//! which they come into a file. It must not hold up a container: it takes whatever happens to the disk, and what cannot
//! be kept is counted and told. One thread, one epoll loop, and a thread that waits for the disk; memory does not grow
//! with what is printed nor with readers that do not read.
//!
//! - [`collector`]: the loop
//! - `kernel`: the kernel's log as a source
//! - `frame`: the form in which output is kept
//! - `active`, `segment`, `sealed`, `table`: the files, from the one that grows to a compressed one
//! - `log`, `store`: the files of one container, and of all; `compaction` and `sync` work for them
//! - `query`, `lines`, `follower`: from files back to lines, and to whoever asked
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::unreachable)
)]

mod active;
pub mod collector;
mod compaction;
mod follower;
mod frame;
mod kernel;
mod lines;
mod log;
mod query;
mod sealed;
mod segment;
mod store;
mod sync;
mod sys;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use berth_control::channel::{Channel, ChannelError};
use berth_control::logs::SOCKET_PATH;
use collector::Collector;

/// Where the logs are, a folder a container.
const DIRECTORY: &str = "/var/lib/berth/logs";

/// Why the program ends. PID 1 starts it again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The channel to PID 1 is missing or broken.
    #[error("talk to PID 1: {0}")]
    Channel(#[from] ChannelError),
    /// The socket for queries cannot be made.
    #[error("listen on {}: {source}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The thread that waits for the disk cannot be started.
    #[error("start with the logs: {0}")]
    Store(#[source] std::io::Error),
    /// The event loop failed.
    #[error("wait for events: {0}")]
    Events(#[source] nix::Error),
}

/// The program `berth-logs`.
pub fn main() -> ExitCode {
    serve(DIRECTORY.into(), SOCKET_PATH.as_ref())
}

/// The same with its files and its socket elsewhere: for tests and benches.
pub fn serve(directory: PathBuf, socket_path: &Path) -> ExitCode {
    let run = || Collector::new(Channel::inherited()?, directory, socket_path)?.run();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-logs: {error}");
            ExitCode::FAILURE
        }
    }
}
