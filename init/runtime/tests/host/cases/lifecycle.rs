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
    (
        "without_a_process_there_is_a_container_that_does_not_start",
        without_a_process_there_is_a_container_that_does_not_start,
    ),
    ("a_pipe_in_the_place_of_passwd_holds_nobody_up", a_pipe_in_the_place_of_passwd_holds_nobody_up),
    ("a_failed_create_names_step_path_and_reason", a_failed_create_names_step_path_and_reason),
    ("its_signals_are_not_the_callers", its_signals_are_not_the_callers),
    ("its_network_namespace_can_be_had_before_the_start", its_network_namespace_can_be_had_before_the_start),
    ("a_namespace_is_joined_by_path", a_namespace_is_joined_by_path),
    ("a_process_joins_a_running_container", a_process_joins_a_running_container),
    ("what_cannot_be_executed_in_a_container_is_named", what_cannot_be_executed_in_a_container_is_named),
    ("hooks_run_in_their_order_and_places", hooks_run_in_their_order_and_places),
    ("a_failing_hook_undoes_the_create", a_failing_hook_undoes_the_create),
    ("clocks_are_set_off", clocks_are_set_off),
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

/// The home directory is looked up in the image's file; a pipe that nobody writes to says nothing.
fn a_pipe_in_the_place_of_passwd_holds_nobody_up() {
    let case = Case::new("echo $HOME");
    std::fs::create_dir(case.root().join("etc")).unwrap();
    let path = case.root().join("etc/passwd");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert_eq!(case.run().output, "/\n");
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

fn without_a_process_there_is_a_container_that_does_not_start() {
    for mut case in [Case::new(""), Case::unprivileged("")] {
        case.spec.process = None;
        let (created, _reader) = case.create().unwrap();
        let running = created.start().unwrap();
        let error = running.wait_executed().unwrap_err();
        assert_eq!(crate::container::chain(&error), "invalid configuration: process is needed to start a container");
        assert_eq!(end(&running), 1);
        case.remove();
    }
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

fn a_process_joins_a_running_container() {
    for mut case in [Case::new("exec sleep 100"), Case::unprivileged("exec sleep 100")] {
        case.process().capabilities.as_mut().unwrap().bounding.truncate(2);
        let (created, _reader) = case.create().unwrap();
        let running = created.start().unwrap();
        running.wait_executed().unwrap();
        let mut process = case.spec.process.clone().unwrap();
        let script = "
            for kind in pid net mnt ipc uts cgroup user; do readlink /proc/self/ns/$kind; done
            hostname; id -u; ls /proc/self/fd | wc -l; grep CapBnd /proc/self/status; tail -n 1 /proc/self/cgroup; pwd; exit 5";
        process.args = vec!["sh".into(), "-c".into(), script.into()];
        process.cwd = "/usr".into();
        process.user.uid = 33;
        let outcome = case.exec((running.pid, running.pidfd.as_fd()), &process).unwrap();
        let kinds = ["pid", "net", "mnt", "ipc", "uts", "cgroup", "user"];
        let links = kinds.map(|kind| std::fs::read_link(format!("/proc/{}/ns/{kind}", running.pid)).unwrap());
        let links: String = links.iter().map(|link| format!("{}\n", link.display())).collect();
        let expected = links + "berth-test\n33\n4\nCapBnd:\t0000000000000003\n0::/\n/usr\n";
        assert_eq!((outcome.output, outcome.code), (expected, 5));
        running.signal(libc::SIGKILL).unwrap();
        assert_eq!(end(&running), 128 + libc::SIGKILL);
        case.remove();
    }
}

fn what_cannot_be_executed_in_a_container_is_named() {
    let case = Case::new("exec sleep 100");
    let (created, _reader) = case.create().unwrap();
    let mut process = case.spec.process.clone().unwrap();
    process.args = vec!["no-such-program".into()];
    let error = case.exec((created.pid(), created.pidfd()), &process).unwrap_err();
    assert!(crate::container::chain(&error).starts_with("exec no-such-program: executable file not found"));
    let running = created.start().unwrap();
    running.signal(libc::SIGKILL).unwrap();
    end(&running);
    let error = case.exec((running.pid, running.pidfd.as_fd()), &process).unwrap_err();
    assert!(crate::container::chain(&error).contains("join the container"), "{error}");
    case.remove();
}

/// A hook that notes its name and state in a file, which is the same inside and outside.
fn noting(name: &str, log: &std::path::Path) -> berth_runtime::spec::Hook {
    let script = format!("printf '{name} ' >> {0}; cat >> {0}; echo \" $(hostname)\" >> {0}", log.display());
    let args = ["sh", "-c", &script].map(str::to_owned).to_vec();
    berth_runtime::spec::Hook { path: "/bin/sh".into(), args, env: vec!["PATH=/bin".into()], timeout: Some(20) }
}

fn hooks_run_in_their_order_and_places() {
    let notes = tempfile::tempdir().unwrap();
    let log = notes.path().join("log");
    for mut case in [Case::new("true"), Case::unprivileged("true")] {
        std::fs::write(&log, "").unwrap();
        std::fs::set_permissions(notes.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        std::fs::set_permissions(&log, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        case.bind(notes.path(), notes.path().to_str().unwrap(), &["bind"]);
        let hooks = case.spec.hooks.get_or_insert_default();
        hooks.prestart = vec![noting("prestart", &log)];
        hooks.create_runtime = vec![noting("createRuntime", &log), noting("second", &log)];
        hooks.create_container = vec![noting("createContainer", &log)];
        hooks.start_container = vec![noting("startContainer", &log)];
        case.run();
        let text = std::fs::read_to_string(&log).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let names: Vec<_> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(names, ["prestart", "createRuntime", "second", "createContainer", "startContainer"]);
        let inside: Vec<_> = lines.iter().map(|line| line.ends_with(" berth-test")).collect();
        assert_eq!(inside, [false, false, false, true, true]);
        let pid = |line: &str| line.split("\"pid\":").nth(1).unwrap().split(',').next().unwrap().to_owned();
        let pids: Vec<_> = lines.iter().map(|line| pid(line)).collect();
        // As each hook's namespace sees it.
        assert!(pids[0] == pids[1] && pids[1] == pids[2] && !["0", "1"].contains(&pids[0].as_str()), "{text}");
        assert_eq!(pids[3..], ["1", "1"]);
        assert!(lines[0].contains("\"status\":\"creating\"") && lines[4].contains("\"status\":\"created\""), "{text}");
    }
}

fn a_failing_hook_undoes_the_create() {
    let hook = |script: &str, timeout| berth_runtime::spec::Hook {
        path: "/bin/sh".into(),
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![],
        timeout,
    };
    let mut case = Case::new("true");
    case.spec.hooks.get_or_insert_default().create_runtime = vec![hook("exit 3", None)];
    assert_eq!(case.fails(), "the createRuntime hook /bin/sh ended with exit code 3");
    case.spec.hooks.as_mut().unwrap().create_runtime = vec![hook("exec /bin/sleep 100", Some(1))];
    assert_eq!(case.fails(), "the createRuntime hook /bin/sh took longer than 1 s");
}

fn clocks_are_set_off() {
    use berth_runtime::spec::{Namespace, NamespaceKind, TimeOffset};
    for mut case in [Case::new("cut -d. -f1 /proc/uptime"), Case::unprivileged("cut -d. -f1 /proc/uptime")] {
        case.linux().namespaces.push(Namespace { kind: NamespaceKind::Time, path: None });
        case.linux().time_offsets = [("boottime".to_owned(), TimeOffset { secs: 1_000_000, nanosecs: 0 })].into();
        let uptime: i64 = case.run().output.trim().parse().unwrap();
        assert!(uptime >= 1_000_000, "{uptime}");
    }
}
