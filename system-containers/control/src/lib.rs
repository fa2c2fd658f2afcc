//! The control API: D-Bus to clients, typed messages to PID 1.
//!
//! It holds no state that matters: everything it says it has just asked PID 1, but for the last changes, which are a
//! courtesy. So it can be killed and started again at any moment. What clients do to it ends here: each has a bounded queue, is served one call at a time, and a client
//! that does not read its answers is disconnected, while the others are served. It must not decide anything; PID 1
//! does.
//!
//! - [`init`]: requests to PID 1 and its notices
//! - `server`: the socket, who may connect, one task a client
//! - `transport`: the byte stream of a client, with its bounds
//! - `machine`, `containers`, `bus`: the D-Bus interfaces
//! - `door`: whether clients get in at all
//! - `caller`: what a client may ask of PID 1
//! - `listing`: all containers, as PID 1 lists them
//! - `definition`: containers that clients make, as they come
//! - `images`, `volumes`: the interfaces, and the way to the `engine` system container
//! - `ends`: waiting for the ends of containers
//! - `past`: what has happened lately
//! - `logs`: the way to the `logs` system container

mod bus;
mod caller;
mod containers;
mod definition;
mod door;
mod ends;
mod images;
pub mod init;
mod listing;
mod logs;
mod machine;
mod past;
mod places;
pub mod server;
mod sheet;
mod sys;
mod transport;
mod volumes;

use std::path::PathBuf;
use std::process::ExitCode;

use berth_control::channel::{Channel, ChannelError};
use berth_control::dbus;
use init::Init;
use server::Server;

/// Why the program ends. PID 1 starts it again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The channel to PID 1 is missing or broken.
    #[error("talk to PID 1")]
    Channel(#[from] ChannelError),
    /// The runtime did not start.
    #[error("start the event loop")]
    Runtime(#[source] std::io::Error),
    /// The socket cannot be made.
    #[error("listen on {}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// PID 1 did not take the message that the API is there.
    #[error("tell PID 1 that the API is there: {0}")]
    Ready(dbus::ApiError),
}

/// The program `berth-control`.
pub fn main() -> ExitCode {
    let error = match run() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    let mut text = format!("berth-control: {error}");
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    eprintln!("{text}");
    ExitCode::FAILURE
}

fn run() -> Result<(), Error> {
    let channel = Channel::inherited()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    runtime.block_on(async {
        let init = Init::start(channel)?;
        let server = Server::listen(
            dbus::SOCKET_PATH.as_ref(),
            berth_control::logs::SOCKET_PATH.into(),
            berth_control::images::SOCKET_PATH.into(),
            init.clone(),
        )?;
        let serving = tokio::spawn(server.serve());
        init.ready().await.map_err(Error::Ready)?;
        // PID 1 ends this program by a signal; the channel's end means that nobody is there to serve.
        init.closed().await;
        serving.abort();
        Ok(())
    })
}
