//! The way to the `logs` system container: a query and the write end of a pipe over its socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use berth_control::channel::{Channel, ChannelError};
use berth_control::dbus::{ApiError, LogQuery};
use berth_control::logs::{Answer, Query};
use berth_control::message::Stream;
use nix::fcntl::OFlag;

use crate::sys;

/// How long `logs` has to take a query. It reads nothing before it answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where `logs` listens.
#[derive(Clone, Debug)]
pub struct Logs {
    /// Its socket.
    pub socket_path: PathBuf,
}

impl Logs {
    /// The read end of a pipe with what was asked for, by a client in this container or by one of the machine's.
    pub async fn query(
        &self,
        container: String,
        query: LogQuery,
        asked_by: Option<String>,
    ) -> Result<OwnedFd, ApiError> {
        let stream = match query.stream.as_deref() {
            None => None,
            Some("stdout") => Some(Stream::Stdout),
            Some("stderr") => Some(Stream::Stderr),
            Some(other) => return Err(ApiError::Refused(format!("'{other}' is neither 'stdout' nor 'stderr'"))),
        };
        let LogQuery { tail, since_us, until_us, follow, .. } = query;
        let follow = follow.unwrap_or(false);
        let query = Query { container, tail, since_us, until_us, stream, follow, asked_by };
        let asking = tokio::time::timeout(ANSWER_TIMEOUT, self.ask(query));
        match asking.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok((Answer::Coming, lines)) => Ok(lines),
            Ok((Answer::Refused(reason), _)) => Err(ApiError::Refused(reason)),
            Err(error) => Err(ApiError::Unavailable(format!(
                "the system container `logs` does not answer ({error}); `berth ps --all` shows its state"
            ))),
        }
    }

    async fn ask(&self, query: Query) -> io::Result<(Answer, OwnedFd)> {
        let channel = Channel::connect(&self.socket_path).map_err(io::Error::other)?;
        let (lines, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        channel.send(&query, &[writer.as_fd()]).map_err(io::Error::other)?;
        drop(writer);
        let answer = sys::watch(channel)?
            .async_io(tokio::io::Interest::READABLE, |channel| match channel.receive::<Answer>() {
                Err(ChannelError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
                received => received.map(|(answer, _)| answer).map_err(io::Error::other),
            })
            .await?;
        Ok((answer, lines))
    }
}
