//! The loop: pipes in, files, queries, pipes out.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use berth_control::channel::{Channel, ChannelError};
use berth_control::listener::listen_on;
use berth_control::logs::{Answer, Query};
use berth_control::message::{FromInit, Notice, Reply, Request, Stream, ToInit};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{SockFlag, SockType};

use crate::Error;
use crate::follower::{Follower, Waits};
use crate::kernel::Kernel;
use crate::lines::Lines;
use crate::store::Log;
use crate::sys;

/// How much is read from a pipe before it is the next one's turn, in bytes. Empty lines grow twentyfold by their time,
/// and even then what was read at once fits into a file.
const CHUNK: usize = 32 * 1024;
const _: () = assert!(CHUNK as u64 * 24 <= crate::store::FILE_SIZE);

/// How many records of the kernel's log are read before it is the pipes' turn.
const KERNEL_RECORDS: usize = 64;

/// The most readers at once. Each costs two descriptors; `control` alone can ask.
const FOLLOWERS: usize = 128;

/// The most connections that have not asked yet.
const ASKERS: usize = 32;

/// The longest name of a container, as the configuration allows.
const LONGEST_NAME: usize = 128;

const CHANNEL: u64 = 0;
const LISTENER: u64 = 1;

/// The program's state.
#[derive(Debug)]
pub struct Collector {
    epoll: Epoll,
    channel: Channel,
    listener: OwnedFd,
    directory: PathBuf,
    logs: HashMap<String, Log>,
    sources: BTreeMap<u64, Source>,
    followers: Vec<u64>,
    next: u64,
    buffer: Vec<u8>,
    records: Vec<u8>,
}

#[derive(Debug)]
enum Source {
    Pipe(Pipe),
    Kernel(Kernel),
    Asker(Channel),
    Follower(Follower),
}

#[derive(Debug)]
struct Pipe {
    container: String,
    reader: File,
    lines: Lines,
}

impl Source {
    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Pipe(pipe) => pipe.reader.as_fd(),
            Self::Kernel(kernel) => kernel.as_fd(),
            Self::Asker(channel) => channel.as_fd(),
            Self::Follower(follower) => follower.as_fd(),
        }
    }
}

impl Collector {
    /// Listens for queries and tells PID 1 that pipes can come.
    pub fn new(channel: Channel, directory: PathBuf, socket_path: &Path) -> Result<Self, Error> {
        let listener = listen_on(socket_path, SockType::SeqPacket)
            .map_err(|source| Error::Listen { path: socket_path.into(), source })?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(Error::Events)?;
        epoll.add(&channel, EpollEvent::new(EpollFlags::EPOLLIN, CHANNEL)).map_err(Error::Events)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER)).map_err(Error::Events)?;
        channel.send(&ToInit { id: 1, request: Request::Ready }, &[])?;
        channel.set_nonblocking()?;
        Ok(Self {
            epoll,
            channel,
            listener,
            directory,
            logs: HashMap::new(),
            sources: BTreeMap::new(),
            followers: Vec::new(),
            next: LISTENER + 1,
            buffer: vec![0; CHUNK],
            records: Vec::new(),
        })
    }

    /// Runs until PID 1 closes the channel.
    pub fn run(mut self) -> Result<(), Error> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(Error::Events(error)),
            };
            for event in events.iter().take(count) {
                match event.data() {
                    CHANNEL => match self.listen_to_init() {
                        Err(ChannelError::Closed) => return Ok(()),
                        result => result?,
                    },
                    LISTENER => self.accept(),
                    number => self.advance(number),
                }
            }
        }
    }

    /// Takes every message that is there.
    fn listen_to_init(&mut self) -> Result<(), ChannelError> {
        loop {
            match self.channel.receive::<FromInit>() {
                Ok((FromInit::Notice(Notice::LogPipe { container, stream }), descriptors)) => {
                    for pipe in descriptors {
                        self.read_from(container.clone(), stream, pipe);
                    }
                }
                Ok((FromInit::Notice(Notice::KernelLog), descriptors)) => {
                    for kmsg in descriptors {
                        self.add(Source::Kernel(Kernel::new(File::from(kmsg))), EpollFlags::EPOLLIN);
                    }
                }
                Ok((FromInit::Reply { reply: Reply::Refused { reason }, .. }, _)) => {
                    eprintln!("berth-logs: PID 1 refused a message: {reason}");
                }
                Ok(_) => {}
                Err(ChannelError::WouldBlock) => return Ok(()),
                Err(error @ (ChannelError::Decode(_) | ChannelError::TooLong { .. })) => {
                    eprintln!("berth-logs: a message of PID 1 is left out: {error}");
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn read_from(&mut self, container: String, stream: Stream, pipe: OwnedFd) {
        if !is_name(&container) {
            return eprintln!("berth-logs: the output of {container:?} is not kept: that is no name of a container");
        }
        let pipe = Pipe { container, reader: File::from(pipe), lines: Lines::new(stream) };
        self.add(Source::Pipe(pipe), EpollFlags::EPOLLIN);
    }

    /// Watches it from now on.
    fn add(&mut self, source: Source, flags: EpollFlags) {
        let added = fcntl(source.descriptor(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .and_then(|_| self.epoll.add(source.descriptor(), EpollEvent::new(flags, self.next)));
        match added {
            Ok(()) => {
                if matches!(source, Source::Follower(_)) {
                    self.followers.push(self.next);
                }
                self.sources.insert(self.next, source);
                self.next += 1;
            }
            Err(error) => eprintln!("berth-logs: watch a descriptor: {error}"),
        }
    }

    /// Something can be done with a source.
    fn advance(&mut self, number: u64) {
        // It may have gone in the same round of events.
        let Some(source) = self.sources.remove(&number) else { return };
        let kept = match source {
            Source::Pipe(pipe) => self.read(pipe).map(Source::Pipe),
            Source::Kernel(kernel) => self.read_kernel(kernel).map(Source::Kernel),
            Source::Asker(channel) => {
                self.answer(&channel);
                None
            }
            Source::Follower(follower) => self.pump(number, follower).map(Source::Follower),
        };
        match kept {
            Some(source) => drop(self.sources.insert(number, source)),
            None => self.followers.retain(|follower| *follower != number),
        }
    }

    /// Reads once from a pipe; `None` when it has ended.
    fn read(&mut self, mut pipe: Pipe) -> Option<Pipe> {
        self.records.clear();
        let now_us = now_us();
        let ended = match pipe.reader.read(&mut self.buffer) {
            Ok(0) => {
                pipe.lines.finish(&mut self.records);
                true
            }
            Ok(length) => {
                let bytes = self.buffer.get(..length).unwrap_or_default();
                pipe.lines.push(bytes, now_us, &mut self.records);
                false
            }
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        };
        if !self.records.is_empty() {
            let records = std::mem::take(&mut self.records);
            self.keep(&pipe.container, &records, now_us);
            self.records = records;
        }
        (!ended).then_some(pipe)
    }

    /// Reads some records of the kernel's log; `None` if that is not possible any more.
    fn read_kernel(&mut self, mut kernel: Kernel) -> Option<Kernel> {
        for _ in 0..KERNEL_RECORDS {
            let now_us = now_us();
            let mut records = Vec::new();
            match kernel.read(now_us, &mut records) {
                Ok(Some(log)) => self.keep(log, &records, now_us),
                Ok(None) => break,
                Err(error) => {
                    eprintln!("berth-logs: read the kernel's log: {error}");
                    return None;
                }
            }
        }
        Some(kernel)
    }

    /// Appends to a log and wakes its followers.
    fn keep(&mut self, name: &str, records: &[u8], now_us: u64) {
        let log = log_of(&mut self.logs, &self.directory, name);
        let dropping = log.dropped() > 0;
        // Told once, and again in the log itself when there is room.
        if let Err(error) = log.append(records, now_us)
            && !dropping
        {
            eprintln!("berth-logs: the output of {name} is dropped: {error}");
        }
        self.pass_on(name);
    }

    /// Wakes those who follow a container.
    fn pass_on(&mut self, container: &str) {
        let follows = |number: &u64| matches!(self.sources.get(number), Some(Source::Follower(follower)) if follower.container == container);
        let numbers: Vec<u64> = self.followers.iter().copied().filter(follows).collect();
        for number in numbers {
            self.advance(number);
        }
    }

    fn pump(&mut self, number: u64, mut follower: Follower) -> Option<Follower> {
        let log = log_of(&mut self.logs, &self.directory, &follower.container);
        // Without flags epoll still tells when the reader has gone.
        let flags = match follower.pump(log) {
            Waits::Nothing => return None,
            Waits::Room => EpollFlags::EPOLLOUT,
            Waits::More => EpollFlags::empty(),
        };
        let changed = self.epoll.modify(&follower, &mut EpollEvent::new(flags, number));
        changed.is_ok().then_some(follower)
    }

    fn accept(&mut self) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        match sys::accept(self.listener.as_fd(), flags) {
            Ok(socket) if self.askers() < ASKERS => {
                self.add(Source::Asker(Channel::from(socket)), EpollFlags::EPOLLIN);
            }
            Ok(_) | Err(nix::Error::EAGAIN | nix::Error::EINTR | nix::Error::ECONNABORTED) => {}
            Err(error) => eprintln!("berth-logs: accept a query: {error}"),
        }
    }

    fn askers(&self) -> usize {
        self.sources.values().filter(|source| matches!(source, Source::Asker(_))).count()
    }

    /// A connection has its query, or has gone.
    fn answer(&mut self, channel: &Channel) {
        let Ok((query, descriptors)) = channel.receive::<Query>() else { return };
        let Query { container, tail, since_us, follow } = query;
        let refusal = match descriptors.into_iter().next() {
            _ if !is_name(&container) => format!("'{container}' is no name of a container"),
            _ if self.followers.len() >= FOLLOWERS => {
                format!("{FOLLOWERS} readers of logs are there already; end one of them")
            }
            None => "a query comes with a pipe".to_owned(),
            Some(pipe) => {
                // If the answer does not get through, the reader has gone, which the pipe will say.
                let _ = channel.send(&Answer::Coming, &[]);
                let log = log_of(&mut self.logs, &self.directory, &container);
                let position = log.find(tail, since_us);
                let until = (!follow).then(|| log.end());
                let follower = Follower::new(container, File::from(pipe), log, position, until);
                return self.add(Source::Follower(follower), EpollFlags::EPOLLOUT);
            }
        };
        let _ = channel.send(&Answer::Refused(refusal), &[]);
    }
}

fn log_of<'a>(logs: &'a mut HashMap<String, Log>, directory: &Path, container: &str) -> &'a mut Log {
    logs.entry(container.to_owned()).or_insert_with(|| Log::new(directory.join(container)))
}

/// Whether it can be a folder's name. PID 1 and `control` have checked; this program writes files by it.
fn is_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    first && rest && name.len() <= LONGEST_NAME
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
