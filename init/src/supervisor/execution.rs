//! Further programs in running containers: what `berth exec` and health checks run.
//!
//! An execution belongs to nobody but PID 1: it goes on when `control` is killed, and ends with its container, in whose
//! cgroup it is.

mod limit;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_config::Account;
use berth_control::message::{self, ExecutionEnd};
use berth_runtime::handover::Descriptor;
use berth_runtime::spec::{Process, Spec, User};
use berth_runtime::{Chain, Creating, ExecRequest, Executed, Progress, Running, Stdio};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};
use serde::{Deserialize, Serialize};

use super::container::{Container, Definition, State};
use super::interaction::with_terminal;
use super::requests::unknown;
use super::session::NOT_SET_UP;
use super::{Supervisor, account, system_spec, user_spec};
use crate::reactor::Token;
use crate::task::Task;

/// A program that was started in a container.
#[derive(Debug, Serialize, Deserialize)]
pub struct Execution {
    stage: Stage,
    /// A client's pipe for the [`ExecutionEnd`], until that is told; a health check has none.
    result: Option<Descriptor>,
    /// Its client is told when it has begun and not how it ends.
    #[serde(default)]
    detached: bool,
}

/// How far it is.
#[derive(Debug, Serialize, Deserialize)]
enum Stage {
    /// Who it runs as is looked up.
    Naming(Box<Naming>),
    /// The runtime sets it up; `None` only while it is being asked.
    Creating(Option<Creating>),
    /// It has been told to begin. Whether it could be run is in its report.
    Started(Running),
}

/// A program of which it is not known yet who it runs as.
#[derive(Debug, Serialize, Deserialize)]
struct Naming {
    task: Task<Result<Account, String>>,
    wanted: message::Execution,
    /// As they came with the request, without the pipe.
    streams: Vec<Descriptor>,
}

impl Execution {
    /// Readable when [`Supervisor::execution_reports`] has something to do.
    pub(super) fn report(&self) -> Option<BorrowedFd<'_>> {
        match &self.stage {
            Stage::Naming(naming) => Some(naming.task.as_fd()),
            Stage::Creating(creating) => creating.as_ref().map(AsFd::as_fd),
            Stage::Started(running) => Some(running.report()),
        }
    }

    pub(super) fn pid(&self) -> Option<i32> {
        match &self.stage {
            Stage::Naming(_) | Stage::Creating(_) => None,
            Stage::Started(running) => Some(running.pid),
        }
    }

    fn tell(&mut self, end: &ExecutionEnd) {
        let Some(result) = self.result.take() else { return };
        let mut line = serde_json::to_vec(end).unwrap_or_default();
        line.push(b'\n');
        // A client that has gone does not want to know.
        let _ = nix::unistd::write(&result, &line);
    }

    /// Tells a client that waits for no more than that.
    fn has_begun(&mut self) {
        if self.detached {
            self.tell(&ExecutionEnd { exit_code: 0, reason: String::new() });
        }
    }
}

impl Supervisor {
    /// Starts a program in a running container. For the descriptors see [`message::Request::Execute`].
    pub(super) fn execute(&mut self, wanted: &message::Execution, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        let (streams, result) = take_apart(descriptors, wanted.terminal.is_some())?;
        let stage = match &wanted.user {
            Some(user) => {
                let (container, running) = self.running(&wanted.container)?;
                let more = container.user().map(|user| user.group_add.clone()).unwrap_or_default();
                let task = account::look_up(user.clone(), more, running.pid)?;
                Stage::Naming(Box::new(Naming { task, wanted: wanted.clone(), streams }))
            }
            None => self.create_on(wanted, None, &streams)?,
        };
        self.add_execution(Execution { stage, result: Some(result), detached: wanted.detached }).map(drop)
    }

    /// Starts the program of a health check, whose end is told to [`Supervisor::check_ended`] under the number.
    pub(super) fn execute_for_check(
        &mut self,
        wanted: &message::Execution,
        [stdin, stdout, stderr]: [Option<BorrowedFd<'_>>; 3],
    ) -> Result<u32, String> {
        let creating = self.create_execution(wanted, None, Stdio { stdin, stdout, stderr }, None)?;
        self.add_execution(Execution { stage: Stage::Creating(Some(creating)), result: None, detached: false })
    }

    /// Ends the program of a health check; nobody waits for it any more.
    pub(super) fn give_up_execution(&mut self, number: u32) {
        // One that is still set up ends when its gate is closed. Nobody looks its user up: that is the container's own.
        let Some(execution) = self.executions.remove(number) else { return };
        if let Stage::Started(running) = &execution.stage {
            self.reactor.remove(running.report());
            running.kill_group();
        }
    }

    fn add_execution(&mut self, execution: Execution) -> Result<u32, String> {
        self.has_room_for_execution(execution.is_client_s())?;
        let number = self.executions.next();
        let watched = execution.report().map(|report| self.reactor.add(report, Token::Execution(number)));
        watched.transpose().map_err(|error| format!("watch it: {error}"))?;
        Ok(self.executions.add(execution))
    }

    /// The container, which must be able to run a further program, and its first process.
    fn running(&self, name: &str) -> Result<(&Container, &Running), String> {
        let container = self.find(name).ok_or_else(|| unknown(name))?;
        let State::Running(running) = &container.state else {
            return Err(format!(
                "container {name} is not running; `berth start {name}` starts it, `berth why {name}` says why it does not"
            ));
        };
        if container.frozen {
            return Err(format!("container {name} is paused; `berth unpause {name}` lets it go on"));
        }
        Ok((container, running))
    }

    fn create_on(
        &self,
        wanted: &message::Execution,
        account: Option<&Account>,
        streams: &[Descriptor],
    ) -> Result<Stage, String> {
        let stream = |position: usize| streams.get(position).map(AsFd::as_fd);
        let (stdio, console) = match wanted.terminal {
            Some(_) => (Stdio::default(), stream(0)),
            None => (Stdio { stdin: stream(0), stdout: stream(1), stderr: stream(2) }, None),
        };
        Ok(Stage::Creating(Some(self.create_execution(wanted, account, stdio, console)?)))
    }

    fn create_execution(
        &self,
        wanted: &message::Execution,
        account: Option<&Account>,
        stdio: Stdio<'_>,
        console: Option<BorrowedFd<'_>>,
    ) -> Result<Creating, String> {
        let (container, running) = self.running(&wanted.container)?;
        let spec = specification(container)?;
        let process = process(&spec, wanted, account)?;
        berth_runtime::exec(&ExecRequest {
            pid: running.pid,
            pidfd: running.pidfd.as_fd(),
            process: &process,
            seccomp: spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()),
            // No profile of ours asks anybody.
            container: None,
            cgroup: Some(container.cgroup.clone()),
            stdio,
            inherited: Vec::<(BorrowedFd<'_>, i32)>::new(),
            console,
        })
        .map_err(|error| crate::chain(&error))
    }

    /// Who an execution runs as is known now, or not.
    fn named(&mut self, number: u32) {
        let Some(Execution { stage: Stage::Naming(naming), .. }) = self.executions.get_mut(number) else { return };
        let Some(found) = naming.task.advance() else { return };
        self.reactor.remove(&naming.task);
        let (wanted, streams) = (naming.wanted.clone(), std::mem::take(&mut naming.streams));
        let account = found.unwrap_or_else(|error| Err(crate::chain(&error)));
        let stage = account.and_then(|account| self.create_on(&wanted, Some(&account), &streams));
        let stage = stage.and_then(|stage| {
            let next = Execution { stage, result: None, detached: false };
            let watched = next.report().map(|report| self.reactor.add(report, Token::Execution(number)));
            watched.transpose().map_err(|error| format!("watch it: {error}"))?;
            Ok(next.stage)
        });
        match (stage, self.executions.get_mut(number)) {
            (Ok(stage), Some(execution)) => execution.stage = stage,
            (Err(reason), _) => self.finish_execution(number, ExecutionEnd { exit_code: NOT_SET_UP, reason }),
            (Ok(_), None) => {}
        }
    }

    /// The runtime reports about an execution that is being set up.
    pub fn execution_reports(&mut self, number: u32) {
        let Some(execution) = self.executions.get_mut(number) else { return };
        match &mut execution.stage {
            Stage::Naming(_) => self.named(number),
            Stage::Creating(creating) => {
                let Some(asked) = creating.take() else { return };
                match asked.advance() {
                    Ok(Progress::Pending(still)) => *creating = Some(still),
                    Ok(Progress::Created(created)) => match created.start() {
                        Ok(running) => {
                            // It is reaped in any case; unwatched, a failure would only be told later.
                            let _ = self.reactor.add(running.report(), Token::Execution(number));
                            execution.stage = Stage::Started(running);
                            self.execution_reports(number);
                        }
                        Err(error) => self.finish_execution(number, could_not_run(&error)),
                    },
                    Err(error) => self.finish_execution(number, could_not_run(&error)),
                }
            }
            Stage::Started(running) => match running.executed() {
                Executed::Pending => {}
                Executed::Yes => {
                    self.reactor.remove(running.report());
                    execution.has_begun();
                }
                Executed::No(error) => self.finish_execution(number, could_not_run(&error)),
            },
        }
    }

    /// A child has ended that is no container's first process; it may be an execution.
    pub(super) fn execution_ended(&mut self, pid: i32, exit_code: i32) {
        let number =
            self.executions.iter().find(|(_, execution)| execution.pid() == Some(pid)).map(|(number, _)| *number);
        let Some(number) = number else { return };
        // Whether it could be run may still be in the report; that says more than the exit code.
        self.execution_reports(number);
        let exit_code = u8::try_from(exit_code).unwrap_or(u8::MAX);
        self.finish_execution(number, ExecutionEnd { exit_code, reason: String::new() });
    }

    fn finish_execution(&mut self, number: u32, end: ExecutionEnd) {
        let Some(mut execution) = self.executions.remove(number) else { return };
        if let Stage::Started(running) = &execution.stage {
            self.reactor.remove(running.report());
        }
        match end.reason.is_empty() {
            _ if !execution.is_client_s() => self.check_ended(number, &end),
            // It may end before its launcher has run, and with that the report.
            true if execution.detached => execution.has_begun(),
            _ => execution.tell(&end),
        }
    }
}

/// The streams, and the pipe for the result.
fn take_apart(mut descriptors: Vec<OwnedFd>, terminal: bool) -> Result<(Vec<Descriptor>, Descriptor), String> {
    let wanted = if terminal { 2 } else { 4 };
    if descriptors.len() != wanted {
        return Err(format!("an execution comes with {wanted} descriptors, not {}", descriptors.len()));
    }
    let result = descriptors.pop().ok_or("an execution comes with a pipe")?;
    // What PID 1 writes to must not make it wait: an empty pipe has room for the line, other files may have none.
    let is_pipe = fstat(&result).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode).contains(SFlag::S_IFIFO));
    let nonblocking = fcntl(&result, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_ok();
    if !is_pipe || !nonblocking {
        return Err("the last descriptor of an execution must be a pipe".to_owned());
    }
    Ok((descriptors.into_iter().map(Into::into).collect(), result.into()))
}

/// What the container is started with.
pub(super) fn specification(container: &Container) -> Result<Spec, String> {
    let mut spec = match &container.definition {
        Definition::System(system) => system_spec::build(system)?,
        Definition::User(user) => {
            let image = container.image.as_ref().ok_or("the engine has not prepared it")?;
            user_spec::build(&container.name, user, image, container.place())?
        }
    };
    if let Some(process) = spec.process.as_mut() {
        berth_runtime::keep_within_reach(process);
    }
    Ok(spec)
}

/// The container's own process, changed as wanted, as this user if another one is.
fn process(spec: &Spec, wanted: &message::Execution, account: Option<&Account>) -> Result<Process, String> {
    let mut process = spec.process.clone().ok_or("the container has no process")?;
    process.args.clone_from(&wanted.arguments);
    // Its own channel is not for another program.
    process.env.retain(|variable| !variable.starts_with(berth_control::channel::CHANNEL_VARIABLE));
    if let Some(account) = account {
        process.env.retain(|variable| !variable.starts_with("HOME="));
        process.env.push(format!("HOME={}", account.home));
    }
    process.env.extend(wanted.environment.iter().cloned());
    if let Some(directory) = &wanted.working_directory {
        process.cwd.clone_from(directory);
    }
    if let Some(account) = account {
        if spec.linux.as_ref().is_some_and(|linux| !linux.uid_mappings.is_empty()) {
            account.stays_within_range().map_err(|error| error.to_string())?;
        }
        let Account { uid, gid, additional_gids, .. } = account.clone();
        process.user = User { uid, gid, umask: process.user.umask, additional_gids };
        if let Some(sets) = process.capabilities.as_mut() {
            let effective = if uid == 0 { sets.bounding.clone() } else { Vec::new() };
            sets.permitted.clone_from(&effective);
            sets.effective = effective;
        }
    }
    if let Some(size) = wanted.terminal {
        with_terminal(&mut process, Some(size));
    }
    Ok(process)
}

/// With the exit codes of shells (POSIX, Shell Command Language, 2.8.2).
pub(super) fn could_not_run(error: &berth_runtime::Error) -> ExecutionEnd {
    let errno = Chain::of(error).errno;
    let exit_code = if Errno::from_raw(errno) == Errno::ENOENT { 127 } else { 126 };
    ExecutionEnd { exit_code, reason: crate::chain(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_runtime::spec::{Capabilities, ConsoleSize, IdMapping, Linux};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use nix::unistd::{dup, pipe};
    use std::fs::File;
    use std::os::fd::IntoRawFd;

    fn spec() -> Spec {
        let all = vec!["CAP_CHOWN".to_owned(), "CAP_KILL".to_owned()];
        let process = Process {
            args: vec!["server".into()],
            env: vec!["A=1".into(), "BERTH_CHANNEL=3".into()],
            cwd: "/srv".into(),
            user: User { uid: 33, gid: 33, umask: None, additional_gids: vec![4] },
            capabilities: Some(Capabilities { bounding: all, ..Capabilities::default() }),
            ..Process::default()
        };
        Spec { process: Some(process), ..Spec::default() }
    }

    fn wanted() -> message::Execution {
        message::Execution { container: "web".into(), arguments: vec!["id".into()], ..message::Execution::default() }
    }

    #[test]
    fn what_is_left_out_is_the_containers_own_but_its_channel() {
        let process = process(&spec(), &wanted(), None).unwrap();
        assert_eq!((process.args, process.env), (vec!["id".to_owned()], vec!["A=1".to_owned()]));
        assert_eq!((process.cwd.as_str(), process.user.uid, process.terminal), ("/srv", 33, false));
        assert_eq!(process.user.additional_gids, [4]);
    }

    #[test]
    fn a_user_that_the_container_has_not_is_refused() {
        let account = Account { uid: 100_000, gid: 7, additional_gids: vec![7], home: "/".into() };
        let linux = Some(Linux { uid_mappings: vec![IdMapping::default()], ..Linux::default() });
        let refused = process(&Spec { linux, ..spec() }, &wanted(), Some(&account));
        assert!(refused.unwrap_err().contains("user 100000 is above 65535"));
    }

    #[test]
    fn another_user_has_groups_and_a_home_of_its_own_and_only_root_has_capabilities() {
        let of = |uid| {
            let account = Account { uid, gid: 7, additional_gids: vec![8], home: "/srv/web".into() };
            process(&spec(), &wanted(), Some(&account)).unwrap()
        };
        let (other, root) = (of(1000), of(0));
        assert_eq!((other.user.uid, other.user.gid, other.user.additional_gids), (1000, 7, vec![8]));
        assert_eq!(other.env.last().unwrap(), "HOME=/srv/web");
        assert_eq!(other.capabilities.unwrap().effective, [""; 0]);
        assert_eq!(root.capabilities.unwrap().effective, ["CAP_CHOWN", "CAP_KILL"]);
    }

    #[test]
    fn a_terminal_has_its_size_and_a_kind() {
        let terminal = Some(message::TerminalSize { rows: 50, columns: 132 });
        let process = process(&spec(), &message::Execution { terminal, ..wanted() }, None).unwrap();
        assert_eq!(process.console_size, Some(ConsoleSize { height: 50, width: 132 }));
        assert!(process.terminal && process.env.contains(&"TERM=xterm".to_owned()));
    }

    #[test]
    fn the_last_descriptor_is_a_pipe_and_does_not_block() {
        let file = || OwnedFd::from(File::open("/dev/null").unwrap());
        let (_reader, writer) = pipe().unwrap();
        let (streams, result) = take_apart(vec![file(), file(), file(), writer], false).unwrap();
        assert_eq!(streams.len(), 3);
        let flags = OFlag::from_bits_truncate(fcntl(&result, FcntlArg::F_GETFL).unwrap());
        assert!(flags.contains(OFlag::O_NONBLOCK));
        assert!(take_apart(vec![file(), file(), file(), file()], false).unwrap_err().contains("a pipe"));
        assert!(take_apart(vec![file()], false).unwrap_err().contains("4 descriptors, not 1"));
    }

    /// A detached program whose report and result are these.
    fn detached(report: OwnedFd, result: OwnedFd) -> Execution {
        // As they come from the last program: not closed on exec.
        let [pidfd, report] =
            [File::open("/dev/null").unwrap().into(), report].map(|it: OwnedFd| dup(it).unwrap().into_raw_fd());
        let running = format!("{{\"pid\":77,\"pidfd\":{pidfd},\"report\":{report}}}");
        let stage = Stage::Started(serde_json::from_str(&running).unwrap());
        Execution { stage, result: Some(result.into()), detached: true }
    }

    #[test]
    fn the_client_of_a_detached_program_hears_when_it_has_begun() {
        let mut supervisor = super::super::world::supervisor();
        for ends_first in [false, true] {
            let (told, result) = std::io::pipe().unwrap();
            fcntl(&told, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
            let flags = SockFlag::SOCK_NONBLOCK;
            let (report, launcher) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
            let number = supervisor.executions.add(detached(report, result.into()));
            supervisor.execution_reports(number);
            if ends_first {
                supervisor.execution_ended(77, 7);
            }
            drop(launcher);
            supervisor.execution_reports(number);
            assert_eq!(std::io::read_to_string(told).unwrap(), "{\"exit_code\":0,\"reason\":\"\"}\n");
            assert_eq!(supervisor.executions.count(), usize::from(!ends_first), "it still counts for its client");
            supervisor.execution_ended(77, 7);
            assert_eq!(supervisor.executions.count(), 0);
        }
    }

    #[test]
    fn exit_codes_are_those_of_shells() {
        let code = |errno| {
            let chain = Chain { texts: vec!["exec".into()], errno };
            could_not_run(&berth_runtime::Error::Reported(chain)).exit_code
        };
        assert_eq!((code(nix::libc::ENOENT), code(nix::libc::EACCES), code(0)), (127, 126, 126));
    }
}
