//! The children of `guest-exec`: their pipes, their ends, and what is kept of both until a client asks.
//!
//! Nothing here blocks: [`Processes::interests`] says what to wait for, [`Processes::advance`] does what can be done.
//! A child counts as ended when it is reaped and nobody holds its output pipes any more, as in QEMU's agent, so that
//! a client gets all of the output. Grandchildren that lose their parent fall to PID 1.

use std::collections::BTreeMap;
use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use rustix::event::PollFlags;

/// The most output kept of each of a child's streams, in bytes; the rest is read and dropped. QEMU's agent keeps
/// 16 MiB, more than a small machine has to spare.
pub const MAXIMUM_OUTPUT: usize = 4 << 20;

/// The most children remembered at a time, running or ended and not asked about.
pub const MAXIMUM_PROCESSES: usize = 64;

/// Why a child was not started.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program cannot be executed.
    #[error("start {program}")]
    Start {
        /// As the client named it.
        program: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Too many of them run.
    #[error("{MAXIMUM_PROCESSES} processes are running: wait until one ends")]
    TooMany,
    /// No child has this number, or its end was already told.
    #[error("PID {pid} does not exist")]
    Unknown {
        /// As the client named it.
        pid: u64,
    },
}

/// Which of a child's streams are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capture {
    /// None.
    #[default]
    Nothing,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Both, each by itself.
    Separated,
    /// Both, in the order of writing, as standard output.
    Merged,
}

/// What a stream has brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The first [`MAXIMUM_OUTPUT`] bytes.
    pub bytes: Vec<u8>,
    /// Whether there were more.
    pub truncated: bool,
}

/// What a client learns about a child.
#[derive(Debug)]
pub enum Status {
    /// Not ended yet.
    Running,
    /// Ended; told once.
    Ended {
        /// How.
        exit: ExitStatus,
        /// Standard output, if kept.
        stdout: Option<Output>,
        /// Standard error, if kept.
        stderr: Option<Output>,
    },
}

#[derive(Debug)]
struct Stream {
    pipe: Option<PipeReader>,
    output: Output,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// Readable when the child has ended; gone when it is reaped.
    pidfd: Option<OwnedFd>,
    exit: Option<ExitStatus>,
    input: Option<(ChildStdin, Vec<u8>)>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    /// The order of starting.
    serial: u64,
}

/// All children, by their process id.
#[derive(Debug, Default)]
pub struct Processes {
    processes: BTreeMap<u64, Process>,
    started: u64,
}

impl Processes {
    /// Starts `command` with `input` on its standard input, in a session of its own. Returns its process id.
    pub fn start(&mut self, mut command: Command, input: Vec<u8>, capture: Capture) -> Result<u64, ProcessError> {
        self.make_room()?;
        let program = command.get_program().to_string_lossy().into_owned();
        self.spawn(&mut command, input, capture).map_err(|source| ProcessError::Start { program, source })
    }

    fn spawn(&mut self, command: &mut Command, input: Vec<u8>, capture: Capture) -> std::io::Result<u64> {
        let has_input = !input.is_empty();
        command.stdin(if has_input { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let (mut stdout, mut stderr) = (None, None);
        if matches!(capture, Capture::Stdout | Capture::Separated | Capture::Merged) {
            let (stream, writer) = Stream::new()?;
            if capture == Capture::Merged {
                command.stderr(writer.try_clone()?);
            }
            command.stdout(writer);
            stdout = Some(stream);
        }
        if matches!(capture, Capture::Stderr | Capture::Separated) {
            let (stream, writer) = Stream::new()?;
            command.stderr(writer);
            stderr = Some(stream);
        }
        let mut child = command.spawn()?;
        // The writers' copies in `command` would keep the pipes open for ever.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let watched = Self::watch(&mut child);
        let (pidfd, stdin) = match watched {
            Ok(watched) => watched,
            Err(error) => {
                // Without a way to wait for it, it must not run; it was this thread's child and is reaped here.
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        };
        let input = stdin.filter(|_| has_input).map(|stdin| (stdin, input));
        let pid = u64::from(child.id());
        self.started += 1;
        let process = Process { child, pidfd: Some(pidfd), exit: None, input, stdout, stderr, serial: self.started };
        self.processes.insert(pid, process);
        Ok(pid)
    }

    fn watch(child: &mut Child) -> std::io::Result<(OwnedFd, Option<ChildStdin>)> {
        let pid = rustix::process::Pid::from_child(child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        let stdin = child.stdin.take();
        if let Some(stdin) = &stdin {
            rustix::io::ioctl_fionbio(stdin, true)?;
        }
        Ok((pidfd, stdin))
    }

    /// Drops the oldest result that nobody fetched, if there is no room for another child.
    fn make_room(&mut self) -> Result<(), ProcessError> {
        if self.processes.len() < MAXIMUM_PROCESSES {
            return Ok(());
        }
        let ended = self.processes.iter().filter(|(_, process)| process.has_ended());
        let oldest = ended.min_by_key(|(_, process)| process.serial).map(|(pid, _)| *pid);
        match oldest {
            Some(pid) => drop(self.processes.remove(&pid)),
            None => return Err(ProcessError::TooMany),
        }
        Ok(())
    }

    /// How a child is; when it has ended it is forgotten.
    pub fn status(&mut self, pid: u64) -> Result<Status, ProcessError> {
        let process = self.processes.get(&pid).ok_or(ProcessError::Unknown { pid })?;
        if !process.has_ended() {
            return Ok(Status::Running);
        }
        let ended = self.processes.remove(&pid);
        let Some(Process { exit: Some(exit), stdout, stderr, .. }) = ended else {
            return Err(ProcessError::Unknown { pid });
        };
        let output = |stream: Option<Stream>| stream.map(|stream| stream.output);
        Ok(Status::Ended { exit, stdout: output(stdout), stderr: output(stderr) })
    }

    /// What to wait for.
    pub fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.processes.values().flat_map(|process| {
            let end = process.pidfd.as_ref().map(|pidfd| (pidfd.as_fd(), PollFlags::IN));
            let input = process.input.as_ref().map(|(pipe, _)| (pipe.as_fd(), PollFlags::OUT));
            let outputs = [&process.stdout, &process.stderr]
                .into_iter()
                .filter_map(|stream| stream.as_ref()?.pipe.as_ref().map(|pipe| (pipe.as_fd(), PollFlags::IN)));
            end.into_iter().chain(input).chain(outputs)
        })
    }

    /// Reads, writes and reaps whatever is ready.
    pub fn advance(&mut self) {
        for process in self.processes.values_mut() {
            process.advance();
        }
    }
}

impl Process {
    fn has_ended(&self) -> bool {
        let open = |stream: &Option<Stream>| stream.as_ref().is_some_and(|stream| stream.pipe.is_some());
        self.exit.is_some() && !open(&self.stdout) && !open(&self.stderr)
    }

    fn advance(&mut self) {
        self.feed();
        for stream in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            stream.drain();
        }
        if self.exit.is_none()
            && let Ok(Some(exit)) = self.child.try_wait()
        {
            self.exit = Some(exit);
            self.pidfd = None;
            self.input = None;
        }
    }

    fn feed(&mut self) {
        let Some((pipe, bytes)) = &mut self.input else { return };
        match pipe.write(bytes) {
            Ok(written) => drop(bytes.drain(..written)),
            Err(error) if would_block(&error) => return,
            // The child has closed its input: the rest is of no use to it.
            Err(_) => bytes.clear(),
        }
        if bytes.is_empty() {
            self.input = None;
        }
    }
}

impl Stream {
    fn new() -> std::io::Result<(Self, std::io::PipeWriter)> {
        let (reader, writer) = std::io::pipe()?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        Ok((Self { pipe: Some(reader), output: Output::default() }, writer))
    }

    /// Reads one buffer's worth, so that a child that never stops writing does not keep the others waiting.
    fn drain(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut buffer = vec![0; 64 << 10];
        match pipe.read(&mut buffer) {
            Ok(0) => self.pipe = None,
            Ok(length) => {
                let kept = length.min(MAXIMUM_OUTPUT - self.output.bytes.len());
                self.output.bytes.extend(buffer.iter().take(kept));
                self.output.truncated |= kept < length;
            }
            Err(error) if would_block(&error) => {}
            Err(_) => self.pipe = None,
        }
    }
}

fn would_block(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
}

/// An exit as QEMU's protocol tells it: either a code or a signal.
#[must_use]
pub fn code_or_signal(exit: ExitStatus) -> (Option<i32>, Option<i32>) {
    (exit.code(), exit.signal())
}
