//! Waiting for the end of containers on behalf of a client: a task for each, and a bound on how many there are. They end with
//! the client's connection.
//!
//! A call that waited would hold up the client's other calls, so the answer is a pipe, and the end comes through it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use berth_control::dbus::ApiError;
use berth_control::message::{Container, ExecutionEnd, Notice, Run};
use nix::fcntl::OFlag;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast};
use tokio::task::JoinSet;

use crate::caller::Caller;
use crate::init::unavailable;

/// The most ends that a client waits for at once.
const AT_ONCE: usize = 16;

/// What a container that was never run has as its exit code, as docker has it.
const NEVER_RUN: u8 = 125;

/// The ends that one client waits for.
#[derive(Clone, Debug)]
pub struct Ends {
    places: Arc<Semaphore>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Default for Ends {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), tasks: Arc::default() }
    }
}

impl Ends {
    /// The read end of a pipe that brings one line, an [`ExecutionEnd`] as JSON, when the present run of a container is over, or
    /// the next one if it is about to run; at once if it is not.
    pub async fn wait(&self, caller: Caller, name: String) -> Result<OwnedFd, ApiError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            ApiError::Refused(format!("this client waits for {AT_ONCE} ends already; close one of the pipes"))
        })?;
        // Before it is looked at, so that no change is lost in between.
        let mut notices = caller.notices();
        let container = find(&caller, &name).await?;
        let failed = |error: std::io::Error| unavailable(&format!("make a pipe for the end: {error}"));
        let (end, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|error| failed(error.into()))?;
        let writer = Sender::from_owned_fd(writer).map_err(failed)?;
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            tokio::select! {
                end = end_of(&caller, container, &mut notices) => tell(&writer, &end).await,
                // Nobody reads any more.
                _ = writer.ready(Interest::ERROR) => {}
            }
            drop(place);
        });
        Ok(end)
    }

    /// The client is gone, and waits for nothing any more.
    pub fn end(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

/// How a run has ended; `None` if the container is gone.
async fn end_of(
    caller: &Caller,
    mut container: Container,
    notices: &mut broadcast::Receiver<Notice>,
) -> Option<ExecutionEnd> {
    let mut run = Run::default();
    while !run.has_ended(&container) {
        match notices.recv().await {
            // What was told may be older than what was looked at; one that was made to be removed is gone with its end.
            Ok(Notice::ContainerChanged(changed)) if changed.name == container.name && run.is_told_of(&changed) => {
                container = find(caller, &changed.name).await.unwrap_or(*changed);
            }
            // It may have been another one of this name, which was gone before this one was looked at.
            Ok(Notice::ContainerRemoved(gone)) if gone.name == container.name => {
                container = find(caller, &gone.name).await.ok()?;
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => container = find(caller, &container.name).await.ok()?,
            Err(RecvError::Closed) => return None,
        }
    }
    Some(match u8::try_from(container.exit_code) {
        Ok(exit_code) => ExecutionEnd { exit_code, reason: String::new() },
        Err(_) => ExecutionEnd { exit_code: NEVER_RUN, reason: container.reason },
    })
}

/// An empty pipe has room for a line; without one the reader sees the end of the pipe.
async fn tell(writer: &Sender, end: &Option<ExecutionEnd>) {
    let Some(mut line) = end.as_ref().and_then(|end| serde_json::to_vec(end).ok()) else { return };
    line.push(b'\n');
    // Tokio writes to what it knows to be writable. The reader may have gone.
    if writer.writable().await.is_ok() {
        let _ = writer.try_write(&line);
    }
}

/// A container, if there is one.
pub async fn find(caller: &Caller, name: &str) -> Result<Container, ApiError> {
    caller.containers().await?.into_iter().find(|container| container.name == name).ok_or_else(|| {
        ApiError::Refused(format!("there is no container named '{name}'; `berth ps --all` lists what there is"))
    })
}
