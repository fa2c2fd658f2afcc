//! The file that a log grows by. Bytes go from the pipe into it without passing through this program, and taking them
//! and keeping them is one system call: splice(2). SIGKILL comes before it or behind it and so neither loses nor
//! doubles a byte. The place to write is told with each call, never kept by the kernel, because what an interrupted
//! predecessor left behind the last whole frame is to be written over.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use berth_control::message::Stream;
use nix::fcntl::{SpliceFFlags, splice};

use crate::frame::{HEADER, Header, Kind, LONGEST};
use crate::table::{BLOCK, read_block};

/// Open to be written.
#[derive(Debug)]
pub struct Active {
    file: Arc<File>,
    length: u64,
}

impl Active {
    /// A new file.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self { file: Arc::new(file), length: 0 })
    }

    /// A file that this program, or the power, left at any moment.
    pub fn recover(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let end = file.metadata()?.len();
        let mut length = 0;
        let mut buffer = vec![0; BLOCK];
        loop {
            let whole = read_block(&file, length, end, &mut buffer)?.len() as u64;
            if whole == 0 {
                break;
            }
            length += whole;
        }
        length += mend(&file, length, end)?;
        file.set_len(length)?;
        Ok(Self { file: Arc::new(file), length })
    }

    /// The file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// When what is first in it came, in microseconds since 1970; 0 if nothing is.
    pub fn first_us(&self) -> u64 {
        let mut bytes = [0; HEADER];
        let read = self.file.read_exact_at(&mut bytes, 0).ok();
        read.and_then(|()| Header::decode(&bytes)).map_or(0, |header| header.time_us)
    }

    /// How many bytes of whole frames it has.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Takes up to so many bytes from a pipe, which must have them. How many it took; on an error none.
    pub fn take(&mut self, pipe: BorrowedFd<'_>, stream: Stream, length: usize, now_us: u64) -> io::Result<usize> {
        let mut header = Header { kind: Kind::Output(stream), length: length.min(LONGEST), time_us: now_us };
        self.file.write_all_at(&header.encode(), self.length)?;
        let mut at = i64::try_from(self.length + HEADER as u64).map_err(|_| ErrorKind::FileTooLarge)?;
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        let taken = splice(pipe, None, &self.file, Some(&mut at), header.length, flags)?;
        if taken == 0 {
            return Ok(0);
        }
        if taken < header.length {
            // There was room for a part. The header is in the file already, so this needs none.
            header.length = taken;
            self.file.write_all_at(&header.encode(), self.length)?;
        }
        self.length += (HEADER + taken) as u64;
        Ok(taken)
    }

    /// Appends a frame.
    pub fn append(&mut self, kind: Kind, payload: &[u8], now_us: u64) -> io::Result<()> {
        let header = Header { kind, length: payload.len(), time_us: now_us };
        let bytes = [&header.encode()[..], payload].concat();
        self.file.write_all_at(&bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// Makes a frame whole whose bytes did not all come, at `at` of a file that ends at `end`; how long it is then. Only a
/// container's bytes are worth it: the kernel's are read again.
fn mend(file: &File, at: u64, end: u64) -> io::Result<u64> {
    let mut bytes = [0; HEADER];
    let there = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
    let Some(length) = there.checked_sub(HEADER).filter(|length| *length > 0) else { return Ok(0) };
    file.read_exact_at(&mut bytes, at)?;
    match Header::decode(&bytes) {
        Some(header @ Header { kind: Kind::Output(_), .. }) if length < header.length => {
            file.write_all_at(&Header { length, ..header }.encode(), at)?;
            Ok((HEADER + length) as u64)
        }
        _ => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frames;
    use crate::frame::tests::frame;
    use std::io::Write;
    use std::os::fd::AsFd;

    const OUT: Kind = Kind::Output(Stream::Stdout);

    fn content(path: &Path) -> Vec<(Kind, Vec<u8>)> {
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(Frames::whole(&bytes), bytes.len());
        Frames::of(&bytes).map(|frame| (frame.header.kind, frame.payload.to_vec())).collect()
    }

    #[test]
    fn bytes_go_from_the_pipe_to_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0");
        let mut active = Active::create(&path).unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        File::from(writer).write_all(b"hello\nwor").unwrap();
        assert_eq!(active.take(reader.as_fd(), Stream::Stdout, 6, 1).unwrap(), 6);
        assert_eq!(active.take(reader.as_fd(), Stream::Stdout, 3, 2).unwrap(), 3);
        active.append(Kind::Ended(Stream::Stdout), b"", 3).unwrap();
        let ended = (Kind::Ended(Stream::Stdout), vec![]);
        assert_eq!(content(&path), [(OUT, b"hello\n".to_vec()), (OUT, b"wor".to_vec()), ended]);
    }

    #[test]
    fn a_pipe_with_less_than_it_said_is_no_trouble() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0");
        let mut active = Active::create(&path).unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let mut writer = File::from(writer);
        assert!(active.take(reader.as_fd(), Stream::Stdout, 9, 1).is_err());
        writer.write_all(b"abc").unwrap();
        assert_eq!(active.take(reader.as_fd(), Stream::Stdout, 9, 1).unwrap(), 3);
        assert_eq!(content(&path), [(OUT, b"abc".to_vec())]);
    }

    #[test]
    fn a_file_is_whole_again_however_it_was_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0");
        let first = frame(OUT, 1, b"one\n");
        let both = [first.clone(), frame(OUT, 2, b"two\n")].concat();
        for cut in 0..=both.len() {
            std::fs::write(&path, &both[..cut]).unwrap();
            let mut active = Active::recover(&path).unwrap();
            active.append(OUT, b"more", 3).unwrap();
            let kept: Vec<u8> = content(&path).into_iter().flat_map(|(_, bytes)| bytes).collect();
            let text = b"one\ntwo\n";
            let came = cut.saturating_sub(HEADER).min(4) + cut.saturating_sub(first.len() + HEADER).min(4);
            assert_eq!(kept, [&text[..came], b"more"].concat(), "cut at {cut}");
        }
    }

    #[test]
    fn zeros_that_a_power_cut_left_are_taken_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0");
        std::fs::write(&path, [frame(OUT, 1, b"one\n"), vec![0; 4096]].concat()).unwrap();
        assert_eq!(Active::recover(&path).unwrap().length(), 20);
        assert_eq!(content(&path).len(), 1);
    }
}
