//! The banner: the machine's state on every console, before its shell and again when the state changes.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use berth_control::dbus::SOCKET_PATH;
use berth_control::message::MachineState;
use futures_util::StreamExt;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::os::fd::AsFd;

use crate::cli::{self, Snapshot};
use crate::consoles::Console;
use crate::shells::Shells;

/// How long the banner before a shell may take; the shell waits for it.
const PATIENCE: Duration = Duration::from_millis(700);

/// When to try the control API again although nothing was seen to happen.
const RETRY: Duration = Duration::from_secs(30);

/// Writes what is known now.
pub fn show(console: &Console) {
    let text = match block_on(async { tokio::time::timeout(PATIENCE, cli::snapshot(Path::new(SOCKET_PATH))).await }) {
        Some(Ok(Ok(Snapshot { text, state }))) => {
            console.shows(Some(state));
            text
        }
        _ => {
            console.shows(None);
            let version = env!("CARGO_PKG_VERSION");
            format!("Berth {version}; the control API does not answer yet, `berth status` tells more later\n")
        }
    };
    write(console, &text);
}

fn write(console: &Console, text: &str) {
    if let Err(error) = console.write(&format!("\n{text}\n")) {
        eprintln!("berth-console: write to {}: {error}", console.path.display());
    }
}

/// Follows the machine for ever and writes the banner to every console that shows something else.
pub fn keep_showing(consoles: &[Arc<Console>], shells: &Shells) -> ExitCode {
    loop {
        // Its end is the end of the connection; what matters is that it is begun again.
        let _ = block_on(follow(consoles, shells));
        wait_for_socket(Path::new(SOCKET_PATH));
    }
}

async fn follow(consoles: &[Arc<Console>], shells: &Shells) -> Option<()> {
    let watch = cli::watch(Path::new(SOCKET_PATH)).await.ok()?;
    let mut changes = watch.changes().await.ok()?;
    loop {
        shells.follow_configuration();
        let Snapshot { text, state } = watch.snapshot().await.ok()?;
        // A machine that boots changes by the moment; the banner waits for the end of it.
        if state != MachineState::Booting {
            for console in consoles {
                if console.shows(Some(state)) {
                    write(console, &text);
                }
            }
        }
        changes.next().await?;
    }
}

/// Returns when something happened in the socket's directory, or after [`RETRY`].
fn wait_for_socket(path: &Path) {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let wait = || -> Result<(), Errno> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(directory, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ATTRIB)?;
        let mut ready = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(RETRY).unwrap_or(PollTimeout::MAX);
        poll(&mut ready, timeout).map(drop)
    };
    if wait().is_err() {
        std::thread::sleep(RETRY);
    }
}

/// `None` if there is no event loop to be had, which means that there are no descriptors left.
fn block_on<T>(future: impl Future<Output = T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => Some(runtime.block_on(future)),
        Err(error) => {
            eprintln!("berth-console: start an event loop: {error}");
            None
        }
    }
}
