//! The one place where PID 1 waits: epoll, with typed tokens instead of numbers.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What became readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Token {
    /// The signalfd.
    Signals,
    /// The kernel's device events.
    Devices,
    /// A power button.
    PowerButton,
    /// Settings of the wall clock.
    Clock,
    /// The report of the task with this number.
    Task(u32),
    /// The runtime's report about the container with this number.
    Setup(u32),
    /// The channel of the container with this number.
    Channel(u32),
    /// The runtime's report about the execution with this number.
    Execution(u32),
    /// User containers wait for memory.
    Pressure,
    /// The connection of the health check of the container with this number.
    Health(u32),
    /// The client that talks to the container with this number.
    Session(u32),
    /// What the container with this number says of its readiness.
    Readiness(u32),
}

impl Token {
    fn to_number(self) -> u64 {
        let (kind, number) = match self {
            Self::Signals => (0, 0),
            Self::Devices => (1, 0),
            Self::PowerButton => (5, 0),
            Self::Clock => (8, 0),
            Self::Pressure => (9, 0),
            Self::Task(number) => (2, number),
            Self::Setup(number) => (3, number),
            Self::Channel(number) => (4, number),
            Self::Execution(number) => (6, number),
            Self::Health(number) => (7, number),
            Self::Session(number) => (10, number),
            Self::Readiness(number) => (11, number),
        };
        (kind << 32) | u64::from(number)
    }

    fn from_number(number: u64) -> Option<Self> {
        let low = u32::try_from(number & u64::from(u32::MAX)).ok()?;
        match number >> 32 {
            0 => Some(Self::Signals),
            1 => Some(Self::Devices),
            2 => Some(Self::Task(low)),
            3 => Some(Self::Setup(low)),
            4 => Some(Self::Channel(low)),
            5 => Some(Self::PowerButton),
            6 => Some(Self::Execution(low)),
            7 => Some(Self::Health(low)),
            8 => Some(Self::Clock),
            9 => Some(Self::Pressure),
            10 => Some(Self::Session(low)),
            11 => Some(Self::Readiness(low)),
            _ => None,
        }
    }
}

/// The set of descriptors that are waited for.
#[derive(Debug)]
pub struct Reactor {
    epoll: Epoll,
}

impl Reactor {
    /// An empty set.
    pub fn new() -> nix::Result<Self> {
        Ok(Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)? })
    }

    /// Reports `token` whenever the descriptor is readable or its other end is gone.
    pub fn add(&self, descriptor: impl AsFd, token: Token) -> nix::Result<()> {
        self.epoll.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, token.to_number()))
    }

    /// Reports `token` whenever the kernel has something urgent to say of the descriptor (EPOLLPRI), and only then.
    pub fn add_urgent(&self, descriptor: impl AsFd, token: Token) -> nix::Result<()> {
        self.epoll.add(descriptor, EpollEvent::new(EpollFlags::EPOLLPRI, token.to_number()))
    }

    /// Reports `token` also when the descriptor, which was added before, has room to write; or no longer.
    pub fn watch_room(&self, descriptor: impl AsFd, token: Token, wanted: bool) -> nix::Result<()> {
        let flags = if wanted { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        self.epoll.modify(descriptor, &mut EpollEvent::new(flags, token.to_number()))
    }

    /// Forgets the descriptor. Needed where a copy of it lives on in another process: closing alone does not end
    /// the watch then (epoll(7), question 6).
    pub fn remove(&self, descriptor: impl AsFd) {
        // ENOENT: it was never added, which is just what is wanted.
        let _ = self.epoll.delete(descriptor);
    }

    /// Waits for something to happen, or for the time-out; `None` waits for ever.
    pub fn wait(&self, timeout: Option<Duration>) -> nix::Result<Vec<Token>> {
        // Rounded up: waking a moment early would turn the loop into a busy one.
        let milliseconds = timeout.map(|timeout| timeout.as_micros().div_ceil(1000));
        let limit = match milliseconds {
            None => EpollTimeout::NONE,
            Some(milliseconds) => i32::try_from(milliseconds)
                .ok()
                .and_then(|ms| EpollTimeout::try_from(ms).ok())
                .unwrap_or(EpollTimeout::MAX),
        };
        let mut events = [EpollEvent::empty(); 64];
        match self.epoll.wait(&mut events, limit) {
            Ok(count) => Ok(events.iter().take(count).filter_map(|event| Token::from_number(event.data())).collect()),
            Err(Errno::EINTR) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_number() {
        for token in [
            Token::Signals,
            Token::Devices,
            Token::Clock,
            Token::PowerButton,
            Token::Pressure,
            Token::Task(7),
            Token::Setup(u32::MAX),
            Token::Channel(1),
            Token::Execution(9),
            Token::Health(2),
            Token::Readiness(3),
        ] {
            assert_eq!(Token::from_number(token.to_number()), Some(token));
        }
    }

    #[test]
    fn a_readable_pipe_is_reported_and_an_empty_one_is_not() {
        let reactor = Reactor::new().unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        reactor.add(&reader, Token::Task(3)).unwrap();
        assert_eq!(reactor.wait(Some(Duration::ZERO)).unwrap(), []);
        nix::unistd::write(&writer, b"x").unwrap();
        assert_eq!(reactor.wait(None).unwrap(), [Token::Task(3)]);
        reactor.remove(&reader);
        assert_eq!(reactor.wait(Some(Duration::ZERO)).unwrap(), []);
    }
}
