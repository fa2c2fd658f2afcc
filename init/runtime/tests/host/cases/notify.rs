//! SCMP_ACT_NOTIFY: an agent of the test's answers for the kernel.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use berth_runtime::spec::{ContainerProcessState, Seccomp, Status};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::Test;
use crate::container::{Case, end, read};

pub const CASES: &[Test] = &[
    ("an_agent_answers_for_the_kernel", an_agent_answers_for_the_kernel),
    ("an_agent_is_told_of_a_further_process", an_agent_is_told_of_a_further_process),
    ("an_agent_that_is_not_there_is_named", an_agent_that_is_not_there_is_named),
];

/// `struct seccomp_notif` of linux/seccomp.h.
#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    architecture: u32,
    instruction: u64,
    arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// A profile that asks about making directories.
fn profile(case: &Case) -> (Seccomp, UnixListener) {
    let path = case.directory.path().join("agent.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let text = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
        "listenerPath": path,
        "listenerMetadata": "for the agent",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }],
    });
    (serde_json::from_value(text).unwrap(), socket)
}

/// What the runtime sends over one connection, until it closes it.
fn told(socket: &UnixListener) -> (ContainerProcessState, OwnedFd) {
    let (connection, _) = socket.accept().unwrap();
    let mut text = Vec::new();
    let mut listener = None;
    loop {
        let mut buffer = [0; 16];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [std::io::IoSliceMut::new(&mut buffer)];
        let length = rustix::net::recvmsg(&connection, parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                assert!(text.is_empty(), "descriptors come with the first bytes");
                for descriptor in rights {
                    assert!(listener.replace(descriptor).is_none());
                }
            }
        }
        if length == 0 {
            return (serde_json::from_slice(&text).unwrap(), listener.unwrap());
        }
        text.extend_from_slice(&buffer[..length]);
    }
}

/// Answers one call with an error number; says whose it was.
fn answer(listener: &OwnedFd, error: i32) -> u32 {
    const RECEIVE: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
    const SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;
    let mut notification = Notification::default();
    // SAFETY: SECCOMP_IOCTL_NOTIF_RECV writes one notification, zeroed before as it must be, in the kernel's layout.
    assert_eq!(unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut notification) }, 0);
    let answer = Answer { id: notification.id, value: 0, error: -error, flags: 0 };
    // SAFETY: SECCOMP_IOCTL_NOTIF_SEND reads one answer in the kernel's layout.
    assert_eq!(unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const answer) }, 0);
    notification.pid
}

fn an_agent_answers_for_the_kernel() {
    for no_new_privileges in [false, true] {
        for mut case in [Case::new("mkdir /made; ls -d /made"), Case::unprivileged("mkdir /made; ls -d /made")] {
            let (profile, socket) = profile(&case);
            case.linux().seccomp = Some(profile);
            case.process().no_new_privileges = no_new_privileges;
            case.spec.annotations = [("key".to_owned(), "value".to_owned())].into();
            let (created, reader) = case.create().unwrap_or_else(|error| panic!("{}", crate::container::chain(&error)));
            let running = created.start().unwrap();
            let (state, listener) = told(&socket);
            assert_eq!((state.fds, state.pid), (vec!["seccompFd".to_owned()], running.pid));
            assert_eq!(state.metadata.as_deref(), Some("for the agent"));
            let status = if no_new_privileges { Status::Created } else { Status::Creating };
            assert_eq!((state.state.status, state.state.pid, state.state.id.as_str()), (status, running.pid, "test"));
            assert_eq!(state.state.annotations.get("key").unwrap(), "value");
            answer(&listener, libc::EDOM);
            let output = read(reader);
            assert!(output.contains("Numerical argument out of domain") && output.contains("No such file"), "{output}");
            end(&running);
            case.remove();
        }
    }
}

fn an_agent_is_told_of_a_further_process() {
    let mut case = Case::new("exec sleep 100");
    let (profile, socket) = profile(&case);
    case.linux().seccomp = Some(profile);
    let (created, _reader) = case.create().unwrap();
    let running = created.start().unwrap();
    told(&socket);
    let mut process = case.spec.process.clone().unwrap();
    process.args = vec!["/bin/true".into()];
    assert_eq!(case.exec((running.pid, running.pidfd.as_fd()), &process).unwrap().code, 0);
    let (state, _) = told(&socket);
    assert!(state.pid > 0 && state.pid != running.pid, "{state:?}");
    assert_eq!((state.state.status, state.state.pid), (Status::Running, running.pid));
    running.signal(libc::SIGKILL).unwrap();
    end(&running);
    case.remove();
}

fn an_agent_that_is_not_there_is_named() {
    let mut case = Case::new("true");
    let (profile, socket) = profile(&case);
    drop(socket);
    case.linux().seccomp = Some(profile);
    let text = case.fails();
    assert!(text.contains("reach linux.seccomp.listenerPath: connect") && text.contains("refused"), "{text}");
}
