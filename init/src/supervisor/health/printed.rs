//! What the program of a check prints: its beginning is told, the rest is thrown away.
//!
//! It goes through a pipe that PID 1 reads. A file would take the container's memory for whatever is printed, and a pipe that
//! nobody reads stops who prints more than it holds. Whoever prints without an end keeps PID 1 no more at work than what
//! [`PAUSE`] and [`ROOM`] allow.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::pipe2;

/// How much of it is told, in bytes.
const MOST: usize = 512;

/// What the pipe holds, in bytes, and the most that is read at once.
const ROOM: usize = 256 << 10;

/// From one look to the next, once what is told is there.
pub const PAUSE: Duration = Duration::from_millis(50);

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It can say more.
    Some,
    /// All that is told.
    Enough,
    /// Nobody can print any more.
    End,
}

/// PID 1's end, which never makes it wait, and the program's.
pub fn pipe() -> nix::Result<(File, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // One of the usual size does as well.
    let _ = fcntl(&reader, FcntlArg::F_SETPIPE_SZ(i32::try_from(ROOM).unwrap_or_default()));
    // The program may open it by the name /dev/stdout, as any user.
    fchmod(&writer, Mode::from_bits_truncate(0o666))?;
    Ok((File::from(reader), writer))
}

/// Takes what was printed, and keeps the beginning.
pub fn take(mut pipe: &File, beginning: &mut Vec<u8>) -> Found {
    let (mut buffer, mut taken) = ([0; 16 << 10], 0);
    while taken < ROOM {
        match pipe.read(&mut buffer) {
            Ok(0) => return Found::End,
            Ok(length) => {
                taken += length;
                let wanted = length.min(MOST.saturating_sub(beginning.len()));
                beginning.extend(buffer.iter().take(wanted));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return Found::End,
        }
    }
    if beginning.len() < MOST { Found::Some } else { Found::Enough }
}

/// The beginning, for a sentence.
pub fn told(beginning: &[u8]) -> String {
    let text = String::from_utf8_lossy(beginning);
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() { String::new() } else { format!(": {}", words.join(" ")) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_printed_becomes_part_of_a_sentence() {
        let (reader, writer) = pipe().unwrap();
        let mut beginning = Vec::new();
        assert_eq!((take(&reader, &mut beginning), told(&beginning).as_str()), (Found::Some, ""));
        File::from(writer).write_all(b"no\n  database\n").unwrap();
        assert_eq!(take(&reader, &mut beginning), Found::End);
        assert_eq!(told(&beginning), ": no database");
    }

    #[test]
    fn whoever_prints_without_an_end_goes_on_and_takes_no_memory() {
        let (reader, writer) = pipe().unwrap();
        let mut writer = File::from(writer);
        let mut beginning = Vec::new();
        let flood = std::thread::spawn(move || {
            writer.write_all(b"begun ").unwrap();
            (0..64).try_for_each(|_| writer.write_all(&[b'x'; 64 << 10]))
        });
        while take(&reader, &mut beginning) != Found::End {
            assert!(beginning.capacity() <= 2 * MOST);
        }
        flood.join().unwrap().unwrap();
        assert_eq!(told(&beginning), format!(": begun {}", "x".repeat(MOST - 6)));
    }

    #[test]
    fn one_look_ends_even_if_the_flood_does_not() {
        let zeros = File::open("/dev/zero").unwrap();
        assert_eq!(take(&zeros, &mut Vec::new()), Found::Enough);
    }
}
