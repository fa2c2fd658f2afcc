//! The consoles: which terminals the kernel writes to, and writing to one.
//!
//! A terminal may be named on the kernel command line and not exist, or exist and be dead (a serial port without
//! hardware answers EIO to everything). Such a one is left alone. Nothing here waits for a terminal: a serial line can
//! be held up for ever by its other end.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use berth_control::message::MachineState;
use nix::fcntl::OFlag;

/// Where the kernel lists them, the one that /dev/console stands for last.
const ACTIVE: &str = "/sys/class/tty/console/active";

/// A terminal that the kernel writes to.
#[derive(Debug)]
pub struct Console {
    /// Its device, `/dev/ttyS0`.
    pub path: PathBuf,
    shown: Mutex<Option<MachineState>>,
}

impl Console {
    /// By its device.
    pub fn new(path: PathBuf) -> Self {
        Self { path, shown: Mutex::new(None) }
    }

    /// Whether there is a living terminal.
    pub fn is_usable(&self) -> bool {
        open(&self.path).is_ok_and(|terminal| terminal.is_terminal())
    }

    /// Writes a text, as much as the terminal takes at once.
    pub fn write(&self, text: &str) -> io::Result<()> {
        // A shell may have the terminal in raw mode, where a line feed does not return to the margin.
        let text = text.replace('\n', "\r\n");
        let mut terminal = open(&self.path)?;
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match terminal.write(rest) {
                Ok(0) => return Ok(()),
                Ok(length) => rest = rest.get(length..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Notes that the machine is shown in this state, or that nothing is known of it; says whether that is new.
    pub fn shows(&self, state: Option<MachineState>) -> bool {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *shown, state) != state
    }
}

/// Neither waits for a carrier nor takes the terminal for a controlling one.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(path)
}

/// The consoles that the kernel names and that are alive.
pub fn active() -> Vec<Console> {
    let text = std::fs::read_to_string(ACTIVE).unwrap_or_default();
    let consoles = devices(&text).into_iter().map(Console::new);
    consoles.filter(Console::is_usable).collect()
}

/// `tty0 ttyS0` are /dev/tty1 and /dev/ttyS0: tty0 is whichever virtual terminal is in front, and shells live on the
/// first.
fn devices(active: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for name in active.split_whitespace() {
        let name = if name == "tty0" { "tty1" } else { name };
        let path = Path::new("/dev").join(name);
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_virtual_console_is_the_first_terminal() {
        let expected: Vec<PathBuf> = vec!["/dev/tty1".into(), "/dev/ttyS0".into()];
        assert_eq!(devices("tty0 ttyS0\n"), expected);
        assert_eq!(devices("tty1 tty0 ttyS0 ttyS0\n"), expected);
        assert!(devices("").is_empty());
    }

    #[test]
    fn what_is_no_terminal_is_not_usable() {
        assert!(!Console::new("/dev/null".into()).is_usable());
        assert!(!Console::new("/dev/no-such-terminal".into()).is_usable());
    }

    #[test]
    fn a_state_is_new_once() {
        let console = Console::new("/dev/null".into());
        assert!(console.shows(Some(MachineState::Booting)));
        assert!(!console.shows(Some(MachineState::Booting)));
        assert!(console.shows(Some(MachineState::Ready)));
    }
}
