//! A short run of every fuzz target of the package's `fuzz/`, where a nightly compiler and cargo-fuzz are installed; else
//! each is reported as ignored. A longer one: `cargo +nightly fuzz run TARGET` in `fuzz/`. The engine has this test too.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Seconds for each target, unless `BERTH_FUZZ_SECONDS` says otherwise.
const SECONDS: &str = "10";

fn main() -> ExitCode {
    let filter = std::env::args().nth(1).filter(|argument| !argument.starts_with('-')).unwrap_or_default();
    let chosen: Vec<String> = targets().into_iter().filter(|target| target.contains(&filter)).collect();
    println!("\nrunning {} tests", chosen.len());
    if !succeeds(fuzz().arg("--version")) {
        for target in &chosen {
            println!("test {target} ... ignored, needs a nightly toolchain and cargo-fuzz");
        }
        println!("\ntest result: ok. 0 passed; 0 failed; {} ignored\n", chosen.len());
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for target in &chosen {
        match run(target) {
            Ok(()) => println!("test {target} ... ok"),
            Err(tail) => {
                failed += 1;
                println!("test {target} ... FAILED\n{tail}");
            }
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {} passed; {failed} failed; 0 ignored\n", chosen.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Each is a file of `fuzz/targets`.
fn targets() -> Vec<String> {
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/targets")).unwrap();
    let name = |file: std::fs::DirEntry| Some(file.path().file_stem()?.to_str()?.to_owned());
    let mut names: Vec<String> = files.filter_map(|file| name(file.unwrap())).collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

/// cargo-fuzz with the nightly compiler, whichever runs this test.
fn fuzz() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "fuzz"]).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz"));
    // Its builds have nothing in common with the others.
    command.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS").stdin(Stdio::null());
    command
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Runs a target from what it has found before and from its seeds; an error is the end of what it said.
fn run(target: &str) -> Result<(), String> {
    let seconds = std::env::var("BERTH_FUZZ_SECONDS").unwrap_or_else(|_| SECONDS.to_owned());
    let directories = [format!("corpus/{target}"), format!("seeds/{target}")];
    let mut command = fuzz();
    command.args(["run", target]);
    std::fs::create_dir_all(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(&directories[0])).unwrap();
    let there = |directory: &&String| Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(directory).is_dir();
    command.args(directories.iter().filter(there));
    command.args(["--", &format!("-max_total_time={seconds}"), "-max_len=8192"]);
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    Err(lines[lines.len().saturating_sub(40)..].join("\n"))
}
