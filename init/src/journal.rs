//! What PID 1 says: to the kernel's log, and to every console that the kernel names.
//!
//! The kernel's log keeps everything with its time. The kernel itself prints only what is more urgent than its
//! console level (`loglevel=`), so what it would keep to itself is written to the consoles from here. The consoles are
//! non-blocking: a serial line with flow control and nobody behind it costs a line, not the boot.
//!
//! A terminal is hung up when the leader of a session on it ends, which is each end of a shell on a console: from then on
//! whoever had it open gets EIO (`__tty_hangup` in the kernel's drivers/tty/tty_io.c), PID 1 too, and has to open it anew.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::libc::{EIO, O_CLOEXEC, O_NOCTTY, O_NONBLOCK};

use crate::printable::printable;

/// syslog's facility `daemon`, for /dev/kmsg's `<facility*8+level>` prefix (kernel Documentation/ABI/testing/dev-kmsg).
const FACILITY_DAEMON: u8 = 3 << 3;

/// So much of a line goes into one record, in bytes: what is longer than 1,024 with its beginning is refused as a whole
/// (devkmsg_write and PRINTKRB_RECORD_MAX in the kernel's kernel/printk).
const PIECE: usize = 900;

static JOURNAL: OnceLock<Journal> = OnceLock::new();

struct Journal {
    kernel_log: Option<File>,
    consoles: Vec<Console>,
    console_level: u8,
}

/// A terminal that the kernel writes to.
struct Console {
    path: PathBuf,
    terminal: Mutex<File>,
}

/// Starts the journal; needs /dev, /proc and /sys. What cannot be opened is left out: there is nobody to tell yet.
pub fn start() {
    // By default the kernel takes ten lines in five seconds from a writer (admin-guide/sysctl/kernel.rst): less than a
    // boot has. The line break must be there. A kernel that does not know the setting keeps its limit.
    let _ = fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    let journal = JOURNAL.get_or_init(Journal::open);
    // It can only fail when a logger is set already, which is then this one.
    let _ = log::set_logger(journal);
    log::set_max_level(LevelFilter::Info);
}

impl Journal {
    fn open() -> Self {
        let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let console_level = fs::read_to_string("/proc/sys/kernel/printk")
            .ok()
            .and_then(|levels| levels.split_whitespace().next()?.parse().ok())
            .unwrap_or(7);
        Self {
            kernel_log: open(Path::new("/dev/kmsg")).ok(),
            consoles: active
                .split_whitespace()
                .filter_map(|name| Console::open(Path::new("/dev").join(name)))
                .collect(),
            console_level,
        }
    }
}

impl Console {
    fn open(path: PathBuf) -> Option<Self> {
        let terminal = Mutex::new(open(&path).ok()?);
        Some(Self { path, terminal })
    }

    /// Writes a line. A console that takes nothing now loses it; see the head of this file.
    fn write(&self, line: &[u8]) {
        // It is taken only by a panic in here, and what that says goes to the kernel's log.
        let Ok(mut terminal) = self.terminal.try_lock() else { return };
        let written = terminal.write_all(line);
        if written.is_err_and(|error| error.raw_os_error() == Some(EIO))
            && let Ok(anew) = open(&self.path)
        {
            *terminal = anew;
            let _ = terminal.write_all(line);
        }
    }
}

/// Neither waits for a carrier nor takes a terminal for a controlling one.
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).custom_flags(O_NONBLOCK | O_NOCTTY | O_CLOEXEC).open(path)
}

impl Journal {
    /// Tells what fits a record.
    fn tell(&self, text: &str, priority: u8) {
        // One write is one record.
        let kept = self.kernel_log.as_ref().is_some_and(|mut kernel_log| {
            let record = format!("<{}>berth: {text}\n", FACILITY_DAEMON | priority);
            kernel_log.write_all(record.as_bytes()).is_ok()
        });
        if kept && priority < self.console_level {
            return; // the kernel has just printed it
        }
        let seconds = crate::clock::since_boot();
        let text = format!("[{:>5}.{:06}] berth: {text}\r\n", seconds.as_secs(), seconds.subsec_micros());
        self.consoles.iter().for_each(|console| console.write(text.as_bytes()));
    }
}

/// The parts of a line that fit a record each, between characters.
fn pieces(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let (piece, others) = rest?.split_at_checked(rest?.floor_char_boundary(PIECE))?;
        rest = Some(others).filter(|others| !others.is_empty());
        Some(piece)
    })
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        for line in record.args().to_string().lines() {
            let line = printable(line);
            pieces(&line).for_each(|piece| self.tell(piece, priority(record.level())));
        }
    }

    fn flush(&self) {}
}

/// syslog's levels, of which the kernel knows eight.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal that answers EIO to everything: its other end is gone.
    fn dead_terminal() -> File {
        use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
        let master = posix_openpt(nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let terminal = open(Path::new(&ptsname_r(&master).unwrap())).unwrap();
        drop(master);
        assert_eq!((&terminal).write(b"x").unwrap_err().raw_os_error(), Some(EIO));
        terminal
    }

    #[test]
    fn a_console_that_was_hung_up_is_opened_anew_and_loses_no_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let console = Console { path: file.path().to_owned(), terminal: Mutex::new(dead_terminal()) };
        console.write(b"first\n");
        console.write(b"second\n");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "first\nsecond\n");
    }

    #[test]
    fn a_long_line_comes_in_pieces_that_the_kernel_takes() {
        for line in ["", "short", &"x".repeat(PIECE), &"x".repeat(2 * PIECE + 1), &"ä€".repeat(1000)] {
            let all: Vec<&str> = pieces(line).collect();
            assert_eq!((all.concat().as_str(), all.len()), (line, line.len().div_ceil(PIECE).max(1)));
            assert!(all.iter().all(|piece| piece.len() <= PIECE));
        }
    }

    #[test]
    fn what_the_kernel_does_not_take_comes_to_the_consoles_however_urgent_it_is() {
        let (log, console) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let journal = |kernel_log: &Path| {
            let consoles = vec![Console::open(console.path().to_owned()).unwrap()];
            Journal { kernel_log: open(kernel_log).ok(), consoles, console_level: 5 }
        };
        let warn = |journal: &Journal, text: &str| {
            journal.log(&Record::builder().level(Level::Warn).args(format_args!("{text}")).build());
        };
        let text = "x".repeat(PIECE) + "y";
        warn(&journal(log.path()), &text);
        let expected = format!("<28>berth: {}\n<28>berth: y\n", "x".repeat(PIECE));
        assert_eq!(fs::read_to_string(log.path()).unwrap(), expected);
        assert_eq!(fs::read_to_string(console.path()).unwrap(), "", "the kernel prints it");
        // Every write to it fails.
        warn(&journal(Path::new("/dev/full")), "lost");
        assert!(fs::read_to_string(console.path()).unwrap().ends_with("berth: lost\r\n"));
    }

    #[test]
    fn a_console_that_is_gone_is_tried_again_with_the_next_line() {
        let folder = tempfile::tempdir().unwrap();
        let console = Console { path: folder.path().join("console"), terminal: Mutex::new(dead_terminal()) };
        console.write(b"lost\n");
        File::create(&console.path).unwrap();
        console.write(b"kept\n");
        assert_eq!(fs::read_to_string(&console.path).unwrap(), "kept\n");
    }
}
