//! `exec`: a further process, every option of it.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::Test;
use crate::bundle::Bundle;
use crate::tool::{Crun, Runc, Runtime, Tool, agree, by_commands, skip};

pub const CASES: &[Test] = &[
    ("exec_ends_as_its_program", exec_ends_as_its_program),
    ("exec_of_what_cannot_be_run", exec_of_what_cannot_be_run),
    ("exec_of_a_description", exec_of_a_description),
    ("exec_on_a_processor", exec_on_a_processor),
    ("exec_in_a_directory", exec_in_a_directory),
    ("exec_with_variables", exec_with_variables),
    ("exec_as_a_user", exec_as_a_user),
    ("exec_in_further_groups", exec_in_further_groups),
    ("exec_with_capabilities", exec_with_capabilities),
    ("exec_without_new_privileges", exec_without_new_privileges),
    ("exec_with_descriptors", exec_with_descriptors),
    ("exec_in_a_paused_container", exec_in_a_paused_container),
    ("exec_in_the_background", exec_in_the_background),
    ("exec_in_a_terminal", exec_in_a_terminal),
    ("exec_sends_its_terminal", exec_sends_its_terminal),
    ("exec_wants_somebody_for_its_terminal", exec_wants_somebody_for_its_terminal),
    ("exec_sends_a_pidfd", exec_sends_a_pidfd),
    ("exec_in_a_cgroup_below", exec_in_a_cgroup_below),
    ("exec_flags_may_say_true", exec_flags_may_say_true),
    ("exec_belongs_to_its_container", exec_belongs_to_its_container),
];

/// Of crun: no harm to who looks for a failure, but another number.
const ONE: (Runtime, &str) = (Crun, "has 1 where the program's own code would be, not 255");

fn sleeper() -> Bundle {
    Bundle::new("exec sleep 100")
}

/// `exec` with these options, of this program: the code, and what was printed, in one line.
fn executed(tool: &Tool, options: &[&str], program: &[&str]) -> String {
    let said = tool.say(&[&["exec"], options, &[tool.id.as_str()], program].concat());
    format!("{} {}", said.code, said.out.lines().collect::<Vec<_>>().join(" ")).trim_end().to_owned()
}

/// What a shell's script in a running container comes to.
fn prints(bundle: &Bundle, options: &[&str], script: &str, expected: &str, differing: &[(Runtime, &str)]) {
    by_commands(bundle, expected, differing, |tool| {
        tool.start();
        executed(tool, options, &["/bin/sh", "-c", script])
    });
}

/// Nothing runs, there are words, and the code is no program's.
fn is_refused(bundle: &Bundle, options: &[&str], program: &[&str], differing: &[(Runtime, &str)]) {
    by_commands(bundle, "255  error running", differing, |tool| {
        tool.start();
        let said = tool.say(&[&["exec"], options, &[tool.id.as_str()], program].concat());
        let words = if said.error.is_empty() { "silent" } else { "error" };
        format!("{} {} {words} {}", said.code, said.out, tool.status())
    });
}

fn exec_ends_as_its_program() {
    prints(&sleeper(), &[], "echo out; exit 42", "42 out", &[]);
    prints(&sleeper(), &[], "kill -KILL $$", "137", &[]);
    prints(&sleeper(), &[], "kill -TERM $$", "143", &[]);
    prints(&sleeper(), &["--"], "echo \"$0 $1\"", "0 /bin/sh", &[]);
}

fn exec_of_what_cannot_be_run() {
    let prepare = "touch rootfs/plain; echo 'no script' >rootfs/text; echo '#!/no/shell' >rootfs/script
        chmod +x rootfs/text rootfs/script";
    for program in ["/none", "none", "/plain", "/text", "/script", "/usr"] {
        is_refused(&sleeper().prepare(prepare), &[], &[program], &[ONE]);
    }
    is_refused(&sleeper(), &[], &[], &[ONE]);
    // Seen before the command ends, in the background too.
    is_refused(&sleeper(), &["-d"], &["none"], &[ONE]);
}

/// A file with the `process` of a config.json.
fn exec_of_a_description() {
    let capabilities = json!({ "bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"] });
    let process = json!({
        "args": ["/bin/sh", "-c", "echo $A $(id -u) $(id -G) $(pwd) $(umask); grep CapEff /proc/self/status"],
        "env": ["PATH=/bin", "A=b c"], "cwd": "/usr", "capabilities": capabilities,
        "user": { "uid": 0, "gid": 7, "additionalGids": [8], "umask": 0o077 },
    });
    let expected = "0 b c 0 7 8 /usr 0077 CapEff:\t0000000000000001";
    agree(&sleeper(), expected, &[(Runc, "has the mask of the container's process")], |tool| {
        tool.start();
        let path = tool.bundle.join("process.json");
        std::fs::write(&path, process.to_string()).unwrap();
        executed(tool, &["--process", path.to_str().unwrap()], &[])
    });
    is_refused(&sleeper(), &["--process", "/none"], &[], &[ONE]);
    by_commands(&sleeper(), "255", &[ONE], |tool| {
        tool.start();
        std::fs::write(tool.bundle.join("process.json"), "no JSON").unwrap();
        executed(tool, &["-p", "process.json"], &[])
    });
}

/// `execCPUAffinity`, on a machine with two processors.
fn exec_on_a_processor() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        return skip("needs two processors");
    }
    let description = |affinity: serde_json::Value| {
        let script = "grep Cpus_allowed_list /proc/self/status | cut -f 2";
        json!({ "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/", "execCPUAffinity": affinity })
    };
    for (affinity, expected, differing) in [
        (json!({ "initial": "0" }), "0 0", &[][..]),
        (json!({ "initial": "0", "final": "1" }), "0 1", &[]),
        (json!({ "final": "0-1" }), "0 0-1", &[]),
        (json!({ "final": "one" }), "255", &[ONE]),
    ] {
        let observe = |tool: &Tool| {
            tool.start();
            let path = tool.bundle.join("process.json");
            std::fs::write(&path, description(affinity.clone()).to_string()).unwrap();
            executed(tool, &["--process", path.to_str().unwrap()], &[])
        };
        match expected {
            // Who cannot be executed has no code; 255 is the command's.
            "255" => by_commands(&sleeper(), expected, differing, observe),
            _ => agree(&sleeper(), expected, differing, observe),
        }
    }
}

fn exec_in_a_directory() {
    prints(&sleeper(), &["--cwd", "/usr/bin"], "pwd", "0 /usr/bin", &[]);
    let moved = sleeper().set("/process/cwd", json!("/usr"));
    prints(&moved, &[], "pwd", "0 /usr", &[(Crun, "takes nothing of the container's process")]);
    is_refused(&sleeper(), &["--cwd", "/none"], &["pwd"], &[ONE]);
    is_refused(&sleeper(), &["--cwd", "usr"], &["pwd"], &[(Crun, "takes it as relative to the root")]);
}

fn exec_with_variables() {
    let bundle = sleeper().set("/process/env", json!(["PATH=/bin", "A=1", "B=2"]));
    prints(&bundle, &["--env", "C=3", "--env", "A=4=5", "--env", "D="], "echo $A $B $C ${D-none}.", "0 4=5 2 3 .", &[]);
    prints(&sleeper(), &["-e", "A=1", "-e", "A=2"], "echo $A; env | grep -c ^A=", "0 2 1", &[]);
    prints(&sleeper(), &["-e", "PATH=/usr/bin"], "echo $PATH", "0 /usr/bin", &[]);
    for variable in ["A", "=x"] {
        is_refused(&sleeper(), &["--env", variable], &["/bin/true"], &[(Crun, "passes it on")]);
    }
}

fn exec_as_a_user() {
    let ids = "id -u; id -g; id -G; umask";
    prints(&sleeper(), &["--user", "33"], ids, "0 33 0 0 0022", &[]);
    prints(&sleeper(), &["-u", "33:44"], ids, "0 33 44 44 0022", &[]);
    prints(&Bundle::unprivileged("exec sleep 100"), &["-u", "33:44"], ids, "0 33 44 44 0022", &[]);
    // What the option does not say is the container's.
    let user = json!({ "uid": 5, "gid": 6, "additionalGids": [7], "umask": 0o027 });
    let none = [(Crun, "begins with a user that has nothing but what the option says")];
    let bundle = sleeper().set("/process/user", user);
    prints(&bundle, &[], ids, "0 5 6 6 7 0027", &[]);
    prints(&bundle, &["-u", "33"], ids, "0 33 6 6 7 0027", &none);
    prints(&bundle, &["-u", "33:44"], ids, "0 33 44 44 7 0027", &none);
    let passwd = "mkdir rootfs/etc; echo 'web:x:33:33::/var/www:/bin/false' >rootfs/etc/passwd";
    prints(&sleeper().prepare(passwd), &["-u", "33"], "echo $HOME", "0 /var/www", &[]);
    for user in ["root", "33:", ":33", "33:44:55", ""] {
        let none = [ONE, (Runc, "takes an empty one as none")];
        is_refused(&sleeper(), &["-u", user], &["/bin/true"], if user.is_empty() { &none } else { &[ONE] });
    }
    // "No change" to setuid(2).
    is_refused(&sleeper(), &["-u", "4294967295"], &["/bin/true"], &[ONE]);
    let root = [(Crun, "stays root")];
    Bundle::new("true").set("/process/user", json!({ "uid": u32::MAX, "gid": 0 })).is_refused(&root);
    Bundle::new("true").set("/process/user", json!({ "uid": 0, "gid": u32::MAX })).is_refused(&root);
}

fn exec_in_further_groups() {
    let lacking = [(Crun, "has no such option")];
    let bundle = sleeper().set("/process/user", json!({ "uid": 5, "gid": 6, "additionalGids": [7] }));
    prints(&bundle, &["--additional-gids", "8", "--additional-gids", "9"], "id -G", "0 6 7 8 9", &lacking);
    prints(&bundle, &["-u", "33:44", "-g", "9"], "id -G", "0 44 7 9", &lacking);
}

fn exec_with_capabilities() {
    let sets = "grep ^Cap /proc/self/status | cut -f 2";
    let (none, chown) = ("0000000000000000", "0000000020000421");
    let own = [(Crun, "gives those alone that the option names")];
    prints(&sleeper(), &["--cap", "CAP_CHOWN"], sets, &format!("0 {none} {chown} {chown} {chown} {none}"), &own);
    let user = format!("0 {none} {none} {none} {chown} {none}");
    prints(&sleeper(), &["-u", "33", "-c", "CAP_CHOWN"], sets, &user, &own);
    let two = "0000000020000621";
    prints(
        &sleeper(),
        &["-c", "CAP_CHOWN", "-c", "CAP_LINUX_IMMUTABLE"],
        sets,
        &format!("0 {none} {two} {two} {two} {none}"),
        &own,
    );
    let inheritable = sleeper().set("/process/capabilities/inheritable", json!(["CAP_KILL"]));
    let (one, all) = ("0000000000000020", "0000000020000420");
    prints(&inheritable, &["-u", "33", "-c", "CAP_KILL"], sets, &format!("0 {one} {one} {one} {all} {one}"), &own);
    prints(&sleeper(), &["-c", "CAP_NONE"], "echo ran", "0 ran", &[]);
}

fn exec_without_new_privileges() {
    let flag = "grep NoNewPrivs /proc/self/status | cut -f 2";
    let open = sleeper().set("/process/noNewPrivileges", json!(false));
    prints(&open, &[], flag, "0 0", &[]);
    prints(&open, &["--no-new-privs"], flag, "0 1", &[]);
    prints(&sleeper(), &[], flag, "0 1", &[(Crun, "takes nothing of the container's process")]);
}

/// Those that were asked for are kept, and no others.
fn exec_with_descriptors() {
    let script = "for f in 3 4 5; do [ -e /proc/self/fd/$f ] && echo $f; done; true";
    let given = |tool: &Tool, options: &[&str]| {
        let program = ["/bin/sh", "-c", script];
        let command = tool.command(&[&["exec"], options, &[tool.id.as_str()], &program].concat());
        let said = tool.finish_with_descriptors(command, 3);
        format!("{} {}", said.code, said.out.lines().collect::<Vec<_>>().join(" "))
    };
    for (options, expected) in [(&[][..], "0 "), (&["--preserve-fds", "1"], "0 3"), (&["--preserve-fds=2"], "0 3 4")] {
        by_commands(&sleeper(), expected, &[], |tool| {
            tool.start();
            given(tool, options)
        });
    }
    is_refused(&sleeper(), &["--preserve-fds", "90"], &["/bin/true"], &[(Crun, "does not look whether they are open")]);
}

fn exec_in_a_paused_container() {
    by_commands(&sleeper(), "255 error paused", &[ONE], |tool| {
        tool.start();
        tool.say(&["pause", &tool.id]);
        let said = tool.say(&["exec", &tool.id, "true"]);
        let words = if said.error.is_empty() { "silent" } else { "error" };
        format!("{} {words} {}", said.code, tool.status())
    });
    by_commands(&sleeper(), "0 paused 0 ran", &[(Crun, "has no --ignore-paused")], |tool| {
        if tool.runtime == Crun {
            return "no".to_owned();
        }
        tool.start();
        let code = tool.say(&["pause", &tool.id]).code;
        let status = tool.status();
        // It waits in the frozen cgroup; what was refused would end with another code.
        let script = "echo ran >/notes/notes";
        let mut command = tool.command(&["exec", "--ignore-paused", &tool.id, "/bin/sh", "-c", script]);
        let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tool.await_processes(2);
        tool.say(&["resume", &tool.id]);
        let ended = running.wait().unwrap().code().unwrap_or(-1);
        format!("{code} {status} {ended} {}", tool.notes().trim_end())
    });
}

/// The command ends when the program runs (the peers' may end a little before); whose number it leaves.
fn exec_in_the_background() {
    by_commands(&sleeper(), "0 true 99", &[], |tool| {
        tool.start();
        let path = tool.bundle.join("pid");
        let options = ["--detach", "--pid-file", path.to_str().unwrap()];
        let said = executed(tool, &options, &["/bin/sleep", "99"]);
        let pid = std::fs::read_to_string(&path).unwrap_or_default();
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let inside = read("cgroup").contains(&tool.id);
        let words = if tool.runtime.is_ours() { read("cmdline") } else { "99".to_owned() };
        format!("{said} {inside} {}", words.trim_end_matches('\0').rsplit('\0').next().unwrap_or_default())
    });
    is_refused(&sleeper(), &["-d", "--pid-file", "/none/pid"], &["/bin/true"], &[ONE]);
}

fn exec_in_a_terminal() {
    // The size must be there before the program looks; it may be quick.
    let late = [Crun, Runc].map(|peer| (peer, "gives the terminal its size after the program has started"));
    by_commands(&sleeper(), "/dev/pts/0|33 77\ntrue\n", &late, |tool| {
        tool.start();
        let script = "echo \"$(tty)|$(stty size)\"; [ -t 1 ] && [ -t 2 ] && echo true";
        tool.say_in_terminal(&["exec", "--tty", &tool.id, "/bin/sh", "-c", script]).replace("\r\n", "\n")
    });
    by_commands(&sleeper(), "not a tty 1", &[], |tool| {
        tool.start();
        let said = tool.say(&["exec", &tool.id, "tty"]);
        format!("{} {}", said.out.trim_end(), said.code)
    });
}

/// What a command sends to a socket that it was told of.
fn sent(tool: &Tool, option: &str, options: &[&str], program: &[&str]) -> (String, Option<OwnedFd>) {
    let path = tool.bundle.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let said = executed(tool, &[options, &[option, path.to_str().unwrap()]].concat(), program);
    listener.set_nonblocking(true).unwrap();
    // The command has ended, so what it sends is there.
    let master = listener.accept().ok().and_then(|(socket, _)| {
        socket.set_nonblocking(false).unwrap();
        berth_terminal::receive(&socket.into()).unwrap()
    });
    (said, master)
}

fn exec_sends_its_terminal() {
    by_commands(&sleeper(), "0 /dev/pts/0\r\n", &[], |tool| {
        tool.start();
        let (said, master) = sent(tool, "--console-socket", &["--tty", "--detach"], &["tty"]);
        let Some(master) = master else { return format!("{said} without a terminal") };
        let mut shown = Vec::new();
        // At its end a terminal gives an error, not an end of file.
        let _ = std::fs::File::from(master).read_to_end(&mut shown);
        format!("{said} {}", String::from_utf8_lossy(&shown))
    });
    is_refused(&sleeper(), &["-t", "-d", "--console-socket", "/none"], &["tty"], &[ONE]);
}

/// A terminal that nobody holds ends its program; a socket without a terminal waits for ever.
fn exec_wants_somebody_for_its_terminal() {
    is_refused(&sleeper(), &["--tty", "--detach"], &["/bin/true"], &[ONE]);
    is_refused(&sleeper(), &["--console-socket", "/none"], &["/bin/true"], &[(Crun, "does not look at it")]);
    let terminal = Bundle::new("true").set("/process/terminal", json!(true));
    for command in [&["run", "--detach"][..], &["create"]] {
        by_commands(&terminal, "1 error", &[], |tool| {
            let said = tool.say(&[command, &[&tool.id]].concat());
            format!("{} {}", said.code, if said.error.is_empty() { "silent" } else { "error" })
        });
    }
}

fn exec_sends_a_pidfd() {
    by_commands(&sleeper(), "0 ended", &[(Crun, "has no such option")], |tool| {
        tool.start();
        let (said, pidfd) = sent(tool, "--pidfd-socket", &["--detach"], &["/bin/true"]);
        let Some(pidfd) = pidfd else { return format!("{said} without a pidfd") };
        let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).unwrap();
        format!("{said} {}", if ended == 1 { "ended" } else { "runs" })
    });
}

fn exec_in_a_cgroup_below() {
    by_commands(&sleeper(), "0 0::/below", &[], |tool| {
        tool.start();
        std::fs::create_dir(tool.cgroup().join("below")).unwrap();
        executed(tool, &["--cgroup", "below"], &["grep", "^0:", "/proc/self/cgroup"])
    });
    is_refused(&sleeper(), &["--cgroup", "none"], &["/bin/true"], &[ONE]);
    is_refused(&sleeper(), &["--cgroup", "../.."], &["/bin/true"], &[ONE]);
}

/// Go's flags take a value.
fn exec_flags_may_say_true() {
    let none = [(Crun, "takes no value")];
    prints(&sleeper(), &["--tty=false", "--detach=false"], "echo ran", "0 ran", &none);
    prints(&sleeper(), &["--no-new-privs=true"], "echo ran", "0 ran", &none);
    by_commands(&sleeper(), "1", &[(Crun, "has a code of its own for this")], |tool| {
        tool.start();
        tool.say(&["exec", "--detach=perhaps", &tool.id, "/bin/true"]).code.to_string()
    });
}

/// Namespaces, root, cgroup, limits and confinement are the container's.
fn exec_belongs_to_its_container() {
    for bundle in [Bundle::new("exec sleep 100"), Bundle::unprivileged("exec sleep 100")] {
        let script =
            "for n in /proc/1/ns/*; do [ $(readlink $n) = $(readlink /proc/self/ns/${n##*/}) ] || echo $n; done
            grep ^0: /proc/self/cgroup; ulimit -n; cat /proc/self/oom_score_adj; hostname; [ -e /host ] && echo host; true";
        let limits = json!([{ "type": "RLIMIT_NOFILE", "soft": 99, "hard": 99 }]);
        let bundle = bundle.set("/process/rlimits", limits).set("/process/oomScoreAdj", json!(77));
        prints(&bundle, &[], script, "0 0::/ 99 77 differential", &[(Crun, "takes nothing of the process's limits")]);
    }
}
