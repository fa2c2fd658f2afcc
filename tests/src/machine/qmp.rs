//! A client of QEMU's machine protocol (docs/interop/qmp-spec).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::wait;

/// The connection to one QEMU.
#[derive(Debug)]
pub struct Qmp {
    path: PathBuf,
    stream: Option<BufReader<UnixStream>>,
    events: Vec<Value>,
}

impl Qmp {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), stream: None, events: Vec::new() }
    }

    pub(super) fn connect(&mut self) -> Result<()> {
        let stream = UnixStream::connect(&self.path).context("connect to QEMU")?;
        self.stream = Some(BufReader::new(stream));
        let greeting = self.receive(Instant::now() + wait::ANSWER)?;
        if greeting.get("QMP").is_none() {
            bail!("QEMU greets with {greeting}");
        }
        self.run("qmp_capabilities", json!({})).map(drop)
    }

    /// Runs a command and returns its value.
    ///
    /// # Errors
    /// If QEMU refuses, ends or does not answer.
    pub fn run(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        let stream = self.stream.as_mut().context("not connected")?;
        stream.get_mut().write_all(format!("{request}\n").as_bytes()).with_context(|| format!("send {command}"))?;
        let deadline = Instant::now() + wait::ANSWER;
        loop {
            let mut message = self.receive(deadline).with_context(|| format!("wait for the answer to {command}"))?;
            if message.get("event").is_some() {
                self.events.push(message);
            } else if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            } else {
                bail!("{command}: {message}");
            }
        }
    }

    /// Runs a command of the monitor for people, and returns what it prints.
    ///
    /// # Errors
    /// If QEMU refuses, ends or does not answer.
    pub fn human(&mut self, command: &str) -> Result<String> {
        let text = self.run("human-monitor-command", json!({ "command-line": command }))?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// If QEMU refuses, ends or does not answer.
    pub fn press_power_button(&mut self) -> Result<()> {
        self.run("system_powerdown", json!({})).map(drop)
    }

    /// Presses Ctrl, Alt and Del on its keyboard.
    ///
    /// # Errors
    /// If QEMU refuses, ends or does not answer.
    pub fn press_ctrl_alt_del(&mut self) -> Result<()> {
        let keys = ["ctrl", "alt", "delete"].map(|key| json!({ "type": "qcode", "data": key }));
        self.run("send-key", json!({ "keys": keys })).map(drop)
    }

    /// Pulls the cable of a network card, by its place in the machine's list, or plugs it in again.
    ///
    /// # Errors
    /// If QEMU refuses, ends or does not answer.
    pub fn plug(&mut self, card: usize, up: bool) -> Result<()> {
        self.run("set_link", json!({ "name": format!("net{card}"), "up": up })).map(drop)
    }

    /// Resets the machine, as its reset button would.
    ///
    /// # Errors
    /// If QEMU refuses, ends or does not answer.
    pub fn reset(&mut self) -> Result<()> {
        self.run("system_reset", json!({})).map(drop)
    }

    /// Whether the machine runs: QEMU's word for its state.
    ///
    /// # Errors
    /// If QEMU refuses, ends or does not answer.
    pub fn status(&mut self) -> Result<String> {
        let status = self.run("query-status", json!({}))?;
        Ok(status["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits for the next event called `name` (such as SHUTDOWN or RESET), and returns it.
    ///
    /// # Errors
    /// If QEMU ends before, or `limit` is over.
    pub fn wait_for_event(&mut self, name: &str, limit: Duration) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = self.events.iter().position(|event| event["event"] == name) {
                return Ok(self.events.remove(found));
            }
            let message = self.receive(deadline).with_context(|| format!("wait for QEMU's event {name}"))?;
            self.events.push(message);
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Value> {
        let stream = self.stream.as_mut().context("not connected")?;
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.get_ref().set_read_timeout(Some(left))?;
        let mut line = String::new();
        if stream.read_line(&mut line).context("read from QEMU")? == 0 {
            bail!("QEMU has ended");
        }
        serde_json::from_str(&line).with_context(|| format!("parse {line:?}"))
    }
}
