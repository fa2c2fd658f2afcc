//! A session with a container: between its streams and this command's own until it ends, or this command leaves.
//!
//! Everything is one loop over descriptors that PID 1 has sent; bytes go through this command and nobody else. What is to
//! be kept goes to `logs` from here, as long as this command has the container's output: see [`output`].

mod output;

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_control::channel::{Channel, ChannelError};
use berth_control::message::{ExecutionEnd, FromClient, SessionStream, ToClient};
use std::time::{Duration, Instant};

use berth_terminal::{Keys, Proxy, read_some};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};

use self::output::Output;
use super::error::Error;

/// What this command does not pass on: its own affairs, and what cannot be caught.
const OWN_SIGNALS: [Signal; 12] = [
    Signal::SIGCHLD,
    Signal::SIGPIPE,
    Signal::SIGURG,
    Signal::SIGKILL,
    Signal::SIGSTOP,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGABRT,
];

/// How often Ctrl-C is passed on before it is meant for this command: a program that is the first of its container
/// ignores it unless it has a handler.
const PATIENCE: u32 = 3;

/// How this command stands to the container.
#[derive(Debug)]
pub struct Manner {
    /// Standard input is for the container.
    pub input: bool,
    /// What leaves its terminal.
    pub keys: Keys,
    /// Signals are for the container.
    pub signals: bool,
}

/// How it came to an end.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    /// The container has ended.
    Ended(ExecutionEnd),
    /// The person has left.
    Detached,
    /// The person wants it to end, again and again, and it does not.
    Interrupted,
    /// Somebody else has come.
    Replaced,
}

/// This command's end.
#[derive(Debug)]
pub struct Session {
    channel: Channel,
    late: Option<Late>,
}

/// A container that is to run, and may be long in coming.
#[derive(Debug)]
struct Late {
    name: String,
    /// When the person is told where to look.
    since: Instant,
}

impl Late {
    /// Longer than a start takes whose image is here.
    const PATIENCE: Duration = Duration::from_secs(3);

    fn left(&self) -> Duration {
        self.since.saturating_duration_since(Instant::now())
    }

    fn tell(&self) {
        let name = &self.name;
        eprintln!("{name} does not run yet; `berth why {name}` says what it waits for");
    }
}

/// A terminal for the container needs one here.
pub fn require_terminal() -> Result<(), Error> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Error::Refused("standard input is not a terminal; leave out -t".into()))
}

impl Session {
    /// With what the API has returned.
    pub fn new(end: OwnedFd) -> Self {
        Self { channel: Channel::from(end), late: None }
    }

    /// The same with a container that is about to be started.
    pub fn of_a_start(end: OwnedFd, name: &str) -> Self {
        let late = Late { name: name.to_owned(), since: Instant::now() + Late::PATIENCE };
        Self { late: Some(late), ..Self::new(end) }
    }

    /// The end of a container that has ended before it ran, or `None` when it runs.
    pub fn wait_until_it_runs(&self) -> Result<Option<ExecutionEnd>, Error> {
        if let Some(late) = &self.late {
            let ready =
                poll(&mut [PollFd::new(&self.channel, PollFlags::IN)], Some(late.left())).map_err(Error::Output)?;
            if !ready {
                late.tell();
            }
        }
        loop {
            match self.channel.receive::<ToClient>().map_err(broken)?.0 {
                ToClient::Running | ToClient::Replaced => return Ok(None),
                ToClient::Ended(end) => return Ok(Some(end)),
                ToClient::Stream(_) => {}
            }
        }
    }

    /// Stands between the container and this command's streams until one of them goes.
    pub fn attend(mut self, manner: Manner) -> Result<Left, Error> {
        let mask = signals(manner.signals);
        let caught = mask
            .thread_block()
            .and_then(|()| SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
            .map_err(|error| Error::Output(error.into()))?;
        let mut streams = Streams::new(manner);
        let mut interrupted = 0;
        loop {
            let ready = wait(&self, &caught, &streams).map_err(Error::Output)?;
            if self.late.as_ref().is_some_and(|late| late.left().is_zero()) {
                self.late.take().iter().for_each(Late::tell);
            }
            streams.copy(&ready[2..], &self.channel);
            if streams.is_detached() {
                return Ok(Left::Detached);
            }
            while let Ok(Some(signal)) = caught.read_signal() {
                let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
                match Signal::try_from(number) {
                    Ok(Signal::SIGWINCH) => streams.resize(),
                    _ => self.say(FromClient::Signal(number)),
                }
                interrupted += u32::from(matches!(Signal::try_from(number), Ok(Signal::SIGINT | Signal::SIGTERM)));
                if interrupted >= PATIENCE {
                    return Ok(Left::Interrupted);
                }
            }
            if ready[0] {
                match self.channel.receive::<ToClient>().map_err(broken)? {
                    (ToClient::Stream(stream), descriptors) => {
                        streams.take(stream, descriptors).map_err(Error::Output)?;
                    }
                    (ToClient::Running, _) => self.late = None,
                    (ToClient::Replaced, _) => return Ok(Left::Replaced),
                    (ToClient::Ended(end), _) => {
                        streams.drain();
                        return Ok(Left::Ended(end));
                    }
                }
            }
        }
    }

    fn say(&self, message: FromClient) {
        say(&self.channel, message);
    }
}

fn say(channel: &Channel, message: FromClient) {
    // If PID 1 has closed it, the next thing that is read says why.
    let _ = channel.send(&message, &[]);
}

fn broken(error: ChannelError) -> Error {
    Error::Refused(format!("PID 1 has ended the session: {error}; `berth ps --all` shows what came of the container"))
}

/// What is caught: the size of the terminal, and what is passed on.
fn signals(passed_on: bool) -> SigSet {
    if !passed_on {
        return [Signal::SIGWINCH].into_iter().collect();
    }
    let mut mask = SigSet::all();
    OWN_SIGNALS.into_iter().for_each(|signal| mask.remove(signal));
    mask
}

/// What is ready: the channel, the signals, then what the streams asked for.
fn wait(session: &Session, signals: &SignalFd, streams: &Streams) -> io::Result<Vec<bool>> {
    let mut polled = vec![PollFd::new(&session.channel, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
    polled.extend(streams.polled());
    let left = streams.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
    poll(&mut polled, left.into_iter().chain(session.late.as_ref().map(Late::left)).min())?;
    Ok(polled.iter().map(|polled| !polled.revents().is_empty()).collect())
}

/// Waits, at most for this time; whether something is ready.
fn poll(polled: &mut [PollFd<'_>], time: Option<Duration>) -> io::Result<bool> {
    let time = time.and_then(|time| Timespec::try_from(time).ok());
    match rustix::event::poll(polled, time.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The container's streams, as far as they have come.
#[derive(Debug)]
struct Streams {
    manner: Manner,
    outputs: Vec<Output>,
    input: Option<OwnedFd>,
    /// Read from standard input, and not taken by the container yet.
    typed: Vec<u8>,
    terminal: Option<Proxy>,
}

impl Streams {
    fn new(manner: Manner) -> Self {
        Self { manner, outputs: Vec::new(), input: None, typed: Vec::new(), terminal: None }
    }

    fn take(&mut self, stream: SessionStream, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let mut descriptors = descriptors.into_iter();
        let (Some(first), log) = (descriptors.next(), descriptors.next()) else { return Ok(()) };
        match stream {
            SessionStream::Output => self.outputs.push(Output::new(first, log, rustix::stdio::stdout())?),
            SessionStream::Error => self.outputs.push(Output::new(first, log, rustix::stdio::stderr())?),
            SessionStream::Input => self.input = Some(first).filter(|_| self.manner.input),
            SessionStream::Terminal => {
                // What the last run has printed before this one began.
                self.drain();
                self.terminal = None;
                let proxy = Proxy::new(first, self.manner.input && io::stdin().is_terminal());
                self.terminal = Some(proxy.with_log(log).with_keys(self.manner.keys.clone()));
            }
        }
        Ok(())
    }

    /// When something has to be done though nothing is ready.
    fn deadline(&self) -> Option<Instant> {
        self.outputs.iter().filter_map(Output::deadline).min()
    }

    /// In the order of [`Self::copy`].
    fn polled(&self) -> Vec<PollFd<'_>> {
        let mut polled: Vec<PollFd<'_>> = self.outputs.iter().map(Output::polled).collect();
        if let Some(input) = &self.input {
            let source: (BorrowedFd<'_>, _) = match self.typed.is_empty() {
                true => (rustix::stdio::stdin(), PollFlags::IN),
                false => (input.as_fd(), PollFlags::OUT),
            };
            polled.push(PollFd::from_borrowed_fd(source.0, source.1));
        }
        polled.extend(self.terminal.iter().flat_map(Proxy::polled));
        polled
    }

    fn copy(&mut self, ready: &[bool], channel: &Channel) {
        let mut ready = ready.iter().copied();
        let now = Instant::now();
        for output in &mut self.outputs {
            let is_late = output.deadline().is_some_and(|deadline| deadline <= now);
            if ready.next() == Some(true) || is_late {
                output.advance();
            }
        }
        if self.input.is_some() && ready.next() == Some(true) {
            self.pass_input_on(channel);
        }
        if let Some(terminal) = &mut self.terminal {
            terminal.copy(&ready.collect::<Vec<_>>());
        }
        self.outputs.retain(|output| !output.is_over());
    }

    /// Reads what was typed, or writes what has waited for room.
    fn pass_input_on(&mut self, channel: &Channel) {
        let Some(input) = &self.input else { return };
        let mut open = true;
        if self.typed.is_empty() {
            let mut buffer = [0; 65_536];
            self.typed.extend_from_slice(read_some(rustix::stdio::stdin(), &mut buffer));
            open = !self.typed.is_empty();
        }
        match rustix::io::write(input, &self.typed) {
            Ok(written) => drop(self.typed.drain(..written)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => open = false,
        }
        if !open {
            self.input = None;
            say(channel, FromClient::CloseInput);
        }
    }

    fn is_detached(&self) -> bool {
        self.terminal.as_ref().is_some_and(Proxy::is_detached)
    }

    fn resize(&self) {
        self.terminal.iter().for_each(Proxy::resize);
    }

    /// What was printed before the end: nobody is left who could add to it.
    fn drain(&mut self) {
        self.outputs.iter_mut().for_each(Output::drain);
        self.terminal.iter_mut().for_each(Proxy::drain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn pipe() -> (OwnedFd, OwnedFd) {
        nix::unistd::pipe().unwrap()
    }

    fn session() -> (Channel, Session) {
        let (ours, theirs) = Channel::pair().unwrap();
        (ours, Session::new(theirs.into()))
    }

    fn manner() -> Manner {
        Manner { input: false, keys: Keys::default(), signals: false }
    }

    #[test]
    fn what_was_printed_before_the_end_is_kept_and_the_end_is_told() {
        let (init, session) = session();
        let (reader, writer) = pipe();
        nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        let (log_reader, log) = pipe();
        init.send(&ToClient::Stream(SessionStream::Error), &[reader.as_fd(), log.as_fd()]).unwrap();
        init.send(&ToClient::Running, &[]).unwrap();
        drop(log);
        // PID 1 keeps an end, so there is no end of file.
        let mut container = std::fs::File::from(writer.try_clone().unwrap());
        container.write_all(b"(a test prints this)\n").unwrap();
        let end = ExecutionEnd { exit_code: 3, reason: String::new() };
        init.send(&ToClient::Ended(end.clone()), &[]).unwrap();
        assert_eq!(session.attend(manner()).unwrap(), Left::Ended(end));
        let mut kept = String::new();
        std::fs::File::from(log_reader).read_to_string(&mut kept).unwrap();
        assert_eq!(kept, "(a test prints this)\n");
    }

    #[test]
    fn a_container_that_runs_detached_is_only_waited_for() {
        let (init, waiting) = session();
        init.send(&ToClient::Running, &[]).unwrap();
        assert_eq!(waiting.wait_until_it_runs().unwrap(), None);
        let (init, waiting) = session();
        let end = ExecutionEnd { exit_code: 127, reason: "no such program".into() };
        init.send(&ToClient::Ended(end.clone()), &[]).unwrap();
        assert_eq!(waiting.wait_until_it_runs().unwrap(), Some(end));
        let (init, waiting) = session();
        drop(init);
        assert!(waiting.wait_until_it_runs().unwrap_err().to_string().contains("berth ps"));
    }

    #[test]
    fn who_comes_later_takes_the_place() {
        let (init, session) = session();
        init.send(&ToClient::Replaced, &[]).unwrap();
        assert_eq!(session.attend(manner()).unwrap(), Left::Replaced);
    }

    #[test]
    fn signals_that_are_this_commands_own_are_not_passed_on() {
        let passed = signals(true);
        assert!(
            passed.contains(Signal::SIGINT) && passed.contains(Signal::SIGUSR1) && passed.contains(Signal::SIGWINCH)
        );
        assert!(!passed.contains(Signal::SIGCHLD) && !passed.contains(Signal::SIGTSTP));
        assert!(!signals(false).contains(Signal::SIGINT));
    }
}
