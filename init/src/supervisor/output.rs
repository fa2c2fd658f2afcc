//! A container's output pipes. PID 1 keeps both ends for as long as the container is declared, so that a restart of
//! the container or of `logs` loses nothing that is in them; it never reads them itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_control::message::Stream;
use nix::fcntl::OFlag;

/// Both ends of both pipes.
#[derive(Debug)]
pub struct Output {
    stdout: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
}

impl Output {
    /// New pipes, closed on exec.
    pub fn new() -> nix::Result<Self> {
        let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC);
        Ok(Self { stdout: pipe()?, stderr: pipe()? })
    }

    /// For `logs`.
    pub fn reader(&self, stream: Stream) -> BorrowedFd<'_> {
        self.pipe(stream).0.as_fd()
    }

    /// For the container.
    pub fn writer(&self, stream: Stream) -> BorrowedFd<'_> {
        self.pipe(stream).1.as_fd()
    }

    fn pipe(&self, stream: Stream) -> &(OwnedFd, OwnedFd) {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }
}
