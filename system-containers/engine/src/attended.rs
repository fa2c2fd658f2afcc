//! A client's file, as long as that client is there: who has gone, or does not go on for long, must not keep a thread for
//! ever.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

/// How long nothing comes or goes before it is given up.
const IDLE: Duration = Duration::from_mins(10);

/// The file, and the pipe into which its client gets the answer.
pub struct Attended {
    file: File,
    client: Option<OwnedFd>,
    idle: Duration,
}

impl Attended {
    /// Without a pipe nobody can be seen to go.
    pub fn new(file: File, client: Option<OwnedFd>) -> Self {
        Self { file, client, idle: IDLE }
    }

    /// Until the file can be read or written.
    fn wait(&self, wanted: PollFlags) -> io::Result<()> {
        let limit = Timespec::try_from(self.idle).map_err(io::Error::other)?;
        loop {
            let mut polled = vec![PollFd::new(&self.file, wanted)];
            // Of a pipe without a reader one hears unasked.
            polled.extend(self.client.iter().map(|client| PollFd::new(client, PollFlags::empty())));
            match rustix::event::poll(&mut polled, Some(&limit)) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(0) => {
                    let text = format!("nothing has come or gone for {} s", self.idle.as_secs());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                Ok(_) if polled.get(1).is_some_and(|client| !client.revents().is_empty()) => {
                    return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone"));
                }
                Ok(_) => return Ok(()),
            }
        }
    }
}

impl Read for Attended {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(PollFlags::IN)?;
        self.file.read(buffer)
    }
}

impl Write for Attended {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(PollFlags::OUT)?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> (File, File) {
        let (reader, writer) = std::io::pipe().unwrap();
        (File::from(OwnedFd::from(reader)), File::from(OwnedFd::from(writer)))
    }

    #[test]
    fn who_reads_from_a_client_that_goes_ends() {
        let (source, _open) = pipe();
        let (answer, client) = pipe();
        let mut attended = Attended::new(source, Some(client.into()));
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| attended.read(&mut [0; 8]));
            drop(answer);
            assert_eq!(reading.join().unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        });
    }

    #[test]
    fn who_writes_to_a_client_that_goes_ends() {
        let (_open, target) = pipe();
        let (answer, client) = pipe();
        let mut attended = Attended::new(target, Some(client.into()));
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                loop {
                    // Until the pipe is full, and longer.
                    if let Err(error) = attended.write(&[0; 4096]) {
                        return error;
                    }
                }
            });
            drop(answer);
            assert_eq!(writing.join().unwrap().kind(), io::ErrorKind::BrokenPipe);
        });
    }

    #[test]
    fn what_stands_still_is_given_up() {
        let (source, mut open) = pipe();
        let mut attended = Attended { file: source, client: None, idle: Duration::from_millis(1) };
        assert_eq!(attended.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        open.write_all(b"1234").unwrap();
        assert_eq!(attended.read(&mut [0; 8]).unwrap(), 4);
        drop(open);
        assert_eq!(attended.read(&mut [0; 8]).unwrap(), 0, "the end is one");
    }
}
