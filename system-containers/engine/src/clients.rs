//! The engine's socket: a thread that takes what clients ask through `control`, and passes it on.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use berth_control::channel::Channel;
use berth_control::images::{Answer, Query};
use nix::sys::socket::SockType;
use rustix::event::{PollFd, PollFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{SocketFlags, accept_with};
use tokio::sync::mpsc::WeakUnboundedSender;

use crate::commands::Command;
use crate::import::describe;
use crate::pull::puller::Task;
use crate::reference::Reference;
use crate::registry::credentials::Credentials;

/// What to wait after a failed accept(2): out of descriptors, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long a client has to send its query. Only `control` may connect, which sends at once.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Listens, and starts the thread. It ends with the process. What is not the puller's is passed to `ask`.
pub fn start(
    path: &Path,
    puller: WeakUnboundedSender<Task>,
    ask: impl Fn(Query, OwnedFd) + Send + 'static,
) -> io::Result<()> {
    let listener = berth_control::listener::listen_on(path, SockType::SeqPacket)?;
    let work = move || {
        loop {
            if let Err(error) = next(&listener, &puller, &ask) {
                eprintln!("engine: serve a client: {error}");
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    };
    std::thread::Builder::new().name("clients".to_owned()).spawn(work).map(drop)
}

/// Waits for a client and serves it.
fn next(listener: &OwnedFd, puller: &WeakUnboundedSender<Task>, ask: &impl Fn(Query, OwnedFd)) -> io::Result<()> {
    let mut events = [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
    rustix::event::poll(&mut events, None)?;
    let socket = accept_with(listener, SocketFlags::CLOEXEC)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(QUERY_TIMEOUT))?;
    set_socket_timeout(&socket, Timeout::Send, Some(QUERY_TIMEOUT))?;
    let channel = Channel::from(socket);
    let (query, mut descriptors) = channel.receive::<Query>().map_err(io::Error::other)?;
    let answer = |answer: Answer| channel.send(&answer, &[]).map_err(io::Error::other);
    let mut descriptors = descriptors.drain(..);
    let Some(pipe) = descriptors.next() else {
        return answer(Answer::Refused("the query comes without a pipe".to_owned()));
    };
    let task = match query {
        query @ (Query::Prune(_) | Query::Sizes | Query::Volumes(_)) => {
            ask(query, pipe);
            return answer(Answer::Coming);
        }
        Query::List => Task::List(pipe),
        Query::Pull { image } => match image.parse::<Reference>() {
            Ok(reference) => Task::Tell(reference, pipe),
            Err(error) => return answer(Answer::Refused(describe(&error))),
        },
        Query::Push { image } => match image.parse::<Reference>() {
            Ok(reference) => Task::Push(reference, pipe),
            Err(error) => return answer(Answer::Refused(describe(&error))),
        },
        Query::Login { registry, username, password } => {
            let login = Credentials { username, password, identity_token: None };
            Task::Login(registry, Some(login), pipe)
        }
        Query::Logout { registry } => Task::Login(registry, None, pipe),
        query => match Command::of(query, descriptors.next()) {
            Ok(command) => Task::Command(command, pipe),
            Err(error) => return answer(Answer::Refused(describe(&error))),
        },
    };
    answer(Answer::Coming)?;
    if let Some(puller) = puller.upgrade() {
        // It refuses only when the engine ends, and then the client's pipe ends with it.
        let _ = puller.send(task);
    }
    Ok(())
}
