//! The loop: pipes in, files, queries, pipes out.

mod ending;
mod pipes;
mod removal;
mod until;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use berth_control::channel::{Channel, ChannelError};
use berth_control::listener::listen_on;
use berth_control::logs::{Answer, INIT, KERNEL, Query, READERS};
use berth_control::message::{FromInit, Notice, Reply, Request, ToInit};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{SockFlag, SockType};

use self::pipes::Pipe;
use crate::Error;
use crate::follower::{Follower, Waits};
use crate::frame::{Dropped, Kind};
use crate::kernel::{self, Kernel, Record};
use crate::log::Moment;
use crate::query::{find, last_origin};
use crate::store::Store;
use crate::sys;

/// How many rounds with something to take there are to one step of the compressor, which takes as long as some of them.
const BUSY_ROUNDS: u32 = 16;

/// How many records of the kernel's log are read before it is the pipes' turn.
const KERNEL_RECORDS: usize = 64;

/// How many of the [`READERS`] are left to the machine's own clients, whatever containers ask for.
const OWN_FOLLOWERS: usize = 32;

/// The most that the clients in one container have.
const FOLLOWERS_OF_ONE: usize = 16;

/// The most connections that have not asked yet.
const ASKERS: usize = 32;

/// The longest name of a container, as the configuration allows.
const LONGEST_NAME: usize = 128;

/// The longest sleep, so that a deadline far away fits what epoll_wait(2) takes.
const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 3600);

const CHANNEL: u64 = 0;
const LISTENER: u64 = 1;
const SYNCER: u64 = 2;
const SIGNALS: u64 = 3;

/// The program's state.
#[derive(Debug)]
pub struct Collector {
    epoll: Epoll,
    channel: Channel,
    listener: OwnedFd,
    /// Readable when this program is to end.
    signals: SignalFd,
    store: Store,
    sources: BTreeMap<u64, Source>,
    followers: Vec<u64>,
    next: u64,
    /// What a full disk makes go.
    discarded: Vec<u8>,
}

#[derive(Debug)]
enum Source {
    Pipe(Pipe),
    Kernel(Kernel),
    Asker(Channel),
    Follower(Box<Follower>),
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
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
        // Before the thread of the store begins, which inherits the mask.
        let signals = ending::signals().map_err(Error::Events)?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS)).map_err(Error::Events)?;
        let store = Store::open(directory).map_err(Error::Store)?;
        epoll.add(store.syncer(), EpollEvent::new(EpollFlags::EPOLLIN, SYNCER)).map_err(Error::Events)?;
        channel.send(&ToInit { id: 1, request: Request::Ready }, &[])?;
        channel.set_nonblocking()?;
        let (sources, followers, discarded) = (BTreeMap::new(), Vec::new(), Vec::new());
        Ok(Self { epoll, channel, listener, signals, store, sources, followers, next: SIGNALS + 1, discarded })
    }

    /// Runs until PID 1 closes the channel, or lets it end with SIGTERM.
    pub fn run(mut self) -> Result<(), Error> {
        let mut events = [EpollEvent::empty(); 64];
        let mut busy = 0;
        loop {
            let count = match self.epoll.wait(&mut events, self.timeout()) {
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
                    SYNCER => self.store.synced(now()),
                    SIGNALS if matches!(self.signals.read_signal(), Ok(Some(_))) => {
                        self.end();
                        return Ok(());
                    }
                    number => self.advance(number, event.events()),
                }
            }
            // Containers come before the compressor, which gets an eighth of what they get if they never pause.
            busy = if count == 0 { BUSY_ROUNDS } else { busy + 1 };
            if busy >= BUSY_ROUNDS {
                busy = 0;
                self.store.compress(now());
            }
            self.store.work(now());
            self.end_those_due(now().wall_us);
        }
    }

    /// Until when there is nothing to do but what the descriptors ask for.
    fn timeout(&self) -> EpollTimeout {
        let now = now();
        let store = self.store.deadline(now.monotonic);
        let left = store.map(|deadline| deadline.saturating_duration_since(now.monotonic));
        let Some(left) = left.into_iter().chain(self.readers_end_in(now.wall_us)).min() else {
            return EpollTimeout::NONE;
        };
        // A millisecond more than less, or it would wake too early and go around for nothing.
        let left = left.min(LONGEST_SLEEP);
        let left = if left.is_zero() { left } else { left + Duration::from_millis(1) };
        EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
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
                        self.read_kernel_log(File::from(kmsg));
                    }
                }
                Ok((FromInit::Notice(Notice::LogRelease { container }), _)) => self.release(&container),
                Ok((FromInit::Notice(Notice::LogRunEnded { container }), _)) => self.end_run(&container),
                Ok((FromInit::Notice(Notice::LogEnded { container }), _)) => self.end_log(&container),
                Ok((FromInit::Notice(Notice::LogForget { container }), _)) => self.forget(&container),
                Ok((FromInit::Notice(Notice::LogLimits(limits)), _)) => self.store.set_limits(&limits, now()),
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

    fn read_kernel_log(&mut self, kmsg: File) {
        let before: Vec<_> = self.sources.extract_if(.., |_, source| matches!(source, Source::Kernel(_))).collect();
        before.iter().for_each(|(_, source)| self.unwatch(source));
        let kept = [KERNEL, INIT].into_iter().filter_map(|name| last_origin(self.store.log(name)));
        match Kernel::new(kmsg, kernel::boot(), kept.collect::<Vec<_>>()) {
            Ok(kernel) => self.add(Source::Kernel(kernel), EpollFlags::EPOLLIN),
            Err(error) => eprintln!("berth-logs: read the kernel's log: {error}"),
        }
    }

    /// Watches it from now on.
    fn add(&mut self, source: Source, flags: EpollFlags) {
        let added = fcntl(source.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .and_then(|_| self.epoll.add(source.as_fd(), EpollEvent::new(flags, self.next)));
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

    /// Watches it no more. Closing it is not enough where PID 1 has a copy.
    fn unwatch(&self, source: impl AsFd) {
        if let Err(error) = self.epoll.delete(source) {
            eprintln!("berth-logs: watch a descriptor no more: {error}");
        }
    }

    /// Something can be done with a source.
    fn advance(&mut self, number: u64, events: EpollFlags) {
        // It may have gone in the same round of events.
        let Some(source) = self.sources.remove(&number) else { return };
        let kept = match source {
            Source::Pipe(pipe) => self.read(pipe, events.contains(EpollFlags::EPOLLHUP)).map(Source::Pipe),
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

    /// Reads some records of the kernel's log; `None` if that is not possible any more.
    fn read_kernel(&mut self, mut kernel: Kernel) -> Option<Kernel> {
        for _ in 0..KERNEL_RECORDS {
            let now = now();
            match kernel.read(now.wall_us) {
                Ok(Some(Record { log, stream, time_us, payload, lost })) => {
                    if lost > 0 {
                        eprintln!(
                            "berth-logs: {lost} lines of the kernel's log were overwritten before they were read"
                        );
                        self.store.lose(log, Dropped { lines: lost, bytes: 0 });
                    }
                    let printed = Moment { wall_us: time_us, ..now };
                    if let Err(error) = self.store.append(log, Kind::Record(stream), &payload, printed) {
                        self.lose(log, Dropped { lines: 1, bytes: payload.len() as u64 }, &error);
                    }
                    self.pass_on(log);
                }
                Ok(None) => break,
                Err(error) => {
                    eprintln!("berth-logs: read the kernel's log: {error}");
                    self.unwatch(&kernel);
                    return None;
                }
            }
        }
        Some(kernel)
    }

    /// Wakes those who follow a container.
    fn pass_on(&mut self, container: &str) {
        let follows = |number: &u64| matches!(self.sources.get(number), Some(Source::Follower(follower)) if follower.container == container);
        let numbers: Vec<u64> = self.followers.iter().copied().filter(follows).collect();
        for number in numbers {
            self.advance(number, EpollFlags::empty());
        }
    }

    fn pump(&mut self, number: u64, mut follower: Box<Follower>) -> Option<Box<Follower>> {
        let log = (!follower.is_bereft()).then(|| &*self.store.log(&follower.container));
        // Without flags epoll still tells when the reader has gone.
        let flags = match follower.pump(log) {
            Waits::Nothing => return None,
            Waits::Room => EpollFlags::EPOLLOUT,
            Waits::More => EpollFlags::empty(),
        };
        let changed = self.epoll.modify(&*follower, &mut EpollEvent::new(flags, number));
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
        let refusal = match descriptors.into_iter().next() {
            _ if !is_name(&query.container) => format!("'{}' is no name of a container", query.container),
            _ if let Some(reason) = self.is_crowded(query.asked_by.as_deref()) => reason,
            None => "a query comes with a pipe".to_owned(),
            Some(pipe) => {
                // If the answer does not get through, the reader has gone, which the pipe will say.
                let _ = channel.send(&Answer::Coming, &[]);
                let log = self.store.log(&query.container);
                let (part, end) = (find(log, &query), log.end());
                let follower = Follower::new(query, File::from(pipe), part, end, now().wall_us);
                return self.add(Source::Follower(Box::new(follower)), EpollFlags::EPOLLOUT);
            }
        };
        let _ = channel.send(&Answer::Refused(refusal), &[]);
    }

    /// Why whoever asks has to wait for another reader's end, if that is so.
    fn is_crowded(&self, asked_by: Option<&str>) -> Option<String> {
        let crowded =
            |most: usize, whose: &str| format!("{most} readers of logs{whose} are there already; end one of them");
        if self.followers.len() >= READERS {
            return Some(crowded(READERS, ""));
        }
        let container = asked_by?;
        let most = READERS - OWN_FOLLOWERS;
        if self.readers(|by| by.is_some()) >= most {
            return Some(crowded(most, " of containers"));
        }
        let its = self.readers(|by| by == Some(container));
        (its >= FOLLOWERS_OF_ONE).then(|| crowded(FOLLOWERS_OF_ONE, " of this container"))
    }

    /// How many readers there are of which this is true of the container that asks.
    fn readers(&self, whose: impl Fn(Option<&str>) -> bool) -> usize {
        let counts =
            |source: &&Source| matches!(source, Source::Follower(follower) if whose(follower.asked_by.as_deref()));
        self.sources.values().filter(counts).count()
    }
}

/// Whether it can be a folder's name. PID 1 and `control` have checked; this program writes files by it.
fn is_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    first && rest && name.len() <= LONGEST_NAME
}

fn now() -> Moment {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment { wall_us: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX), monotonic: Instant::now() }
}
