//! Running programs.

use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Arguments, CommandError, Host, decode, encode, read};
use crate::processes::{Capture, Output, Status, code_or_signal};
use crate::protocol::Answer;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Exec {
    path: String,
    #[serde(default)]
    arg: Vec<String>,
    /// `KEY=value`; replaces the agent's own environment.
    env: Option<Vec<String>>,
    input_data: Option<String>,
    #[serde(default)]
    capture_output: CaptureOutput,
}

/// A flag until QEMU 8.0, a word as well since.
#[derive(Deserialize)]
#[serde(untagged)]
enum CaptureOutput {
    Flag(bool),
    Mode(CaptureMode),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CaptureMode {
    None,
    Stdout,
    Stderr,
    Separated,
    Merged,
}

impl Default for CaptureOutput {
    fn default() -> Self {
        Self::Flag(false)
    }
}

impl From<CaptureOutput> for Capture {
    fn from(wish: CaptureOutput) -> Self {
        match wish {
            CaptureOutput::Flag(false) | CaptureOutput::Mode(CaptureMode::None) => Self::Nothing,
            CaptureOutput::Flag(true) | CaptureOutput::Mode(CaptureMode::Separated) => Self::Separated,
            CaptureOutput::Mode(CaptureMode::Stdout) => Self::Stdout,
            CaptureOutput::Mode(CaptureMode::Stderr) => Self::Stderr,
            CaptureOutput::Mode(CaptureMode::Merged) => Self::Merged,
        }
    }
}

pub fn exec(host: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    let exec: Exec = read("guest-exec", arguments)?;
    let input = exec.input_data.map_or(Ok(Vec::new()), |text| decode("input-data", &text))?;
    let mut command = Command::new(&exec.path);
    command.args(&exec.arg).current_dir("/");
    if let Some(environment) = &exec.env {
        command.env_clear();
        command.envs(environment.iter().map(|variable| variable.split_once('=').unwrap_or((variable, ""))));
    }
    let pid = host.processes.start(command, input, exec.capture_output.into())?;
    Ok(Answer::Return(json!({ "pid": pid })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExecStatus {
    pid: u64,
}

pub fn exec_status(host: &mut Host, arguments: Arguments) -> Result<Answer, CommandError> {
    let wanted: ExecStatus = read("guest-exec-status", arguments)?;
    // The child may have ended since the loop looked last.
    host.processes.advance();
    let (exit, stdout, stderr) = match host.processes.status(wanted.pid)? {
        Status::Running => return Ok(Answer::Return(json!({ "exited": false }))),
        Status::Ended { exit, stdout, stderr } => (exit, stdout, stderr),
    };
    let mut status = json!({ "exited": true });
    let (code, signal) = code_or_signal(exit);
    let members = [("exitcode", code.map(Value::from)), ("signal", signal.map(Value::from))];
    let streams = [("out-data", "out-truncated", stdout), ("err-data", "err-truncated", stderr)];
    if let Some(status) = status.as_object_mut() {
        for (name, value) in members {
            status.extend(value.map(|value| (name.to_owned(), value)));
        }
        for (data, truncated, output) in streams {
            status.extend(output_members(data, truncated, output));
        }
    }
    Ok(Answer::Return(status))
}

/// As QEMU's agent: a stream without output has no members.
fn output_members(data: &str, truncated: &str, output: Option<Output>) -> Vec<(String, Value)> {
    let Some(output) = output.filter(|output| !output.bytes.is_empty()) else { return Vec::new() };
    let mut members = vec![(data.to_owned(), encode(&output.bytes).into())];
    if output.truncated {
        members.push((truncated.to_owned(), true.into()));
    }
    members
}
