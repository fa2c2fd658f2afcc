//! Clients that talk to a container: `berth run` and `berth attach`.
//!
//! A container has one at most. It has the container's own pipes or terminal, so PID 1 never sees a byte; while it is
//! there `logs` does not read them, and gets from the client what is to be kept. When the client goes, however it goes,
//! `logs` reads them again, and the container notices nothing.
//!
//! One that stands still, such as a command that was stopped with Ctrl-Z, would hold the container up as soon as a pipe is
//! full. So PID 1 tells it something while output lies there, and takes its leave if at the next look, [`LOOK`] later, it has
//! not taken that and an output has as much unread as before.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use std::time::Duration;

use berth_config::Role;
use berth_control::channel::{Channel, ChannelError};
use berth_control::message::{ExecutionEnd, FromClient, Interest, Kind, Notice, SessionStream, Stream, ToClient};
use berth_runtime::handover::Handed;
use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::container::{Container, State};
use super::output::Output;
use super::requests::MESSAGES_AT_ONCE;
use crate::printable::printable;
use crate::reactor::Token;
use crate::sys;

/// How often PID 1 looks after a client that has streams: one that stands still holds its container up for twice that, and
/// only if it prints more than a pipe holds.
const LOOK: Duration = Duration::from_secs(5);

/// The exit code of a container that could not be set up, as docker has it.
pub(super) const NOT_SET_UP: u8 = 125;

/// PID 1's end.
#[derive(Debug, Serialize, Deserialize)]
pub struct Session {
    pub(super) channel: Handed<Channel>,
    interest: Interest,
    /// Where the client writes what it has read, for `logs`.
    forward: Option<Output>,
    /// Whether the program has run since it began.
    ran: bool,
    /// When PID 1 looks after the client, on [`crate::clock`].
    #[serde(default)]
    look: Duration,
    /// How much each output had unread at the last look, in bytes; the client was told something if any had.
    #[serde(default)]
    unread: Vec<i32>,
}

impl Session {
    /// Whether the client has the container's streams.
    pub fn has_streams(&self) -> bool {
        self.interest == Interest::Streams
    }

    /// When its client is to be looked after.
    pub fn deadline(&self) -> Option<Duration> {
        self.has_streams().then_some(self.look)
    }
}

impl Container {
    /// How its run has ended, for its client, if it has one.
    pub(super) fn end_for_client(&self) -> Option<ExecutionEnd> {
        let ran = self.session.as_ref()?.ran;
        let code = u8::try_from(self.exit_code).unwrap_or(NOT_SET_UP);
        Some(if ran {
            ExecutionEnd { exit_code: code, reason: String::new() }
        } else {
            ExecutionEnd { exit_code: code.max(NOT_SET_UP), reason: printable(&self.reason).into_owned() }
        })
    }

    /// What `logs` is to read.
    pub(super) fn logged(&self) -> Vec<(Stream, BorrowedFd<'_>)> {
        match &self.session {
            Some(session) if session.has_streams() => session.forward.as_ref().map(both).unwrap_or_default(),
            _ if self.has_terminal() => {
                self.interaction.terminal.iter().map(|terminal| (Stream::Stdout, terminal.as_fd())).collect()
            }
            _ => both(&self.output),
        }
    }

    /// Whether the time has come for [`Supervisor::look_after_client`].
    pub(super) fn has_client_to_look_after(&self, now: Duration) -> bool {
        self.session.as_ref().and_then(Session::deadline).is_some_and(|look| look <= now)
    }

    /// How much of what it has printed lies where its client is to read it, in bytes for each output.
    fn unread_output(&self) -> Vec<i32> {
        let pipes = both(&self.output).into_iter().map(|(_, reader)| reader);
        let readers = pipes.chain(self.interaction.terminal.iter().map(AsFd::as_fd));
        // Whoever cannot be asked holds nobody up.
        readers.map(|reader| sys::unread(reader).unwrap_or_default()).collect()
    }

    fn has_terminal(&self) -> bool {
        self.user().is_some_and(|user| user.tty)
    }
}

impl Supervisor {
    /// A session with a container that runs.
    pub(super) fn attach_client(&mut self, name: &str) -> Result<OwnedFd, String> {
        let container = self.partner(name)?;
        if !matches!(container.state, State::Running(_)) {
            return Err(format!("container {name} is not running; `berth start {name}` starts it"));
        }
        let id = container.id;
        self.begin_session(id)
    }

    /// Starts a container that does not run, with a session from before its first word.
    pub(super) fn start_attached(&mut self, name: &str) -> Result<OwnedFd, String> {
        let id = self.partner(name)?.id;
        // Before another client loses its session for nothing.
        self.may_start(name)?;
        let end = self.begin_session(id)?;
        self.start_by_name(name)?;
        Ok(end)
    }

    /// A container that a client may talk to.
    fn partner(&self, name: &str) -> Result<&Container, String> {
        let container = self.find(name).ok_or_else(|| super::requests::unknown(name))?;
        if container.kind() == Kind::System {
            return Err(format!(
                "{name} is a system container, which nobody talks to; `berth logs -f {name}` follows it"
            ));
        }
        Ok(container)
    }

    fn begin_session(&mut self, id: u32) -> Result<OwnedFd, String> {
        let end = self.open_session(id, Interest::Streams)?;
        self.offer_pipes(id);
        Ok(end)
    }

    /// Begins a session; one that is there already ends. The client's end. What `logs` is to read is another thing then.
    pub(super) fn open_session(&mut self, id: u32, interest: Interest) -> Result<OwnedFd, String> {
        let (ours, theirs) = Channel::pair().map_err(|error| format!("make a channel: {error}"))?;
        self.tell_client(id, &ToClient::Replaced, &[]);
        self.close_session(id);
        self.reactor.add(&ours, Token::Session(id)).map_err(|error| format!("watch a channel: {error}"))?;
        let Some(container) = self.containers.get_mut(id) else { return Err("the container is gone".to_owned()) };
        let kept = !container.made.as_ref().is_some_and(|made| made.remove);
        let forward = match interest {
            Interest::Streams if kept => Some(Output::new().map_err(|error| format!("make pipes: {error}"))?),
            _ => None,
        };
        let ran = matches!(container.state, State::Running(_));
        let name = container.name.clone();
        let look = self.now + LOOK;
        container.session = Some(Session { channel: ours.into(), interest, forward, ran, look, unread: Vec::new() });
        if interest == Interest::Streams {
            self.notify(Role::Logs, Notice::LogRelease { container: name });
            self.send_output(id);
            self.send_interaction(id);
        }
        Ok(theirs.into())
    }

    /// Gives the client the container's output pipes.
    fn send_output(&mut self, id: u32) {
        let Some(container) = self.containers.get(id).filter(|container| !container.has_terminal()) else { return };
        let Some(session) = &container.session else { return };
        let send = |stream, kind| {
            let mut descriptors = vec![container.output.reader(stream)];
            descriptors.extend(session.forward.as_ref().map(|forward| forward.writer(stream)));
            session.channel.send(&ToClient::Stream(kind), &descriptors)
        };
        let sent =
            send(Stream::Stdout, SessionStream::Output).and_then(|()| send(Stream::Stderr, SessionStream::Error));
        if sent.is_err() {
            self.close_session(id);
        }
    }

    /// Gives the client what a run that has begun is talked to by.
    pub(super) fn send_interaction(&mut self, id: u32) {
        let Some(container) = self.containers.get(id) else { return };
        let Some(session) = container.session.as_ref().filter(|session| session.has_streams()) else { return };
        let interaction = &container.interaction;
        let input = interaction.input.iter().map(|input| (SessionStream::Input, input, None));
        let log = session.forward.as_ref().map(|forward| forward.writer(Stream::Stdout));
        let terminal = interaction.terminal.iter().map(|terminal| (SessionStream::Terminal, terminal, log));
        let sent = input.chain(terminal).try_for_each(|(stream, descriptor, log)| {
            let descriptors: Vec<_> = [descriptor.as_fd()].into_iter().chain(log).collect();
            session.channel.send(&ToClient::Stream(stream), &descriptors)
        });
        if sent.is_err() {
            self.close_session(id);
        }
    }

    /// The program of a container runs.
    pub(super) fn session_runs(&mut self, id: u32) {
        let Some(session) = self.containers.get_mut(id).and_then(|container| container.session.as_mut()) else {
            return;
        };
        session.ran = true;
        self.tell_client(id, &ToClient::Running, &[]);
    }

    /// A client says something, or has gone. What is left after [`MESSAGES_AT_ONCE`] waits for the next round.
    pub fn session(&mut self, id: u32) {
        for _ in 0..MESSAGES_AT_ONCE {
            let Some(session) = self.containers.get(id).and_then(|container| container.session.as_ref()) else {
                return;
            };
            match session.channel.receive::<FromClient>() {
                Ok((FromClient::CloseInput, _)) => {
                    if let Some(container) = self.containers.get_mut(id) {
                        container.interaction.input = None;
                    }
                }
                Ok((FromClient::Signal(signal), _)) => {
                    // One that has ended meanwhile does not need it.
                    let _ = self.signal_container(id, signal);
                }
                Err(ChannelError::WouldBlock) => return,
                Err(_) => {
                    self.close_session(id);
                    return self.offer_pipes(id);
                }
            }
        }
    }

    /// The time has come to look after a client: one that has not read what it was told at the last look has to go if an
    /// output has as much unread as then. One that takes output, but less than comes, and never looks at its channel is
    /// taken for such a one too, because a pipe that is full is as full at every look.
    pub(super) fn look_after_client(&mut self, id: u32) {
        let now = self.now;
        let Some(container) = self.containers.get_mut(id) else { return };
        let unread = container.unread_output();
        let Some(session) = container.session.as_mut() else { return };
        let waits = unread.iter().any(|bytes| *bytes > 0);
        let is_stuck = session.unread.iter().zip(&unread).any(|(before, bytes)| *bytes > 0 && bytes == before);
        let stands_still = is_stuck && sys::unread_by_peer(&session.channel).is_ok_and(|bytes| bytes > 0);
        (session.look, session.unread) = (now + LOOK, unread);
        if stands_still {
            log::warn!("container {}: its client does not read what it prints and is cut off", container.name);
            self.tell_client(id, &ToClient::Replaced, &[]);
            self.close_session(id);
            self.offer_pipes(id);
        } else if waits {
            // It knows that; what counts is whether it takes it.
            self.tell_client(id, &ToClient::Running, &[]);
        }
    }

    /// A container is at rest: its client learns how it has ended.
    pub(super) fn end_session(&mut self, id: u32) {
        let Some(end) = self.containers.get(id).and_then(Container::end_for_client) else { return };
        self.tell_client(id, &ToClient::Ended(end), &[]);
        self.close_session(id);
        self.offer_pipes(id);
    }

    /// Tells the client, if there is one. One that does not read its few messages is as good as gone.
    fn tell_client(&mut self, id: u32, message: &ToClient, descriptors: &[BorrowedFd<'_>]) {
        let Some(session) = self.containers.get(id).and_then(|container| container.session.as_ref()) else { return };
        if session.channel.send(message, descriptors).is_err() {
            self.close_session(id);
            self.offer_pipes(id);
        }
    }

    pub(super) fn close_session(&mut self, id: u32) {
        let has_one = self.containers.get(id).is_some_and(|container| container.session.is_some());
        let Some(container) = self.containers.get_mut(id).filter(|_| has_one) else { return };
        if let Some(session) = container.session.take() {
            self.reactor.remove(&session.channel);
        }
    }
}

fn both(output: &Output) -> Vec<(Stream, BorrowedFd<'_>)> {
    [Stream::Stdout, Stream::Stderr].map(|stream| (stream, output.reader(stream))).to_vec()
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use berth_control::message::Request;

    use super::super::world::World;
    use super::*;

    /// A container with a client that has read all it was told, and that has printed a word since.
    fn attached() -> (World, Channel) {
        let mut world = World::new("[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\n");
        world.prepare("web");
        world.run("web");
        let (_, descriptors) = world.ask_for(Request::Attach { name: "web".into(), start: false });
        let client = Channel::from(descriptors.into_iter().next().unwrap());
        client.set_nonblocking().unwrap();
        while client.receive::<ToClient>().is_ok() {}
        print(&world, Stream::Stdout, b"word\n");
        (world, client)
    }

    fn print(world: &World, stream: Stream, text: &[u8]) {
        let writer = world.supervisor.find("web").unwrap().output.writer(stream);
        File::from(writer.try_clone_to_owned().unwrap()).write_all(text).unwrap();
    }

    fn has_session(world: &World) -> bool {
        world.supervisor.find("web").unwrap().session.is_some()
    }

    #[test]
    fn a_client_that_stands_still_while_there_is_output_has_to_go() {
        let (mut world, client) = attached();
        world.pass(LOOK);
        assert!(has_session(&world), "it may be about to read");
        // Whoever prints this is not held up yet.
        print(&world, Stream::Stderr, b"word\n");
        world.pass(LOOK);
        assert!(!has_session(&world));
        let told: Vec<_> = std::iter::from_fn(|| client.receive::<ToClient>().ok().map(|(told, _)| told)).collect();
        assert_eq!(told, [ToClient::Running, ToClient::Replaced]);
    }

    #[test]
    fn a_client_that_only_prints_slowly_stays() {
        let (mut world, client) = attached();
        for _ in 0..5 {
            world.pass(LOOK);
            assert_eq!(client.receive::<ToClient>().unwrap().0, ToClient::Running);
        }
        assert!(has_session(&world));
    }

    #[test]
    fn a_client_that_takes_output_and_leaves_what_it_is_told_stays() {
        let (mut world, _client) = attached();
        for length in 1..6 {
            world.pass(LOOK);
            let reader = world.supervisor.find("web").unwrap().output.reader(Stream::Stdout);
            nix::unistd::read(reader, &mut [0; 16]).unwrap();
            print(&world, Stream::Stdout, &b"words"[..length]);
        }
        assert!(has_session(&world));
    }

    #[test]
    fn a_client_without_output_is_not_bothered() {
        let (mut world, client) = attached();
        let reader = world.supervisor.find("web").unwrap().output.reader(Stream::Stdout);
        nix::unistd::read(reader, &mut [0; 16]).unwrap();
        for _ in 0..5 {
            world.pass(LOOK);
        }
        assert!(has_session(&world) && matches!(client.receive::<ToClient>(), Err(ChannelError::WouldBlock)));
    }
}
