//! From create to removal, and what is left behind.

use std::os::fd::AsFd;

use super::Test;
use crate::container::{Case, end, inheritable, open_descriptors, read};

pub const CASES: &[Test] = &[
    ("a_program_runs_and_its_exit_code_comes_back", a_program_runs_and_its_exit_code_comes_back),
    ("the_same_in_a_user_namespace", the_same_in_a_user_namespace),
    ("a_container_waits_for_its_start", a_container_waits_for_its_start),
    ("nothing_is_left_of_a_container_that_is_dropped", nothing_is_left_of_a_container_that_is_dropped),
    ("the_caller_keeps_no_descriptor", the_caller_keeps_no_descriptor),
    ("the_program_gets_its_descriptors_and_no_others", the_program_gets_its_descriptors_and_no_others),
    ("a_missing_program_is_named_at_create", a_missing_program_is_named_at_create),
    ("a_program_that_cannot_be_executed_is_reported_at_start", a_program_that_cannot_be_executed_is_reported_at_start),
    ("a_failed_create_names_step_path_and_reason", a_failed_create_names_step_path_and_reason),
    ("its_signals_are_not_the_callers", its_signals_are_not_the_callers),
    ("its_network_namespace_can_be_had_before_the_start", its_network_namespace_can_be_had_before_the_start),
    ("a_namespace_is_joined_by_path", a_namespace_is_joined_by_path),
];

fn a_program_runs_and_its_exit_code_comes_back() {
    let outcome = Case::new("echo $$ $(hostname); exit 7").run();
    assert_eq!((outcome.output.as_str(), outcome.code), ("1 berth-test\n", 7));
}

fn the_same_in_a_user_namespace() {
    let outcome = Case::unprivileged("id -u; cat /proc/self/uid_map /proc/self/gid_map; exit 3").run();
    let words: Vec<_> = outcome.output.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536", "0", "100000", "65536"]);
    assert_eq!(outcome.code, 3);
}

fn a_container_waits_for_its_start() {
    let case = Case::new("echo started");
    let (created, reader) = case.create().unwrap();
    let mut polled = [rustix::event::PollFd::new(&reader, rustix::event::PollFlags::IN)];
    let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    assert_eq!(rustix::event::poll(&mut polled, Some(&moment)).unwrap(), 0);
    let procs = std::fs::read_to_string(case.cgroup.join("cgroup.procs")).unwrap();
    assert_eq!(procs.trim(), created.pid().to_string());
    let running = created.start().unwrap();
    assert_eq!(read(reader), "started\n");
    assert_eq!(end(&running), 0);
    case.remove();
}

fn nothing_is_left_of_a_container_that_is_dropped() {
    let case = Case::new("echo started");
    let (created, reader) = case.create().unwrap();
    let pidfd = created.pidfd().try_clone_to_owned().unwrap();
    drop(created);
    assert_eq!(read(reader), "");
    let wait = rustix::process::WaitId::PidFd(pidfd.as_fd());
    rustix::process::waitid(wait, rustix::process::WaitIdOptions::EXITED).unwrap();
    case.remove();
}

fn the_caller_keeps_no_descriptor() {
    let before = open_descriptors();
    for _ in 0..3 {
        Case::unprivileged("true").run();
        Case::new("/no/such/program").run();
        let mut case = Case::new("true");
        case.process().args = vec!["no-such-program".into()];
        case.fails();
    }
    assert_eq!(open_descriptors(), before);
}

fn the_program_gets_its_descriptors_and_no_others() {
    let directory = std::fs::File::open("/").unwrap();
    let careless: Vec<_> = (0..20).map(|_| inheritable(&directory)).collect();
    for mut case in [Case::new("ls /proc/self/fd; cat <&7"), Case::unprivileged("ls /proc/self/fd; cat <&7")] {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writer, b"through seven").unwrap();
        drop(writer);
        case.inherited.push((reader, 7));
        let output = case.run().output;
        // ls has one of its own for the directory.
        let words: Vec<_> = output.split_whitespace().collect();
        assert_eq!(words, ["0", "1", "2", "3", "7", "through", "seven"]);
    }
    drop(careless);
}

fn a_missing_program_is_named_at_create() {
    let mut case = Case::new("");
    case.process().args = vec!["no-such-program".into()];
    let text = case.fails();
    assert_eq!(text, "exec no-such-program: executable file not found in $PATH: no such file or directory");
    case.process().args = vec!["/no/such/program".into()];
    assert_eq!(case.fails(), "exec /no/such/program: no such file or directory");
}

fn a_program_that_cannot_be_executed_is_reported_at_start() {
    let mut case = Case::new("");
    std::fs::write(case.root().join("text"), "neither script nor program").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(case.root().join("text"), mode).unwrap();
    case.process().args = vec!["/text".into()];
    let (created, _reader) = case.create().unwrap();
    let running = created.start().unwrap();
    let error = running.wait_executed().unwrap_err();
    assert_eq!(crate::container::chain(&error), "exec /text: exec format error");
    assert_eq!(end(&running), 1);
    case.remove();
}

fn a_failed_create_names_step_path_and_reason() {
    for mut case in [Case::new("true"), Case::unprivileged("true")] {
        case.bind("/no/such/source".as_ref(), "/data", &["bind"]);
        let text = case.fails();
        let expected =
            "prepare mounts: mount /no/such/source on /data: open_tree /no/such/source: no such file or directory";
        assert_eq!(text, expected);
    }
}

fn its_signals_are_not_the_callers() {
    let outcome = Case::new("grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status").run();
    let values: Vec<_> = outcome.output.split_whitespace().filter(|word| word.len() == 16).collect();
    assert_eq!(values.iter().take(2).copied().collect::<Vec<_>>(), ["0000000000000000"; 2]);
}

fn its_network_namespace_can_be_had_before_the_start() {
    let case = Case::unprivileged("readlink /proc/self/ns/net");
    let (created, reader) = case.create().unwrap();
    let namespace = created.network_namespace().unwrap();
    let inode = rustix::fs::fstat(namespace).unwrap().st_ino;
    let running = created.start().unwrap();
    assert_eq!(read(reader).trim(), format!("net:[{inode}]"));
    end(&running);
    case.remove();
}

fn a_namespace_is_joined_by_path() {
    use berth_runtime::spec::NamespaceKind;
    let first = Case::unprivileged("true");
    let (created, _reader) = first.create().unwrap();
    let mut second = Case::unprivileged("readlink /proc/self/ns/net /proc/self/ns/user; id -u");
    let mut expected = String::new();
    for (kind, name) in [(NamespaceKind::Network, "net"), (NamespaceKind::User, "user")] {
        let path = format!("/proc/{}/ns/{name}", created.pid());
        expected += &format!("{}\n", std::fs::read_link(&path).unwrap().display());
        let namespaces = &mut second.linux().namespaces;
        namespaces.iter_mut().find(|namespace| namespace.kind == kind).unwrap().path = Some(path.into());
    }
    second.linux().uid_mappings.clear();
    second.linux().gid_mappings.clear();
    assert_eq!(second.run().output, expected + "0\n");
    let running = created.start().unwrap();
    end(&running);
    first.remove();
}
