//! Keeps a login shell on each console. A thread a console: starts the session, waits for its end, starts it again.
//!
//! ```text
//! usable? ──no──► left alone
//!   │yes
//! allowed? ──no──► waits until it is
//!   │yes
//! banner, session ──ended──► at once, or after a pause if it lived for less than SETTLED
//! ```

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::banner;
use crate::consoles::Console;

/// A shell that lived this long was one that somebody used.
const SETTLED: Duration = Duration::from_secs(3);

/// The first pause after a shell that did not; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often a shell may fail in a row before its console is left alone: a dead line, four minutes of it.
const ATTEMPTS: u32 = 12;

/// What PID 1 says of the configuration in force, and, before it has read one, the last one without mistakes; they are there
/// before the control API is.
const CONFIGURATIONS: [&str; 2] = ["/run/berth/console.toml", "/var/lib/berth/configuration/last-good.toml"];

/// The shells of all consoles.
#[derive(Debug)]
pub struct Shells {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner {
    allowed: bool,
    sessions: Vec<u32>,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shells {
    /// Starts a keeper for each.
    pub fn start(consoles: &[Arc<Console>]) -> Self {
        let inner = Mutex::new(Inner { allowed: configured(), sessions: Vec::new() });
        let state = Arc::new(State { inner, changed: Condvar::new() });
        for console in consoles {
            let (console, keeper) = (Arc::clone(console), Arc::clone(&state));
            let name = console.path.display().to_string();
            if let Err(error) = std::thread::Builder::new().name(name).spawn(move || keep(&console, &keeper)) {
                eprintln!("berth-console: start a keeper: {error}");
            }
        }
        Self { state }
    }

    /// Reads again whether shells are allowed, and ends those that are not any more.
    pub fn follow_configuration(&self) {
        let mut inner = self.state.lock();
        inner.allowed = configured();
        if !inner.allowed {
            for session in &inner.sessions {
                // The leader's end hangs the terminal up for the rest of the session (setsid(2)). It may have just
                // ended by itself.
                let _ = kill(Pid::from_raw(i32::try_from(*session).unwrap_or(i32::MAX)), Signal::SIGKILL);
            }
        }
        self.state.changed.notify_all();
    }
}

/// Whether the configuration in force allows shells. One that is not there or cannot be read does not forbid them: that
/// is when a shell is needed.
fn configured() -> bool {
    allowed_by(&CONFIGURATIONS)
}

/// The first of them that is there decides.
fn allowed_by(paths: &[&str]) -> bool {
    let Some((path, text)) = paths.iter().find_map(|path| Some((*path, std::fs::read(path).ok()?))) else {
        return true;
    };
    match berth_config::load(&[berth_config::Source::new(path, text)]) {
        Ok(loaded) => loaded.configuration.console.shell,
        Err(_) => true,
    }
}

fn keep(console: &Console, state: &State) {
    let mut failures = 0;
    while console.is_usable() && failures < ATTEMPTS {
        banner::show(console);
        let started = Instant::now();
        if let Some(mut session) = start_when_allowed(console, state) {
            let number = session.id();
            // Fails only for a process that is not a child, which it is.
            let _ = session.wait();
            state.lock().sessions.retain(|other| *other != number);
        }
        if started.elapsed() >= SETTLED {
            failures = 0;
            continue;
        }
        std::thread::sleep(pause(failures));
        failures += 1;
    }
    eprintln!("berth-console: {} is left alone: it is no terminal, or no shell stays on it", console.path.display());
}

/// Waits until shells are allowed; `None` if it could not be started.
fn start_when_allowed(console: &Console, state: &State) -> Option<Child> {
    let mut inner = state.lock();
    while !inner.allowed {
        inner = state.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
    }
    // By the name in /proc, which is right whatever the program is called and wherever it lies.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("berth-console").arg(crate::SESSION).arg(&console.path);
    match command.spawn() {
        Ok(session) => {
            inner.sessions.push(session.id());
            Some(session)
        }
        Err(error) => {
            eprintln!("berth-console: start a session on {}: {error}", console.path.display());
            None
        }
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_force_decides_before_what_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (now, before) = (path("console.toml"), path("last-good.toml"));
        let allowed = || allowed_by(&[&now, &before]);
        assert!(allowed());
        std::fs::write(&before, "console = { shell = false }").unwrap();
        assert!(!allowed());
        std::fs::write(&now, "").unwrap();
        assert!(allowed());
        std::fs::write(&now, "console = { shell = false }").unwrap();
        assert!(!allowed());
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        assert_eq!(pause(0), Duration::from_millis(500));
        assert_eq!(pause(1), Duration::from_secs(1));
        assert_eq!(pause(60), LONGEST_PAUSE);
    }
}
