//! Keeps what every container prints.
//!
//! PID 1 holds the pipes and hands their read ends over; this program reads them, puts a time before each line, and
//! keeps the lines in files that are bounded per container. Its death loses no more than the line that was being
//! printed: the pipes stay open in PID 1 and come again. It must not hold up a container: it reads whatever happens to
//! the disk, and what cannot be written is dropped, counted and told. One thread, one epoll loop; memory does not grow
//! with what is printed nor with readers that do not read.
//!
//! - [`collector`]: the loop
//! - `lines`: from bytes to lines
//! - `kernel`: the kernel's log as lines
//! - [`store`]: the files
//! - `follower`: from the files to whoever asked

pub mod collector;
mod follower;
mod kernel;
mod lines;
pub mod store;
mod sys;

use std::path::PathBuf;
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
    /// The event loop failed.
    #[error("wait for events: {0}")]
    Events(#[source] nix::Error),
}

/// The program `berth-logs`.
pub fn main() -> ExitCode {
    let run = || Collector::new(Channel::inherited()?, DIRECTORY.into(), SOCKET_PATH.as_ref())?.run();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-logs: {error}");
            ExitCode::FAILURE
        }
    }
}
