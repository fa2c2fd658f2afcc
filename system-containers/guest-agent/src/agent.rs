//! The event loop: port in, answers out, children in between.
//!
//! The port's descriptor sits in an edge-triggered epoll instance of its own. While no client is connected at the
//! host's end, a virtio port is readable at its end of file for ever, and a level-triggered wait would turn in
//! circles; the edge comes when a client connects (virtio_console wakes the port's queue). So the port is always
//! driven until it has nothing more to give ([`Agent::serve_port`]), and that is an invariant, not an optimisation.
//!
//! A client that sends requests and does not read answers stops being served: no request is taken while an answer
//! waits. An answer that nobody fetched meets the next client, which tells it from its own by `guest-sync-delimited`.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::io::Errno;

use crate::commands::{self, Host};
use crate::frames::Frames;
use crate::protocol;

/// How many requests are served before the children get their turn.
const TURN: usize = 16;

/// Why the agent stopped.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A system call of the loop failed.
    #[error("{operation} the port")]
    Port {
        /// The call.
        operation: &'static str,
        /// Its error.
        #[source]
        source: Errno,
    },
}

/// Whether the port may have more to give.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// An edge will tell.
    Waiting,
    /// It was not asked to its end.
    Unfinished,
}

/// The agent on its port.
#[derive(Debug)]
pub struct Agent {
    port: OwnedFd,
    edges: OwnedFd,
    frames: Frames,
    unsent: Vec<u8>,
    host: Host,
}

impl Agent {
    /// Takes an open port, which must not block.
    pub fn new(port: OwnedFd, host: Host) -> Result<Self, AgentError> {
        let watch = || {
            let edges = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let events = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&edges, &port, epoll::EventData::new_u64(0), events)?;
            Ok(edges)
        };
        let edges = watch().map_err(|source| AgentError::Port { operation: "watch", source })?;
        Ok(Self { port, edges, frames: Frames::default(), unsent: Vec::new(), host })
    }

    /// Serves until the port is taken out of the machine.
    pub fn run(mut self) -> Result<(), AgentError> {
        loop {
            let progress = match self.serve_port() {
                Ok(progress) => progress,
                // virtio_console's answer on a port that was unplugged.
                Err(AgentError::Port { source: Errno::NODEV, .. }) => return Ok(()),
                Err(error) => return Err(error),
            };
            self.wait(progress)?;
            self.host.processes.advance();
        }
    }

    /// Sleeps until the port or a child has something to tell.
    fn wait(&self, progress: Progress) -> Result<(), AgentError> {
        let failed = |source| AgentError::Port { operation: "wait for", source };
        let immediately = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = (progress == Progress::Unfinished).then_some(&immediately);
        let mut waited = vec![PollFd::new(&self.edges, PollFlags::IN)];
        waited.extend(self.host.processes.interests().map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
        match rustix::event::poll(&mut waited, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(source) => return Err(failed(source)),
        }
        // Consumes the edge, if there is one: what it tells is found out by reading.
        let mut edge = Vec::with_capacity(1);
        match epoll::wait(&self.edges, rustix::buffer::spare_capacity(&mut edge), Some(&immediately)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(source) => Err(failed(source)),
        }
    }

    /// Reads, answers and writes until the port has nothing to give or cannot take more.
    fn serve_port(&mut self) -> Result<Progress, AgentError> {
        for _ in 0..TURN {
            if !self.send()? {
                return Ok(Progress::Waiting);
            }
            if let Some(frame) = self.frames.next_frame() {
                self.unsent = self.answer(frame);
            } else if !self.receive()? {
                return Ok(Progress::Waiting);
            }
        }
        Ok(Progress::Unfinished)
    }

    fn answer(&mut self, frame: crate::frames::Frame) -> Vec<u8> {
        match protocol::parse(frame) {
            Err(error) => protocol::encode_error("GenericError", &error, None),
            Ok(request) => match commands::run(&mut self.host, &request.execute, request.arguments) {
                Ok(answer) => protocol::encode_answer(answer, request.id),
                Err(error) => protocol::encode_error(error.class(), &error, request.id),
            },
        }
    }

    /// Writes what can be written; false while something is left.
    fn send(&mut self) -> Result<bool, AgentError> {
        while !self.unsent.is_empty() {
            match rustix::io::write(&self.port, &self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(Errno::INTR) => {}
                // Full, or nobody listens. An answer is kept in either case: the kernel hears of a new client through
                // another queue than the client's first bytes, and these may be read, and answered, before it has.
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::PIPE) => self.unsent.clear(),
                Err(source) => return Err(AgentError::Port { operation: "write to", source }),
            }
        }
        Ok(true)
    }

    /// Reads once; false when there is nothing to read.
    fn receive(&mut self) -> Result<bool, AgentError> {
        let mut bytes = [0; 16 << 10];
        match rustix::io::read(&self.port, &mut bytes) {
            // Nobody listens, or is not known to yet (see `send`): what has been read so far may be the first half of
            // a new client's request. A client that wants to be sure sends 0xFF.
            Ok(0) => Ok(false),
            Ok(length) => {
                self.frames.push(bytes.get(..length).unwrap_or_default());
                Ok(true)
            }
            Err(Errno::INTR) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(source) => Err(AgentError::Port { operation: "read from", source }),
        }
    }
}
