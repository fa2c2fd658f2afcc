//! A console's session: this process becomes its leader, takes the terminal and turns into a login shell.
//!
//! It is a program of its own (`berth-console --session /dev/ttyS0`), so that the keeper, which has threads, starts it
//! with a plain fork and exec and nothing runs in between.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// What the prompt is where /etc/profile sets none: the host's name and the directory.
const PROMPT: &str = "\\h:\\w# ";

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
#[error("{operation} for a shell on {terminal}: {source}")]
pub struct Error {
    operation: &'static str,
    terminal: String,
    #[source]
    source: io::Error,
}

/// Does not return but with an error.
pub fn become_shell(terminal: &Path) -> Error {
    let fail = |operation| {
        let terminal = terminal.display().to_string();
        move |source| Error { operation, terminal, source }
    };
    match take_terminal(terminal) {
        Ok(mut shell) => fail("run the program `sh`")(shell.exec()),
        Err((operation, source)) => fail(operation)(source),
    }
}

fn take_terminal(path: &Path) -> Result<Command, (&'static str, io::Error)> {
    let step = |operation| move |source: io::Error| (operation, source);
    let system = |operation| move |error: rustix::io::Errno| (operation, io::Error::from(error));
    rustix::process::setsid().map_err(system("begin a session"))?;
    // Without O_NOCTTY: a session's leader that opens a free terminal gets it as controlling terminal (tty(4)). Without
    // waiting for a carrier.
    let opened = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let terminal = opened.map_err(step("open the terminal"))?;
    fcntl(&terminal, FcntlArg::F_SETFL(OFlag::empty())).map_err(|error| ("set up the terminal", error.into()))?;
    rustix::process::ioctl_tiocsctty(&terminal).map_err(system("take the terminal"))?;
    let copy = || terminal.try_clone().map_err(step("set up the terminal"));
    let mut shell = Command::new("sh");
    shell.arg0("-sh").stdin(copy()?).stdout(copy()?).stderr(copy()?);
    shell.env("TERM", kind_of_terminal(path)).env_remove(berth_control::channel::CHANNEL_VARIABLE);
    if std::env::var_os("PS1").is_none() {
        shell.env("PS1", PROMPT);
    }
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/".into());
    shell.current_dir(if Path::new(&home).is_dir() { Path::new(&home) } else { Path::new("/") });
    Ok(shell)
}

/// The kernel's own terminals understand `linux`; what is at the other end of a line understands `vt220` at least.
fn kind_of_terminal(path: &Path) -> &'static str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match name.strip_prefix("tty") {
        Some(number) if number.parse::<u32>().is_ok() => "linux",
        _ => "vt220",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_virtual_terminals_are_linux() {
        for (path, kind) in [("/dev/tty1", "linux"), ("/dev/ttyS0", "vt220"), ("/dev/hvc0", "vt220")] {
            assert_eq!(kind_of_terminal(Path::new(path)), kind);
        }
    }
}
