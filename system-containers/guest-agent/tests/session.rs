//! The agent as a client meets it, on a socket pair or on a pair of FIFOs in the port's place.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use berth_guest_agent::agent::Agent;
use berth_guest_agent::commands::Host;
use berth_guest_agent::processes::{MAXIMUM_OUTPUT, MAXIMUM_PROCESSES};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The longest any answer may take; only a broken agent needs it.
const PATIENCE: Duration = Duration::from_secs(20);

struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    fn connect() -> Self {
        Self::with(Host::of_this_machine())
    }

    fn with(host: Host) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        ours.set_write_timeout(Some(PATIENCE)).unwrap();
        std::thread::spawn(move || Agent::new(theirs.into(), host).and_then(Agent::run));
        Self { stream: BufReader::new(ours) }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    fn receive(&mut self) -> Value {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).unwrap();
        serde_json::from_slice(&line).unwrap()
    }

    fn request(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments });
        self.send(request.to_string().as_bytes());
        self.receive()
    }

    fn run(&mut self, command: &str, arguments: Value) -> Value {
        let answer = self.request(command, arguments);
        answer.get("return").unwrap_or_else(|| panic!("{command}: {answer}")).clone()
    }

    fn error(&mut self, command: &str, arguments: Value) -> String {
        let answer = self.request(command, arguments);
        answer["error"]["desc"].as_str().unwrap_or_else(|| panic!("{command}: {answer}")).to_owned()
    }

    fn exec(&mut self, arguments: Value) -> Value {
        let pid = self.run("guest-exec", arguments)["pid"].clone();
        let deadline = Instant::now() + PATIENCE;
        loop {
            // The protocol has no event for this: its clients ask again, and so does this one.
            let status = self.run("guest-exec-status", json!({ "pid": pid }));
            if status["exited"] == true {
                return status;
            }
            assert!(Instant::now() < deadline, "the child does not end");
            std::thread::yield_now();
        }
    }

    fn shell(&mut self, script: &str, capture: Value) -> Value {
        self.exec(json!({ "path": "/bin/sh", "arg": ["-c", script], "capture-output": capture }))
    }
}

fn text(status: &Value, member: &str) -> String {
    let encoded = status[member].as_str().unwrap_or_default();
    String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
}

#[test]
fn the_session_is_synchronised_behind_the_marker() {
    let mut client = Client::connect();
    client.send(b"{\"execute\":\"guest-file-wri\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":4711}}");
    let mut marker = [0];
    client.stream.read_exact(&mut marker).unwrap();
    assert_eq!(marker, [0xff]);
    assert_eq!(client.receive(), json!({ "return": 4711 }));
    assert_eq!(client.run("guest-sync", json!({ "id": -1 })), json!(-1));
    assert_eq!(client.run("guest-ping", json!({})), json!({}));
}

#[test]
fn errors_have_their_class() {
    let mut client = Client::connect();
    let unknown = client.request("guest-make-coffee", json!({}));
    let expected = json!({ "class": "CommandNotFound", "desc": "The command guest-make-coffee has not been found" });
    assert_eq!(unknown["error"], expected);
    assert!(client.error("guest-ping", json!({ "louder": true })).contains("unknown field `louder`"));
    assert!(client.error("guest-sync", json!({})).contains("missing field `id`"));
    client.send(b"hello\n");
    assert_eq!(client.receive()["error"]["class"], "GenericError");
    client.send(br#"{"execute":"guest-ping","id":"a"}{"execute":"no","id":[1]}"#);
    assert_eq!(client.receive(), json!({ "return": {}, "id": "a" }));
    assert_eq!(client.receive()["id"], json!([1]));
}

#[test]
fn every_listed_command_is_found() {
    let mut client = Client::connect();
    let info = client.run("guest-info", json!({}));
    let commands = info["supported_commands"].as_array().unwrap().clone();
    assert!(commands.len() > 15);
    for command in commands {
        let name = command["name"].as_str().unwrap();
        // No command takes this, so none is carried out.
        assert!(client.error(name, json!({ "no-such-argument": 1 })).starts_with("read the arguments of"), "{name}");
    }
}

#[test]
fn the_machine_tells_about_itself() {
    let mut client = Client::connect();
    assert_eq!(client.run("guest-get-osinfo", json!({}))["machine"], std::env::consts::ARCH);
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(client.run("guest-get-host-name", json!({}))["host-name"], name.trim_end());
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let time = client.run("guest-get-time", json!({})).as_u64().unwrap();
    assert!(u128::from(time) >= before && u128::from(time) < before + PATIENCE.as_nanos());
    let links = client.run("guest-network-get-interfaces", json!({}));
    let loopback = links.as_array().unwrap().iter().find(|link| link["name"] == "lo").unwrap();
    let address = json!({ "ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8 });
    assert!(loopback["ip-addresses"].as_array().unwrap().contains(&address), "{loopback}");
    assert_eq!(loopback["hardware-address"], "00:00:00:00:00:00");
    assert!(loopback["statistics"]["rx-packets"].is_u64());
    assert!(client.error("guest-set-time", json!({ "time": -1 })).contains("time cannot be -1"));
}

#[test]
fn a_program_runs_with_its_input_arguments_and_environment() {
    let mut client = Client::connect();
    let status = client.exec(json!({
        "path": "sh",
        "arg": ["-c", "read line; echo \"$line $0 $COLOUR ${HOME-none}\"; exit 3", "argument"],
        "env": ["COLOUR=blue", "PATH=/usr/bin:/bin"],
        "input-data": STANDARD.encode("input\n"),
        "capture-output": true,
    }));
    assert_eq!(text(&status, "out-data"), "input argument blue none\n");
    assert_eq!(status, json!({ "exited": true, "exitcode": 3, "out-data": status["out-data"] }));
}

#[test]
fn output_is_captured_as_wished() {
    let mut client = Client::connect();
    let script = "echo one; echo two >&2; echo three";
    for (capture, out, err) in [
        (json!(true), "one\nthree\n", "two\n"),
        (json!("separated"), "one\nthree\n", "two\n"),
        (json!("merged"), "one\ntwo\nthree\n", ""),
        (json!("stdout"), "one\nthree\n", ""),
        (json!("stderr"), "", "two\n"),
        (json!("none"), "", ""),
        (json!(false), "", ""),
    ] {
        let status = client.shell(script, capture.clone());
        assert_eq!((text(&status, "out-data").as_str(), text(&status, "err-data").as_str()), (out, err), "{capture}");
    }
}

#[test]
fn endless_output_is_cut_and_said_to_be() {
    let mut client = Client::connect();
    let status = client.shell(&format!("head -c {} /dev/zero", MAXIMUM_OUTPUT + 1), json!(true));
    assert_eq!(text(&status, "out-data").len(), MAXIMUM_OUTPUT);
    assert_eq!(status["out-truncated"], true);
    let status = client.shell(&format!("head -c {MAXIMUM_OUTPUT} /dev/zero"), json!(true));
    assert_eq!((text(&status, "out-data").len(), status.get("out-truncated")), (MAXIMUM_OUTPUT, None));
}

#[test]
fn a_child_that_ignores_much_input_does_not_stop_the_agent() {
    let mut client = Client::connect();
    let input = STANDARD.encode(vec![b'x'; 1 << 20]);
    let status = client.exec(json!({ "path": "/bin/true", "input-data": input }));
    assert_eq!(status["exitcode"], 0);
    let count = client.exec(json!({
        "path": "wc", "arg": ["-c"], "input-data": STANDARD.encode(vec![b'x'; 1 << 20]), "capture-output": true
    }));
    assert_eq!(text(&count, "out-data").trim(), "1048576");
}

#[test]
fn a_child_is_answered_for_once_and_reaped() {
    let mut client = Client::connect();
    let status = client.shell("kill -9 $$", json!(false));
    assert_eq!(status, json!({ "exited": true, "signal": 9 }));
    let pid = client.run("guest-exec", json!({ "path": "sleep", "arg": ["60"] }))["pid"].as_u64().unwrap();
    assert_eq!(client.run("guest-exec-status", json!({ "pid": pid })), json!({ "exited": false }));
    client.shell(&format!("kill {pid}"), json!(false));
    let gone = || !std::path::Path::new(&format!("/proc/{pid}")).exists();
    let deadline = Instant::now() + PATIENCE;
    // It is reaped without anybody's asking.
    while !gone() {
        assert!(Instant::now() < deadline, "a zombie is left");
        std::thread::yield_now();
    }
    assert_eq!(client.run("guest-exec-status", json!({ "pid": pid })), json!({ "exited": true, "signal": 15 }));
    assert!(client.error("guest-exec-status", json!({ "pid": pid })).contains("does not exist"));
    assert!(client.error("guest-exec", json!({ "path": "/nonexistent" })).contains("start /nonexistent"));
}

#[test]
fn results_that_nobody_fetches_make_room() {
    let mut client = Client::connect();
    let first = client.run("guest-exec", json!({ "path": "true" }))["pid"].clone();
    let mut started = 0;
    let deadline = Instant::now() + PATIENCE;
    while started < MAXIMUM_PROCESSES {
        assert!(Instant::now() < deadline, "there is no room");
        let answer = client.request("guest-exec", json!({ "path": "true" }));
        started += usize::from(answer.get("return").is_some());
    }
    assert!(client.error("guest-exec-status", json!({ "pid": first })).contains("does not exist"));
}

#[test]
fn a_file_is_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut client = Client::connect();
    let handle = client.run("guest-file-open", json!({ "path": path, "mode": "w+" }));
    let bytes = STANDARD.encode("berth at the quay");
    let written = client.run("guest-file-write", json!({ "handle": handle, "buf-b64": bytes, "count": 5 }));
    assert_eq!(written, json!({ "count": 5, "eof": false }));
    client.run("guest-file-flush", json!({ "handle": handle }));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "berth");
    let sought = client.run("guest-file-seek", json!({ "handle": handle, "offset": 1, "whence": "set" }));
    assert_eq!(sought, json!({ "position": 1, "eof": false }));
    let read = client.run("guest-file-read", json!({ "handle": handle, "count": 100 }));
    assert_eq!(read, json!({ "count": 4, "buf-b64": STANDARD.encode("erth"), "eof": true }));
    let sought = client.run("guest-file-seek", json!({ "handle": handle, "offset": -2, "whence": 2 }));
    assert_eq!(sought["position"], 3);
    for (arguments, expected) in [
        (json!({ "handle": handle, "count": -1 }), "count cannot be -1"),
        (json!({ "handle": 7 }), "handle 7 has not been found"),
    ] {
        assert!(client.error("guest-file-read", arguments).contains(expected));
    }
    let too_much = json!({ "handle": handle, "buf-b64": bytes, "count": 18 });
    assert!(client.error("guest-file-write", too_much).contains("count cannot be 18"));
    client.run("guest-file-close", json!({ "handle": handle }));
    assert!(client.error("guest-file-close", json!({ "handle": handle })).contains("not been found"));
}

/// A host whose shutdown command appends what it was asked for to the file `asked`.
fn host_without_an_end(folder: &std::path::Path) -> Host {
    let command = folder.join("berth");
    std::fs::write(&command, format!("#!/bin/sh\necho $1 >> {}\n", folder.join("asked").display())).unwrap();
    std::fs::set_permissions(&command, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    Host { power_command: command.to_string_lossy().into_owned(), ..Host::of_this_machine() }
}

fn wait_until_asked(folder: &std::path::Path, expected: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let asked = std::fs::read_to_string(folder.join("asked")).unwrap_or_default();
        if asked == expected {
            return;
        }
        assert!(Instant::now() < deadline, "asked for {asked:?}, not {expected:?}");
        std::thread::yield_now();
    }
}

fn shutdown_request(mode: &str) -> Vec<u8> {
    json!({ "execute": "guest-shutdown", "arguments": { "mode": mode } }).to_string().into_bytes()
}

#[test]
fn shutdown_asks_the_command_line_and_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut client = Client::with(host_without_an_end(folder.path()));
    client.send(br#"{"execute":"guest-shutdown"}"#);
    wait_until_asked(folder.path(), "poweroff\n");
    client.send(&shutdown_request("reboot"));
    wait_until_asked(folder.path(), "poweroff\nreboot\n");
    client.send(&shutdown_request("halt"));
    wait_until_asked(folder.path(), "poweroff\nreboot\nhalt\n");
    assert_eq!(client.run("guest-sync", json!({ "id": 1 })), 1);
    assert!(client.error("guest-shutdown", json!({ "mode": "explode" })).contains("unknown variant `explode`"));
}

#[test]
fn a_client_that_does_not_read_is_not_served_for_ever() {
    let mut client = Client::connect();
    client.stream.get_mut().set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let request = br#"{"execute":"guest-info"}"#.repeat(100);
    let mut sent = 0;
    while client.stream.get_mut().write_all(&request).is_ok() {
        sent += 100;
        assert!(sent < 1_000_000, "the agent takes requests without end");
    }
    client.receive();
}

/// A virtio port at whose other end nobody is reads as ended until somebody comes; so does a FIFO.
#[test]
fn clients_come_and_go_and_nothing_turns_meanwhile() {
    use rustix::fs::{Mode, OFlags};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("port");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let port = rustix::fs::open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
    let host = host_without_an_end(folder.path());
    let (identity, identified) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        identity.send(rustix::thread::gettid()).unwrap();
        Agent::new(port, host).and_then(Agent::run)
    });
    let thread = identified.recv().unwrap();
    let mut expected = String::new();
    for _ in 0..3 {
        // An unfinished request first, then, by another client, one that has no answer: this port takes none.
        let visit =
            |bytes: &[u8]| std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(bytes).unwrap();
        visit(br#"{"execute":"guest-ex"#);
        visit(&[b"\xff".to_vec(), shutdown_request("reboot")].concat());
        expected.push_str("reboot\n");
        wait_until_asked(folder.path(), &expected);
    }
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/self/task/{}/status", thread.as_raw_pid())).unwrap();
        let count = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.rsplit_once('\t').unwrap().1.parse().unwrap()
        };
        (status.contains("State:\tS"), count("voluntary_ctxt_switches") + count("nonvoluntary_ctxt_switches"))
    };
    let deadline = Instant::now() + PATIENCE;
    // Asleep, and not woken between two looks.
    let mut before = switches();
    loop {
        std::thread::park_timeout(Duration::from_millis(300));
        let now = switches();
        if now.0 && now.1 == before.1 {
            break;
        }
        assert!(Instant::now() < deadline, "the agent turns in circles");
        before = now;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_leave_the_agent_at_work(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut client = Client::connect();
        client.send(&bytes);
        client.send(b"\n\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":1}}");
        let mut seen = Vec::new();
        client.stream.read_until(0xff, &mut seen).unwrap();
        prop_assert_eq!(client.receive(), json!({ "return": 1 }));
    }
}
