//! What is left of PID 1 when its programs crash one after the other: it reaps, it goes down when it is told to, it winds
//! the watchdog up, and a console says what has happened. Containers run on, and system containers get no answers.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use berth_control::message::PowerAction;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::RESUME;
use super::record::{Batch, Key, Record};
use super::resume::Hopeless;
use crate::command_line::CommandLine;
use crate::machine::SIGNALS;
use crate::power_button::PowerButton;
use crate::reactor::{Reactor, Token};
use crate::task::Task;
use crate::watchdog::Watchdog;
use crate::{chain, clock, journal, shutdown, sys};

/// The shell of the console.
const SHELL: &str = "/bin/sh";

/// A shell that ends sooner than this is not started again at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Stays until somebody takes the machine down, or lets PID 1 try again.
pub fn run(hopeless: &Hopeless) -> ! {
    journal::start();
    let shell = allows_shell(&hopeless.entries);
    let mut watchdog = watchdog(&hopeless.entries);
    explain(hopeless, shell, watchdog.as_ref());
    let mask: SigSet = SIGNALS.into_iter().collect();
    if let Err(error) = mask.thread_block() {
        log::error!("block signals: {error}");
    }
    let watched = watch(&mask).inspect_err(|error| log::error!("watch signals and power buttons: {error}"));
    let mut console = shell.then(Console::start);
    loop {
        let signal = match &watched {
            Ok((reactor, signals, buttons)) => next_signal(reactor, signals, buttons, watchdog.as_mut()),
            Err(_) => mask.wait(),
        };
        match signal {
            Ok(Signal::SIGINT | Signal::SIGTERM) => go_down(PowerAction::Reboot, watchdog.as_mut()),
            Ok(Signal::SIGPWR | Signal::SIGUSR2) => go_down(PowerAction::PowerOff, watchdog.as_mut()),
            Ok(Signal::SIGUSR1) => {
                // Or it starts a machine that is to stand still.
                let stopped = watchdog.take().map_or(Ok(()), Watchdog::stop);
                stopped.unwrap_or_else(|error| log::error!("{error}"));
                go_down(PowerAction::Halt, None);
            }
            Ok(Signal::SIGHUP) => {
                log::warn!("trying again, as SIGHUP says");
                log::error!("PID 1 cannot execute itself anew: {}", try_again(hopeless, watchdog.as_ref()));
            }
            Ok(_) => {
                let ended = reap();
                if let Some(console) = console.as_mut().filter(|console| ended.contains(&console.shell)) {
                    console.restart();
                }
            }
            Err(error) => {
                log::error!("wait for signals: {error}");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// What is waited for: signals, and the power buttons.
fn watch(mask: &SigSet) -> nix::Result<(Reactor, SignalFd, Vec<PowerButton>)> {
    let signals = SignalFd::with_flags(mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let (reactor, buttons) = (Reactor::new()?, PowerButton::find());
    reactor.add(&signals, Token::Signals)?;
    buttons.iter().try_for_each(|button| reactor.add(button, Token::PowerButton))?;
    Ok((reactor, signals, buttons))
}

/// The timer that the last program has wound up. Left alone it would reset the machine before anybody can have a look.
fn watchdog(entries: &BTreeMap<Key, Vec<u8>>) -> Option<Watchdog> {
    /// Of what the machine's entry says.
    #[derive(Deserialize)]
    struct Entry {
        machine: Facts,
    }
    #[derive(Deserialize)]
    struct Facts {
        watchdog: Option<Watchdog>,
    }
    let entry = serde_json::from_slice::<Entry>(entries.get(&Key::Machine)?);
    entry.inspect_err(|error| log::error!("take over the watchdog: {error}")).ok()?.machine.watchdog
}

/// The next signal; a power button counts as a failure of power. Winds the watchdog up meanwhile.
fn next_signal(
    reactor: &Reactor,
    signals: &SignalFd,
    buttons: &[PowerButton],
    mut watchdog: Option<&mut Watchdog>,
) -> nix::Result<Signal> {
    loop {
        let now = clock::since_boot();
        let due = watchdog.as_mut().map(|watchdog| {
            // Nobody answers for the API here.
            watchdog.tend(now, false);
            watchdog.due().saturating_sub(now)
        });
        if let Some(information) = signals.read_signal()? {
            return Signal::try_from(i32::try_from(information.ssi_signo).unwrap_or_default());
        }
        // Every button is asked: each must be read, or it stays readable.
        if buttons.iter().filter(|button| button.was_pressed()).count() > 0 {
            return Ok(Signal::SIGPWR);
        }
        reactor.wait(due)?;
    }
}

fn explain(hopeless: &Hopeless, shell: bool, watchdog: Option<&Watchdog>) {
    log::error!("{}: it stays in its minimal mode", hopeless.reason);
    for crash in &hopeless.crashes {
        log::error!("{:.3} s after the kernel's start: {}", crash.noticed.as_secs_f64(), crash.reason);
    }
    log::error!("containers that run go on, but nobody restarts them, and the API does not answer");
    if watchdog.is_some() {
        log::error!("the watchdog is wound up while this waits");
    } else if hopeless.entries.is_empty() {
        log::error!("a watchdog that the last program has started will start the machine again");
    }
    let console = if shell { "here is a shell; " } else { "" };
    log::error!("{console}`kill -HUP 1` lets PID 1 try again, `kill -TERM 1` or Ctrl-Alt-Del starts the machine again");
}

/// Whether the configuration lets a console have a shell. One that cannot be read does not.
fn allows_shell(entries: &BTreeMap<Key, Vec<u8>>) -> bool {
    type Entry = (Option<crate::configuration::Report>, berth_config::Configuration);
    let entry = entries.get(&Key::Configuration).and_then(|json| serde_json::from_slice::<Entry>(json).ok());
    entry.is_some_and(|(_, configuration)| configuration.console.shell)
}

/// Becomes the next program with what the last good one has left, as if nothing had happened since. Returns the reason if
/// that is not possible.
fn try_again(hopeless: &Hopeless, watchdog: Option<&Watchdog>) -> std::io::Error {
    let entries = &hopeless.entries;
    let exec = || -> std::io::Result<std::convert::Infallible> {
        if entries.is_empty() {
            return Err(std::io::Error::other("there is nothing left to go on with; start the machine again"));
        }
        let mut batch = Batch::default();
        entries.iter().for_each(|(key, json)| batch.put_text(*key, json));
        let mut record = Record::new()?;
        record.write(&batch)?;
        // The rest of what the entries name was never taken over, and stays open by itself.
        for descriptor in [Some(record.as_fd()), watchdog.map(AsFd::as_fd)].into_iter().flatten() {
            let kept = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty());
            nix::fcntl::fcntl(descriptor, kept)?;
        }
        let arguments = ["init", RESUME, &record.as_fd().as_raw_fd().to_string()].map(CString::new);
        let arguments: Vec<CString> = arguments.into_iter().flatten().collect();
        Ok(nix::unistd::execv(c"/proc/self/exe", &arguments)?)
    };
    match exec() {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

/// The shell on the console.
struct Console {
    shell: Pid,
    started: Duration,
}

impl Console {
    fn start() -> Self {
        // The system container `console` has the terminal. ENOENT: it does not run.
        let _ = fs::write("/sys/fs/cgroup/system/console/cgroup.kill", "1");
        Self { shell: start_shell(), started: clock::since_boot() }
    }

    fn restart(&mut self) {
        let ran = clock::since_boot().saturating_sub(self.started);
        // There is nothing else to be done meanwhile.
        std::thread::sleep(PAUSE.saturating_sub(ran));
        *self = Self::start();
    }
}

/// Process id 0 if there is none: no child has it.
fn start_shell() -> Pid {
    let started = sys::fork(|| {
        // What the last program has left is not for a shell.
        sys::close_above(2);
        become_shell();
        1
    });
    started.inspect_err(|error| log::error!("start {SHELL}: {error}")).unwrap_or(Pid::from_raw(0))
}

/// Returns only if there is no terminal or no shell, which nobody can be told: the descriptors of the journal are closed.
fn become_shell() {
    let open = || -> std::io::Result<[File; 3]> {
        setsid()?;
        let active = fs::read_to_string("/sys/class/tty/console/active")?;
        // The last one is what the kernel means by /dev/console (Documentation/admin-guide/serial-console.rst).
        let name = active.split_whitespace().next_back().unwrap_or("console");
        let terminal = OpenOptions::new().read(true).write(true).open(format!("/dev/{name}"))?;
        sys::take_terminal(&terminal)?;
        Ok([terminal.try_clone()?, terminal.try_clone()?, terminal])
    };
    if let Ok([input, output, errors]) = open() {
        let mut shell = Command::new(SHELL);
        shell.arg0("-sh").stdin(input).stdout(output).stderr(errors);
        shell.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        let _ = shell.exec();
    }
}

fn reap() -> Vec<Pid> {
    let mut ended = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => ended.push(pid),
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return ended,
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(_) => return ended,
        }
    }
}

fn go_down(action: PowerAction, watchdog: Option<&mut Watchdog>) {
    log::warn!("going down: {}", action.name());
    // Containers are asked as init(8) asks: there is no list of them any more.
    let everybody = Pid::from_raw(-1);
    let _ = nix::sys::signal::kill(everybody, Signal::SIGTERM);
    std::thread::sleep(Duration::from_secs(5));
    let _ = nix::sys::signal::kill(everybody, Signal::SIGKILL);
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let reason = format!("{}, from the minimal mode of PID 1 after its defects", action.name());
    let unmount = move || shutdown::unmount(&CommandLine::parse(&line).slot, &reason);
    match in_time(shutdown::UNMOUNT_TIME, watchdog, unmount) {
        Ok(problems) => problems.iter().for_each(|problem| log::warn!("{problem}")),
        Err(reason) => log::error!("unmount the disks: {reason}"),
    }
    shutdown::end(action);
}

/// Does in a task what may never end. Winds the watchdog up meanwhile.
fn in_time<T>(time: Duration, mut watchdog: Option<&mut Watchdog>, work: impl FnOnce() -> T) -> Result<T, String>
where
    T: Serialize + DeserializeOwned,
{
    let end = clock::since_boot().saturating_add(time);
    let reactor = Reactor::new().map_err(|error| format!("watch a task: {error}"))?;
    let mut task = Task::start(work).map_err(|error| chain(&error))?;
    reactor.add(&task, Token::Task(0)).map_err(|error| format!("watch a task: {error}"))?;
    loop {
        if let Some(result) = task.advance() {
            return result.map_err(|error| chain(&error));
        }
        let now = clock::since_boot();
        let due = watchdog.as_mut().map(|watchdog| {
            watchdog.tend(now, false);
            watchdog.due()
        });
        if now >= end {
            // Who waits for a disk does not hear it.
            let _ = nix::sys::signal::kill(task.pid(), Signal::SIGKILL);
            return Err("they do not answer: what they have not written is lost".to_owned());
        }
        let until = due.map_or(end, |due| due.min(end));
        reactor.wait(Some(until.saturating_sub(now))).map_err(|error| format!("wait for a task: {error}"))?;
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{IntoRawFd, OwnedFd};

    use super::*;

    #[test]
    fn the_watchdog_of_the_last_program_is_wound_up() {
        let (_, theirs) = std::io::pipe().unwrap();
        // As the last program leaves it: open over execve(2), and due long ago.
        let device = nix::unistd::dup(OwnedFd::from(theirs)).unwrap().into_raw_fd();
        let mut left = serde_json::to_value(crate::watchdog::tests::running(File::open("/dev/null").unwrap())).unwrap();
        left["device"] = device.into();
        let machine = serde_json::json!({ "machine": { "watchdog": left, "more": 1 }, "supervisor": 2 });
        let entries = BTreeMap::from([(Key::Machine, serde_json::to_vec(&machine).unwrap())]);
        let mut watchdog = watchdog(&entries).unwrap();
        assert_eq!(watchdog.as_fd().as_raw_fd(), device);

        let reactor = Reactor::new().unwrap();
        let mask: SigSet = [Signal::SIGHUP].into_iter().collect();
        mask.thread_block().unwrap();
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).unwrap();
        nix::sys::signal::raise(Signal::SIGHUP).unwrap();
        assert_eq!(next_signal(&reactor, &signals, &[], Some(&mut watchdog)), Ok(Signal::SIGHUP));
        assert!(watchdog.due() > clock::since_boot(), "it was wound up");
    }

    #[test]
    fn what_never_ends_is_given_up() {
        assert_eq!(in_time(Duration::from_secs(60), None, || 7), Ok(7));
        let (disk, writer) = std::io::pipe().unwrap();
        let stuck = move || std::io::Read::read(&mut &disk, &mut [0]).unwrap_or_default();
        let given_up = in_time(Duration::from_millis(50), None, stuck);
        assert!(given_up.as_ref().is_err_and(|reason| reason.contains("do not answer")), "{given_up:?}");
        drop(writer);
    }
}
