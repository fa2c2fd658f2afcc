//! Hooks: programs that config.json wants to be run at points of the life cycle, with the state on their input.

use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

use crate::error::{Context, SystemError};
use crate::spec::{Hook, State};

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

/// Runs hooks one after the other; the first failure ends it. Waits for each.
pub fn run(kind: &'static str, hooks: &[Hook], state: &State) -> Result<(), HookError> {
    hooks.iter().try_for_each(|hook| one(kind, hook, state))
}

/// Runs all hooks, whatever becomes of each, and returns the failures: for poststop, which only warns.
#[must_use]
pub fn run_all(kind: &'static str, hooks: &[Hook], state: &State) -> Vec<HookError> {
    hooks.iter().filter_map(|hook| one(kind, hook, state).err()).collect()
}

fn one(kind: &'static str, hook: &Hook, state: &State) -> Result<(), HookError> {
    let path = &hook.path;
    let failed = |source| HookError::Run { kind, path: path.clone(), source };
    let mut command = Command::new(path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|variable| variable.split_once('=')));
    let mut child =
        command.stdin(Stdio::piped()).spawn().context("exec", || path.display().to_string()).map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // A hook need not read its state.
        let _ = input.write_all(&serde_json::to_vec(state).unwrap_or_default());
    }
    if let Some(seconds) = hook.timeout
        && !ends_within(child.id(), seconds).map_err(failed)?
    {
        // It may have ended in this moment; either way it is waited for.
        let _ = child.kill();
        let _ = child.wait();
        return Err(HookError::TimedOut { kind, path: path.clone(), seconds });
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

fn ends_within(pid: u32, seconds: i64) -> Result<bool, SystemError> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap_or(Pid::INIT);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).on("pidfd_open", "a hook")?;
    let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
    loop {
        match rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            failed => return failed.map(|_| false).on("poll", "a hook"),
        }
    }
}
