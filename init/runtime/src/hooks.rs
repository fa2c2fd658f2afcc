//! Hooks: programs that config.json wants to be run at points of the life cycle, with the state on their input.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags};

use crate::error::{Context, Error, SystemError};
use crate::spec::{Hook, Hooks, State};
use crate::sys;

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It could not be run.
    #[error("run the {kind} hook {}", path.display())]
    Run {
        /// When.
        kind: &'static str,
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: SystemError,
    },
    /// It said no.
    #[error("the {kind} hook {} ended with {outcome}", path.display())]
    Ended {
        /// When.
        kind: &'static str,
        /// The program.
        path: PathBuf,
        /// How.
        outcome: String,
    },
    /// The caller was told to stop; the hook was killed.
    #[error("interrupted by a signal during the {kind} hook {}", path.display())]
    Interrupted {
        /// When.
        kind: &'static str,
        /// The program.
        path: PathBuf,
    },
    /// It took longer than its `timeout`, and was killed.
    #[error("the {kind} hook {} took longer than {seconds} s", path.display())]
    TimedOut {
        /// When.
        kind: &'static str,
        /// The program.
        path: PathBuf,
        /// Its limit.
        seconds: i64,
    },
}

/// What the specification demands of every hook.
pub(crate) fn check(hooks: &Hooks) -> Result<(), Error> {
    let kinds = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (kind, hooks) in kinds {
        for (position, hook) in hooks.iter().enumerate() {
            if !hook.path.is_absolute() {
                let must = format!("must be absolute, not {}", hook.path.display());
                return Err(Error::configuration(format!("hooks.{kind}[{position}].path"), must));
            }
            if let Some(seconds) = hook.timeout.filter(|seconds| *seconds <= 0) {
                let must = format!("must be above zero, not {seconds}");
                return Err(Error::configuration(format!("hooks.{kind}[{position}].timeout"), must));
            }
        }
    }
    Ok(())
}

/// Runs hooks one after the other; the first failure ends it. Waits for each.
pub fn run(kind: &'static str, hooks: &[Hook], state: &State) -> Result<(), HookError> {
    run_until(kind, hooks, state, None)
}

/// The same, until `abort` has something to say.
pub(crate) fn run_until(
    kind: &'static str,
    hooks: &[Hook],
    state: &State,
    abort: Option<BorrowedFd<'_>>,
) -> Result<(), HookError> {
    hooks.iter().try_for_each(|hook| one(kind, hook, state, abort))
}

/// Runs all hooks, whatever becomes of each, and returns the failures: for poststop, which only warns.
#[must_use]
pub fn run_all(kind: &'static str, hooks: &[Hook], state: &State) -> Vec<HookError> {
    hooks.iter().filter_map(|hook| one(kind, hook, state, None).err()).collect()
}

fn one(kind: &'static str, hook: &Hook, state: &State, abort: Option<BorrowedFd<'_>>) -> Result<(), HookError> {
    let path = &hook.path;
    let failed = |source| HookError::Run { kind, path: path.clone(), source };
    let mut command = Command::new(path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|variable| variable.split_once('=')));
    // What the caller blocks or ignores is its own affair.
    sys::exec::with_default_signals(&mut command);
    let input = input(state).map_err(failed)?;
    let mut child =
        command.stdin(Stdio::from(input)).spawn().context("exec", || path.display().to_string()).map_err(failed)?;
    let stopped = match ends(child.id(), hook.timeout, abort).map_err(failed)? {
        End::Own => None,
        End::Limit(seconds) => Some(HookError::TimedOut { kind, path: path.clone(), seconds }),
        End::Abort => Some(HookError::Interrupted { kind, path: path.clone() }),
    };
    if let Some(error) = stopped {
        // It may have ended in this moment; either way it is waited for.
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    let status = child.wait().context("wait", || path.display().to_string()).map_err(failed)?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(HookError::Ended { kind, path: path.clone(), outcome: format!("exit code {code}") }),
        (None, signal) => {
            let outcome = format!("signal {}", signal.unwrap_or_default());
            Err(HookError::Ended { kind, path: path.clone(), outcome })
        }
    }
}

/// The state as a file. A hook need not read it: a pipe would hold up who writes to it, or end him by SIGPIPE.
fn input(state: &State) -> Result<File, SystemError> {
    let file = rustix::fs::memfd_create("state", MemfdFlags::CLOEXEC).on("memfd_create", "the state for a hook")?;
    let mut file = File::from(file);
    let written = file.write_all(&serde_json::to_vec(state).unwrap_or_default()).and_then(|()| file.rewind());
    written.context("write", || "the state for a hook".to_owned())?;
    Ok(file)
}

/// What ended the wait for a hook.
enum End {
    Own,
    Limit(i64),
    Abort,
}

fn ends(pid: u32, limit: Option<i64>, abort: Option<BorrowedFd<'_>>) -> Result<End, SystemError> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap_or(Pid::INIT);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).on("pidfd_open", "a hook")?;
    let deadline = limit.map(|seconds| Instant::now() + Duration::from_secs(seconds.unsigned_abs()));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut polled = vec![PollFd::new(&pidfd, PollFlags::IN)];
        polled.extend(abort.map(|abort| PollFd::from_borrowed_fd(abort, PollFlags::IN)));
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(0) => {}
            Ok(_) if polled.first().is_some_and(|pidfd| !pidfd.revents().is_empty()) => return Ok(End::Own),
            Ok(_) => return Ok(End::Abort),
            Err(rustix::io::Errno::INTR) => {}
            failed => drop(failed.on("poll", "a hook")?),
        }
        if let (Some(limit), Some(true)) = (limit, left.map(|left| left.is_zero())) {
            return Ok(End::Limit(limit));
        }
    }
}
