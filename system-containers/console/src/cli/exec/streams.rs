//! What stands between a program in a container and this command's own streams.
//!
//! A terminal and a file are more than what may be read or written through them now: whoever has them can read what is
//! typed later, or write elsewhere in the file. So the program gets pipes, and this command copies. What is a pipe already
//! goes over as it is. A socket does not, since what goes the other way on it is not meant for the program.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::{FileStat, SFlag, fstat};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio, ioctl_fionread};
use rustix::pipe::{PipeFlags, pipe_with};

use super::super::error::Error;

/// How much is copied at once: what a pipe holds.
const ROOM: usize = 65_536;

/// How much a terminal or socket takes at once when it says that it has room.
const PIECE: usize = 4096;

/// What is copied.
#[derive(Debug)]
pub struct Streams {
    ways: Vec<Way>,
}

/// From one descriptor to another.
#[derive(Debug)]
struct Way {
    from: OwnedFd,
    to: OwnedFd,
    is_input: bool,
    /// The most that is written at once.
    piece: usize,
    /// Read, and so much of it written.
    held: Vec<u8>,
    written: usize,
}

impl Streams {
    /// Between these and what is returned for the program: its standard input, output and error.
    pub fn new(
        stdin: Option<BorrowedFd<'_>>,
        stdout: BorrowedFd<'_>,
        stderr: BorrowedFd<'_>,
    ) -> io::Result<(Self, [OwnedFd; 3])> {
        let mut streams = Self { ways: Vec::new() };
        let input = match stdin {
            Some(stdin) => streams.input(stdin)?,
            None => File::open("/dev/null")?.into(),
        };
        let output = streams.output(stdout)?;
        // Through one pipe what goes to one place keeps its order.
        let error = if is_same(stdout, stderr) { output.try_clone()? } else { streams.output(stderr)? };
        Ok((streams, [input, output, error]))
    }

    fn input(&mut self, stdin: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        if kind(stdin) == SFlag::S_IFIFO {
            return stdin.try_clone_to_owned();
        }
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        self.add(stdin.try_clone_to_owned()?, ours, true)?;
        Ok(theirs)
    }

    fn output(&mut self, target: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        if kind(target) == SFlag::S_IFIFO {
            return target.try_clone_to_owned();
        }
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        self.add(ours, target.try_clone_to_owned()?, false)?;
        Ok(theirs)
    }

    fn add(&mut self, from: OwnedFd, to: OwnedFd, is_input: bool) -> io::Result<()> {
        // The own end only: the operator's is shared with others.
        ioctl_fionbio(if is_input { &to } else { &from }, true)?;
        let waits = !is_input && kind(to.as_fd()) != SFlag::S_IFREG;
        let piece = if waits { PIECE } else { ROOM };
        self.ways.push(Way { from, to, is_input, piece, held: Vec::new(), written: 0 });
        Ok(())
    }

    /// Copies until `end` is readable and everything that was printed before has arrived. What cannot be written has
    /// nobody to read it from then on, so that the program is told.
    pub fn copy_until(mut self, end: BorrowedFd<'_>) -> Result<(), Error> {
        let mut outcome = Ok(());
        loop {
            let mut polled = vec![PollFd::from_borrowed_fd(end, PollFlags::IN)];
            polled.extend(self.ways.iter().map(Way::polled));
            match poll(&mut polled, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Error::Output(error.into())),
            }
            let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
            drop(polled);
            let mut ready = ready.into_iter();
            let has_ended = ready.next() == Some(true);
            self.ways.retain_mut(|way| {
                let advanced = match (has_ended, ready.next()) {
                    (true, _) => way.finish().map(|()| false),
                    (false, Some(true)) => way.advance(),
                    (false, _) => Ok(true),
                };
                advanced.unwrap_or_else(|error| {
                    outcome = Err(error);
                    false
                })
            });
            if has_ended {
                return outcome;
            }
        }
    }
}

impl Way {
    /// What comes next: room for what has been read, or more of it.
    fn polled(&self) -> PollFd<'_> {
        match self.held.is_empty() {
            true => PollFd::new(&self.from, PollFlags::IN),
            false => PollFd::new(&self.to, PollFlags::OUT),
        }
    }

    /// Goes on as far as it can without waiting; says whether there may be more.
    fn advance(&mut self) -> Result<bool, Error> {
        if self.held.is_empty() && !self.take(ROOM)? {
            return Ok(false);
        }
        while !self.held.is_empty() && has_room(&self.to) {
            match self.give() {
                // Whoever does not read its input to the end does nothing wrong.
                Err(Error::Output(error)) if self.is_input && error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(false);
                }
                given => given?,
            }
        }
        Ok(true)
    }

    /// What the program has left in its pipe. No more than that: what it started may print for ever.
    fn finish(&mut self) -> Result<(), Error> {
        if self.is_input {
            return Ok(());
        }
        let mut left = ioctl_fionread(&self.from).map_or(0, |left| usize::try_from(left).unwrap_or(usize::MAX));
        loop {
            while !self.held.is_empty() {
                if has_room(&self.to) {
                    self.give()?;
                } else {
                    // Fails only as what follows will.
                    let _ = poll(&mut [self.polled()], None);
                }
            }
            if left == 0 || !self.take(left.min(ROOM))? || self.held.is_empty() {
                return Ok(());
            }
            left = left.saturating_sub(self.held.len());
        }
    }

    /// Reads at most so much; says whether this was not the end.
    fn take(&mut self, most: usize) -> Result<bool, Error> {
        self.held.resize(most, 0);
        let read = rustix::io::read(&self.from, &mut self.held);
        self.held.truncate(read.unwrap_or(0));
        self.written = 0;
        match read {
            Ok(length) => Ok(length > 0),
            Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(error) => Err(Error::Read { path: "standard input".into(), source: error.into() }),
        }
    }

    /// Writes a piece of what is held.
    fn give(&mut self) -> Result<(), Error> {
        let rest = self.held.get(self.written..).unwrap_or_default();
        match rustix::io::write(&self.to, rest.get(..self.piece).unwrap_or(rest)) {
            Ok(written) => self.written += written,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(Error::Output(error.into())),
        }
        if self.written >= self.held.len() {
            self.held.clear();
        }
        Ok(())
    }
}

fn kind(stream: BorrowedFd<'_>) -> SFlag {
    fstat(stream).map_or(SFlag::empty(), |stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)
}

/// Whether both lead to the same place in the same way.
fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let identity = |stat: FileStat| (stat.st_dev, stat.st_ino, stat.st_rdev);
    let of = |stream| Some((fstat(stream).ok().map(identity)?, fcntl(stream, FcntlArg::F_GETFL).ok()?));
    of(one).is_some() && of(one) == of(other)
}

/// Whether writing a piece does not wait.
fn has_room(target: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = [PollFd::new(target, PollFlags::OUT)];
    // What cannot be asked fails as the writing will.
    poll(&mut polled, Some(&now)).map_or(true, |ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};
    use std::process::{Command, Stdio};

    use tempfile::tempfile;

    fn text(mut file: &File) -> Vec<u8> {
        let mut text = Vec::new();
        file.rewind().unwrap();
        io::Read::read_to_end(&mut file, &mut text).unwrap();
        text
    }

    fn identity(stream: impl AsFd) -> (u64, u64) {
        let stat = fstat(stream).unwrap();
        (stat.st_dev, stat.st_ino)
    }

    /// What PID 1 tells through, and a program that runs with these streams.
    fn run(program: &mut Command, [stdin, stdout, stderr]: [OwnedFd; 3]) -> OwnedFd {
        let (end, told) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let mut child = program.stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap();
        // It would keep them open.
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        std::thread::spawn(move || {
            child.wait().unwrap();
            drop(told);
        });
        end
    }

    #[test]
    fn only_a_pipe_goes_over_itself() {
        let terminal = nix::pty::openpty(None, None).unwrap().slave;
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let (file, (reader, writer)) = (tempfile().unwrap(), pipe_with(PipeFlags::CLOEXEC).unwrap());
        for mine in [terminal.as_fd(), socket.as_fd(), file.as_fd(), File::open("/dev/null").unwrap().as_fd()] {
            let (_streams, theirs) = Streams::new(Some(mine), mine, writer.as_fd()).unwrap();
            let [input, output, error] = &theirs;
            assert_eq!((kind(input.as_fd()), kind(output.as_fd())), (SFlag::S_IFIFO, SFlag::S_IFIFO));
            assert_eq!(identity(error), identity(&writer));
            // The program's ends wait, as programs expect it.
            let flags = fcntl(output, FcntlArg::F_GETFL).unwrap() | fcntl(input, FcntlArg::F_GETFL).unwrap();
            assert_eq!(flags & nix::libc::O_NONBLOCK, 0);
        }
        let (streams, [input, ..]) = Streams::new(Some(reader.as_fd()), writer.as_fd(), writer.as_fd()).unwrap();
        assert!(identity(&input) == identity(&reader) && streams.ways.is_empty());
    }

    #[test]
    fn much_in_both_directions_arrives_whole_and_the_input_ends() {
        let (mut input, output) = (tempfile().unwrap(), tempfile().unwrap());
        let bytes: Vec<u8> = (0..1_500_000_u32).flat_map(u32::to_le_bytes).collect();
        input.write_all(&bytes).unwrap();
        input.rewind().unwrap();
        let null = File::create("/dev/null").unwrap();
        let (streams, theirs) = Streams::new(Some(input.as_fd()), output.as_fd(), null.as_fd()).unwrap();
        let end = run(&mut Command::new("cat"), theirs);
        streams.copy_until(end.as_fd()).unwrap();
        assert!(text(&output) == bytes, "{} of {} bytes", text(&output).len(), bytes.len());
    }

    #[test]
    fn what_is_printed_at_last_arrives_though_somebody_else_keeps_the_pipe() {
        let output = tempfile().unwrap();
        let (streams, theirs) = Streams::new(None, output.as_fd(), output.as_fd()).unwrap();
        let [_, pipe, _] = &theirs;
        let _kept = pipe.try_clone().unwrap();
        File::from(pipe.try_clone().unwrap()).write_all(&[b'x'; 60_000]).unwrap();
        let (end, told) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        drop(told);
        streams.copy_until(end.as_fd()).unwrap();
        assert_eq!(text(&output).len(), 60_000);
    }

    #[test]
    fn what_goes_to_one_place_keeps_its_order() {
        let output = tempfile().unwrap();
        let (streams, theirs) = Streams::new(None, output.as_fd(), output.as_fd()).unwrap();
        let script = "for n in 1 2 3; do echo out; echo err >&2; done";
        let end = run(Command::new("sh").args(["-c", script]), theirs);
        streams.copy_until(end.as_fd()).unwrap();
        assert_eq!(String::from_utf8(text(&output)).unwrap(), "out\nerr\n".repeat(3));
    }

    #[test]
    fn a_program_whose_output_finds_no_room_ends_and_its_command_says_so() {
        let (full, null) = (File::create("/dev/full").unwrap(), File::create("/dev/null").unwrap());
        let (streams, theirs) = Streams::new(None, full.as_fd(), null.as_fd()).unwrap();
        let end = run(&mut Command::new("yes"), theirs);
        let error = streams.copy_until(end.as_fd()).unwrap_err();
        assert!(error.to_string().contains("write the output"), "{error}");
    }

    #[test]
    fn a_program_that_leaves_its_input_alone_does_nothing_wrong() {
        let (mut input, null) = (tempfile().unwrap(), File::create("/dev/null").unwrap());
        input.write_all(&vec![b'x'; 1 << 20]).unwrap();
        input.rewind().unwrap();
        let (streams, theirs) = Streams::new(Some(input.as_fd()), null.as_fd(), null.as_fd()).unwrap();
        let end = run(&mut Command::new("true"), theirs);
        streams.copy_until(end.as_fd()).unwrap();
    }
}
