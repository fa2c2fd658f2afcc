//! A container's output pipes. PID 1 keeps both ends for as long as the container is declared, so that a restart of
//! the container or of `logs` loses nothing that is in them; it never reads them itself.

use std::os::fd::{AsFd, BorrowedFd};

use berth_control::message::Stream;
use berth_runtime::handover::Descriptor;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::{Deserialize, Serialize};

/// Both ends of both pipes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Output {
    stdout: (Descriptor, Descriptor),
    stderr: (Descriptor, Descriptor),
}

impl Output {
    /// New pipes, closed on exec. Nobody waits for output in a read: there is no end of file while PID 1 has them.
    pub fn new() -> nix::Result<Self> {
        let pipe = || {
            let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            Ok((reader.into(), writer.into()))
        };
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

    fn pipe(&self, stream: Stream) -> &(Descriptor, Descriptor) {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }
}
