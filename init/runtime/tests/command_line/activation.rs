//! What systemd gives its services: sockets, and an ear for when they are ready.

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use crate::bench::Bench;

/// A program with systemd's variables whose LISTEN_PID is its own, as systemd sets it.
fn activated(bench: &Bench, arguments: &[&str], sockets: u32) -> std::process::Command {
    let command = bench.command(arguments);
    let redirections: String = (3..3 + sockets).map(|number| format!(" {number}< /dev/null")).collect();
    let mut shell = std::process::Command::new("/bin/sh");
    let script = format!("export LISTEN_PID=$$ LISTEN_FDS={sockets} LISTEN_FDNAMES=web; exec \"$@\" {redirections}");
    shell.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    shell
}

#[test]
fn sockets_are_handed_on_to_the_first_process() {
    let script = "echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES $$; cd /proc/self/fd; echo *";
    let Some(bench) = Bench::new(&["/bin/sh", "-c", script]) else { return };
    let output = activated(&bench, &["run", &bench.id("listen")], 2).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // The shell has one of its own for the directory.
    assert_eq!(text, "2 1 web 1\n0 1 2 3 4 5\n", "{}", String::from_utf8_lossy(&output.stderr));
    let mut other = bench.command(&["run", &bench.id("listen")]);
    let output = other.env("LISTEN_PID", "1").env("LISTEN_FDS", "2").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n0 1 2 3\n", "sockets for another process are not ours");
}

#[test]
fn a_service_is_ready_when_its_container_says_so() {
    let script = "echo $NOTIFY_SOCKET; python3 -c \"
import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b'STATUS=x\\nMAINPID=1', os.environ['NOTIFY_SOCKET'])
s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])\"; exec sleep 100";
    let Some(bench) = Bench::new(&["/bin/sh", "-c", script]) else { return };
    if !std::path::Path::new("/usr/bin/python3").exists() {
        eprintln!("ignored, needs python3");
        return;
    }
    bench.change(|config| config["process"]["env"] = serde_json::json!(["PATH=/usr/bin:/bin"]));
    let host = bench.path("host.sock");
    let socket = UnixDatagram::bind(&host).unwrap();
    let mut buffer = [0; 256];
    for commands in [vec!["create", "start"], vec!["run --detach"], vec!["run"]] {
        let id = bench.id("notify");
        let mut waiting = Vec::new();
        for command in commands {
            let mut words: Vec<&str> = command.split(' ').collect();
            words.push(&id);
            let mut command = bench.command(&words);
            let child = command.env("NOTIFY_SOCKET", &host).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            let mut child = child.unwrap();
            if words.len() == 2 && words[0] == "run" {
                waiting.push(child);
            } else {
                assert!(child.wait().unwrap().success(), "{words:?}");
            }
        }
        let length = socket.recv(&mut buffer).unwrap();
        let state: serde_json::Value = serde_json::from_slice(&bench.run(&["state", &id]).stdout).unwrap();
        let expected = format!("MAINPID={}\nREADY=1\n", state["pid"]);
        assert_eq!(String::from_utf8_lossy(&buffer[..length]), expected);
        assert_eq!(bench.says(&["delete", "--force", &id]), (0, String::new(), String::new()));
        for child in &mut waiting {
            child.wait().unwrap();
        }
    }
}

#[test]
fn a_start_does_not_wait_for_a_container_that_has_ended() {
    let Some(bench) = Bench::new(&["/bin/true"]) else { return };
    let (id, host) = (bench.id("silent"), bench.path("host.sock"));
    let _socket = UnixDatagram::bind(&host).unwrap();
    for command in ["create", "start"] {
        let mut command = bench.command(&[command, &id]);
        command.env("NOTIFY_SOCKET", &host).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success());
    }
    assert_eq!(bench.says(&["delete", &id]).0, 0);
}
