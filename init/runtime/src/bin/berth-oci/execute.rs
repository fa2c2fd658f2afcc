//! exec: a further process in a container.

use std::os::fd::AsFd;
use std::path::{Component, PathBuf};

use berth_runtime::spec::{Process, Status, User};
use berth_runtime::{ExecRequest, Stdio};
use rustix::process::{Pid, PidfdFlags};

use crate::arguments::Exec;
use crate::container::{self, Failure, during, parse, status_name};
use crate::lifecycle::{own_stdio, write_pid_file};
use crate::log::Log;
use crate::store::{Record, Store, process_start_time};
use crate::{signals, terminal};

pub fn exec(store: &Store, log: &Log, options: &Exec) -> Result<u8, Failure> {
    let inherited = signals::inherited(options.preserve_fds)?;
    let record = store.load(&options.id)?;
    match store.status(&record) {
        Status::Running | Status::Created => {}
        Status::Paused if options.ignore_paused => {}
        status => return Err(Failure::State { action: "exec in", status: status_name(status) }),
    }
    let process = process(options, &record)?;
    container::warn_of_capabilities(log, &record.spec, &process);
    let pid = Pid::from_raw(record.pid).ok_or(Failure::NotRunning)?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|_| Failure::NotRunning)?;
    // Opened by number: still the container's?
    if process_start_time(record.pid) != Some(record.start_time) {
        return Err(Failure::NotRunning);
    }
    terminal::check(process.terminal, options.detach, options.console_socket.is_some())?;
    signals::block_all();
    let (console, ours) = match (&options.console_socket, process.terminal) {
        (Some(path), true) => (Some(terminal::connect(path)?), None),
        (None, true) => terminal::pair().map(|(theirs, ours)| (Some(theirs), Some(ours)))?,
        (_, false) => (None, None),
    };
    let state = crate::lifecycle::state(&record, store.status(&record));
    let request = ExecRequest {
        pid: record.pid,
        pidfd: pidfd.as_fd(),
        process: &process,
        seccomp: record.spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()),
        container: Some(&state),
        cgroup: cgroup(options, &record)?,
        stdio: if console.is_some() { Stdio::default() } else { own_stdio() },
        inherited: inherited.iter().map(AsFd::as_fd).zip(3..).collect(),
        console: console.as_ref().map(AsFd::as_fd),
    };
    let interruption = signals::interruption()?;
    let created = berth_runtime::exec(&request)?.wait_unless(Some(interruption.as_fd()))?;
    drop(console);
    let proxy = ours.map(|ours| terminal::drive(&ours)).transpose()?;
    let running = created.start()?;
    running.wait_executed_unless(interruption.as_fd())?;
    if let Some(socket) = &options.pidfd_socket {
        terminal::send_pidfd(socket, running.pidfd.as_fd())?;
    }
    write_pid_file(options.pid_file.as_deref(), running.pid)?;
    if options.detach { Ok(0) } else { signals::wait_for(running.pidfd.as_fd(), proxy, None) }
}

/// Where it runs: in the container's cgroup, or one below that somebody has made.
fn cgroup(options: &Exec, record: &Record) -> Result<Option<PathBuf>, Failure> {
    let Some(wanted) = &options.cgroup else { return Ok(record.cgroup.clone()) };
    let below = wanted.strip_prefix("/").unwrap_or(wanted);
    if !below.components().all(|part| matches!(part, Component::Normal(_))) {
        let must = format!("must be below the container's cgroup, not {}", wanted.display());
        return Err(Failure::Option { option: "--cgroup", must });
    }
    Ok(Some(record.cgroup.as_ref().ok_or(Failure::NoCgroup)?.join(below)))
}

/// What runs: from a file, or the container's own process with what the options change.
fn process(options: &Exec, record: &Record) -> Result<Process, Failure> {
    if let Some(path) = &options.process {
        let text = std::fs::read(path).map_err(during("read", path))?;
        return parse(&text, path);
    }
    let nothing = || Process { cwd: "/".to_owned(), ..Process::default() };
    let mut process = record.spec.process.clone().unwrap_or_else(nothing);
    process.args = options.command.clone();
    process.terminal = options.tty;
    process.env.extend(options.env.iter().cloned());
    process.no_new_privileges |= options.no_new_privs;
    if let Some(profile) = &options.apparmor {
        process.apparmor_profile = Some(profile.clone());
    }
    if let Some(label) = &options.process_label {
        process.selinux_label = Some(label.clone());
    }
    if let Some(cwd) = &options.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some(user) = &options.user {
        // As runc has it: what the option does not say stays, the other groups too.
        let (uid, gid) = parse_user(user)?;
        process.user = User { uid, gid: gid.unwrap_or(process.user.gid), ..process.user };
    }
    process.user.additional_gids.extend(&options.additional_gids);
    if !options.cap.is_empty() {
        let sets = process.capabilities.get_or_insert_default();
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(options.cap.iter().map(|name| name.to_ascii_uppercase()));
        }
        // Nothing can be ambient that is not inheritable, and the option gives nothing of that.
        let inheritable = |name: &String| sets.inheritable.contains(name);
        sets.ambient.extend(options.cap.iter().map(|name| name.to_ascii_uppercase()).filter(inheritable));
    }
    Ok(process)
}

fn parse_user(text: &str) -> Result<(u32, Option<u32>), Failure> {
    let wrong = || Failure::Option { option: "--user", must: format!("must be UID[:GID], not {text}") };
    let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
    let gid = gid.map(str::parse).transpose().map_err(|_| wrong())?;
    Ok((uid.parse().map_err(|_| wrong())?, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_numbers() {
        assert_eq!(parse_user("33:44").unwrap(), (33, Some(44)));
        assert_eq!(parse_user("33").unwrap(), (33, None));
        assert!(parse_user("root").is_err() && parse_user("1:x").is_err() && parse_user("").is_err());
    }
}
