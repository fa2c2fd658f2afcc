//! What PID 1 and `control` are to the collector: one hands out pipes, the other asks.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use berth_config::Logs;
use berth_control::channel::{Channel, ChannelError};
use berth_control::logs::{Answer, Line, Query};
use berth_control::message::{FromInit, Notice, Request, Stream, ToInit};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// PID 1's end of the channel.
pub struct Init {
    channel: Channel,
}

impl Init {
    /// Waits until the collector at the other end is ready.
    pub fn new(channel: Channel) -> Self {
        let ready: ToInit = loop {
            match channel.receive() {
                Ok((message, _)) => break message,
                Err(ChannelError::WouldBlock) => wait(&channel, PollFlags::POLLIN),
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(ready.request, Request::Ready);
        Self { channel }
    }

    fn send(&self, notice: Notice, descriptors: &[BorrowedFd<'_>]) {
        let message = FromInit::Notice(notice);
        loop {
            match self.channel.send(&message, descriptors) {
                Ok(()) => return,
                Err(ChannelError::WouldBlock) => wait(&self.channel, PollFlags::POLLOUT),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Offers the read end of a container's output.
    pub fn offer(&self, container: &str, stream: Stream, reader: impl AsFd) {
        self.send(Notice::LogPipe { container: container.into(), stream }, &[reader.as_fd()]);
    }

    /// Tells that a run is over.
    pub fn end_run(&self, container: &str) {
        self.send(Notice::LogRunEnded { container: container.into() }, &[]);
    }

    /// Tells that a container is gone whose log stays.
    pub fn end(&self, container: &str) {
        self.send(Notice::LogEnded { container: container.into() }, &[]);
    }

    /// Tells that a container is gone.
    pub fn forget(&self, container: &str) {
        self.send(Notice::LogForget { container: container.into() }, &[]);
    }

    /// Tells what to keep.
    pub fn limit(&self, logs: Logs) {
        self.send(Notice::LogLimits(logs), &[]);
    }
}

fn wait(channel: &Channel, flags: PollFlags) {
    poll(&mut [PollFd::new(channel.as_fd(), flags)], PollTimeout::NONE).unwrap();
}

/// Asks at a collector's socket.
pub fn ask(socket_path: &Path, query: &Query) -> (Answer, BufReader<File>) {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(socket.as_raw_fd(), &UnixAddr::new(socket_path).unwrap()).unwrap();
    let channel = Channel::from(socket);
    let (reader, writer) = nix::unistd::pipe().unwrap();
    channel.send(query, &[writer.as_fd()]).unwrap();
    drop(writer);
    let (answer, _) = channel.receive().unwrap();
    (answer, BufReader::with_capacity(1 << 16, File::from(reader)))
}

/// Everything of a container, and perhaps what comes.
pub fn all(container: &str, follow: bool) -> Query {
    Query {
        container: container.into(),
        tail: None,
        since_us: None,
        until_us: None,
        stream: None,
        follow,
        asked_by: None,
    }
}

/// The next whole line, put together from its records.
pub fn next(lines: &mut impl BufRead) -> Option<(u64, Stream, String)> {
    let mut text = Vec::new();
    let mut record = Vec::new();
    loop {
        record.clear();
        assert!(lines.read_until(b'\n', &mut record).unwrap() > 0, "the answer is cut off");
        assert_eq!(record.pop(), Some(b'\n'));
        if record.is_empty() {
            assert!(text.is_empty(), "the log ends within a line");
            assert_eq!(lines.read(&mut [0]).unwrap(), 0, "there is something behind the mark of the end");
            return None;
        }
        let line = Line::parse(&record).unwrap();
        text.extend_from_slice(line.text);
        if !line.partial {
            return Some((line.time_us, line.stream, String::from_utf8(text).unwrap()));
        }
    }
}

/// Whether a reader has everything.
pub fn has_ended(lines: &mut impl BufRead) -> bool {
    next(lines).is_none()
}
