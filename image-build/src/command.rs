//! Running the tools of the build: what they say goes to a log, a line a second says how far they are, and when one
//! fails the end of the log is shown.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Lines of a failed command's output that are shown.
const SHOWN_LINES: usize = 40;

/// Says what the build is doing now.
pub fn step(text: &str) {
    eprintln!("==> {text}");
}

/// A command for a tool whose result must not depend on the caller's language, make or time zone.
pub fn tool(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").env("TZ", "UTC").env("SOURCE_DATE_EPOCH", "0");
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "CFLAGS", "CPPFLAGS", "LDFLAGS"] {
        command.env_remove(name);
    }
    command
}

/// How many jobs a compilation may use: BERTH_JOBS, or one a processor.
pub fn jobs() -> usize {
    let asked = std::env::var("BERTH_JOBS").ok().and_then(|value| value.parse().ok()).filter(|&jobs| jobs > 0);
    asked.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
}

/// Runs a short command and returns what it printed.
///
/// # Errors
/// If it cannot be started or fails; what it wrote to its error output is in the error.
pub fn output(command: &mut Command) -> Result<String> {
    let name = name(command);
    let output = command.output().with_context(|| format!("start {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a long command with its output in `log`, counting the lines as a measure of progress.
///
/// # Errors
/// If it cannot be started or fails; the last lines of its output are in the error.
pub fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let name = name(command);
    let (reader, writer) = io::pipe().context("make a pipe")?;
    command.stdin(std::process::Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("start {name}"))?;
    // The command holds the pipe's write end open; only the child may.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let copied = copy_lines(BufReader::new(reader), log);
    let status = child.wait().with_context(|| format!("wait for {name}"))?;
    copied?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read(log).with_context(|| format!("read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
    bail!("{name}: {status}; the end of {}:\n{end}", log.display())
}

fn copy_lines(mut from: impl BufRead, log: &Path) -> Result<()> {
    let mut file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let terminal = io::stderr().is_terminal();
    // A terminal gets a line that is written over; a file gets one now and then.
    let pause = if terminal { Duration::from_millis(200) } else { Duration::from_secs(30) };
    let started = Instant::now();
    let mut shown = started;
    let mut line = Vec::new();
    let mut lines = 0_u64;
    while from.read_until(b'\n', &mut line).context("read output")? > 0 {
        file.write_all(&line).with_context(|| format!("write {}", log.display()))?;
        lines += 1;
        if shown.elapsed() >= pause {
            shown = Instant::now();
            let text: String = String::from_utf8_lossy(&line).trim().chars().take(60).collect();
            let seconds = started.elapsed().as_secs();
            if terminal {
                eprint!("\r\x1b[K    {seconds} s, line {lines}: {text}");
            } else {
                eprintln!("    {seconds} s, line {lines}: {text}");
            }
        }
        line.clear();
    }
    if terminal && lines > 0 {
        eprint!("\r\x1b[K");
    }
    Ok(())
}

fn name(command: &Command) -> String {
    Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_what_was_said() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let error = logged(tool("sh").args(["-c", "echo out; echo err >&2; exit 3"]), &log).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("out\nerr") && text.contains("exit status: 3"), "{text}");
    }

    #[test]
    fn output_is_returned() {
        assert_eq!(output(tool("echo").arg("hi")).unwrap(), "hi\n");
    }
}
