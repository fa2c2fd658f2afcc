//! What containers print: pipes, and the masters of terminals.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use berth_control::message::Stream;
use nix::sys::epoll::EpollFlags;
use nix::sys::stat::{SFlag, fstat};

use super::{Collector, Source, is_name, now};
use crate::frame::{Dropped, Kind, LONGEST};
use crate::sys;

/// How often is taken from a pipe at the end of a run: what the largest one of an unprivileged user has (1 MiB, pipe(7)) in
/// pieces of the usual size.
const TAKES: usize = 16;

#[derive(Debug)]
pub(super) struct Pipe {
    pub container: String,
    stream: Stream,
    /// Its device's and its inode's.
    number: Option<(u64, u64)>,
    /// Whether it is the master of a terminal, which splice(2) does not take from into a file.
    terminal: bool,
    pub reader: File,
}

impl Collector {
    pub(super) fn read_from(&mut self, container: String, stream: Stream, pipe: OwnedFd) {
        if !is_name(&container) {
            return eprintln!("berth-logs: the output of {container:?} is not kept: that is no name of a container");
        }
        // PID 1 offers all pipes again when it has executed itself anew.
        let status = fstat(&pipe).ok();
        let number = status.map(|status| (status.st_dev, status.st_ino));
        let terminal = status.is_some_and(|status| SFlag::from_bits_truncate(status.st_mode).contains(SFlag::S_IFCHR));
        let known = |source: &Source| matches!(source, Source::Pipe(pipe) if pipe.number == number);
        if number.is_none() || !self.sources.values().any(known) {
            let pipe = Pipe { container, stream, number, terminal, reader: File::from(pipe) };
            self.add(Source::Pipe(pipe), EpollFlags::EPOLLIN);
        }
    }

    /// Leaves what a container prints to somebody else.
    pub(super) fn release(&mut self, container: &str) {
        let is_its = |_: &u64, source: &mut Source| matches!(source, Source::Pipe(pipe) if pipe.container == container);
        let released: Vec<_> = self.sources.extract_if(.., is_its).collect();
        released.iter().for_each(|(_, source)| self.unwatch(source));
    }

    /// What a container has printed of a line when its run is over is a line; the next run goes on in the same pipes.
    pub(super) fn end_run(&mut self, container: &str) {
        let is_its = |_: &u64, source: &mut Source| matches!(source, Source::Pipe(pipe) if pipe.container == container);
        let its: Vec<_> = self.sources.extract_if(.., is_its).collect();
        for (number, source) in its {
            let Source::Pipe(pipe) = source else { continue };
            // More than a full pipe is of the next run.
            let _all = (0..TAKES).any(|_| self.take(&pipe) == 0);
            self.end_stream(container, pipe.stream);
            self.sources.insert(number, Source::Pipe(pipe));
        }
    }

    fn end_stream(&mut self, container: &str, stream: Stream) {
        if let Err(error) = self.store.append(container, Kind::Ended(stream), &[], now()) {
            eprintln!("berth-logs: the end of the output of {container} is not kept: {error}");
        }
        self.pass_on(container);
    }

    /// Takes once from a pipe; `None` when it has ended.
    pub(super) fn read(&mut self, pipe: Pipe, hung_up: bool) -> Option<Pipe> {
        let taken = self.take(&pipe);
        if taken == 0 && hung_up {
            // Nobody can write to it any more, so nothing can have come since.
            if !pipe.terminal {
                self.end_stream(&pipe.container, pipe.stream);
            }
            self.unwatch(&pipe.reader);
            return None;
        }
        Some(pipe)
    }

    /// The same; how much there was.
    fn take(&mut self, pipe: &Pipe) -> usize {
        let taken = if pipe.terminal { self.take_from_terminal(pipe) } else { self.take_from_pipe(pipe) };
        self.pass_on(&pipe.container);
        taken
    }

    fn take_from_pipe(&mut self, pipe: &Pipe) -> usize {
        let available = sys::readable(pipe.reader.as_fd()).unwrap_or(0);
        if available > 0
            && let Err(error) = self.store.take(&pipe.container, pipe.stream, pipe.reader.as_fd(), available, now())
        {
            self.discard(pipe, &error);
        }
        available
    }

    /// Takes once from a terminal. How much there was; nothing after its end.
    fn take_from_terminal(&mut self, pipe: &Pipe) -> usize {
        self.discarded.resize(LONGEST, 0);
        let length = (&pipe.reader).read(&mut self.discarded).unwrap_or(0);
        let bytes = self.discarded.get(..length).unwrap_or_default();
        if length > 0
            && let Err(error) = self.store.append(&pipe.container, Kind::Output(pipe.stream), bytes, now())
        {
            let lines = memchr::memchr_iter(b'\n', bytes).count() as u64;
            self.lose(&pipe.container, Dropped { lines, bytes: length as u64 }, &error);
        }
        length
    }

    /// A container must not wait for the disk: what cannot be kept goes.
    fn discard(&mut self, pipe: &Pipe, error: &io::Error) {
        if error.kind() == io::ErrorKind::WouldBlock {
            return;
        }
        self.discarded.resize(LONGEST, 0);
        // An empty or broken pipe has nothing that could be lost.
        let length = (&pipe.reader).read(&mut self.discarded).unwrap_or(0);
        let bytes = self.discarded.get(..length).unwrap_or_default();
        let lines = memchr::memchr_iter(b'\n', bytes).count() as u64;
        self.lose(&pipe.container, Dropped { lines, bytes: length as u64 }, error);
    }

    pub(super) fn lose(&mut self, name: &str, dropped: Dropped, error: &io::Error) {
        // Told once, and again in the log itself when there is room.
        if self.store.log(name).dropped() == Dropped::default() {
            eprintln!("berth-logs: the output of {name} is dropped: {error}");
        }
        self.store.lose(name, dropped);
    }
}
