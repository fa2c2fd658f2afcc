//! A client of the guest agent: the case's hand in the machine.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::wait;

/// The protocol has no event for the end of a program; its clients ask again.
const PAUSE: Duration = Duration::from_millis(25);

/// So long an agent may think about who asks.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a program in the machine left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; 128 and the signal if one ended it.
    pub code: i64,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The connection to one machine's agent.
#[derive(Debug)]
pub struct Guest {
    path: PathBuf,
    stream: Option<BufReader<UnixStream>>,
    syncs: u64,
    patience: Duration,
    /// How often the agent had to be asked again by [`Self::wait`].
    pub repeated: u64,
}

impl Guest {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), stream: None, syncs: 0, patience: PATIENCE, repeated: 0 }
    }

    /// Waits until the agent answers. QEMU keeps the request until somebody in the machine opens the port; but what has come
    /// into the machine goes with the agent that ends then, and the kernel drops what it had not read. So it is asked again
    /// after some time, as the protocol means it (`guest-sync-delimited`). Needed once at first and after each reboot.
    ///
    /// # Errors
    /// If it does not within a boot's time.
    pub fn wait(&mut self) -> Result<()> {
        self.stream = None;
        let stream = UnixStream::connect(&self.path).context("connect to the agent's port")?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(wait::BOOT))?;
        let mut stream = BufReader::new(stream);
        let deadline = Instant::now() + wait::BOOT;
        self.ask(&mut stream)?;
        loop {
            match self.is_answer(&mut stream) {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) if is_silence(&error) && Instant::now() < deadline => {
                    self.repeated += 1;
                    self.ask(&mut stream)?;
                }
                Err(error) => return Err(error),
            }
        }
        stream.get_ref().set_read_timeout(Some(wait::BOOT))?;
        self.stream = Some(stream);
        Ok(())
    }

    fn ask(&mut self, stream: &mut BufReader<UnixStream>) -> Result<()> {
        self.syncs += 1;
        let request = json!({ "execute": "guest-sync-delimited", "arguments": { "id": self.syncs } });
        // 0xFF: whatever an earlier client left unfinished is dropped.
        stream.get_mut().write_all(&[b"\xff", request.to_string().as_bytes(), b"\n"].concat())?;
        Ok(())
    }

    /// Whether what comes next is the answer to the last question.
    fn is_answer(&self, stream: &mut BufReader<UnixStream>) -> Result<bool> {
        let mut skipped = Vec::new();
        stream.read_until(0xff, &mut skipped).context("wait for the guest agent")?;
        ensure!(skipped.last() == Some(&0xff), "the agent's port was closed");
        Ok(receive(stream)?["return"] == self.syncs)
    }

    /// Sends a request and returns its value.
    ///
    /// # Errors
    /// If the agent refuses or does not answer.
    pub fn request(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.send(command, arguments)?;
        let stream = self.stream.as_mut().context("not connected")?;
        stream.get_ref().set_read_timeout(Some(wait::ANSWER))?;
        let mut answer = receive(stream).with_context(|| format!("wait for the answer to {command}"))?;
        match answer.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => bail!("{command}: {answer}"),
        }
    }

    fn send(&mut self, command: &str, arguments: Value) -> Result<()> {
        if self.stream.is_none() {
            self.wait()?;
        }
        let request = json!({ "execute": command, "arguments": arguments });
        let stream = self.stream.as_mut().context("not connected")?;
        stream.get_mut().write_all(format!("{request}\n").as_bytes()).with_context(|| format!("send {command}"))
    }

    /// Asks for the end of the machine: `powerdown`, `reboot` or `halt`. There is no answer.
    ///
    /// # Errors
    /// If the request cannot be sent.
    pub fn shutdown(&mut self, mode: &str) -> Result<()> {
        self.send("guest-shutdown", json!({ "mode": mode }))
    }

    /// Starts a program that takes the machine down, and the agent with it. There is no answer.
    ///
    /// # Errors
    /// If the request cannot be sent.
    pub fn start_the_last(&mut self, command: &[&str]) -> Result<()> {
        let (path, arguments) = command.split_first().context("a program")?;
        self.send("guest-exec", json!({ "path": path, "arg": arguments }))
    }

    /// Runs a program to its end.
    ///
    /// # Errors
    /// If it cannot be started or does not end in time.
    pub fn run(&mut self, command: &[&str]) -> Result<Output> {
        self.run_within(command, wait::ANSWER)
    }

    /// The same for one that takes longer than an answer.
    ///
    /// # Errors
    /// If it cannot be started or does not end within `limit`.
    pub fn run_within(&mut self, command: &[&str], limit: Duration) -> Result<Output> {
        let (path, arguments) = command.split_first().context("a program")?;
        let request = json!({ "path": path, "arg": arguments, "capture-output": true });
        let pid = self.request("guest-exec", request)?["pid"].clone();
        let deadline = Instant::now() + limit;
        let status = loop {
            let status = self.request("guest-exec-status", json!({ "pid": pid }))?;
            if status["exited"] == true {
                break status;
            }
            if Instant::now() > deadline {
                bail!("{command:?} does not end");
            }
            std::thread::sleep(PAUSE);
        };
        let text = |member: &str| -> Result<String> {
            let bytes = STANDARD.decode(status[member].as_str().unwrap_or_default())?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let signal = status["signal"].as_i64().map(|signal| 128 + signal);
        let code = status["exitcode"].as_i64().or(signal).context("the program ended without a code")?;
        Ok(Output { code, stdout: text("out-data")?, stderr: text("err-data")? })
    }

    /// Runs a script in the machine's shell and returns what it prints.
    ///
    /// # Errors
    /// If it fails.
    pub fn shell(&mut self, script: &str) -> Result<String> {
        let output = self.run(&["/bin/sh", "-c", script])?;
        ensure!(output.code == 0, "`{script}` failed with {}: {}{}", output.code, output.stdout, output.stderr);
        Ok(output.stdout)
    }

    /// How many processes have a command line that begins with this.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn count_processes(&mut self, command: &str) -> Result<usize> {
        let list = self.shell("for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $f; echo; done 2> /dev/null; true")?;
        Ok(list.lines().filter(|line| line.starts_with(command)).count())
    }

    /// Runs `berth` with `arguments` and `--json`, and returns what it prints.
    ///
    /// # Errors
    /// If it fails or does not print JSON.
    pub fn berth(&mut self, arguments: &[&str]) -> Result<Value> {
        let command = [&["/usr/bin/berth"], arguments, &["--json"]].concat();
        let output = self.run(&command)?;
        ensure!(output.code == 0, "{command:?} failed with {}: {}{}", output.code, output.stdout, output.stderr);
        serde_json::from_str(&output.stdout).with_context(|| format!("{command:?} printed {:?}", output.stdout))
    }

    /// Waits until `count` links have the address that QEMU's DHCP server gives: being ready does not wait for it.
    ///
    /// # Errors
    /// If they have not within an answer's time.
    pub fn wait_for_leases(&mut self, count: usize) -> Result<()> {
        let deadline = Instant::now() + wait::ANSWER;
        loop {
            let status = self.berth(&["status"])?;
            let links = status["links"].as_array().into_iter().flatten();
            if links.filter(|link| link["addresses"].to_string().contains("10.0.2.15")).count() == count {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "not every link has its address: {status}");
            std::thread::sleep(PAUSE);
        }
    }

    /// The container called `name`, as `berth ps` has it.
    ///
    /// # Errors
    /// If there is none.
    pub fn container(&mut self, name: &str) -> Result<Value> {
        let containers = self.berth(&["ps", "--all"])?;
        let found = containers.as_array().into_iter().flatten().find(|container| container["name"] == name);
        found.cloned().with_context(|| format!("there is no container {name} in {containers}"))
    }

    /// Waits until the container called `name` is in `state`, and returns it.
    ///
    /// # Errors
    /// If it is not within an answer's time.
    pub fn wait_for_state(&mut self, name: &str, state: &str) -> Result<Value> {
        let deadline = Instant::now() + wait::ANSWER;
        loop {
            let container = self.container(name)?;
            if container["state"] == state {
                return Ok(container);
            }
            if Instant::now() > deadline {
                bail!("the container does not become {state}: {container}");
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The content of a file in the running container called `name`, as soon as the container has made it.
    ///
    /// # Errors
    /// If it is not there within an answer's time.
    pub fn read_in(&mut self, name: &str, path: &str) -> Result<String> {
        let deadline = Instant::now() + wait::ANSWER;
        loop {
            let pid = self.wait_for_state(name, "running")?["pid"].clone();
            match self.read(&format!("/proc/{pid}/root{path}")) {
                Ok(content) => return Ok(content),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// The content of a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&mut self, path: &str) -> Result<String> {
        let handle = self.request("guest-file-open", json!({ "path": path }))?;
        let mut bytes = Vec::new();
        loop {
            let part = self.request("guest-file-read", json!({ "handle": handle, "count": 65536 }))?;
            bytes.extend(STANDARD.decode(part["buf-b64"].as_str().unwrap_or_default())?);
            if part["eof"] == true {
                break;
            }
        }
        self.request("guest-file-close", json!({ "handle": handle }))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Writes a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, path: &str, content: &str) -> Result<()> {
        let handle = self.request("guest-file-open", json!({ "path": path, "mode": "w" }))?;
        self.request("guest-file-write", json!({ "handle": handle, "buf-b64": STANDARD.encode(content) }))?;
        self.request("guest-file-flush", json!({ "handle": handle }))?;
        self.request("guest-file-close", json!({ "handle": handle })).map(drop)
    }
}

/// Whether nothing came for as long as was waited.
fn is_silence(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

fn receive(stream: &mut BufReader<UnixStream>) -> Result<Value> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).context("read from the guest agent")?;
    serde_json::from_slice(&line).with_context(|| format!("parse {:?}", String::from_utf8_lossy(&line)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn an_agent_whose_predecessor_took_the_question_along_is_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        let listener = UnixListener::bind(&path).unwrap();
        let agent = std::thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut line = Vec::new();
            stream.read_until(b'\n', &mut line).unwrap();
            // That one is lost. Half an answer to somebody else comes first then.
            stream.get_mut().write_all(b"\"}\n").unwrap();
            loop {
                line.clear();
                if stream.read_until(b'\n', &mut line).unwrap() == 0 {
                    break;
                }
                let request: Value = serde_json::from_slice(line.strip_prefix(b"\xff").unwrap()).unwrap();
                let answer = json!({ "return": request["arguments"]["id"] });
                stream.get_mut().write_all(&[b"\xff", answer.to_string().as_bytes(), b"\n"].concat()).unwrap();
            }
        });
        let mut guest = Guest { patience: Duration::from_millis(100), ..Guest::new(&path) };
        guest.wait().unwrap();
        assert!(guest.repeated >= 1);
        drop(guest);
        agent.join().unwrap();
    }
}
