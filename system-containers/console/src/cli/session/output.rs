//! One of a container's outputs, on its way to `logs` and to this command's own output.
//!
//! ```text
//!                     tee(2)
//! container's pipe ─────────▶ copy ──read──▶ `shown` ──▶ standard output or error
//!        └──────splice(2)──────▶ pipe to `logs`
//! ```
//! The kernel moves what is to be kept from pipe to pipe, so there is no moment at which this command alone has it: what it
//! leaves when it is killed is found by whoever reads the container's pipe next. A container whose output is kept does not
//! wait for a terminal that takes nothing, such as one behind a pager, for longer than [`PATIENCE`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use berth_terminal::read_some;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice, tee};

/// How much is copied at once: what a pipe holds.
const ROOM: usize = 65_536;

/// How much a pipe or terminal takes at once when it says that it has room (PIPE_BUF).
const PIECE: usize = 4096;

/// How long a container waits whose output is kept.
const PATIENCE: Duration = Duration::from_secs(10);

/// The way to `logs`.
#[derive(Debug)]
struct Log {
    pipe: OwnedFd,
    copy: (OwnedFd, OwnedFd),
    /// So much of what was copied is to be moved yet.
    rest: usize,
}

/// What is done with what is to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Showing {
    Shows,
    /// Nothing was taken for [`PATIENCE`]: so much is left out until something is.
    LeavesOut(u64),
    /// There is nobody to print for, which is no reason to let the container wait.
    Over,
}

/// An output of the container.
#[derive(Debug)]
pub struct Output {
    reader: OwnedFd,
    log: Option<Log>,
    /// Where it is shown.
    target: BorrowedFd<'static>,
    /// Not taken yet.
    shown: Vec<u8>,
    /// Since when nothing was.
    waits_since: Option<Instant>,
    showing: Showing,
    is_over: bool,
}

impl Output {
    /// A container's pipe, the one to `logs` if what it prints is kept, and where it is shown.
    pub fn new(reader: OwnedFd, log: Option<OwnedFd>, target: BorrowedFd<'static>) -> std::io::Result<Self> {
        let log = log.map(|pipe| Ok::<_, Errno>(Log { pipe, copy: pipe_with(PipeFlags::CLOEXEC)?, rest: 0 }));
        let log = log.transpose()?;
        let (shown, showing) = (Vec::new(), Showing::Shows);
        Ok(Self { reader, log, target, shown, waits_since: None, showing, is_over: false })
    }

    /// Whether nobody can print there any more.
    pub fn is_over(&self) -> bool {
        self.is_over && self.shown.is_empty()
    }

    /// What comes next: room for what has been read, or more of it.
    pub fn polled(&self) -> PollFd<'_> {
        let (descriptor, flags) = match &self.log {
            Some(log) if log.rest > 0 => (log.pipe.as_fd(), PollFlags::OUT),
            _ if !self.shown.is_empty() => (self.target, PollFlags::OUT),
            _ => (self.reader.as_fd(), PollFlags::IN),
        };
        PollFd::from_borrowed_fd(descriptor, flags)
    }

    /// When what is to be shown has waited for too long.
    pub fn deadline(&self) -> Option<Instant> {
        Some(self.waits_since.filter(|_| self.log.is_some())? + PATIENCE)
    }

    /// Goes on as far as it can without waiting, after [`Self::polled`] or [`Self::deadline`]; says whether anything moved.
    pub fn advance(&mut self) -> bool {
        let is_late = self.deadline().is_some_and(|deadline| deadline <= Instant::now());
        if is_late && !has_room(self.target) {
            self.leave_out();
        }
        // Also while the log has no room: else the deadline would stay, and this command would turn in a circle.
        let moved = self.show();
        if self.log.as_ref().is_some_and(|log| log.rest > 0) {
            return self.feed_log() || moved;
        }
        if moved || !self.shown.is_empty() {
            return moved;
        }
        self.take()
    }

    /// All that there is, however long it takes: the container has ended, and does not wait.
    pub fn drain(&mut self) {
        if let Showing::LeavesOut(bytes) = self.showing {
            self.show_again(bytes);
        }
        while self.advance() {}
        loop {
            let waits_for_log = self.log.as_ref().is_some_and(|log| log.rest > 0);
            if !waits_for_log && self.shown.is_empty() {
                return;
            }
            // Fails only as what follows will.
            let _ = poll(&mut [self.polled()], None);
            while self.advance() {}
        }
    }

    /// Takes what there is.
    fn take(&mut self) -> bool {
        let mut buffer = [0; ROOM];
        let text = match &mut self.log {
            None => match rustix::io::read(&self.reader, &mut buffer) {
                Ok(length) => &buffer[..length],
                Err(_) => return false,
            },
            Some(log) => match tee(&self.reader, &log.copy.1, ROOM, SpliceFlags::NONBLOCK) {
                Ok(length) => {
                    log.rest = length;
                    // All of it is there.
                    read_some(&log.copy.0, &mut buffer[..length])
                }
                Err(_) => return false,
            },
        };
        if text.is_empty() {
            self.is_over = true;
            return false;
        }
        match self.showing {
            Showing::Shows => self.shown.extend_from_slice(text),
            Showing::LeavesOut(bytes) if has_room(self.target) => {
                self.show_again(bytes);
                self.shown.extend_from_slice(text);
            }
            Showing::LeavesOut(bytes) => self.showing = Showing::LeavesOut(bytes + text.len() as u64),
            Showing::Over => {}
        }
        self.feed_log();
        self.show();
        true
    }

    /// Moves what was copied on to `logs`.
    fn feed_log(&mut self) -> bool {
        let Some(log) = &mut self.log else { return false };
        let before = log.rest;
        while log.rest > 0 {
            match splice(&self.reader, None, &log.pipe, None, log.rest, SpliceFlags::NONBLOCK) {
                Ok(moved) if moved > 0 => log.rest -= moved,
                // There is no room for it, or was none: `logs` may have made some since, so that is not asked.
                Err(Errno::AGAIN) if has_something(self.reader.as_fd()) => break,
                // `logs` had not let go of the pipe yet, and has it already.
                Ok(_) | Err(Errno::AGAIN) => log.rest = 0,
                Err(Errno::INTR) => {}
                Err(_) => {
                    // Nobody keeps it any more.
                    read_some(&self.reader, &mut vec![0; log.rest]);
                    self.log = None;
                    return true;
                }
            }
        }
        log.rest < before
    }

    fn show(&mut self) -> bool {
        let mut moved = false;
        while !self.shown.is_empty() && has_room(self.target) {
            let piece = &self.shown[..self.shown.len().min(PIECE)];
            match rustix::io::write(self.target, piece) {
                Ok(written) => drop(self.shown.drain(..written)),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => {
                    self.shown.clear();
                    self.showing = Showing::Over;
                }
            }
            moved = true;
        }
        if self.shown.is_empty() {
            self.waits_since = None;
        } else if moved || self.waits_since.is_none() {
            self.waits_since = Some(Instant::now());
        }
        moved
    }

    fn show_again(&mut self, left_out: u64) {
        let note = format!("\n[{left_out} bytes are left out here, since nobody took them; `berth logs` has them]\n");
        self.shown.extend_from_slice(note.as_bytes());
        self.showing = Showing::Shows;
    }

    fn leave_out(&mut self) {
        self.showing = Showing::LeavesOut(self.shown.len() as u64);
        self.shown.clear();
        self.waits_since = None;
    }
}

/// Whether writing a piece does not wait.
fn has_room(target: BorrowedFd<'_>) -> bool {
    !answer(target, PollFlags::OUT).is_empty()
}

/// Whether there is something to read.
fn has_something(reader: BorrowedFd<'_>) -> bool {
    answer(reader, PollFlags::IN).contains(PollFlags::IN)
}

/// What poll(2) says at once.
fn answer(descriptor: BorrowedFd<'_>, flags: PollFlags) -> PollFlags {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = [PollFd::from_borrowed_fd(descriptor, flags)];
    // What cannot be asked says nothing.
    let _ = poll(&mut polled, Some(&now));
    polled[0].revents()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    use rustix::pipe::fcntl_setpipe_size;
    use rustix::stdio::stderr;

    fn pipe() -> (OwnedFd, File) {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        (reader, File::from(writer))
    }

    /// An output that is shown in a pipe, which has room for all that a test prints.
    fn shown_in_a_pipe(reader: OwnedFd, log: File) -> (Output, OwnedFd) {
        let (shown, writer) = pipe();
        fcntl_setpipe_size(&writer, 1 << 20).unwrap();
        // Borrowed for as long as the process lives, as standard output is.
        let writer: &'static File = Box::leak(Box::new(writer));
        (Output::new(reader, Some(log.into()), writer.as_fd()).unwrap(), shown)
    }

    fn read_all(reader: &OwnedFd) -> String {
        let mut text = String::new();
        // Nobody closes the other end.
        let _ = File::from(reader.try_clone().unwrap()).read_to_string(&mut text);
        text
    }

    #[test]
    fn what_the_log_has_no_room_for_stays_in_the_containers_pipe() {
        let ((reader, mut container), (log, mut pipe)) = (pipe(), pipe());
        while pipe.write(&[b'.'; PIECE]).is_ok() {}
        let mut output = Output::new(reader.try_clone().unwrap(), Some(pipe.into()), stderr()).unwrap();
        container.write_all(b"(a test prints this)\n").unwrap();
        assert!(output.advance() && !output.advance());
        // It is killed.
        drop(output);
        assert_eq!(read_all(&reader), "(a test prints this)\n");
        assert!(!read_all(&log).contains("test"));
    }

    #[test]
    fn every_byte_is_kept_once() {
        let ((reader, mut container), (log, pipe)) = (pipe(), pipe());
        let mut output = Output::new(reader.try_clone().unwrap(), Some(pipe.into()), stderr()).unwrap();
        output.showing = Showing::Over;
        let (mut sent, mut kept) = (String::new(), String::new());
        for number in 0..40_000 {
            let line = format!("{number}\n");
            while container.write_all(line.as_bytes()).is_err() {
                output.advance();
                kept.push_str(&read_all(&log));
            }
            sent.push_str(&line);
        }
        output.drain();
        kept.push_str(&read_all(&log));
        assert!(kept == sent, "{} of {} bytes are kept", kept.len(), sent.len());
        assert_eq!(read_all(&reader), "");
    }

    #[test]
    fn every_byte_is_shown_once_while_logs_makes_room_at_any_moment() {
        let ((reader, mut container), (log, pipe)) = (pipe(), pipe());
        fcntl_setpipe_size(&pipe, PIECE).unwrap();
        let drained = std::thread::spawn(move || {
            let mut kept = 0;
            loop {
                match rustix::io::read(&log, &mut [0; PIECE]) {
                    Ok(0) => return kept,
                    Ok(length) => kept += length,
                    Err(_) => std::thread::yield_now(),
                }
            }
        });
        let (mut output, shown) = shown_in_a_pipe(reader, pipe);
        let (mut sent, mut seen) = (String::new(), String::new());
        for number in 0..200_000 {
            let line = format!("{number}\n");
            while container.write_all(line.as_bytes()).is_err() {
                output.advance();
                seen.push_str(&read_all(&shown));
            }
            sent.push_str(&line);
        }
        output.drain();
        seen.push_str(&read_all(&shown));
        drop(output);
        assert_eq!(drained.join().unwrap(), sent.len());
        assert!(seen == sent, "{} bytes are shown of {}", seen.len(), sent.len());
    }

    #[test]
    fn what_has_waited_is_shown_though_the_log_has_no_room() {
        let ((reader, mut container), (_log, mut pipe)) = (pipe(), pipe());
        while pipe.write(&[b'.'; PIECE]).is_ok() {}
        container.write_all(b"old").unwrap();
        let (mut output, shown) = shown_in_a_pipe(reader, pipe);
        output.shown = b"old".to_vec();
        output.waits_since = Instant::now().checked_sub(PATIENCE);
        output.log.as_mut().unwrap().rest = 3;
        assert!(output.advance() && !output.advance());
        assert_eq!((read_all(&shown).as_str(), output.deadline()), ("old", None));
    }

    #[test]
    fn a_terminal_that_takes_nothing_does_not_hold_a_container_up_whose_output_is_kept() {
        let ((reader, _container), (_log, pipe)) = (pipe(), pipe());
        let late = |log| {
            let mut output = Output::new(reader.try_clone().unwrap(), log, stderr()).unwrap();
            output.shown = b"old".to_vec();
            output.waits_since = Instant::now().checked_sub(PATIENCE);
            (output.deadline().is_some(), output)
        };
        assert!(!late(None).0, "what nobody keeps waits, as docker has it");
        let (is_late, mut output) = late(Some(pipe.into()));
        assert!(is_late);
        output.leave_out();
        assert_eq!((output.showing, output.shown.len(), output.deadline()), (Showing::LeavesOut(3), 0, None));
        output.show_again(3);
        assert!(String::from_utf8(output.shown).unwrap().contains("3 bytes are left out here"));
    }
}
